"""Optimizers that were built alike become one object, so that calls which write theirs anew share a compiled program."""

import copy
import dataclasses
import functools
import sys
from types import FunctionType
from typing import Any, TypeVar

import numpy as np
import optax

LIBRARIES = frozenset({"jax", "numpy", "optax"})
"""Whose functions read nothing that changes but their arguments and what they closed over."""

Step = TypeVar("Step")


def first_alike(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The first of the optimizers that were built as this one was; itself where there was none, or where that cannot be told.

    An optimizer of optax is a pair of functions, and `optax.adam(1e-3)` gives other ones at each call, for which JAX would
    compile anew. Two are alike where their functions are the same code of optax, JAX or NumPy, and have closed over equal
    numbers, strings and dtypes, and over functions that are alike. What holds anything else, such as an array or a function
    of the user's, which may read what has changed since, is like nothing but itself.

    >>> first_alike(optax.adam(1e-3)) is first_alike(optax.adam(1e-3))
    True
    >>> first_alike(optax.adam(1e-3)) is first_alike(optax.adam(1e-2))
    False
    """
    try:
        meaning = _meaning(optimizer, ())
        first = _first(_Built(meaning, optimizer))
        same = first is optimizer or _meaning(first, ()) == meaning  # a list that it holds may have changed
    except _UnlikeError:
        return optimizer
    return first if same else optimizer


def with_first_alike(step: Step) -> Step:
    """The step with `first_alike` of each optimizer among its fields, where it is a dataclass."""
    fields = dataclasses.fields(step) if dataclasses.is_dataclass(step) else ()
    given = {field.name: getattr(step, field.name, None) for field in fields}
    alike = {name: first_alike(value) for name, value in given.items() if isinstance(value, optax.GradientTransformation)}
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


class _UnlikeError(Exception):
    """What was found may mean something else the next time, or has no meaning that can be compared."""


def _meaning(value: Any, within: tuple[int, ...]) -> Any:
    """A value that hashes, equal for what does the same.

    Args:
        value: a function, or what one closed over.
        within: the identities of the functions that it was reached through.
    """
    if isinstance(value, (float, complex, np.inexact)):
        return type(value), repr(value)  # tells 0.0 from -0.0, and a NaN is equal to itself
    if value is None or isinstance(value, (bool, int, str, bytes, np.dtype, np.integer)):
        return type(value), value
    if isinstance(value, (tuple, list)):
        return type(value), tuple(_meaning(item, within) for item in value)
    if isinstance(value, functools.partial):
        return functools.partial, *(_meaning(part, within) for part in (value.func, value.args, _items(value.keywords)))
    if _has_a_name(value):
        return value
    if isinstance(value, FunctionType) and _of_library(value.__globals__["__name__"]) and id(value) not in within:
        within = (*within, id(value))
        closed = tuple(_content(cell) for cell in value.__closure__ or ())
        parts = (closed, value.__defaults__ or (), _items(value.__kwdefaults__ or {}), _items(value.__dict__))
        return value.__globals__["__name__"], value.__code__, *(_meaning(part, within) for part in parts)
    raise _UnlikeError


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that was not bound yet
        raise _UnlikeError from None


def _items(values: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(values.items()))


def _has_a_name(value: Any) -> bool:
    """Whether it is what a module of a library has under a name, such as a function or a class: there is one of it."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or not _of_library(module):
        return False
    return getattr(sys.modules.get(module), name, None) is value


def _of_library(module: str) -> bool:
    return module.partition(".")[0] in LIBRARIES
