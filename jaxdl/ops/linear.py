"""Products with a matrix of parameters, over the last axis."""

import math

from jax import Array, lax
from jaxtyping import Float, Shaped

from jaxdl.compiling.target import target
from jaxdl.ops.floating import widest
from jaxdl.ops.primitives import dot, product


def linear(
    x: Float[Array, "*batch inputs"],
    kernel: Float[Array, "inputs outputs"],
    bias: Float[Array, " outputs"] | None,
) -> Float[Array, "*batch outputs"]:
    """y = x W + b, over the last axis of x, in x's dtype.

    It is computed by rows: in the gradient of a product of more axes XLA on a CPU computes the
    activation before it several times, which makes a transformer block half as slow again.

    Args:
        x: [..., inputs].
        kernel: W [inputs, outputs].
        bias: b [outputs], or None.

    Returns:
        [..., outputs].
    """
    y = product(rows(x), kernel.astype(x.dtype)).reshape(*x.shape[:-1], kernel.shape[1])
    return y if bias is None else add_bias(y, bias)


def add_bias(
    y: Float[Array, "*batch outputs"], bias: Float[Array, " outputs"]
) -> Float[Array, "*batch outputs"]:
    """y + b, with b along the last axis; the sum, and the gradient of b, are taken in at least
    float32.
    """
    wide = widest(y.dtype)
    spread = lax.broadcast_in_dim(bias.astype(wide), y.shape, (y.ndim - 1,))
    return (y.astype(wide) + spread).astype(y.dtype)


def along_last(
    x: Float[Array, "*batch inner"], kernel: Float[Array, "inner columns"]
) -> Float[Array, "*batch columns"]:
    """x W over the last axis of x.

    In jaxdl's own programs the other axes are merged, which makes the gradient by W a tenth to a
    fifth faster on a CPU. Elsewhere they stay apart, since the second may be sharded over devices,
    which would have to gather it.
    """
    if x.ndim == 2 or not target().program:
        return dot(x, kernel)
    return product(rows(x), kernel).reshape(*x.shape[:-1], kernel.shape[1])


def rows(x: Shaped[Array, "*batch features"]) -> Shaped[Array, "rows features"]:
    """x with all of its axes but the last merged into one, as the operand of a product.

    Other functions of the same x or y are computed from rows, too: XLA on a CPU computes an array
    of another shape a second time, in a transformer's gradient with all terms of its sum.
    """
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
