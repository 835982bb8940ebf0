"""Predicates of scalars and of hashable values."""

from typing import TypeGuard

import numpy as np

MAX_INT = 2**31 - 1
"""The largest int32."""
MAX_FLOAT = float(np.finfo(np.float32).max)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a finite real scalar of Python or NumPy that fits int32 or float32."""
    if is_integer(value):
        return abs(int(value)) <= MAX_INT
    return isinstance(value, (float, np.floating)) and bool(abs(value) <= MAX_FLOAT)


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a value is an integer of Python or NumPy; booleans are not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_true(value: object) -> bool:
    """Whether a value is True: Python's, NumPy's, or a Boolean array of shape []; numbers are
    not.
    """
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    is_boolean = getattr(value, "dtype", None) == np.bool_
    return is_boolean and getattr(value, "shape", None) == () and bool(value)


def is_hashable(value: object) -> bool:
    """Whether a value can be hashed, and so be a static argument of `jax.jit`."""
    try:
        hash(value)
    except TypeError:
        return False
    return True
