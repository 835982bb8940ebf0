"""Pickling and copying of values that hold functions, such as models."""

import dataclasses
import functools
import importlib
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

PUBLIC = ("jax.nn", "jax.numpy", "jax.lax", "jax.scipy.special")
"""The modules that functions of JAX are looked up in first: those they are defined in are private,
and change.
"""


class Value:
    """A value that never changes and compares by its fields: its deep copy is itself, and its
    pickle restores an equal value.

    Functions that the standard pickle cannot find by name, such as `jax.nn.relu`, which is a
    `jax.custom_jvp`, are pickled by their name in their module. The standard pickle refuses a
    lambda, which has none. `cloudpickle` restores it as another function, so that a value that
    holds it is another value: what it reads from outside of itself is a copy, and may differ from
    what the original reads. Functions that are defined in a module are restored as they are.
    """

    def __deepcopy__(self, memo: dict[int, object]) -> "Value":
        del memo
        return self

    def __getstate__(self) -> dict[str, object]:
        return {name: _with_names(value) for name, value in vars(self).items()}

    def __setstate__(self, state: dict[str, object]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, _without_names(value))


@dataclasses.dataclass(frozen=True)
class _Name:
    """A function, by its name in a module."""

    module: str
    name: str

    def resolve(self) -> Callable[..., Any]:
        return getattr(importlib.import_module(self.module), self.name)


@dataclasses.dataclass(frozen=True)
class _Partial:
    """A `functools.partial` of such a function."""

    function: object
    arguments: tuple[object, ...]
    keywords: tuple[tuple[str, object], ...]

    def resolve(self) -> Callable[..., Any]:
        function: Any = _without_names(self.function)
        arguments: Any = _without_names(self.arguments)
        keywords: Any = _without_names(self.keywords)
        return functools.partial(function, *arguments, **dict(keywords))


def _with_names(value: object) -> object:
    """The value with names in place of the functions that have one."""
    if type(value) is tuple:
        return tuple(map(_with_names, value))
    if type(value) is functools.partial:
        keywords: Any = _with_names(tuple(value.keywords.items()))
        arguments: Any = _with_names(value.args)
        return _Partial(_with_names(value.func), arguments, keywords)
    return _name_of(value) or value


def _without_names(value: object) -> object:
    """The inverse of `_with_names`."""
    if type(value) is tuple:
        return tuple(map(_without_names, value))
    return value.resolve() if isinstance(value, (_Name, _Partial)) else value


def _name_of(value: object) -> _Name | None:
    """The name of a function of JAX, or of one that is wrapped, as by `jax.jit`, in a module that
    can be imported.
    """
    name = getattr(value, "__name__", None)
    module = getattr(value, "__module__", None)
    if not (callable(value) and isinstance(name, str) and isinstance(module, str)):
        return None
    if isinstance(value, (type, FunctionType)) and module.partition(".")[0] != "jax":
        return None
    for candidate in (*PUBLIC, module):
        found = getattr(sys.modules.get(candidate), name, None)
        if candidate != "__main__" and found is value:
            return _Name(candidate, name)
    return None
