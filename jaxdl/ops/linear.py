"""Products with a matrix of parameters."""

import math

from jax import Array, lax
from jaxtyping import Float

from jaxdl.ops.product import product


def linear(
    x: Float[Array, "*batch inputs"], kernel: Float[Array, "inputs outputs"], bias: Float[Array, " outputs"] | None
) -> Float[Array, "*batch outputs"]:
    """y = x W + b, over the last axis of x, in x's dtype.

    The other axes are laid into one: XLA on a CPU would compute an activation in front of a product of more axes several times
    over in the gradient, and take half as long again for a transformer's block.
    """
    flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    y = product(flat, kernel.astype(x.dtype)).reshape(*x.shape[:-1], kernel.shape[1])
    return y if bias is None else add_bias(y, bias)


def add_bias(y: Float[Array, "*batch outputs"], bias: Float[Array, " outputs"]) -> Float[Array, "*batch outputs"]:
    """y + b, with b along the last axis."""
    return y + lax.broadcast_in_dim(bias.astype(y.dtype), y.shape, (y.ndim - 1,))
