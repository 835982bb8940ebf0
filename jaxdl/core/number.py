"""What counts as a number where one is asked for."""

from typing import Any

import numpy as np


def is_number(value: Any) -> bool:
    """Whether a value is a finite real number that fits int32 or float32."""
    if isinstance(value, (int, np.integer)):
        return not isinstance(value, bool) and bool(abs(value) < 2**31)
    return isinstance(value, (float, np.floating)) and bool(
        abs(value) <= float(np.finfo(np.float32).max)
    )


def is_true(value: Any) -> bool:
    """Whether a value is True: Python's, NumPy's, or an array of one Boolean; a number is not."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    return (
        getattr(value, "dtype", None) == np.bool_
        and getattr(value, "shape", None) == ()
        and bool(value)
    )
