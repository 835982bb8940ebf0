"""Products with a matrix of parameters."""

from jax import Array, lax
from jaxtyping import Float


def linear(
    x: Float[Array, "*batch inputs"], kernel: Float[Array, "inputs outputs"], bias: Float[Array, " outputs"] | None
) -> Float[Array, "*batch outputs"]:
    """y = x W + b, over the last axis of x, in x's dtype."""
    y = lax.dot_general(x, kernel.astype(x.dtype), (((x.ndim - 1,), (0,)), ((), ())))
    return y if bias is None else add_bias(y, bias)


def add_bias(y: Float[Array, "*batch outputs"], bias: Float[Array, " outputs"]) -> Float[Array, "*batch outputs"]:
    """y + b, with b along the last axis."""
    return y + lax.broadcast_in_dim(bias.astype(y.dtype), y.shape, (y.ndim - 1,))
