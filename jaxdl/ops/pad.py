"""Padding of the spatial dimensions of [batch, *space, channels]."""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Shaped

from jaxdl.ops.floating import widest
from jaxdl.ops.sharding import gathered
from jaxdl.ops.window import Pads, pad_space

FILLS = ("zeros", "reflect", "replicate", "circular")


def pad(
    x: Shaped[Array, "batch *space channels"], *, pads: Pads, fill: str
) -> Shaped[Array, "batch *out channels"]:
    """x with (low, high) elements added to each spatial dimension.

    Args:
        x: [batch, *space, channels].
        pads: (low, high) for each spatial dimension; with zeros, negative ones crop.
        fill: "zeros", "reflect", "replicate" or "circular", as in `jaxdl.Pad`.

    Returns:
        [batch, *out, channels], in x's dtype.
    """
    return _pad(gathered(x, *range(1, x.ndim - 1)), pads=pads, fill=fill)


@functools.partial(jax.jit, static_argnames=("pads", "fill"))
def _pad(x: Array, *, pads: Pads, fill: str) -> Array:
    if fill == "zeros":
        return pad_space(x, pads, 0)
    # The gradients of repeated elements are summed in the wide dtype.
    wide = x.astype(widest(x.dtype)) if jnp.issubdtype(x.dtype, jnp.floating) else x
    if fill == "replicate":
        return _replicate(wide, pads).astype(x.dtype)
    mode = "wrap" if fill == "circular" else "reflect"
    return jnp.pad(wide, ((0, 0), *pads, (0, 0)), mode=mode).astype(x.dtype)


def _replicate(x: Array, pads: Pads) -> Array:
    """The first and last elements repeated; `jnp.pad` also slices axes that it leaves as they are,
    which a sharded batch does not permit.
    """
    for axis, (low, high) in enumerate(pads, start=1):
        length = x.shape[axis]
        first = lax.slice_in_dim(x, 0, 1, axis=axis)
        last = lax.slice_in_dim(x, length - 1, length, axis=axis)
        x = jnp.concatenate([_repeat(first, axis, low), x, _repeat(last, axis, high)], axis)
    return x


def _repeat(x: Array, axis: int, count: int) -> Array:
    """An axis of size 1, `count` times."""
    shape = list(x.shape)
    shape[axis] = count
    return jnp.broadcast_to(x, shape)
