"""Products with a matrix of parameters."""

import math

from jax import Array, lax
from jaxtyping import Float, Shaped

from jaxdl.ops.floating import widest
from jaxdl.ops.product import product


def linear(
    x: Float[Array, "*batch inputs"],
    kernel: Float[Array, "inputs outputs"],
    bias: Float[Array, " outputs"] | None,
) -> Float[Array, "*batch outputs"]:
    """y = x W + b, over the last axis of x, in x's dtype.

    By rows: XLA on a CPU would compute an activation in front of a product of more axes several
    times over in the gradient, and take half as long again for a transformer's block.
    """
    y = product(rows(x), kernel.astype(x.dtype)).reshape(*x.shape[:-1], kernel.shape[1])
    return y if bias is None else add_bias(y, bias)


def add_bias(
    y: Float[Array, "*batch outputs"], bias: Float[Array, " outputs"]
) -> Float[Array, "*batch outputs"]:
    """y + b, with b along the last axis; added, and the gradient of b summed, in at least
    float32.
    """
    wide = widest(y.dtype)
    return (
        y.astype(wide) + lax.broadcast_in_dim(bias.astype(wide), y.shape, (y.ndim - 1,))
    ).astype(y.dtype)


def rows(x: Shaped[Array, "*batch features"]) -> Shaped[Array, "rows features"]:
    """x with all of its axes but the last laid into one, as a product wants it.

    What else is made of the same x or y is best made of rows, too: of another shape XLA on a CPU
    computes it a second time, in a transformer's gradient with all that it is a sum of.
    """
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
