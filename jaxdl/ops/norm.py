"""Normalisation: moments and what is done with them. Moments are taken in at least float32."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from jaxdl.ops.floating import DType, widest
from jaxdl.ops.sharding import taken

Axes = Sequence[int]


def moments(
    x: Float[Array, "..."],
    axes: Axes,
    mask: Bool[Array, " batch"] | None = None,
    across: str | None = None,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Mean and (biased) variance over the axes, kept as axes of length 1; arguments as in
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
    """x − μ, the mean μ and the (biased) variance over the axes, the latter two with axes of length
    1.

    x − μ = (x − c) − d, with c an element of x and d = mean(x − c): μ = c + d is off by its
    rounding, which a division by a small deviation would show. So what is constant gives 0, and
    what is nearly so its own deviations (Chan et al., 1983, section 3, for the shift).

    Args:
        x: batch first.
        axes: the axes to average over.
        mask: which examples count; only where axis 0 is among the axes.
        across: the mapped axis along which the batch is split, whose parts are then taken together.
    """
    x = x.astype(widest(x.dtype))
    shift = lax.stop_gradient(_first_element(x, axes, mask))
    shares, count = _shares(x, axes, mask)
    moved = x - shift
    offset = _mean(moved, axes, shares)
    residuals = moved - offset
    variance = _mean(jnp.square(residuals), axes, shares)
    if across is None or lax.axis_size(across) == 1:
        return residuals, shift + offset, variance
    shift, offset, variance = _joint(jnp.stack([shift, offset, variance]), count, across)
    return (x - shift) - offset, shift + offset, variance


def _first_element(x: Array, axes: Axes, mask: Array | None) -> Array:
    """The first element along the axes that counts; zeros where there is none."""
    shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    if any(x.shape[axis] == 0 for axis in axes):
        return jnp.zeros(shape, x.dtype)
    if mask is not None:
        x = taken(x, jnp.argmax(mask), 0)
    for axis in axes:
        x = taken(x, 0, axis)
    return x


def _shares(x: Array, axes: Axes, mask: Array | None) -> tuple[Array | None, Array]:
    """What each example is of a mean, None where all are the same; and how many examples count."""
    if mask is None:
        return None, jnp.asarray(x.shape[0], x.dtype)
    weights = lax.broadcast_in_dim(mask.astype(x.dtype), (x.shape[0],) + (1,) * (x.ndim - 1), (0,))
    count = weights.sum()
    cells = math.prod(x.shape[axis] for axis in axes if axis != 0)
    return weights / (jnp.maximum(count, 1) * cells), count


def _mean(x: Array, axes: Axes, shares: Array | None) -> Array:
    return x.mean(axes, keepdims=True) if shares is None else (x * shares).sum(axes, keepdims=True)


def _joint(own: Array, count: Array, across: str) -> tuple[Array, Array, Array]:
    """Shift, offset and variance of all parts of a batch from those of each and its number of
    examples.

    The shift is that of the first part that has examples; the variance is by Chan et al., 1979,
    equation 2.1.
    """
    every, counts = lax.all_gather((own, count), across)
    shifts, offsets, variances = every[:, 0], every[:, 1], every[:, 2]
    shift = lax.stop_gradient(jnp.take(shifts, jnp.argmax(counts > 0), 0))
    shares = counts / jnp.maximum(counts.sum(), 1)
    shares = shares.reshape(-1, *(1,) * shift.ndim)
    offsets = (shifts - shift[None]) + offsets
    offset = (offsets * shares).sum(0)
    return shift, offset, ((variances + jnp.square(offsets - offset[None])) * shares).sum(0)


def normalise(
    residuals: Float[Array, "..."],
    variance: Float[Array, "..."],
    epsilon: float,
    scale: Float[Array, "..."] | None,
    bias: Float[Array, "..."] | None,
    dtype: DType,
) -> Float[Array, "..."]:
    """y = (x − μ) / √(σ² + ε) · scale + bias, in a dtype; arguments have the rank of x − μ or are
    None.
    """
    wide = widest(residuals.dtype, variance.dtype)
    factor = lax.rsqrt(variance.astype(wide) + epsilon)
    if scale is not None:
        factor = factor * scale.astype(wide)
    y = residuals.astype(wide) * factor
    if bias is not None:
        y = y + bias.astype(wide)
    return y.astype(dtype)
