"""Checks of the arguments of loaders, batches and augmentation."""

from typing import TypeGuard

import numpy as np


def whole(owner: str, name: str, value: object, least: int) -> None:
    """Checks that an argument is an int32 of at least some value.

    Raises:
        ValueError: it is not.
    """
    if not _is_integer(value) or value >= 2**31:
        raise ValueError(f"{owner}: {name} is a whole number that fits int32, got {value!r}.")
    if value < least:
        raise ValueError(f"{owner}: {name} is at least {least}, got {value}.")


def seed(owner: str, value: object) -> None:
    """Checks that an argument is a seed of NumPy's generator.

    Raises:
        ValueError: it is not.
    """
    if not _is_integer(value) or value < 0:
        raise ValueError(f"{owner}: seed is a whole number of at least 0, got {value!r}.")


def choice(owner: str, name: str, value: object, choices: tuple[str, str]) -> None:
    """Checks that an argument is one of two strings.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, str) and value in choices:
        return
    first, second = choices
    raise ValueError(f"{owner}: {name} is {first!r} or {second!r}, got {value!r}.")


def positive(owner: str, name: str, value: object) -> None:
    """Checks that an argument is a finite number above 0.

    Raises:
        ValueError: it is not.
    """
    is_float = isinstance(value, (float, np.floating))
    if (is_float or _is_integer(value)) and 0 < float(value) < 2**31:
        return
    raise ValueError(f"{owner}: {name} is {value!r}, and must be above 0, a finite number.")


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
