"""Warnings that point at the line of the user's that they are about."""

import contextlib
import os
import sys
import warnings
from pathlib import Path

import jaxtyping

_LIBRARY = Path(__file__).parents[1]
_PASSED = (
    f"{_LIBRARY}{os.sep}",
    f"{Path(jaxtyping.__file__).parent}{os.sep}",
    contextlib.__file__,
    "<@beartype",
)


def warn(message: str, category: type[Warning]) -> None:
    """Warns at the nearest call from outside of this library, and of what checks its
    annotations.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PASSED):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
