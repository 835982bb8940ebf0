"""Optimizers apart from the numbers they compute with, so that one program serves all of them.

An optimizer of optax is functions that closed over numbers, such as a learning rate. Its `Form` is
those functions without the numbers. It builds the optimizer of any others, of traced ones too: one
compiled program serves all learning rates, and optimizers that are built anew with equal arguments,
such as `optax.adam(1e-3)` at each call of `fit`, share it.
"""

import abc
import dataclasses
import functools
from collections.abc import Sequence
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

import jax
import numpy as np
import optax
from jax.core import Tracer

from jaxdl.optim.names import is_module_attribute

LIBRARIES = frozenset({"jax", "numpy", "optax"})
"""Libraries whose functions read nothing that changes but arguments and closures."""

SCHEDULES = ("optax.schedules", "optax._src.schedule", "jaxdl.optim.schedules")
"""Modules whose functions compute with integers, such as numbers of steps, as with floats."""

Number = float | int | np.inexact
"""What is taken out of an optimizer."""

Numbers = Sequence[object]
"""What an optimizer is built of: numbers, or traced scalars in their place."""


class UnlikeError(Exception):
    """An optimizer holds a value that may change, or that cannot be compared."""


class Part(abc.ABC):
    """A value that an optimizer holds, with a place for each number in it."""

    @abc.abstractmethod
    def built(self, numbers: Numbers) -> Any:
        """The value with these numbers, all those of the optimizer in their order."""


@dataclasses.dataclass(frozen=True)
class Form:
    """What an optimizer computes, apart from its numbers.

    It is equal for optimizers that one call builds with different numbers.

    Args:
        root: the optimizer, with a place for each number.
        count: the number of places.
    """

    root: Part
    count: int

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.root, self.count))

    def __hash__(self) -> int:
        return self._hash

    def built(self, numbers: Numbers) -> optax.GradientTransformation:
        """The optimizer of `count` numbers, which may be traced scalars, in their order."""
        optimizer = self.root.built(numbers)
        assert isinstance(optimizer, optax.GradientTransformation)
        return optimizer


def opened(optimizer: optax.GradientTransformation) -> tuple[Form, tuple[Number, ...]]:
    """The form and the numbers of an optimizer: `form.built(numbers)` computes what it does.

    Numbers are the floats that its functions closed over, and in schedules the integers too. All
    else is the form's: the code of optax, JAX and NumPy, strings, dtypes, Booleans, counts. Lists
    and dicts are copied, since they may change later.

    Args:
        optimizer: of optax.

    Returns:
        `(form, numbers)`.

    Raises:
        UnlikeError: it holds anything else, such as an array or a function of the user's, which may
            read what has changed.

    >>> form, rate = opened(optax.sgd(0.5))
    >>> other, another = opened(optax.sgd(0.25))
    >>> form == other, rate, another
    (True, (-0.5,), (-0.25,))
    """
    reader = _Reader()
    root = reader.read(optimizer, ())
    return Form(root, len(reader.numbers)), tuple(reader.numbers)


@dataclasses.dataclass(frozen=True)
class _Number(Part):
    """A number, by its index. `kind` is its type, by which JAX promotes it."""

    index: int
    kind: type

    def built(self, numbers: Numbers) -> object:
        return numbers[self.index]


@dataclasses.dataclass(frozen=True)
class _Fixed(Part):
    """A value that is no number; by its type too, since True == 1."""

    kind: type
    value: object

    def built(self, numbers: Numbers) -> object:
        del numbers
        return self.value


@dataclasses.dataclass(frozen=True)
class _Sequence(Part):
    """A tuple, a named tuple or a list."""

    kind: type
    items: tuple[Part, ...]

    def built(self, numbers: Numbers) -> object:
        items = [item.built(numbers) for item in self.items]
        if hasattr(self.kind, "_fields"):
            return self.kind(*items)
        return self.kind(items)


@dataclasses.dataclass(frozen=True)
class _Dict(Part):
    keys: tuple[str | int, ...]
    values: tuple[Part, ...]

    def built(self, numbers: Numbers) -> dict[Any, object]:
        values = [value.built(numbers) for value in self.values]
        return dict(zip(self.keys, values, strict=True))


@dataclasses.dataclass(frozen=True)
class _Partial(Part):
    """A `functools.partial`."""

    function: Part
    arguments: "_Sequence"
    keywords: "_Dict"

    def built(self, numbers: Numbers) -> object:
        function = self.function.built(numbers)
        arguments = self.arguments.built(numbers)
        keywords = self.keywords.built(numbers)
        return functools.partial(function, *arguments, **keywords)


@dataclasses.dataclass(frozen=True)
class _Object(Part):
    """An instance of a class of a library, by its attributes."""

    kind: type
    attributes: _Dict

    def built(self, numbers: Numbers) -> object:
        made = object.__new__(self.kind)
        made.__dict__.update(self.attributes.built(numbers))
        return made


@dataclasses.dataclass(frozen=True)
class _Method(Part):
    """A bound method of such an instance."""

    owner: _Object
    function: FunctionType

    def built(self, numbers: Numbers) -> object:
        return MethodType(self.function, self.owner.built(numbers))


@dataclasses.dataclass(frozen=True)
class _Function(Part):
    """A function of a library, by its code and what it closed over."""

    code: CodeType
    module: str
    closure: tuple[Part, ...]
    defaults: Part
    keyword_defaults: Part
    attributes: _Dict
    original: Any = dataclasses.field(compare=False)

    def built(self, numbers: Numbers) -> FunctionType:
        original = self.original
        cells = [CellType(value.built(numbers)) for value in self.closure]
        defaults = self.defaults.built(numbers)
        function = FunctionType(
            self.code,
            original.__globals__,
            original.__name__,
            defaults,
            tuple(cells),
        )
        function.__qualname__ = original.__qualname__
        function.__kwdefaults__ = self.keyword_defaults.built(numbers)
        function.__dict__.update(self.attributes.built(numbers))
        return function


class _Reader:
    """Reads values as parts, and collects their numbers; what two functions share has one index."""

    def __init__(self) -> None:
        self.numbers: list[Number] = []
        self._cells: dict[int, Part] = {}

    def read(
        self,
        value: object,
        within: tuple[int, ...],
        integers: bool = False,
    ) -> Part:
        """A part that hashes, equal for values that do the same.

        Args:
            value: a function, or what one closed over.
            within: the identities of the functions that it was reached through.
            integers: whether a function that closed over it computes with integers.

        Raises:
            UnlikeError: the value may change, or cannot be compared.
        """
        number = self._read_number(value, integers)
        if number is not None:
            return number
        if _is_constant(value):
            return _Fixed(type(value), value)
        if isinstance(value, (tuple, list)):
            return self._sequence(value, within, integers)
        if type(value) is dict:
            return self._dict(value, within, integers)
        if isinstance(value, functools.partial):
            return self._partial(value, within, integers)
        if _has_a_name(value):
            return _Fixed(type(value), value)
        if isinstance(value, MethodType):
            return self._method(value, within)
        if isinstance(value, FunctionType):
            return self._function(value, within)
        kind = type(value)
        of_optax = kind.__module__.startswith("optax") and _has_a_name(kind)
        if of_optax and hasattr(value, "__dict__"):
            return _Object(kind, self._dict(vars(value), within, integers))
        raise UnlikeError

    def _read_number(self, value: object, integers: bool) -> _Number | None:
        """A number's part; None for all other values."""
        if isinstance(value, np.complexfloating):
            return None
        if isinstance(value, (float, np.inexact)):
            return self._number(value)
        if isinstance(value, jax.Array) and not isinstance(value, Tracer):
            return self._scalar(value)
        if integers and type(value) is int and abs(value) < 2**31:
            return self._number(value)
        return None

    def _number(self, value: Number) -> _Number:
        index = len(self.numbers)
        self.numbers.append(value)
        return _Number(index, type(value))

    def _scalar(self, value: jax.Array) -> _Number:
        floats = (np.float16, np.float32, np.float64)
        if value.shape != () or value.dtype not in floats:
            raise UnlikeError
        number: Any = np.asarray(value)[()]
        return self._number(number)

    def _sequence(
        self,
        value: tuple[object, ...] | list[object],
        within: tuple[int, ...],
        integers: bool,
    ) -> _Sequence:
        items = [self.read(item, within, integers) for item in value]
        return _Sequence(type(value), tuple(items))

    def _dict(
        self,
        value: dict[Any, object],
        within: tuple[int, ...],
        integers: bool,
    ) -> _Dict:
        if not all(type(key) in (str, int) for key in value):
            raise UnlikeError
        values = [self.read(each, within, integers) for each in value.values()]
        return _Dict(tuple(value), tuple(values))

    def _partial(
        self,
        value: functools.partial[object],
        within: tuple[int, ...],
        integers: bool,
    ) -> _Partial:
        module = str(getattr(value.func, "__module__", None))
        integers = integers or module.startswith(SCHEDULES)
        return _Partial(
            self.read(value.func, within, integers),
            self._sequence(value.args, within, integers),
            self._dict(value.keywords, within, integers),
        )

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
        integers = module.startswith(SCHEDULES)
        cells = value.__closure__ or ()
        closure = [self._content(cell, within, integers) for cell in cells]
        return _Function(
            value.__code__,
            module,
            tuple(closure),
            self.read(value.__defaults__, within),
            self.read(value.__kwdefaults__, within),
            self._dict(value.__dict__, within, False),
            original=value,
        )

    def _content(self, cell: CellType, within: tuple[int, ...], integers: bool) -> Part:
        try:
            value = cell.cell_contents
        except ValueError:
            # A name that was not bound yet.
            raise UnlikeError from None
        if id(cell) not in self._cells:
            self._cells[id(cell)] = self.read(value, within, integers)
        return self._cells[id(cell)]


def _is_constant(value: object) -> bool:
    """Whether a value is of a type whose values do not change, and compare."""
    kinds = (bool, int, str, bytes, np.dtype, np.integer)
    return value is None or isinstance(value, kinds)


def _has_a_name(value: object) -> bool:
    """Whether a module of a library defines it under its name, as functions and classes are."""
    return is_module_attribute(value) and _of_library(value.__module__)


def _of_library(module: str) -> bool:
    package = module.partition(".")[0]
    return package in LIBRARIES or module.startswith(SCHEDULES)
