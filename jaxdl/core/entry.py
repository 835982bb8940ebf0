"""How inputs enter a layer: as arrays of JAX, images in [0, 1], and zeros behind the ends of
sequences.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl.core.arrays import host_array, is_foreign
from jaxdl.core.padded import Padded
from jaxdl.ops.floating import DType, as_floating, floating_dtype


def as_arrays(x: Any) -> Any:
    """An input with its NumPy arrays, and those of other libraries, as JAX has them, in the dtypes
    that JAX has enabled.

    Raises:
        ValueError: an integer does not fit the dtype that JAX has for it, and would become another
            one.
    """
    return jax.tree.map(
        lambda leaf: jnp.asarray(host_array(leaf, "input") if is_foreign(leaf) else leaf), x
    )


def as_intensities(x: Any, dtype: DType | None = None) -> Any:
    """An input with its images in uint8 as x / 255, in a dtype or in float32; of `Padded`
    sequences, their values.

    Of `jax.ShapeDtypeStruct`, the shapes and dtypes of that.
    """
    return jax.tree.map(lambda part: _intensity(part, dtype), x, is_leaf=_is_padded)


def _intensity(part: Any, dtype: DType | None) -> Any:
    if getattr(part, "dtype", None) != jnp.uint8:
        return part
    if _is_padded(part):
        return Padded(_intensity(part.values, dtype), part.lengths)
    if isinstance(part, Array):
        return as_floating(part, dtype)
    return jax.ShapeDtypeStruct(part.shape, floating_dtype(part, dtype))


def zero_behind(x: Any) -> Any:
    """An input with zeros behind the lengths of `Padded` sequences.

    What a caller left there may be infinite or no number, and a gradient that sums over all steps
    multiplies it by 0, which gives NaN.
    """
    return jax.tree.map(
        lambda part: _zeroed(part) if _is_padded(part) else part, x, is_leaf=_is_padded
    )


def _zeroed(x: Padded) -> Padded:
    within = x.mask.reshape(x.shape[:2] + (1,) * (x.ndim - 2))
    return Padded(jnp.where(within, x.values, jnp.zeros((), x.dtype)), x.lengths)


def _is_padded(x: Any) -> bool:
    return isinstance(x, Padded)
