"""Convolution over any number of spatial dimensions, channels last.

On a CPU it is XLA's library routine with gradients of the same kind (`ops.primitives`), or, where
that is slower, a product of patches with a matrix: the gradients of `lax.conv_general_dilated` run
8 to 20 times slower inside of a compiled loop there (jax-ml/jax#12868). Other platforms use it.
Called eagerly, it is compiled as one operation.
"""

import functools
from typing import TypedDict

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from jaxdl.compiling.target import target
from jaxdl.ops.by_platform import by_platform
from jaxdl.ops.conv_algorithm import native_conv_is_fast, use_native_conv
from jaxdl.ops.floating import widest
from jaxdl.ops.primitives import native_conv, patch_conv
from jaxdl.ops.sharding import gathered, product_sharding
from jaxdl.ops.window import Pads, Sizes, layout, pad_space, resolve_padding, shifted_slices


class _Options(TypedDict):
    stride: Sizes
    pads: Pads
    dilation: Sizes
    groups: int


def conv(
    x: Float[Array, "batch *space inputs"],
    kernel: Float[Array, "*window inputs_of_group outputs"],
    *,
    stride: Sizes,
    padding: str | Pads,
    dilation: Sizes,
    groups: int = 1,
) -> Float[Array, "batch *out outputs"]:
    """y[n, p, o] = Σ_{k,c} x[n, p·stride + k·dilation − low, c] W[k, c, o], the cross-correlation
    that deep learning calls a convolution.

    Args:
        x: [batch, *space, inputs].
        kernel: W [*window, inputs / groups, outputs]; group g makes the g-th block of outputs.
        stride, dilation: one for each spatial dimension.
        padding: "SAME", "VALID" or (low, high) for each spatial dimension; zeros are added.
        groups: the number of blocks that input channels are split into, each with its own kernel.

    Returns:
        [batch, *out, outputs], in x's dtype.
    """
    return _conv(
        gathered(x, -1),
        gathered(kernel) if groups > 1 else kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        native=native_conv_is_fast(),
        mapped=target().population,
        platform=target().platform,
    )


@functools.partial(
    jax.jit,
    static_argnames=("stride", "padding", "dilation", "groups", "native", "mapped", "platform"),
)
def _conv(
    x: Array,
    kernel: Array,
    *,
    stride: Sizes,
    padding: str | Pads,
    dilation: Sizes,
    groups: int,
    native: bool,
    mapped: bool,
    platform: str | None,
) -> Array:
    del mapped  # `product` reads it while it is traced.
    kernel = kernel.astype(x.dtype)
    pads = resolve_padding(x.shape[1:-1], kernel.shape[:-2], stride, padding, dilation)
    options = _Options(stride=stride, pads=pads, dilation=dilation, groups=groups)
    if native and use_native_conv(x, kernel, **options):
        on_cpu = functools.partial(native_conv, pads=pads)
    else:
        on_cpu = functools.partial(conv_by_patches, **options)
    default = functools.partial(_conv_by_xla, **options)
    return by_platform(platform, x, kernel, cpu=on_cpu, default=default)


def _conv_by_xla(
    x: Array, kernel: Array, *, stride: Sizes, pads: Pads, dilation: Sizes, groups: int
) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        stride,
        pads,
        rhs_dilation=dilation,
        dimension_numbers=layout(x.ndim - 2),
        feature_group_count=groups,
        out_sharding=product_sharding(x, kernel),
    )


def conv_by_patches(
    x: Array, kernel: Array, *, stride: Sizes, pads: Pads, dilation: Sizes, groups: int
) -> Array:
    """`conv` as a product of all patches with a matrix."""
    if groups == 1:
        return patch_conv(x, kernel, stride, pads, dilation)
    *window, inputs, outputs = kernel.shape
    # The gradients of all overlapping patches are summed in the wide dtype.
    padded = pad_space(x.astype(widest(x.dtype)), pads, 0)
    slices = shifted_slices(padded, tuple(window), stride, dilation)
    outputs_of_group = outputs // groups
    if inputs == 1:
        kernel = kernel.reshape(len(slices), groups, outputs_of_group)
        return _depthwise(slices, kernel).astype(x.dtype)
    slices = [part.astype(x.dtype) for part in slices]
    return _grouped(slices, kernel.reshape(len(slices), inputs, groups, outputs_of_group))


def _depthwise(slices: list[Array], kernel: Array) -> Array:
    """A sum of products, since nine tenths of a product of matrices would be zeros.

    Args:
        slices: [batch, *out, channels] for each position of the window.
        kernel: [window, channels, multiplier].
    """
    shape = (*slices[0].shape, kernel.shape[-1])
    total = jnp.zeros(shape, slices[0].dtype)
    kernel = kernel.astype(total.dtype)
    last_two = (len(shape) - 2, len(shape) - 1)
    for part, weights in zip(slices, kernel, strict=True):
        total = total + part[..., None] * lax.broadcast_in_dim(weights, shape, last_two)
    return total.reshape(*shape[:-2], -1)


def _grouped(slices: list[Array], kernel: Array) -> Array:
    """A product for each group.

    Args:
        slices: [batch, *out, channels] for each position of the window.
        kernel: [window, inputs of a group, groups, outputs of a group].
    """
    groups = kernel.shape[2]
    split = [part.reshape(*part.shape[:-1], groups, -1) for part in slices]
    patches = jnp.stack(split, -2)  # [batch, *out, groups, window, inputs]
    y = jnp.einsum("...gki,kigo->...go", patches, kernel)
    return y.reshape(*y.shape[:-2], -1)
