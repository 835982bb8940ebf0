"""Weighted sums over the examples of a batch."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdl.losses.operands import AnyArray, PositionWeights, as_native


def weighted_sum(values: AnyArray, weights: PositionWeights) -> Float[Array, ""]:
    """The weighted sum over a batch, `Σ w v`, in at least float32.

    An example of weight 0 does not count, whatever its value, be it NaN.

    Args:
        values: v, `[batch]`.
        weights: w, `[batch]`.

    Raises:
        ValueError: the shapes differ, or the weights are by position.
    """
    if weights.ndim != 1:
        raise ValueError(
            f"weights of shape {weights.shape} are by position, which this training step does not "
            "take — give weights of examples, [examples]."
        )
    if values.shape != weights.shape:
        raise ValueError(
            f"expected one value for each of {len(weights)} examples, [batch], got shape "
            f"{values.shape}."
        )
    values = jnp.asarray(as_native("values", values))
    weights = jnp.asarray(as_native("weights", weights))
    dtype = jnp.dtype(jnp.float32)
    if values.dtype == jnp.float64:
        dtype = values.dtype
    counted = jnp.where(weights == 0, 0, values.astype(dtype))
    return jnp.sum(counted * weights.astype(dtype))
