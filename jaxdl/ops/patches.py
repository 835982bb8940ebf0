"""Convolution as a product of patches with a matrix."""

import jax.numpy as jnp
from jax import Array, lax

from jaxdl.ops.floating import widest
from jaxdl.ops.product import product
from jaxdl.ops.window import Pads, Sizes, pad_space, shifted_slices

FEW_INPUTS = 4
"""Up to how many input channels the patches of a convolution on a CPU are put together dimension by
dimension.
"""


def conv_by_patches(
    x: Array, kernel: Array, *, stride: Sizes, pads: Pads, dilation: Sizes, groups: int
) -> Array:
    """`ops.conv.conv` with its padding resolved, where all patches are formed at once: [batch,
    *out, window · inputs].
    """
    *window, inputs, outputs = kernel.shape
    padded = pad_space(
        x.astype(widest(x.dtype)), pads, 0
    )  # in whose dtype the gradients of all that overlaps are summed
    if groups == 1:
        patches = _patches(padded, tuple(window), stride, dilation).astype(x.dtype)
        y = product(
            patches.reshape(-1, patches.shape[-1]), kernel.reshape(-1, outputs)
        )  # a plain product is XLA's fastest
        return y.reshape(*patches.shape[:-1], outputs)
    slices = shifted_slices(padded, tuple(window), stride, dilation)
    if inputs == 1:
        return _depthwise(slices, kernel.reshape(len(slices), groups, outputs // groups)).astype(
            x.dtype
        )
    slices = [part.astype(x.dtype) for part in slices]
    return _grouped(slices, kernel.reshape(len(slices), inputs, groups, outputs // groups))


def _patches(x: Array, window: Sizes, stride: Sizes, dilation: Sizes) -> Array:
    """What each place of the output meets, in the order of the kernel's rows: [batch, *out, window
    · channels].

    Of few channels they are put together dimension by dimension, in longer runs than those of one
    place of the window.
    """
    stages = (
        [tuple(range(len(window)))]
        if x.shape[-1] > FEW_INPUTS
        else [(axis,) for axis in reversed(range(len(window)))]
    )
    for axes in stages:
        sizes = [
            tuple(n if a in axes else 1 for a, n in enumerate(each))
            for each in (window, stride, dilation)
        ]
        slices = shifted_slices(x, *sizes)
        x = slices[0] if len(slices) == 1 else jnp.concatenate(slices, -1)
    return x


def _depthwise(slices: list[Array], kernel: Array) -> Array:
    """kernel: [window, channels, multiplier]. A product of matrices would be nine tenths zeros;
    sums of products are not.
    """
    shape = (*slices[0].shape, kernel.shape[-1])
    total = jnp.zeros(shape, slices[0].dtype)
    kernel = kernel.astype(total.dtype)
    for part, weights in zip(slices, kernel, strict=True):
        total = total + part[..., None] * lax.broadcast_in_dim(
            weights, shape, (len(shape) - 2, len(shape) - 1)
        )
    return total.reshape(*shape[:-2], -1)


def _grouped(slices: list[Array], kernel: Array) -> Array:
    """kernel: [window, inputs of a group, groups, outputs of a group]."""
    groups = kernel.shape[2]
    split = [part.reshape(*part.shape[:-1], groups, -1) for part in slices]
    patches = jnp.stack(split, -2)  # [batch, *out, groups, window, inputs]
    y = jnp.einsum("...gki,kigo->...go", patches, kernel)
    return y.reshape(*y.shape[:-2], -1)
