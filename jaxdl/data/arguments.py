"""Checks of what is told to loaders, batches and augmentation, as sentences."""

from typing import Any

import numpy as np


def whole(owner: str, name: str, value: Any, least: int) -> None:
    """Refuses what is not a whole number of at least so much."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value >= 2**31:
        raise ValueError(f"{owner}: {name} is a whole number that fits int32, got {value!r}.")
    if value < least:
        raise ValueError(f"{owner}: {name} is at least {least}, got {value}.")


def seed(owner: str, value: Any) -> None:
    """Refuses what NumPy's generator cannot begin with."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise ValueError(f"{owner}: seed is a whole number of at least 0, got {value!r}.")


def word(owner: str, name: str, value: Any, words: tuple[str, str]) -> None:
    """Refuses what is neither of two words."""
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{owner}: {name} is {words[0]!r} or {words[1]!r}, got {value!r}.")


def positive(owner: str, name: str, value: Any) -> None:
    """Refuses what is not a finite number above 0."""
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not (real and 0 < value < 2**31):
        raise ValueError(f"{owner}: {name} is {value!r}, and must be above 0, a finite number.")
