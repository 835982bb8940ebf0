"""How inputs enter a layer: as arrays of JAX, images in [0, 1], and zeros behind the ends of sequences."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdl.ops.floating import DType, as_floating, floating_dtype
from jaxdl.padded import Padded


def as_arrays(x: Any) -> Any:
    """An input with its NumPy arrays as JAX has them, in the dtypes that JAX has enabled.

    Raises:
        ValueError: an integer does not fit the dtype that JAX has for it, and would become another one.
    """
    return jax.tree.map(lambda leaf: leaf if isinstance(leaf, Array) else _as_array(leaf), x)


def _as_array(leaf: Any) -> Array:
    given = np.asarray(leaf)
    kept = jax.dtypes.canonicalize_dtype(given.dtype) if given.dtype.kind in "iu" else given.dtype
    if given.dtype.kind in "iu" and kept != given.dtype and given.size:
        least, greatest = int(given.min()), int(given.max())
        bounds = np.iinfo(kept)
        if least < bounds.min or greatest > bounds.max:
            wrong = greatest if greatest > bounds.max else least
            raise ValueError(
                f"the integer {wrong} of an input in {given.dtype} does not fit {kept}, which is what JAX has for it — number "
                "the values from 0 on, as np.unique(x, return_inverse=True) does, or call "
                "jax.config.update('jax_enable_x64', True)."
            )
    return jnp.asarray(leaf)


def as_intensities(x: Any, dtype: DType | None = None) -> Any:
    """An input with its images in uint8 as x / 255, in a dtype or in float32; of `Padded` sequences, their values.

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

    What a caller left there may be infinite or no number, and a gradient that sums over all steps multiplies it by 0, which
    gives NaN.
    """
    return jax.tree.map(lambda part: _zeroed(part) if _is_padded(part) else part, x, is_leaf=_is_padded)


def _zeroed(x: Padded) -> Padded:
    within = x.mask.reshape(x.shape[:2] + (1,) * (x.ndim - 2))
    return Padded(jnp.where(within, x.values, jnp.zeros((), x.dtype)), x.lengths)


def _is_padded(x: Any) -> bool:
    return isinstance(x, Padded)
