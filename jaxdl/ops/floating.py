"""Conversion to floating-point dtypes."""

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxdl.compiling.pytree import PyTree

DType = DTypeLike


def as_floating(x: Array, dtype: DType | None = None) -> Array:
    """Casts an input to the dtype of the computation.

    Floating inputs are cast to `dtype`, or keep their own if it is None. uint8 is scaled to
    x / 255 in [0, 1] (the UNORM convention of graphics), in float32 or `dtype`: images stay bytes
    until the layer that computes with them.

    Args:
        x: of any shape, floating or uint8.
        dtype: of the result.

    Raises:
        TypeError: x has another integer dtype, or is Boolean, and its scale is unknown.
    """
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x if dtype is None else x.astype(dtype)
    if x.dtype == jnp.uint8:
        return x.astype(dtype or jnp.float32) * (1 / 255)
    raise TypeError(
        f"expected floating-point numbers, or images in uint8 (read as x / 255), got {x.dtype} — "
        f"convert them with "
        "x.astype('float32'), or put Embedding in front if they are indices."
    )


def widest(*dtypes: DType) -> DType:
    """The widest of floating dtypes, and at least float32: the dtype of sums and moments.

    `jnp.promote_types` refuses to compare them if implicit promotion is forbidden.
    """
    candidates = [jnp.dtype(dtype) for dtype in (jnp.float32, *dtypes)]
    return max(candidates, key=lambda dtype: dtype.itemsize)


def floating_dtype(x: PyTree, dtype: DType | None = None) -> DType:
    """The dtype that `as_floating` returns, of an array or its `jax.ShapeDtypeStruct`."""
    if dtype is not None:
        return jnp.dtype(dtype)
    return x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.dtype(jnp.float32)
