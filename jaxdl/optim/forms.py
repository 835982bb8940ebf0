"""Optimizers with their numbers taken out: what they compute, apart from the numbers that they
compute with.

An optimizer of optax is functions that closed over numbers. Its `Form` is those functions without
the numbers, and builds the
optimizer anew of any others: of ones that are being traced too, so that one compiled program serves
all learning rates.
"""

import dataclasses
import functools
from collections.abc import Sequence
from types import CellType, FunctionType, MethodType
from typing import Any

import jax
import numpy as np
import optax
from jax.core import Tracer

from jaxdl.optim.names import is_module_attribute

LIBRARIES = frozenset({"jax", "numpy", "optax"})
"""Whose functions read nothing that changes but their arguments and what they closed over."""

SCHEDULES = ("optax.schedules", "optax._src.schedule", "jaxdl.optim.schedules")
"""Modules whose functions compute with whole numbers, of steps, as they do with others."""

Number = float | int | np.inexact
"""What is taken out of an optimizer; in place of it there may be a scalar that is being traced."""


class UnlikeError(Exception):
    """What an optimizer holds may mean something else the next time, or has no meaning that can be
    compared.
    """


@dataclasses.dataclass(frozen=True)
class Form:
    """What an optimizer computes, apart from its numbers; equal for optimizers that were built
    alike.

    Args:
        root: the optimizer, with a place for each number.
        count: how many numbers it takes.
    """

    root: Any
    count: int

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.root, self.count))

    def __hash__(self) -> int:
        return self._hash

    def built(self, numbers: Sequence[Any]) -> optax.GradientTransformation:
        """The optimizer of these numbers, which may be traced scalars, in their order."""
        return self.root.built(numbers)


def opened(optimizer: optax.GradientTransformation) -> tuple[Form, tuple[Number, ...]]:
    """An optimizer's form and its numbers: `form.built(numbers)` computes what the optimizer does.

    Numbers are the floats that its functions closed over, and in schedules the whole numbers too.
    All else is the form's: the code of optax, JAX and NumPy, strings, dtypes, switches, counts.
    Lists and dicts are copied, since they may change later.

    Raises:
        UnlikeError: it holds anything else, such as an array or a function of the user's, which may
            read what has changed.

    >>> (form, rate), (other, another) = opened(optax.sgd(0.5)), opened(optax.sgd(0.25))
    >>> form == other, rate, another
    (True, (-0.5,), (-0.25,))
    """
    reader = _Reader()
    root = reader.read(optimizer, ())
    return Form(root, len(reader.numbers)), tuple(reader.numbers)


@dataclasses.dataclass(frozen=True)
class _Number:
    """The place of a number. `kind` is its type, which says how JAX promotes it."""

    place: int
    kind: type

    def built(self, numbers: Sequence[Any]) -> Any:
        return numbers[self.place]


@dataclasses.dataclass(frozen=True)
class _Fixed:
    """A value as it is; of its kind, for which True is not 1."""

    kind: type
    value: Any

    def built(self, numbers: Sequence[Any]) -> Any:
        del numbers
        return self.value


@dataclasses.dataclass(frozen=True)
class _Sequence:
    """A tuple, a named tuple or a list."""

    kind: type
    items: tuple[Any, ...]

    def built(self, numbers: Sequence[Any]) -> Any:
        items = [item.built(numbers) for item in self.items]
        return self.kind(*items) if hasattr(self.kind, "_fields") else self.kind(items)


@dataclasses.dataclass(frozen=True)
class _Dict:
    keys: tuple[str | int, ...]
    values: tuple[Any, ...]

    def built(self, numbers: Sequence[Any]) -> dict[Any, Any]:
        return {
            key: value.built(numbers) for key, value in zip(self.keys, self.values, strict=True)
        }


@dataclasses.dataclass(frozen=True)
class _Partial:
    function: Any
    arguments: Any
    keywords: Any

    def built(self, numbers: Sequence[Any]) -> Any:
        arguments, keywords = self.arguments.built(numbers), self.keywords.built(numbers)
        return functools.partial(self.function.built(numbers), *arguments, **keywords)


@dataclasses.dataclass(frozen=True)
class _Object:
    """An instance of a class of a library, by its attributes."""

    kind: type
    attributes: _Dict

    def built(self, numbers: Sequence[Any]) -> Any:
        made = object.__new__(self.kind)
        made.__dict__.update(self.attributes.built(numbers))
        return made


@dataclasses.dataclass(frozen=True)
class _Method:
    owner: _Object
    function: FunctionType

    def built(self, numbers: Sequence[Any]) -> Any:
        return MethodType(self.function, self.owner.built(numbers))


@dataclasses.dataclass(frozen=True)
class _Function:
    """A function of a library, by its code and what it closed over."""

    code: Any
    module: str
    closed: tuple[Any, ...]
    defaults: Any
    keyword_defaults: Any
    attributes: Any
    first: Any = dataclasses.field(compare=False)

    def built(self, numbers: Sequence[Any]) -> FunctionType:
        cells = tuple(CellType(value.built(numbers)) for value in self.closed)
        defaults = self.defaults.built(numbers)
        function = FunctionType(
            self.code, self.first.__globals__, self.first.__name__, defaults, cells
        )
        function.__qualname__ = self.first.__qualname__
        function.__kwdefaults__ = self.keyword_defaults.built(numbers)
        function.__dict__.update(self.attributes.built(numbers))
        return function


class _Reader:
    """Reads values into forms, and collects their numbers; what two functions share has one
    place.
    """

    def __init__(self) -> None:
        self.numbers: list[Number] = []
        self._cells: dict[int, Any] = {}

    def read(self, value: Any, within: tuple[int, ...], whole: bool = False) -> Any:
        """A form that hashes, equal for what does the same.

        Args:
            value: a function, or what one closed over.
            within: the identities of the functions that it was reached through.
            whole: whether a function reached so computes with whole numbers.
        """
        if isinstance(value, (float, np.inexact)) and not isinstance(value, np.complexfloating):
            return self._number(value, type(value))
        if isinstance(value, jax.Array) and not isinstance(value, Tracer):
            return self._scalar(value)
        if whole and type(value) is int and abs(value) < 2**31:
            return self._number(value, int)
        if value is None or isinstance(value, (bool, int, str, bytes, np.dtype, np.integer)):
            return _Fixed(type(value), value)
        if isinstance(value, (tuple, list)):
            return _Sequence(type(value), tuple(self.read(item, within, whole) for item in value))
        if type(value) is dict:
            return self._dict(value, within, whole)
        if isinstance(value, functools.partial):
            whole = whole or str(getattr(value.func, "__module__", None)).startswith(SCHEDULES)
            return _Partial(
                *(
                    self.read(part, within, whole)
                    for part in (value.func, value.args, value.keywords)
                )
            )
        if _is_named_by_library(value):
            return _Fixed(type(value), value)
        if isinstance(value, MethodType):
            return self._method(value, within)
        if isinstance(value, FunctionType):
            return self._function(value, within)
        if (
            _is_named_by_library(type(value))
            and hasattr(value, "__dict__")
            and type(value).__module__.startswith("optax")
        ):
            return _Object(type(value), self._dict(vars(value), within, whole))
        raise UnlikeError

    def _number(self, value: Number, kind: type) -> _Number:
        self.numbers.append(value)
        return _Number(len(self.numbers) - 1, kind)

    def _scalar(self, value: jax.Array) -> _Number:
        if value.shape != () or value.dtype not in (np.float16, np.float32, np.float64):
            raise UnlikeError
        number: Any = np.asarray(value)[()]
        return self._number(number, type(number))

    def _dict(self, value: dict[Any, Any], within: tuple[int, ...], whole: bool) -> _Dict:
        if not all(type(key) in (str, int) for key in value):
            raise UnlikeError
        return _Dict(tuple(value), tuple(self.read(each, within, whole) for each in value.values()))

    def _method(self, value: MethodType, within: tuple[int, ...]) -> _Method:
        owner = self.read(value.__self__, within)
        function = value.__func__
        if not isinstance(owner, _Object) or not isinstance(function, FunctionType):
            raise UnlikeError
        return _Method(owner, function)

    def _function(self, value: FunctionType, within: tuple[int, ...]) -> _Function:
        module = value.__globals__["__name__"]
        if id(value) in within or not _of_library(module):
            raise UnlikeError
        within = (*within, id(value))
        closed = tuple(
            self._content(cell, within, module.startswith(SCHEDULES))
            for cell in value.__closure__ or ()
        )
        rest = (value.__defaults__, value.__kwdefaults__, value.__dict__)
        return _Function(
            value.__code__, module, closed, *(self.read(part, within) for part in rest), first=value
        )

    def _content(self, cell: CellType, within: tuple[int, ...], whole: bool) -> Any:
        try:
            value = cell.cell_contents
        except ValueError:  # a name that was not bound yet
            raise UnlikeError from None
        if id(cell) not in self._cells:
            self._cells[id(cell)] = self.read(value, within, whole)
        return self._cells[id(cell)]


def _is_named_by_library(value: Any) -> bool:
    """Whether it is a function or a class that a module of a library holds under its name."""
    return is_module_attribute(value) and _of_library(value.__module__)


def _of_library(module: str) -> bool:
    return module.partition(".")[0] in LIBRARIES or module.startswith(SCHEDULES)
