"""Pooling to a given size of the output, channels last, in PyTorch's windows.

Window p of `size` covers the elements ⌊p · space / size⌋ … ⌈(p + 1) · space / size⌉ − 1 of a
dimension. Where size divides space, it is a pooling with windows side by side.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Shaped

from jaxdl.ops import pool
from jaxdl.ops.floating import widest
from jaxdl.ops.sharding import gathered
from jaxdl.ops.window import Sizes


def max_pool(
    x: Shaped[Array, "batch *space channels"], *, size: Sizes
) -> Shaped[Array, "batch *size channels"]:
    """The maximum over each window; of equal elements, the first has the gradient.

    Args:
        x: [batch, *space, channels], of real numbers.
        size: one for each spatial dimension.

    Returns:
        [batch, *size, channels], in x's dtype.
    """
    window = _equal_windows(x.shape[1:-1], size)
    if window is not None:
        return pool.max_pool(x, window=window, stride=window, padding="VALID")
    return _reduced(gathered(x, *range(1, x.ndim)), size=size, reduction=_first_maximum)


def avg_pool(
    x: Float[Array, "batch *space channels"], *, size: Sizes
) -> Float[Array, "batch *size channels"]:
    """The mean over each window.

    Args:
        x: [batch, *space, channels].
        size: one for each spatial dimension.

    Returns:
        [batch, *size, channels], in x's dtype.
    """
    window = _equal_windows(x.shape[1:-1], size)
    if window is not None:
        return pool.avg_pool(x, window=window, stride=window, padding="VALID")
    return _reduced(gathered(x, *range(1, x.ndim)), size=size, reduction=_mean)


def _equal_windows(space: Sizes, size: Sizes) -> Sizes | None:
    """The size of windows that lie side by side, or None if they overlap."""
    pairs = list(zip(space, size, strict=True))
    if any(length % count for length, count in pairs):
        return None
    return tuple(length // count for length, count in pairs)


@functools.partial(jax.jit, static_argnames=("size", "reduction"))
def _reduced(x: Array, *, size: Sizes, reduction: Callable[[Array, int], Array]) -> Array:
    """The windows reduced along one dimension after another: the last first, so that the first of
    equal maxima in row-major order is taken.
    """
    is_floating = jnp.issubdtype(x.dtype, jnp.floating)
    # The gradients of overlapping windows are summed in the wide dtype.
    y = x.astype(widest(x.dtype)) if is_floating else x
    for axis in reversed(range(1, x.ndim - 1)):
        length = x.shape[axis]
        parts = []
        for start, stop in _bins(length, size[axis - 1]):
            parts.append(reduction(lax.slice_in_dim(y, start, stop, axis=axis), axis))
        y = jnp.concatenate(parts, axis)
    return y.astype(x.dtype)


def _bins(length: int, count: int) -> list[tuple[int, int]]:
    """The first element of each window, and the one after its last."""
    return [(p * length // count, -(-(p + 1) * length // count)) for p in range(count)]


def _mean(x: Array, axis: int) -> Array:
    return x.mean(axis, keepdims=True)


def _first_maximum(x: Array, axis: int) -> Array:
    elements = [
        lax.slice_in_dim(x, index, index + 1, axis=axis) for index in range(x.shape[axis])
    ]
    return functools.reduce(pool.first_maximum, elements)
