"""Checks of the inputs of layers, which raise a `LayerError`."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError
from jaxdl.layers import arguments
from jaxdl.layers.arguments import Sizes
from jaxdl.ops.floating import DType, as_floating
from jaxdl.ops.window import Pads

Padding = str | Sizes | tuple[tuple[int, int], ...]
""" "SAME", "VALID", the padding on both sides of all dimensions or of each (PyTorch's padding), or
(low, high) for each.
"""
LARGEST_WINDOW = 1000
"""Larger windows are refused if they cover the whole input from each of its elements."""


def per_dimension(layer: str, x: PyTree, **sizes: Sizes) -> tuple[tuple[int, ...], ...]:
    """Each argument as a tuple, with one entry for each spatial dimension of x.

    Args:
        layer: its kind.
        x: [batch, *space, channels].
        sizes: arguments by name.

    Raises:
        LayerError: x has no spatial dimension or no elements, or an argument has another number of
            entries.
    """
    check_spatial(layer, x)
    return tuple(_spread(layer, x, name, value) for name, value in sizes.items())


def check_spatial(layer: str, x: PyTree) -> None:
    """Checks that x is [batch, *space, channels] with elements."""
    check_array(layer, x)
    if len(x.shape) < 3:
        raise LayerError(
            layer,
            f"expected [batch, *space, channels] with at least one spatial dimension, got shape "
            f"{tuple(x.shape)} — "
            "images without a channel axis need x[..., None], a single image x[None].",
        )
    check_non_empty(layer, x)


def _spread(layer: str, x: PyTree, name: str, value: PyTree) -> tuple[PyTree, ...]:
    dimensions = len(x.shape) - 2
    entries = value if isinstance(value, tuple) else (value,) * dimensions
    if len(entries) != dimensions:
        raise LayerError(
            layer,
            f"{name} {value!r} has {len(entries)} entries, but an input of shape "
            f"{tuple(x.shape)} has {dimensions} spatial "
            f"dimension{'s' * (dimensions > 1)} — an int stands for all of them.",
        )
    return jax.tree.map(int, entries)


def resolve_padding(layer: str, x: PyTree, padding: Padding) -> str | Pads:
    """The padding as "SAME" or "VALID", or a (low, high) pair for each spatial dimension."""
    if isinstance(padding, str):
        return padding
    check_spatial(layer, x)
    entries = _spread(layer, x, "padding", padding)
    return tuple(entry if isinstance(entry, tuple) else (entry, entry) for entry in entries)


def check_rank(layer: str, x: PyTree, expected: int) -> None:
    """Checks that an input has the rank that init saw."""
    if len(x.shape) != expected:
        raise LayerError(
            layer,
            f"expected an input of rank {expected}, as at init, got shape {tuple(x.shape)}.",
        )


def check_array(layer: str, x: object) -> None:
    """Checks that an input is one array."""
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise LayerError(
            layer,
            f"expected an array, got {type(x).__name__} — take one of what it holds, or use "
            f"np.asarray.",
        )


def features(layer: str, x: PyTree, min_rank: int = 2) -> int:
    """The size of x's last axis; x needs a batch axis before it."""
    check_array(layer, x)
    if len(x.shape) < min_rank:
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


def check_features(layer: str, x: PyTree, expected: int, name: str = "features") -> None:
    """Checks that an input has the number of features that init saw."""
    got = features(layer, x)
    if got != expected:
        raise LayerError(
            layer,
            f"expected {expected} {name}, as at init, got {got} (input of shape {tuple(x.shape)}) "
            f"— was the input's size "
            "changed after init?",
        )


def check_non_empty(layer: str, x: PyTree) -> None:
    """Checks that each example has elements: their mean would be NaN."""
    if 0 in x.shape[1:]:
        raise LayerError(
            layer, f"an input of shape {tuple(x.shape)} has no elements to compute with."
        )


def check_sequences(layer: str, x: PyTree, of_vectors: bool = True) -> None:
    """Checks that an input is [batch, time, features], or [batch, time, ...]."""
    rank = len(x.shape) if hasattr(x, "shape") else 0
    if rank < 2 or (of_vectors and rank != 3):
        expected = "[batch, time, features]" if of_vectors else "[batch, time, ...]"
        raise LayerError(
            layer,
            f"expected {expected}, got {describe_shape(x)} — one sequence alone needs x[None].",
        )


def describe_shape(x: PyTree) -> str:
    """The shape of an array, or the type of anything else."""
    return f"shape {tuple(x.shape)}" if hasattr(x, "shape") else type(x).__name__


def check_mask(layer: str, x: Array, mask: PyTree) -> None:
    """Checks that the mask of a mode has one entry for each example."""
    if mask is not None and tuple(mask.shape) != tuple(x.shape[:1]):
        raise LayerError(
            layer,
            f"the mode's mask has shape {tuple(mask.shape)} and the input {tuple(x.shape)}: one "
            f"entry an example is needed — a "
            "part before this one that folds another axis into the batch belongs in Map, which "
            "repeats the mask.",
        )


def vectors_that_count(layer: str, x: Array, steps: Array | None, mask: PyTree) -> Array | None:
    """Which vectors along x's last axis count, a mask of the other axes; None if all do.

    Args:
        layer: its kind.
        x: [batch, ..., features].
        steps: [batch, time], the mask of `Padded` sequences, or None.
        mask: [batch], that of the mode, or None.
    """
    check_mask(layer, x, mask)
    leading = x.shape[:-1]
    given = [jnp.asarray(each) for each in (steps, mask) if each is not None]
    if not given:
        return None
    counts = jnp.ones(leading, bool)
    for each in given:
        counts &= each.reshape(each.shape + (1,) * (len(leading) - each.ndim))
    return counts


def check_real(layer: str, x: PyTree) -> None:
    """Checks that the elements of an input have a maximum."""
    check_array(layer, x)
    if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)):
        raise LayerError(layer, f"expected real numbers, got {x.dtype}.")


def as_computed(layer: str, x: Array, dtype: DType | None = None) -> Array:
    """x in the dtype that the layer computes in (`ops.floating.as_floating`)."""
    check_array(layer, x)
    try:
        return as_floating(x, dtype)
    except TypeError as error:
        raise LayerError(layer, str(error)) from None


def check_floating(layer: str, x: PyTree, dtype: DType | None = None) -> None:
    """Checks that a layer can compute with an input, in a dtype or in the input's own."""
    check_array(layer, x)
    arguments.check_floating_dtype(layer, "dtype", dtype, optional=True)
    arguments.check_enabled(layer, "dtype", dtype)
    if not jnp.issubdtype(x.dtype, jnp.floating) and x.dtype != jnp.uint8:
        as_computed(layer, jnp.zeros((), x.dtype), dtype)


def check_window(
    layer: str,
    x: PyTree,
    extent: tuple[int, ...],
    padding: str | Pads,
    stretch: tuple[int, ...] | None = None,
) -> None:
    """Checks that the (dilated and padded) input is no smaller than a window: the output would be
    empty.

    With "SAME" the padding grows with the window; a very large window that covers the whole input
    from each of its elements is refused, since it cannot be meant.

    Args:
        layer: its kind.
        x: [batch, *space, channels].
        extent: of the window, with its dilation.
        padding: "SAME", "VALID" or (low, high) for each spatial dimension.
        stretch: the dilation of the input.
    """
    space = x.shape[1:-1]
    if padding == "SAME":
        for size, reach in zip(space, extent, strict=True):
            if reach > max(LARGEST_WINDOW, 2 * size):
                raise LayerError(
                    layer,
                    f"the window reaches over {reach} elements, and an input of shape "
                    f"{tuple(x.shape)} has {size} there.",
                )
        return
    pads = padding if isinstance(padding, tuple) else ((0, 0),) * len(extent)
    steps = stretch or (1,) * len(extent)
    sizes = [(n - 1) * s + 1 for n, s in zip(space, steps, strict=True)]
    for axis, (size, (low, high), reach) in enumerate(zip(sizes, pads, extent, strict=True)):
        if size + low + high < reach:
            raise LayerError(
                layer,
                f"the window reaches over {reach} elements of spatial dimension {axis}, but an "
                f"input of shape {tuple(x.shape)} "
                f"has only {size + low + high} there, padding included — "
                "use padding='SAME', a smaller window or fewer poolings.",
            )
