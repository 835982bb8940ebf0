"""Models, losses and metrics as the calls that they print as, for files: read back by their names,
never evaluated.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl import layers, losses, metrics, models
from jaxdl.checkpoint.describe import describe
from jaxdl.core.function import as_layer
from jaxdl.core.layer import Layer
from jaxdl.core.parsing import Names, ParseError, UnknownNameError, parse_call
from jaxdl.core.representation import call_repr, value_repr
from jaxdl.layers import initializers
from jaxdl.losses.batchwise import Batchwise
from jaxdl.losses.bound import rebound
from jaxdl.metrics.metric import Metric, OfFunction, as_metric
from jaxdl.ops import activations

Types = Sequence[Any] | Mapping[str, Any]
"""Classes and functions, or these by name."""

_PURE = (jnp.ufunc, type(jax.jit(abs)))
_SCALAR = type(jnp.float32)
_NUMPY_SCALARS = (
    *("bool", "float16", "float32", "float64"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)


class Printed(NamedTuple):
    """A value as the call that built it.

    Args:
        call: as it prints.
        types: the names in it that are the caller's own.
    """

    call: str
    types: tuple[str, ...] = ()


class CannotPrintError(Exception):
    """A value is not equal to what its printed call makes; the message says why."""


class MissingTypesError(Exception):
    """A printed call names what only its author has.

    Args:
        names: in the order they occur.
    """

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names))
        self.names = names


def printed_model(model: Layer) -> Printed:
    """The printed call of a model, once it is known that an equal model is read back from it.

    Raises:
        CannotPrintError: none is.
    """
    return _printed(model, repr(model), _model_names(), as_layer)


def printed_loss(loss: Callable[..., Any]) -> Printed:
    """The printed call of a loss, as `printed_model`."""
    text = value_repr(loss)
    if isinstance(loss, Batchwise):
        bound = rebound(loss.function, loss.arguments, loss.keywords)
        text = f"batchwise({value_repr(bound)})"
    return _printed(loss, text, _loss_names(), lambda value: value)


def printed_metric(metric: Metric) -> Printed:
    """The printed call of a metric, as `printed_model`."""
    text = call_repr(metric)
    if isinstance(metric, OfFunction):
        bound = rebound(metric.function, metric.arguments, metric.keywords)
        given = {"output": metric.output, "ignore": metric.ignore}
        more = [f"{name}={value!r}" for name, value in given.items() if value is not None]
        text = f"{type(metric).__name__}({', '.join([value_repr(bound), *more])})"
    return _printed(metric, text, _metric_names(), as_metric)


def opened_model(printed: Printed, types: Types = ()) -> Layer:
    """The model of a printed call.

    Args:
        printed: as `printed_model` returned it.
        types: the caller's own classes and functions that it names.

    Raises:
        MissingTypesError: it names others.
        ParseError: it is no such call.
        TypeError: the types are no classes and functions.
    """
    found = _opened(printed, types, _model_names())
    try:
        return as_layer(found)
    except TypeError as error:
        raise ParseError(f"is no model: {error!s:.200}") from error


def opened_loss(printed: Printed, types: Types = ()) -> Callable[..., Any]:
    """The loss of a printed call, as `opened_model`."""
    return _opened(printed, types, _loss_names())


def opened_metric(printed: Printed, types: Types = ()) -> Metric:
    """The metric of a printed call, as `opened_model`."""
    return as_metric(_opened(printed, types, _metric_names()))


def _printed(value: Any, text: str, library: Names, lift: Callable[[Any], Any]) -> Printed:
    own: dict[str, Any] = {}
    for name, part in _named_parts(value):
        if library.known(name) and library.meaning(name) is part:
            continue
        if not name.isidentifier():
            raise CannotPrintError(f"{name} in it has no name — define it by def")
        if own.setdefault(name, part) is not part:
            raise CannotPrintError(f"two parts of it are called {name} — rename one of them")
    try:
        found = lift(parse_call(text, _with_types(library, own)))
    except (ParseError, TypeError) as error:
        raise CannotPrintError(
            f"its printed call {error} — let it print as the call that builds it"
        ) from error
    if not _same(found, value):
        raise CannotPrintError(
            f"{text:.80} makes another value — let it print as the call that builds it"
        )
    return Printed(text, tuple(own))


def _same(found: Any, value: Any) -> bool:
    """Whether values are equal, also where what they bind by `functools.partial` is so alone."""
    if type(found) is not type(value) or repr(found) != repr(value):
        return isinstance(value, functools.partial) and describe(found) == describe(value)
    return bool(found == value) or describe(found) == describe(value)


def _opened(printed: Printed, types: Types, library: Names) -> Any:
    given = types_by_name(types)
    missing = [name for name in printed.types if name not in given]
    if missing:
        raise MissingTypesError(missing)
    more = {
        name: part
        for name, part in given.items()
        if name in printed.types or not library.known(name)
    }
    try:
        return parse_call(printed.call, _with_types(library, more))
    except UnknownNameError as error:
        raise MissingTypesError(error.names) from error


def types_by_name(types: Types) -> dict[str, Any]:
    """Classes and functions by their names.

    Raises:
        TypeError: something has no name, or is neither.
    """
    pairs: dict[Any, Any] = dict(types) if isinstance(types, Mapping) else {}
    if not isinstance(types, Mapping):
        if callable(types) or isinstance(types, str):
            raise TypeError(f"types: expected a list of classes and functions, got {types!r}.")
        pairs = {getattr(part, "__name__", None): part for part in types}
    for name, part in pairs.items():
        if not isinstance(name, str) or not callable(part):
            raise TypeError(
                f"types: expected classes and functions that have a name, or a dict of them by "
                f"name, got {part!r}."
            )
    return pairs


def _with_types(library: Names, own: Mapping[str, Any]) -> Names:
    """The library's names, and the caller's own: of these classes may be called, functions only be
    handed on.
    """
    classes = {name: part for name, part in own.items() if isinstance(part, type)}
    functions = {name: part for name, part in own.items() if name not in classes}
    makers = {name: part for name, part in library.makers.items() if name not in functions}
    return Names(makers | classes, {**library.values, **functions})


def _named_parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a printed call has by name: the functions and classes of a value and of its parts."""
    if isinstance(value, (bool, int, float, str, type(None), np.dtype, np.generic)):
        return
    parts: Sequence[Any] = ()
    if isinstance(value, functools.partial):
        parts = (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, (tuple, list)):
        parts = value
    elif isinstance(value, Mapping):
        parts = tuple(value.values())
    elif isinstance(value, Batchwise):
        parts = (value.function, *value.arguments, *dict(value.keywords).values())
    elif isinstance(value, type) or hasattr(value, "__name__"):
        yield value.__name__, value
    else:
        yield type(value).__name__, type(value)
        parts = tuple(_fields(value).values())
    for part in parts:
        yield from _named_parts(part)


def _fields(value: Any) -> dict[str, Any]:
    if not dataclasses.is_dataclass(value):
        return dict(getattr(value, "__dict__", {}))
    shown = [field for field in dataclasses.fields(value) if field.compare]
    return {field.name: getattr(value, field.name) for field in shown}


@functools.cache
def _model_names() -> Names:
    """Layers, initializers and what else they are made of; activations, functions of JAX that
    compute alone, and dtypes.
    """
    makers = _classes(layers) | _classes(initializers) | _classes(models)
    makers |= {kind.__name__: kind for kind in _subclasses(Layer)}
    makers |= {f"np.{name}": getattr(np, name) for name in _NUMPY_SCALARS}
    makers |= {
        "in_precision": layers.in_precision,
        "partial": functools.partial,
        "dtype": np.dtype,
    }
    dtypes = {name: part for name, part in vars(jnp).items() if isinstance(part, _SCALAR)}
    pure = {name: part for name, part in vars(jnp).items() if isinstance(part, _PURE)}
    values = pure | _functions(jax.nn) | _functions(activations) | dtypes
    values |= {"zeros": jax.nn.initializers.zeros, "ones": jax.nn.initializers.ones}
    return Names(
        makers, values | {"inf": math.inf, "np.True_": np.True_, "np.False_": np.False_}
    )


def _batchwise(function: Any) -> Batchwise:
    """A batchwise loss of a function, which may be declared as one."""
    if isinstance(function, Batchwise):
        return function
    if isinstance(function, functools.partial) and isinstance(function.func, Batchwise):
        bound = functools.partial(function.func.function, *function.args, **function.keywords)
        return losses.batchwise(bound)
    return losses.batchwise(function)


@functools.cache
def _loss_names() -> Names:
    makers = {"partial": functools.partial, "batchwise": _batchwise}
    return Names(makers, _functions(optax.losses) | _functions(losses) | {"inf": math.inf})


@functools.cache
def _metric_names() -> Names:
    makers = _classes(metrics) | {"partial": functools.partial}
    return Names(makers, _functions(losses) | _functions(metrics) | {"inf": math.inf})


def _classes(package: ModuleType) -> dict[str, Any]:
    return {name: part for name, part in vars(package).items() if isinstance(part, type)}


def _functions(package: ModuleType) -> dict[str, Any]:
    return {
        name: part
        for name, part in vars(package).items()
        if callable(part) and not isinstance(part, type) and not name.startswith("_")
    }


def _subclasses(kind: type) -> Iterator[type]:
    """The classes of jaxdl that derive from one, private ones too."""
    for each in kind.__subclasses__():
        if each.__module__.startswith("jaxdl."):
            yield each
        yield from _subclasses(each)
