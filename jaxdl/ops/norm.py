"""Normalisation by moments, which are taken in at least float32."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from jaxdl.ops.floating import DType, widest
from jaxdl.ops.sharding import take_one

Axes = Sequence[int]


def moments(
    x: Float[Array, "..."],
    axes: Axes,
    mask: Bool[Array, " batch"] | None = None,
    across: str | None = None,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """The mean and (biased) variance over some axes, kept as axes of size 1; arguments as in
    `centred`.
    """
    _, mean, variance = centred(x, axes, mask, across)
    return mean, variance


def centred(
    x: Float[Array, "..."],
    axes: Axes,
    mask: Bool[Array, " batch"] | None = None,
    across: str | None = None,
) -> tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]:
    """x − μ, the mean μ and the (biased) variance over some axes.

    x − μ = (x − c) − d, with c an element of x and d = mean(x − c): the rounding error of
    μ = c + d would show after the division by a small deviation. So constant inputs give 0, and
    nearly constant ones their own deviations. Source: Chan et al., 1983, section 3, for the shift.

    Args:
        x: [batch, ...].
        axes: the axes to average over.
        mask: [batch], the examples that count; only if axis 0 is among the axes.
        across: the mapped axis along which the batch is sharded; the moments are those of all
            shards.

    Returns:
        x − μ in at least float32, and μ and the variance, with axes of size 1.
    """
    x = x.astype(widest(x.dtype))
    shift = lax.stop_gradient(_first_element(x, axes, mask))
    weights, count = _weights(x, axes, mask)
    shifted = x - shift
    offset = _mean(shifted, axes, weights)
    residuals = shifted - offset
    variance = _mean(jnp.square(residuals), axes, weights)
    if across is None or lax.axis_size(across) == 1:
        return residuals, shift + offset, variance
    shift, offset, variance = _reduce(jnp.stack([shift, offset, variance]), count, across)
    return (x - shift) - offset, shift + offset, variance


def _first_element(x: Array, axes: Axes, mask: Array | None) -> Array:
    """The first element along the axes that counts; zeros if there is none."""
    shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    if any(x.shape[axis] == 0 for axis in axes):
        return jnp.zeros(shape, x.dtype)
    if mask is not None:
        x = take_one(x, jnp.argmax(mask), 0)
    for axis in axes:
        x = take_one(x, 0, axis)
    return x


def _weights(x: Array, axes: Axes, mask: Array | None) -> tuple[Array | None, Array]:
    """The weight of each example in a mean, None if all are equal; and the number of examples."""
    if mask is None:
        return None, jnp.asarray(x.shape[0], x.dtype)
    shape = (x.shape[0],) + (1,) * (x.ndim - 1)
    weights = lax.broadcast_in_dim(mask.astype(x.dtype), shape, (0,))
    count = weights.sum()
    size = math.prod(x.shape[axis] for axis in axes if axis != 0)
    return weights / (jnp.maximum(count, 1) * size), count


def _mean(x: Array, axes: Axes, weights: Array | None) -> Array:
    if weights is None:
        return x.mean(axes, keepdims=True)
    return (x * weights).sum(axes, keepdims=True)


def _reduce(moments: Array, count: Array, across: str) -> tuple[Array, Array, Array]:
    """Shift, offset and variance of all shards of a batch, from those of each and its number of
    examples.

    The shift is that of the first shard that has examples. Source: Chan et al., 1979, equation
    2.1, for the variance.
    """
    every, counts = lax.all_gather((moments, count), across)
    shifts = every[:, 0]
    offsets = every[:, 1]
    variances = every[:, 2]
    shift = lax.stop_gradient(jnp.take(shifts, jnp.argmax(counts > 0), 0))
    weights = counts / jnp.maximum(counts.sum(), 1)
    weights = weights.reshape(-1, *(1,) * shift.ndim)
    offsets = (shifts - shift[None]) + offsets
    offset = (offsets * weights).sum(0)
    squares = variances + jnp.square(offsets - offset[None])
    return shift, offset, (squares * weights).sum(0)


def normalise(
    residuals: Float[Array, "..."],
    variance: Float[Array, "..."],
    epsilon: float,
    scale: Float[Array, "..."] | None,
    bias: Float[Array, "..."] | None,
    dtype: DType,
) -> Float[Array, "..."]:
    """y = (x − μ) / √(σ² + ε) · scale + bias.

    Args:
        residuals: x − μ.
        variance: σ², of the rank of x − μ.
        epsilon: ε.
        scale, bias: of the rank of x − μ, or None.
        dtype: of y.
    """
    wide = widest(residuals.dtype, variance.dtype)
    factor = lax.rsqrt(variance.astype(wide) + epsilon)
    if scale is not None:
        factor = factor * scale.astype(wide)
    y = residuals.astype(wide) * factor
    if bias is not None:
        y = y + bias.astype(wide)
    return y.astype(dtype)
