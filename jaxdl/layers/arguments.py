"""Checks of layers' arguments and inputs, as sentences."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxdl.compiling.initialization import deferred
from jaxdl.core.error import LayerError
from jaxdl.core.layer import Layer
from jaxdl.layers.initializers import Named
from jaxdl.ops.floating import DType, as_floating, floating_dtype

Sizes = int | tuple[int, ...]
LARGEST = 2**31 - 1
"""Of a dimension; indices are int32."""
MOST_NUMBERS = 2**48
"""Of a parameter: a petabyte in float32."""
LARGEST_WINDOW = 1000
"""Larger ones are refused where they reach over more than the whole input from any of its elements.
"""


def declared(layer: Layer) -> None:
    """Refuses arguments that are not what a layer's fields are declared as: flags, numbers, dtypes,
    functions.
    """
    kind, fields = type(layer).__name__, dataclasses.fields(layer)  # type: ignore[arg-type]
    numbers = {}
    for name, declaration, value in (
        (field.name, field.type, getattr(layer, field.name)) for field in fields
    ):
        if declaration is bool:
            flag(kind, **{name: value})
        elif declaration is float:
            numbers[name] = value
        elif name in ("dtype", "param_dtype"):
            floating_argument(kind, name, value, optional=name == "dtype")
        elif name.endswith("_init"):
            initializer_argument(kind, name, value)
    number(kind, getattr(layer, "param_dtype", jnp.float32), **numbers)


def flag(layer: str, **arguments: Any) -> None:
    """Refuses an argument that is neither True nor False."""
    for name, value in arguments.items():
        if not isinstance(value, (bool, np.bool_)):
            raise LayerError(layer, f"{name} is True or False, got {value!r}.")


def number(layer: str, dtype: DType, **arguments: Any) -> None:
    """Refuses an argument that is not a finite number of a dtype; one that is being traced is taken
    as it is.
    """
    for name, value in arguments.items():
        if not is_traced(value) and not (
            _finite(value) and abs(value) <= float(jnp.finfo(dtype).max)
        ):
            raise LayerError(
                layer, f"{name} is a finite number in {np.dtype(dtype)}, got {value!r}."
            )


def not_negative(layer: str, **arguments: Any) -> None:
    """Refuses a number below 0; one that is being traced is taken as it is."""
    for name, value in arguments.items():
        if not is_traced(value) and not (_finite(value) and value >= 0):
            raise LayerError(layer, f"{name} is a finite number of at least 0, got {value!r}.")


def floating_argument(layer: str, name: str, value: Any, optional: bool) -> None:
    """Refuses what is not a floating-point dtype."""
    if optional and value is None:
        return
    try:
        known = np.dtype(value) if isinstance(value, (str, type, np.dtype)) else None
    except (TypeError, ValueError):
        known = None
    if known is None or known == np.object_:
        raise LayerError(
            layer,
            f"{name} is a floating-point dtype such as 'float32' or 'bfloat16', got {value!r}.",
        )
    if not jnp.issubdtype(known, jnp.floating):
        raise LayerError(layer, f"{name} is a floating-point dtype, got {known}.")


def initializer_argument(layer: str, name: str, value: Any) -> None:
    """Refuses what cannot be called as initializers are."""
    if not callable(value) or isinstance(value, type):
        told = (
            f"the class itself — call it: {value.__name__}(…)"
            if isinstance(value, type)
            else repr(value)
        )
        raise LayerError(
            layer, f"{name} is an initializer such as dl.initializers.Normal(0.02), got {told}."
        )
    if not (isinstance(value, Named) and any(map(is_traced, vars(value).values()))):
        _hashable(layer, name, value)


def function(layer: str, **arguments: Any) -> None:
    """Refuses what is not a function."""
    for name, value in arguments.items():
        if not callable(value) or isinstance(value, type):
            raise LayerError(
                layer, f"{name} is a function of an array, such as jnp.tanh, got {value!r}."
            )
        _hashable(layer, name, value)


def axis(layer: str, value: Any) -> None:
    """Refuses what is not the number of an axis, counted from the front or from the end."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise LayerError(layer, f"axis is a whole number, got {value!r}.")


def word(layer: str, name: str, value: Any, words: tuple[str, ...]) -> None:
    """Refuses an argument that is none of some words."""
    if not isinstance(value, str) or value not in words:
        raise LayerError(layer, f"{name} is {' or '.join(map(repr, words))}, got {value!r}.")


def positive(layer: str, **arguments: Any) -> None:
    """Refuses an argument that is not a whole number of at least 1."""
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise LayerError(layer, f"{name} is a whole number of at least 1, got {value!r}.")
        if value > LARGEST:
            raise LayerError(
                layer,
                f"{name} is at most {LARGEST}, the largest dimension of an array, got {value!r}.",
            )


def probability(layer: str, **rates: Any) -> None:
    """Refuses a rate that is not in [0, 1); one that is being traced is taken as it is."""
    for name, rate in rates.items():
        if not is_traced(rate) and not (_finite(rate) and 0 <= rate < 1):
            raise LayerError(layer, f"{name} is a probability in [0, 1), got {rate!r}.")


def is_traced(value: Any) -> bool:
    """Whether a number is being traced, as inside of a sweep."""
    return isinstance(value, Tracer)


def _finite(value: Any) -> bool:
    """Whether a value is a finite real number; an array of one is none, because it cannot be
    hashed.
    """
    whole = isinstance(value, int) and abs(value) <= LARGEST
    real = isinstance(value, (float, np.floating)) or whole
    real = real and not isinstance(value, bool)
    return real and bool(abs(value) <= float(jnp.finfo(jnp.float32).max))


def _hashable(layer: str, name: str, value: Any) -> None:
    try:
        hash(value)
    except TypeError:
        raise LayerError(
            layer,
            f"{name} cannot be hashed, as the arguments of a layer have to be, got {value!r} — "
            f"give a plain function.",
        ) from None


def is_zero(rate: Any) -> bool:
    """Whether a rate is known to be zero."""
    return not isinstance(rate, Array) and rate == 0


def sizes(layer: str, **arguments: Any) -> None:
    """Refuses an argument that is neither a whole number of at least 1 nor a tuple of such."""
    for name, value in arguments.items():
        if isinstance(value, list):
            raise LayerError(
                layer, f"{name} is a whole number or a tuple of such, got the list {value!r}."
            )
        if isinstance(value, tuple) and not value:
            raise LayerError(
                layer, f"{name} is a whole number or a tuple of such, got an empty tuple."
            )
        for one in value if isinstance(value, tuple) else (value,):
            positive(layer, **{name: one})


def padding_argument(layer: str, padding: Any) -> None:
    """Refuses a padding that is not one of the two words, whole numbers of at least 0, nor a tuple
    of pairs.
    """
    if isinstance(padding, str) and padding in ("SAME", "VALID"):
        return
    pairs = isinstance(padding, tuple) and all(_is_pair(entry) for entry in padding)
    if not pairs and not pads_both_sides(padding):
        raise LayerError(
            layer,
            "padding is 'SAME', 'VALID', a whole number of at least 0 (on both sides of all "
            "dimensions, or a tuple with one "
            f"for each) or a tuple of (low, high) pairs, got {padding!r}.",
        )
    entries: tuple[Any, ...] = padding if isinstance(padding, tuple) else (padding,)
    if any(
        abs(n) > LARGEST
        for entry in entries
        for n in (entry if isinstance(entry, tuple) else (entry,))
    ):
        raise LayerError(layer, f"padding is at most {LARGEST} on each side, got {padding!r}.")


def pads_both_sides(padding: Any) -> bool:
    """Whether a padding is one number for both sides, or a tuple with one for each dimension."""
    entries = padding if isinstance(padding, tuple) else (padding,)
    return bool(entries) and all(_is_whole(n) and n >= 0 for n in entries)


def _is_pair(entry: Any) -> bool:
    return (
        isinstance(entry, tuple)
        and len(entry) == 2
        and all(isinstance(n, (int, np.integer)) for n in entry)
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def spatial(layer: str, x: Any, **arguments: Any) -> tuple[tuple[Any, ...], ...]:
    """Each argument as a tuple, one entry a spatial dimension of x [batch, *space, channels]."""
    array(layer, x)
    dimensions = len(x.shape) - 2
    if dimensions < 1:
        raise LayerError(
            layer,
            f"expected [batch, *space, channels] with at least one spatial dimension, got shape "
            f"{tuple(x.shape)} — "
            "images without a channel axis need x[..., None], a single image x[None].",
        )
    some_space(layer, x)
    spread = []
    for name, value in arguments.items():
        entries = value if isinstance(value, tuple) else (value,) * dimensions
        if len(entries) != dimensions:
            raise LayerError(
                layer,
                f"{name} {value!r} has {len(entries)} entries, but an input of shape "
                f"{tuple(x.shape)} has {dimensions} spatial "
                f"dimension{'s' * (dimensions > 1)} — an int stands for all of them.",
            )
        spread.append(jax.tree.map(int, entries))
    return tuple(spread)


def spatial_padding(layer: str, x: Any, padding: Any) -> Any:
    """The padding as the words 'SAME' or 'VALID', or one pair a spatial dimension."""
    if isinstance(padding, str):
        return padding
    (entries,) = spatial(layer, x, padding=padding)
    return tuple(entry if isinstance(entry, tuple) else (entry, entry) for entry in entries)


def same_rank(layer: str, x: Any, expected: int) -> None:
    """Refuses an input with other dimensions than init saw."""
    if len(x.shape) != expected:
        raise LayerError(
            layer, f"expected an input of rank {expected}, as at init, got shape {tuple(x.shape)}."
        )


def array(layer: str, x: Any) -> None:
    """Refuses a tree of arrays, or none, where one array is read."""
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise LayerError(
            layer,
            f"expected an array, got {type(x).__name__} — take one of what it holds, or use "
            f"np.asarray.",
        )


def features(layer: str, x: Any, least_rank: int = 2) -> int:
    """The length of x's last axis; x needs a batch axis before it."""
    array(layer, x)
    if len(x.shape) < least_rank:
        raise LayerError(
            layer,
            f"expected [batch, ..., features], got shape {tuple(x.shape)} — a single example needs "
            f"x[None].",
        )
    if x.shape[-1] == 0:
        raise LayerError(
            layer, f"an input of shape {tuple(x.shape)} has no features to compute with."
        )
    return x.shape[-1]


def some_space(layer: str, x: Any) -> None:
    """Refuses an input without elements but for an empty batch: their mean would be no number."""
    if 0 in x.shape[1:]:
        raise LayerError(
            layer, f"an input of shape {tuple(x.shape)} has no elements to compute with."
        )


def same_features(layer: str, x: Any, expected: int, what: str = "features") -> None:
    """Refuses an input whose last axis is not what init saw."""
    got = features(layer, x)
    if got != expected:
        raise LayerError(
            layer,
            f"expected {expected} {what}, as at init, got {got} (input of shape {tuple(x.shape)}) "
            f"— was the input's size "
            "changed after init?",
        )


def parameters(layer: str, params: Any, **expected: tuple[int | None, ...] | None) -> None:
    """Refuses parameters that are not of the names and shapes that init draws.

    Args:
        layer: its kind.
        params: its parameters, or its state.
        expected: a shape by name, in which None is any size; None for one that the layer has not.
    """
    for name, shape in expected.items():
        if shape is None:
            continue
        held = holds(layer, params, name)
        if not _matches(np.shape(held), shape):
            raise LayerError(layer, _unlike(name, shape, np.shape(held)))


def holds(layer: str, params: Any, name: str) -> Any:
    """The parameter or part of that name; an error where there is none."""
    if isinstance(params, Mapping) and name in params:
        return params[name]
    told = (
        ", ".join(map(repr, params)) or "none"
        if isinstance(params, Mapping)
        else f"a {type(params).__name__}"
    )
    raise LayerError(
        layer,
        f"expected parameters by name, among them '{name}', got {told} — init draws them as they "
        f"have to be.",
    )


def _matches(got: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    return len(got) == len(shape) and all(
        size in (None, length) for size, length in zip(shape, got, strict=True)
    )


def _unlike(name: str, shape: tuple[int | None, ...], got: tuple[int, ...]) -> str:
    """The sentence for a parameter of another shape, with what is likely."""
    told = ", ".join("…" if size is None else str(size) for size in shape)
    fix = "was the layer changed after init?"
    if len(got) == len(shape) > 1 and _matches(got[::-1], shape):
        fix = f"it seems to be transposed, as PyTorch's are: params['{name}'].T."
    elif len(got) == len(shape) > 2 and _matches((*got[2:], got[1], got[0]), shape):
        fix = (
            f"it seems to be PyTorch's, with the window last: jnp.moveaxis(params['{name}'], (1, "
            f"0), (-2, -1))."
        )
    return f"expected '{name}' of shape [{told}], got {list(got)} — {fix}"


def mask_fits(layer: str, x: Any, mask: Any) -> None:
    """Refuses a mask that has not one entry an example."""
    if mask is not None and tuple(mask.shape) != tuple(x.shape[:1]):
        raise LayerError(
            layer,
            f"the mode's mask has shape {tuple(mask.shape)} and the input {tuple(x.shape)}: one "
            f"entry an example is needed — a "
            "part before this one that folds another axis into the batch belongs in Map, which "
            "repeats the mask.",
        )


def ordered(layer: str, x: Any) -> None:
    """Refuses an input whose elements have no maximum."""
    array(layer, x)
    if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)):
        raise LayerError(layer, f"expected real numbers, got {x.dtype}.")


def floating(layer: str, x: Array, dtype: DType | None = None) -> Array:
    """x as the layer computes with it (`ops.floating.as_floating`)."""
    array(layer, x)
    try:
        return as_floating(x, dtype)
    except TypeError as error:
        raise LayerError(layer, str(error)) from None


def init_floating(layer: str, x: Any, dtype: DType | None = None) -> DType:
    """The computing dtype, or an error for inputs that have none."""
    array(layer, x)
    floating_argument(layer, "dtype", dtype, optional=True)
    available(layer, "dtype", dtype)
    if not jnp.issubdtype(x.dtype, jnp.floating) and x.dtype != jnp.uint8:
        floating(layer, jnp.zeros((), x.dtype), dtype)
    return floating_dtype(x, dtype)


def drawn(
    layer: str, name: str, initializer: Any, key: Array, shape: tuple[int, ...], dtype: DType
) -> Array:
    """What an initializer gives for a parameter, checked to be that."""
    told = f"a parameter of shape {list(shape)}"
    if math.prod(shape) > MOST_NUMBERS:
        raise LayerError(
            layer, f"{told} has {math.prod(shape):.3g} numbers, more than any device holds."
        )
    available(layer, "param_dtype", dtype)
    later = deferred(initializer, key, shape, dtype)
    if later is not None:
        return later
    try:
        values = initializer(key, shape, dtype)
    except Exception as error:
        raise LayerError(
            layer,
            f"{name} failed for {told} ({error}) — give one such as dl.initializers.Normal(0.02).",
        ) from error
    if (
        not isinstance(values, (Array, np.ndarray))
        or values.shape != shape
        or values.dtype != dtype
    ):
        got = (
            f"{values.dtype}{list(values.shape)}"
            if hasattr(values, "shape") and hasattr(values, "dtype")
            else repr(values)
        )
        raise LayerError(
            layer,
            f"{name} gave {got} for {told} and dtype {jnp.dtype(dtype)} — has it been called, as "
            f"in lecun_normal()?",
        )
    return jnp.asarray(values)


def available(layer: str, name: str, dtype: DType | None) -> None:
    """Refuses a dtype that JAX would quietly replace by a narrower one."""
    if dtype is not None and jax.dtypes.canonicalize_dtype(dtype) != np.dtype(dtype):
        raise LayerError(
            layer,
            f"{name} is {np.dtype(dtype)}, which JAX has not enabled — call "
            f"jax.config.update('jax_enable_x64', True).",
        )


def window_fits(
    layer: str,
    x: Any,
    extent: tuple[int, ...],
    padding: Any,
    stretch: tuple[int, ...] | None = None,
) -> None:
    """Refuses a window larger than the (stretched and padded) input: its output would be empty.

    With "SAME" the input grows with the window; one is refused that sees the whole input from each
    of its elements, and is so large that it cannot be meant.
    """
    if padding == "SAME":
        for size, reach in zip(x.shape[1:-1], extent, strict=True):
            if reach > max(LARGEST_WINDOW, 2 * size):
                raise LayerError(
                    layer,
                    f"the window reaches over {reach} elements, and an input of shape "
                    f"{tuple(x.shape)} has {size} there.",
                )
        return
    pads = ((0, 0),) * len(extent) if padding == "VALID" else padding
    space = [
        (n - 1) * s + 1 for n, s in zip(x.shape[1:-1], stretch or (1,) * len(extent), strict=True)
    ]
    for axis, (size, (low, high), reach) in enumerate(zip(space, pads, extent, strict=True)):
        if size + low + high < reach:
            raise LayerError(
                layer,
                f"the window reaches over {reach} elements of spatial dimension {axis}, but an "
                f"input of shape {tuple(x.shape)} "
                f"has only {size + low + high} there, padding included — "
                "use padding='SAME', a smaller window or fewer poolings.",
            )
