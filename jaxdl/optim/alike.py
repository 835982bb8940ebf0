"""Optimizers that were built alike become one object, so that calls which write theirs anew share a
compiled program.
"""

import copy
import dataclasses
import functools
from typing import Any, TypeVar

import optax

from jaxdl.optim.forms import UnlikeError, opened

Step = TypeVar("Step")


def first_alike(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The first of the optimizers that were built as this one was; itself where there was none, or
    where that cannot be told.

    An optimizer of optax is a pair of functions, and `optax.adam(1e-3)` gives other ones at each
    call. Two are alike where they have equal forms, see `forms.opened`, and equal numbers. What
    holds anything else, such as an array or a function of the user's, which may read what has
    changed since, is like nothing but itself.

    >>> first_alike(optax.adam(1e-3)) is first_alike(optax.adam(1e-3))
    True
    >>> first_alike(optax.adam(1e-3)) is first_alike(optax.adam(1e-2))
    False
    """
    try:
        meaning = _meaning(optimizer)
        first = _first(_Built(meaning, optimizer))
        same = (
            first is optimizer or _meaning(first) == meaning
        )  # a list that it holds may have changed
    except UnlikeError:
        return optimizer
    return first if same else optimizer


def with_first_alike(step: Step) -> Step:
    """The step with `first_alike` of each optimizer among its fields, where it is a dataclass."""
    fields = dataclasses.fields(step) if dataclasses.is_dataclass(step) else ()
    given = {field.name: getattr(step, field.name, None) for field in fields}
    alike = {
        name: first_alike(value)
        for name, value in given.items()
        if isinstance(value, optax.GradientTransformation)
    }
    changed = {name: value for name, value in alike.items() if value is not given[name]}
    if not changed:
        return step
    step = copy.copy(step)
    for name, value in changed.items():
        object.__setattr__(step, name, value)  # it may be frozen
    return step


@dataclasses.dataclass(frozen=True)
class _Built:
    meaning: Any
    optimizer: optax.GradientTransformation = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=64)
def _first(built: _Built) -> optax.GradientTransformation:
    return built.optimizer


def _meaning(optimizer: optax.GradientTransformation) -> Any:
    """The form and the numbers, as a value that hashes: it tells 0.0 from -0.0, and a NaN is equal
    to itself.
    """
    form, numbers = opened(optimizer)
    return form, tuple(map(repr, numbers))
