"""Normalisation: moments and what is done with them. Moments are taken in at least float32."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from jaxdl.ops.floating import widest


def moments(
    x: Float[Array, "..."], axes: Sequence[int], mask: Bool[Array, " batch"] | None = None
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Mean and (biased) variance over the axes, kept as axes of length 1.

    Args:
        x: batch first.
        axes: the axes to average over.
        mask: which examples count; only where axis 0 is among the axes.
    """
    x = x.astype(widest(x.dtype))
    if mask is None:
        mean = x.mean(axes, keepdims=True)
        return mean, jnp.square(x - mean).mean(axes, keepdims=True)
    weights = lax.broadcast_in_dim(mask.astype(x.dtype), (x.shape[0],) + (1,) * (x.ndim - 1), (0,))
    cells = 1
    for axis in axes:
        cells *= 1 if axis == 0 else x.shape[axis]
    share = weights / (jnp.maximum(weights.sum(), 1) * cells)
    mean = (x * share).sum(axes, keepdims=True)
    return mean, (jnp.square(x - mean) * share).sum(axes, keepdims=True)


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
