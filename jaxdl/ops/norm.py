"""Normalisation: moments and what is done with them. Moments are taken in at least float32."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from jaxdl.ops.floating import widest


def moments(
    x: Float[Array, "..."], axes: Sequence[int], mask: Bool[Array, " batch"] | None = None, across: str | None = None
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Mean and (biased) variance over the axes, kept as axes of length 1.

    Args:
        x: batch first.
        axes: the axes to average over.
        mask: which examples count; only where axis 0 is among the axes.
        across: the mapped axis along which the batch is split, whose parts are then taken together.
    """
    x = x.astype(widest(x.dtype))
    mean, variance, count = _own_moments(x, axes, mask)
    if across is None or lax.axis_size(across) == 1:
        return mean, variance
    return _joint(mean, variance, count, across)


def _joint(mean: Array, variance: Array, count: Array, across: str) -> tuple[Array, Array]:
    """The moments of all parts of a batch from those of each and its number of examples (Chan et al., 1979, equation 2.1)."""
    means, variances, counts = lax.all_gather((mean, variance, count), across)
    shares = counts / jnp.maximum(counts.sum(), 1)
    shares = shares.reshape(-1, *(1,) * mean.ndim)
    joint = (means * shares).sum(0)
    return joint, ((variances + jnp.square(means - joint[None])) * shares).sum(0)


def _own_moments(x: Array, axes: Sequence[int], mask: Array | None) -> tuple[Array, Array, Array]:
    """Mean, variance, and how many examples they are of."""
    if mask is None:
        mean = x.mean(axes, keepdims=True)
        return mean, jnp.square(x - mean).mean(axes, keepdims=True), jnp.asarray(x.shape[0], x.dtype)
    weights = lax.broadcast_in_dim(mask.astype(x.dtype), (x.shape[0],) + (1,) * (x.ndim - 1), (0,))
    cells = 1
    for axis in axes:
        cells *= 1 if axis == 0 else x.shape[axis]
    share = weights / (jnp.maximum(weights.sum(), 1) * cells)
    mean = (x * share).sum(axes, keepdims=True)
    return mean, (jnp.square(x - mean) * share).sum(axes, keepdims=True), weights.sum()


def normalise(
    x: Float[Array, "..."],
    mean: Float[Array, "..."] | None,
    variance: Float[Array, "..."],
    epsilon: float,
    scale: Float[Array, "..."] | None,
    bias: Float[Array, "..."] | None,
) -> Float[Array, "..."]:
    """y = (x − mean) / √(variance + ε) · scale + bias, in x's dtype; arguments have x's rank or are None."""
    wide = widest(x.dtype, variance.dtype)
    factor = lax.rsqrt(variance.astype(wide) + epsilon)
    if scale is not None:
        factor = factor * scale.astype(wide)
    y = x.astype(wide)
    y = (y if mean is None else y - mean.astype(wide)) * factor
    if bias is not None:
        y = y + bias.astype(wide)
    return y.astype(x.dtype)
