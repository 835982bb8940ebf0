"""The patches that a convolution's window meets."""

import jax.numpy as jnp
from jax import Array

from jaxdl.ops.window import Sizes, shifted_slices

MAX_CHANNELS = 4
"""Up to this number of input channels patches are concatenated dimension by dimension."""


def extract_patches(x: Array, window: Sizes, stride: Sizes, dilation: Sizes) -> Array:
    """The patch at each position of the output, in the order of the kernel's rows: [batch, *out,
    window · channels].

    With few channels they are concatenated dimension by dimension, in longer runs of memory than
    those of one position of the window.

    Args:
        x: [batch, *space, channels], padded.
        window, stride, dilation: one for each spatial dimension.
    """
    dimensions = range(len(window))
    if x.shape[-1] > MAX_CHANNELS:
        stages = [tuple(dimensions)]
    else:
        stages = [(axis,) for axis in reversed(dimensions)]
    for axes in stages:
        sizes = [_along(axes, each) for each in (window, stride, dilation)]
        slices = shifted_slices(x, *sizes)
        x = slices[0] if len(slices) == 1 else jnp.concatenate(slices, -1)
    return x


def _along(axes: tuple[int, ...], sizes: Sizes) -> Sizes:
    """The sizes of some axes, and 1 for the others."""
    return tuple(size if axis in axes else 1 for axis, size in enumerate(sizes))
