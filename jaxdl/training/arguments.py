"""Checks of the arguments of `fit` and `train` by their kind alone, as sentences."""

from collections.abc import Container, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from jaxdl.core.hashable import check_hashable
from jaxdl.core.number import is_number
from jaxdl.training.callbacks import Callback


def check_function(name: str, value: Any, called: str) -> None:
    """Refuses what is not a function, or a class of which no value was made."""
    if isinstance(value, type) or not callable(value):
        raise TypeError(f"{name} is {value!r}, expected a function {called}.")
    check_hashable(name, value)


def check_flag(name: str, value: Any) -> None:
    """Refuses what is neither True nor False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is True or False, got {value!r}.")


def check_callbacks(callbacks: Any) -> None:
    """Refuses callbacks that are not a sequence of functions or of `Callback`."""
    if not isinstance(callbacks, (list, tuple)):
        raise TypeError(
            f"callbacks: expected a list of functions of a Stage, or of Callbacks, got "
            f"{callbacks!r}."
        )
    for callback in callbacks:
        if isinstance(callback, type) or not (
            callable(callback) or isinstance(callback, Callback)
        ):
            raise TypeError(
                f"callbacks: expected functions of a Stage, or Callbacks, got {callback!r}."
            )


def by_class(class_weight: Any) -> dict[int, float]:
    """The weight of each class by its number."""
    if isinstance(class_weight, Mapping):
        pairs = list(class_weight.items())
    elif isinstance(class_weight, (list, tuple)) or (
        hasattr(class_weight, "ndim") and class_weight.ndim == 1
    ):
        pairs = list(enumerate(class_weight))
    else:
        raise TypeError(
            f"class_weight: expected a weight for each class, as a dict or a sequence, got "
            f"{class_weight!r}."
        )
    weights = {}
    for label, weight in pairs:
        known = (
            np.asarray(weight).item()
            if isinstance(weight, (np.ndarray, jax.Array)) and weight.size == 1
            else weight
        )
        whole = isinstance(label, (int, np.integer)) and label >= 0
        if not (whole and is_number(known) and known >= 0):
            raise ValueError(
                f"class_weight: expected numbers of at least 0 by class number, got {label!r}: "
                f"{weight!r}."
            )
        weights[int(label)] = known
    return weights


RESERVED = (
    "loss",
    "losses",
    "seconds",
    "step",
    "learning_rate",
    "loss_scale",
    "skipped_steps",
    "rollbacks",
)
"""What a history, and the sums of an epoch, call figures of their own."""


def check_figures(what: str, names: Iterable[str], others: Container[str] = ()) -> None:
    """Refuses names of figures that are taken already.

    Args:
        what: where they come from, for the error.
        names: of the figures.
        others: names that are taken beside those of the history itself.

    Raises:
        ValueError: one is taken.
    """
    for name in names:
        if name in RESERVED or name in others or name.startswith("validation_"):
            raise ValueError(
                f"{what}: {name!r} is a name that the history uses itself — give it another."
            )
