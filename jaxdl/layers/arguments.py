"""Checks of the arguments of layers, which raise a `LayerError`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import DTypeLike

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError
from jaxdl.core.layer import Layer
from jaxdl.core.number import MAX_INT, is_hashable, is_integer, is_number
from jaxdl.layers.initializers import Named
from jaxdl.ops.floating import DType

Sizes = int | tuple[int, ...]
"""One size for all spatial dimensions, or one for each."""


def check_fields(layer: Layer) -> None:
    """Checks that arguments are what the layer's fields are declared as: flags, numbers, dtypes,
    initializers.
    """
    kind = type(layer).__name__
    dtype = getattr(layer, "param_dtype", jnp.float32)
    for field in dataclasses.fields(layer):  # type: ignore[arg-type]
        value = getattr(layer, field.name)
        if field.type is bool:
            check_flag(kind, **{field.name: value})
        elif field.name in ("dtype", "param_dtype"):
            check_floating_dtype(kind, field.name, value, optional=field.name == "dtype")
        elif field.name.endswith("_init"):
            check_initializer(kind, field.name, value)
    for field in dataclasses.fields(layer):  # type: ignore[arg-type]
        if field.type is float:
            check_number(kind, dtype, **{field.name: getattr(layer, field.name)})


def check_flag(layer: str, **arguments: object) -> None:
    """Checks that an argument is True or False."""
    for name, value in arguments.items():
        if not isinstance(value, (bool, np.bool_)):
            raise LayerError(layer, f"{name} is True or False, got {value!r}.")


def check_number(layer: str, dtype: DType, **arguments: object) -> None:
    """Checks that an argument is a finite number of a dtype, or a tracer."""
    largest = float(jnp.finfo(dtype).max)
    for name, value in arguments.items():
        is_finite = is_number(value) and abs(value) <= largest
        if not is_traced(value) and not is_finite:
            raise LayerError(
                layer, f"{name} is a finite number in {np.dtype(dtype)}, got {value!r}."
            )


def check_non_negative(layer: str, **arguments: object) -> None:
    """Checks that an argument is a finite number of at least 0, or a tracer."""
    for name, value in arguments.items():
        if not is_traced(value) and not (is_number(value) and value >= 0):
            raise LayerError(layer, f"{name} is a finite number of at least 0, got {value!r}.")


def check_floating_dtype(layer: str, name: str, value: object, optional: bool) -> None:
    """Checks that an argument is a floating-point dtype, or None if it is optional."""
    if optional and value is None:
        return
    try:
        dtype = np.dtype(value) if isinstance(value, (str, type, np.dtype)) else None
    except (TypeError, ValueError):
        dtype = None
    if dtype is None or dtype == np.object_:
        raise LayerError(
            layer,
            f"{name} is a floating-point dtype such as 'float32' or 'bfloat16', got {value!r}.",
        )
    if not jnp.issubdtype(dtype, jnp.floating):
        raise LayerError(layer, f"{name} is a floating-point dtype, got {dtype}.")


def check_enabled(layer: str, name: str, dtype: DTypeLike | None) -> None:
    """Checks that JAX has a dtype enabled, and does not replace it by a narrower one."""
    if dtype is not None and jax.dtypes.canonicalize_dtype(dtype) != np.dtype(dtype):
        raise LayerError(
            layer,
            f"{name} is {np.dtype(dtype)}, which JAX has not enabled — call "
            f"jax.config.update('jax_enable_x64', True).",
        )


def check_initializer(layer: str, name: str, value: object) -> None:
    """Checks that an argument can be called as initializers are."""
    if isinstance(value, type):
        shown = f"the class itself — call it: {value.__name__}(…)"
    else:
        shown = repr(value)
    if not callable(value) or isinstance(value, type):
        raise LayerError(
            layer,
            f"{name} is an initializer such as dl.initializers.Normal(0.02), got {shown}.",
        )
    has_tracer = isinstance(value, Named) and any(map(is_traced, vars(value).values()))
    if not has_tracer:
        _check_hashable(layer, name, value)


def check_function(layer: str, **arguments: object) -> None:
    """Checks that an argument is a function."""
    for name, value in arguments.items():
        if not callable(value) or isinstance(value, type):
            raise LayerError(
                layer, f"{name} is a function of an array, such as jnp.tanh, got {value!r}."
            )
        _check_hashable(layer, name, value)


def _check_hashable(layer: str, name: str, value: object) -> None:
    if not is_hashable(value):
        raise LayerError(
            layer,
            f"{name} cannot be hashed, as the arguments of a layer have to be, got {value!r} — "
            f"give a plain function.",
        )


def check_axis(layer: str, value: object) -> None:
    """Checks that an argument is the number of an axis, counted from the first or the last."""
    if not is_integer(value):
        raise LayerError(layer, f"axis is a whole number, got {value!r}.")


def check_choice(layer: str, name: str, value: object, choices: tuple[str, ...]) -> None:
    """Checks that an argument is one of some strings."""
    if not isinstance(value, str) or value not in choices:
        raise LayerError(layer, f"{name} is {' or '.join(map(repr, choices))}, got {value!r}.")


def check_positive(layer: str, **arguments: object) -> None:
    """Checks that an argument is an integer of at least 1."""
    for name, value in arguments.items():
        if not is_integer(value) or value < 1:
            raise LayerError(layer, f"{name} is a whole number of at least 1, got {value!r}.")
        if value > MAX_INT:
            raise LayerError(
                layer,
                f"{name} is at most {MAX_INT}, the largest dimension of an array, got {value!r}.",
            )


def check_probability(layer: str, **rates: object) -> None:
    """Checks that a rate is in [0, 1), or a tracer."""
    for name, rate in rates.items():
        if not is_traced(rate) and not (is_number(rate) and 0 <= rate < 1):
            raise LayerError(layer, f"{name} is a probability in [0, 1), got {rate!r}.")


def is_traced(value: object) -> bool:
    """Whether a number is a tracer, as in a sweep."""
    return isinstance(value, Tracer)


def is_zero(rate: float | Array) -> bool:
    """Whether a rate is known to be zero."""
    return not isinstance(rate, Array) and rate == 0


def check_sizes(layer: str, **arguments: object) -> None:
    """Checks that an argument is an integer of at least 1, or a tuple of such."""
    for name, value in arguments.items():
        if isinstance(value, list):
            raise LayerError(
                layer, f"{name} is a whole number or a tuple of such, got the list {value!r}."
            )
        if isinstance(value, tuple) and not value:
            raise LayerError(
                layer, f"{name} is a whole number or a tuple of such, got an empty tuple."
            )
        for size in value if isinstance(value, tuple) else (value,):
            check_positive(layer, **{name: size})


def check_padding(layer: str, padding: object) -> None:
    """Checks that a padding is "SAME" or "VALID", integers of at least 0, or a tuple of pairs."""
    if isinstance(padding, str) and padding in ("SAME", "VALID"):
        return
    is_pairs = isinstance(padding, tuple) and all(map(_is_pair, padding))
    if not is_pairs and not is_symmetric_padding(padding):
        raise LayerError(
            layer,
            "padding is 'SAME', 'VALID', a whole number of at least 0 (on both sides of all "
            "dimensions, or a tuple with one "
            f"for each) or a tuple of (low, high) pairs, got {padding!r}.",
        )
    entries: PyTree = padding if isinstance(padding, tuple) else (padding,)
    for entry in entries:
        sides = entry if isinstance(entry, tuple) else (entry,)
        if any(abs(side) > MAX_INT for side in sides):
            raise LayerError(
                layer, f"padding is at most {MAX_INT} on each side, got {padding!r}."
            )


def is_symmetric_padding(padding: object) -> bool:
    """Whether a padding is one integer for both sides, or a tuple with one for each dimension."""
    entries = padding if isinstance(padding, tuple) else (padding,)
    return bool(entries) and all(is_integer(n) and n >= 0 for n in entries)


def _is_pair(entry: object) -> bool:
    if not isinstance(entry, tuple) or len(entry) != 2:
        return False
    return all(isinstance(n, (int, np.integer)) for n in entry)
