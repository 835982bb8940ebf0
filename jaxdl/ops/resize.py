"""Interpolation to another size of the spatial dimensions of [batch, *space, channels]."""

import functools

import jax
from jax import Array, lax
from jaxtyping import Float

from jaxdl.ops.floating import widest
from jaxdl.ops.sharding import gathered, reshape
from jaxdl.ops.window import Sizes

METHODS = ("nearest", "linear", "cubic", "cubic-pytorch")


def resize(
    x: Float[Array, "batch *space channels"],
    *,
    size: Sizes,
    method: str,
    antialias: bool = False,
) -> Float[Array, "batch *out channels"]:
    """y[n, p, c] = Σ_k w(q − k) x[n, k, c], with q = (p + ½) · space / out − ½, and the weights of
    the elements inside x scaled to a sum of 1.

    Args:
        x: [batch, *space, channels].
        size: one for each spatial dimension.
        method: "nearest", "linear", "cubic" or "cubic-pytorch", as in `jaxdl.Resize`.
        antialias: whether w is widened by space / out where that is above 1.

    Returns:
        [batch, *size, channels], in x's dtype; sums are taken in at least float32.
    """
    x = gathered(x, *range(1, x.ndim - 1))
    return _resize(x, size=size, method=method, antialias=antialias)


@functools.partial(jax.jit, static_argnames=("size", "method", "antialias"))
def _resize(x: Array, *, size: Sizes, method: str, antialias: bool) -> Array:
    wide = x.astype(widest(x.dtype))
    if method == "nearest":
        for axis, length in enumerate(size, start=1):
            wide = _nearest(wide, axis, length)
        return wide.astype(x.dtype)
    shape = (x.shape[0], *size, x.shape[-1])
    return jax.image.resize(wide, shape, method, antialias=antialias).astype(x.dtype)


def _nearest(x: Array, axis: int, length: int) -> Array:
    """One axis by its nearest elements.

    Whole factors are repetitions or strided slices, whose gradients are sums or paddings in place
    of the scattered additions of an indexed array.
    """
    now = x.shape[axis]
    if length % now == 0:
        return _repeat(x, axis, length // now)
    if now % length == 0:
        step = now // length
        return lax.slice_in_dim(x, step // 2, now, step, axis)
    shape = list(x.shape)
    shape[axis] = length
    return jax.image.resize(x, shape, "nearest")


def _repeat(x: Array, axis: int, count: int) -> Array:
    """Each element along an axis, `count` times in a row."""
    before = x.shape[: axis + 1]
    after = x.shape[axis + 1 :]
    kept = [i for i in range(x.ndim + 1) if i != axis + 1]
    spread = lax.broadcast_in_dim(x, (*before, count, *after), kept)
    return reshape(spread, (*before[:-1], before[-1] * count, *after))
