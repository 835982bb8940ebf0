"""How inputs are prepared for a layer: as JAX arrays, images in [0, 1], and zeros for padding."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.arrays import host_array, is_foreign
from jaxdl.core.padded import Padded, is_padded
from jaxdl.ops.floating import DType, as_floating, floating_dtype


def as_arrays(x: PyTree) -> PyTree:
    """An input with arrays of NumPy and other libraries as JAX arrays, in the enabled dtypes.

    Raises:
        ValueError: an integer does not fit the dtype that JAX has for it.
    """

    def convert(leaf: object) -> Array:
        return jnp.asarray(host_array(leaf, "input") if is_foreign(leaf) else leaf)

    return jax.tree.map(convert, x)


def scale_images(x: PyTree, dtype: DType | None = None) -> PyTree:
    """An input with its uint8 images as x / 255; of `Padded` sequences, their values.

    Args:
        x: arrays, or their `jax.ShapeDtypeStruct`.
        dtype: of the scaled images; None is float32.
    """
    return jax.tree.map(lambda leaf: _scale_image(leaf, dtype), x, is_leaf=is_padded)


def _scale_image(leaf: PyTree, dtype: DType | None) -> PyTree:
    if getattr(leaf, "dtype", None) != jnp.uint8:
        return leaf
    if is_padded(leaf):
        return Padded(_scale_image(leaf.values, dtype), leaf.lengths)
    if isinstance(leaf, Array):
        return as_floating(leaf, dtype)
    return jax.ShapeDtypeStruct(leaf.shape, floating_dtype(leaf, dtype))


def zero_padding(x: PyTree) -> PyTree:
    """An input with zeros for the padding of `Padded` sequences.

    The caller's padding may be infinite or NaN, and a gradient that is summed over all steps
    multiplies it by 0, which gives NaN.
    """

    def zero(leaf: PyTree) -> PyTree:
        return leaf.with_zero_padding() if is_padded(leaf) else leaf

    return jax.tree.map(zero, x, is_leaf=is_padded)
