"""How values that hold functions, such as models, are pickled and copied."""

import dataclasses
import functools
import importlib
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

PUBLIC = ("jax.nn", "jax.numpy", "jax.lax", "jax.scipy.special")
"""Where functions of JAX are looked for first: the modules they are defined in are private and
change.
"""


class Value:
    """What never changes and compares by its fields: its deep copy is itself, and it equals what
    its pickle gives.

    Functions that the standard pickle knows no name of, such as `jax.nn.relu`, which is a
    `jax.custom_jvp`, are pickled by the name that they have in their module. A lambda has none: the
    standard pickle refuses it. One that `cloudpickle` brings back is another function, and so a
    value that holds it is another value: what it reads from outside of itself is a copy, and may
    differ from what the first one reads. A function that is defined in a module has no such
    trouble.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> "Value":
        del memo
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: _with_names(value) for name, value in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, _without_names(value))


@dataclasses.dataclass(frozen=True)
class _Name:
    """A function that has this name in a module."""

    module: str
    name: str

    def found(self) -> Callable[..., Any]:
        return getattr(importlib.import_module(self.module), self.name)


@dataclasses.dataclass(frozen=True)
class _Partial:
    """A `functools.partial` of such a function."""

    function: Any
    arguments: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...]

    def found(self) -> Callable[..., Any]:
        arguments, keywords = _without_names(self.arguments), _without_names(self.keywords)
        return functools.partial(_without_names(self.function), *arguments, **dict(keywords))


def _with_names(value: Any) -> Any:
    """The value with names in place of functions that have one."""
    if type(value) is tuple:
        return tuple(map(_with_names, value))
    if type(value) is functools.partial:
        return _Partial(
            _with_names(value.func),
            _with_names(value.args),
            _with_names(tuple(value.keywords.items())),
        )
    return _name_of(value) or value


def _without_names(value: Any) -> Any:
    """The inverse of `_with_names`."""
    if type(value) is tuple:
        return tuple(map(_without_names, value))
    return value.found() if isinstance(value, (_Name, _Partial)) else value


def _name_of(value: Any) -> _Name | None:
    """The name of a function of JAX, or of one that is wrapped, as by `jax.jit`, in a module that
    can be imported.
    """
    name, module = getattr(value, "__name__", None), getattr(value, "__module__", None)
    if not (callable(value) and isinstance(name, str) and isinstance(module, str)):
        return None
    if isinstance(value, (type, FunctionType)) and module.partition(".")[0] != "jax":
        return None
    for place in (*PUBLIC, module):
        if place != "__main__" and getattr(sys.modules.get(place), name, None) is value:
            return _Name(place, name)
    return None
