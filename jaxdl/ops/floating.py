"""How numbers enter floating-point arithmetic."""

from typing import Any

import jax.numpy as jnp
from jax import Array

DType = Any


def as_floating(x: Array, dtype: DType | None = None) -> Array:
    """The input in the dtype of the computation.

    Floating inputs are cast to `dtype`, or keep their own where it is None. uint8 is read as an
    intensity, x / 255 in [0, 1] (the UNORM convention of graphics), in float32 or `dtype`: images
    stay bytes until the layer that computes with them.

    Raises:
        TypeError: x holds other integers, or booleans, whose scale cannot be known.
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
    """The widest of floating dtypes, and at least float32: what sums and moments are taken in.

    `jnp.promote_types` would refuse to compare them where implicit promotion is forbidden.
    """
    return max(
        (jnp.dtype(dtype) for dtype in (jnp.float32, *dtypes)), key=lambda dtype: dtype.itemsize
    )


def floating_dtype(x: Any, dtype: DType | None = None) -> DType:
    """The dtype that `as_floating` gives."""
    if dtype is not None:
        return jnp.dtype(dtype)
    return x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.dtype(jnp.float32)
