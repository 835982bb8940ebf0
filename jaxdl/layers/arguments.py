"""Checks of layers' arguments and inputs, as sentences."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxdl.layer import LayerError
from jaxdl.ops.floating import DType, as_floating, floating_dtype

Sizes = int | tuple[int, ...]


def positive(layer: str, **arguments: Any) -> None:
    """Refuses an argument that is not a whole number of at least 1."""
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise LayerError(layer, f"{name} is a whole number of at least 1, got {value!r}.")


def probability(layer: str, **rates: Any) -> None:
    """Refuses a rate that is not in [0, 1); one that is being traced is taken as it is."""
    for name, rate in rates.items():
        if not isinstance(rate, Array) and not 0 <= rate < 1:
            raise LayerError(layer, f"{name} is a probability in [0, 1), got {rate!r}.")


def is_zero(rate: Any) -> bool:
    """Whether a rate is known to be zero."""
    return not isinstance(rate, Array) and rate == 0


def sizes(layer: str, **arguments: Any) -> None:
    """Refuses an argument that is neither a whole number of at least 1 nor a tuple of such."""
    for name, value in arguments.items():
        if isinstance(value, list):
            raise LayerError(layer, f"{name} is a whole number or a tuple of such, got the list {value!r}.")
        for one in value if isinstance(value, tuple) else (value,):
            positive(layer, **{name: one})


def padding_argument(layer: str, padding: Any) -> None:
    """Refuses a padding that is not one of the two words nor a tuple of pairs."""
    pairs = isinstance(padding, tuple) and all(
        isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(n, int) for n in pair) for pair in padding
    )
    if not pairs and padding not in ("SAME", "VALID"):
        raise LayerError(layer, f"padding is 'SAME', 'VALID' or a tuple of (low, high) pairs, got {padding!r}.")


def spatial(layer: str, x: Any, **arguments: Any) -> tuple[tuple[Any, ...], ...]:
    """Each argument as a tuple, one entry a spatial dimension of x [batch, *space, channels]."""
    dimensions = len(x.shape) - 2
    if dimensions < 1:
        raise LayerError(
            layer,
            f"expected [batch, *space, channels] with at least one spatial dimension, got shape {tuple(x.shape)} — "
            "images without a channel axis need x[..., None], a single image x[None].",
        )
    spread = []
    for name, value in arguments.items():
        entries = value if isinstance(value, tuple) else (value,) * dimensions
        if len(entries) != dimensions:
            raise LayerError(
                layer,
                f"{name} {value!r} has {len(entries)} entries, but an input of shape {tuple(x.shape)} has {dimensions} spatial "
                f"dimension{'s' * (dimensions > 1)} — an int stands for all of them.",
            )
        spread.append(entries)
    return tuple(spread)


def spatial_padding(layer: str, x: Any, padding: Any) -> Any:
    """The padding as the words 'SAME' or 'VALID', or one pair a spatial dimension."""
    return padding if isinstance(padding, str) else spatial(layer, x, padding=padding)[0]


def same_rank(layer: str, x: Any, expected: int) -> None:
    """Refuses an input with other dimensions than init saw."""
    if len(x.shape) != expected:
        raise LayerError(layer, f"expected an input of rank {expected}, as at init, got shape {tuple(x.shape)}.")


def features(layer: str, x: Any, least_rank: int = 2) -> int:
    """The length of x's last axis; x needs a batch axis before it."""
    if len(x.shape) < least_rank:
        raise LayerError(
            layer, f"expected [batch, ..., features], got shape {tuple(x.shape)} — a single example needs x[None]."
        )
    return x.shape[-1]


def same_features(layer: str, x: Any, expected: int, what: str = "features") -> None:
    """Refuses an input whose last axis is not what init saw."""
    got = features(layer, x)
    if got != expected:
        raise LayerError(
            layer,
            f"expected {expected} {what}, as at init, got {got} (input of shape {tuple(x.shape)}) — was the input's size "
            "changed after init?",
        )


def mask_fits(layer: str, x: Any, mask: Any) -> None:
    """Refuses a mask that has not one entry an example."""
    if mask is not None and tuple(mask.shape) != tuple(x.shape[:1]):
        raise LayerError(
            layer,
            f"the mode's mask has shape {tuple(mask.shape)} and the input {tuple(x.shape)}: one entry an example is needed — a "
            "part before this one that folds another axis into the batch belongs in Map, which repeats the mask.",
        )


def floating(layer: str, x: Array, dtype: DType | None = None) -> Array:
    """x as the layer computes with it (`ops.floating.as_floating`)."""
    try:
        return as_floating(x, dtype)
    except TypeError as error:
        raise LayerError(layer, str(error)) from None


def init_floating(layer: str, x: Any, dtype: DType | None = None) -> DType:
    """The computing dtype, or an error for inputs that have none."""
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise LayerError(layer, f"dtype is a floating-point dtype, got {jnp.dtype(dtype)}.")
    if not jnp.issubdtype(x.dtype, jnp.floating) and x.dtype != jnp.uint8:
        floating(layer, jnp.zeros((), x.dtype), dtype)
    return floating_dtype(x, dtype)


def window_fits(layer: str, x: Any, extent: tuple[int, ...], padding: Any, stretch: tuple[int, ...] | None = None) -> None:
    """Refuses a window larger than the (stretched and padded) input: its output would be empty."""
    if padding == "SAME":
        return
    pads = ((0, 0),) * len(extent) if padding == "VALID" else padding
    space = [(n - 1) * s + 1 for n, s in zip(x.shape[1:-1], stretch or (1,) * len(extent), strict=True)]
    for axis, (size, (low, high), reach) in enumerate(zip(space, pads, extent, strict=True)):
        if size + low + high < reach:
            raise LayerError(
                layer,
                f"the window reaches over {reach} elements of spatial dimension {axis}, but an input of shape {tuple(x.shape)} "
                f"has only {size + low + high} there, padding included — "
                "use padding='SAME', a smaller window or fewer poolings.",
            )
