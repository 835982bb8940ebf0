"""Warnings that point at the line of the user's code that caused them."""

import contextlib
import os
import sys
import warnings
from pathlib import Path

import jaxtyping

_LIBRARY = Path(__file__).parents[1]
_SKIPPED = (
    f"{_LIBRARY}{os.sep}",
    f"{Path(jaxtyping.__file__).parent}{os.sep}",
    contextlib.__file__,
    "<@beartype",
)


def warn(message: str, category: type[Warning]) -> None:
    """Warns at the innermost call from outside of this library and the checkers of its
    annotations.
    """
    level = 2
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_SKIPPED):
        level += 1
        frame = frame.f_back
    warnings.warn(message, category, stacklevel=level)
