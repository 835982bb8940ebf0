"""Convolution and its transpose, over any number of spatial dimensions, channels last.

On a CPU a convolution is XLA's library routine with gradients of our own (`ops.direct`), or, where
that is not the faster one,
a product of patches with a matrix: the gradients that `lax.conv_general_dilated` has run 8 to 20
times slower inside a compiled loop there (jax-ml/jax#12868). Other platforms use it. Each function
is compiled as one operation when called eagerly.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from jaxdl.compiling.jitted import in_mapped, program_platform
from jaxdl.ops.by_platform import by_platform
from jaxdl.ops.direct import conv_directly, is_fast, suits
from jaxdl.ops.floating import widest
from jaxdl.ops.patches import conv_by_patches
from jaxdl.ops.product import product
from jaxdl.ops.sharding import gathered, of_product, reshape
from jaxdl.ops.window import Pads, Sizes, extents, layout, pad_space, resolve_padding

MANY_INPUTS = 8
"""From how many input channels for each output on a transposed convolution on a CPU is summed from
overlapping outputs.
"""


def conv(
    x: Float[Array, "batch *space inputs"],
    kernel: Float[Array, "*window inputs_of_group outputs"],
    *,
    stride: Sizes,
    padding: str | Pads,
    dilation: Sizes,
    groups: int = 1,
) -> Float[Array, "batch *out outputs"]:
    """y[n, p, o] = Σ_{k,c} x[n, p·stride + k·dilation − low, c] W[k, c, o], as deep learning calls
    a cross-correlation.

    Args:
        x: channels last.
        kernel: spatial axes, then input channels of one group, then output channels; group g makes
            the g-th block of them.
        stride, dilation: one number a spatial dimension.
        padding: "SAME", "VALID" or (low, high) for each spatial dimension; zeros are added.
        groups: input channels are split into so many groups, each with its own kernel.
    """
    x = gathered(x, -1)
    return _conv(
        x,
        gathered(kernel) if groups > 1 else kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        fast=is_fast(),
        mapped=in_mapped(),
        platform=program_platform(),
    )


@functools.partial(
    jax.jit,
    static_argnames=("stride", "padding", "dilation", "groups", "fast", "mapped", "platform"),
)
def _conv(
    x: Array,
    kernel: Array,
    *,
    stride: Sizes,
    padding: str | Pads,
    dilation: Sizes,
    groups: int,
    fast: bool,
    mapped: bool,
    platform: str | None,
) -> Array:
    del mapped  # which `product` reads where it is traced
    kernel = kernel.astype(x.dtype)
    pads = resolve_padding(x.shape[1:-1], kernel.shape[:-2], stride, padding, dilation)
    keywords: dict[str, Any] = {
        "stride": stride,
        "pads": pads,
        "dilation": dilation,
        "groups": groups,
    }
    directly = fast and suits(x, kernel, **keywords)
    return by_platform(
        platform,
        x,
        kernel,
        cpu=functools.partial(conv_directly, pads=pads)
        if directly
        else functools.partial(conv_by_patches, **keywords),
        default=functools.partial(_conv_by_xla, **keywords),
    )


def conv_transpose(
    x: Float[Array, "batch *space inputs"],
    kernel: Float[Array, "*window inputs outputs"],
    *,
    stride: Sizes,
    padding: str | Pads,
    dilation: Sizes,
) -> Float[Array, "batch *out outputs"]:
    """The convolution of x with `stride − 1` zeros put between its elements; as
    `jax.lax.conv_transpose` has it.

    "SAME" gives space · stride outputs, "VALID" all that touch the input; explicit (low, high) pads
    the stretched input.
    """
    return _conv_transpose(
        gathered(x, -1),
        gathered(kernel),
        stride=stride,
        padding=padding,
        dilation=dilation,
        mapped=in_mapped(),
        platform=program_platform(),
    )


@functools.partial(jax.jit, static_argnames=("stride", "padding", "dilation", "mapped", "platform"))
def _conv_transpose(
    x: Array,
    kernel: Array,
    *,
    stride: Sizes,
    padding: str | Pads,
    dilation: Sizes,
    mapped: bool,
    platform: str | None,
) -> Array:
    del mapped  # as in `_conv`
    kernel = kernel.astype(x.dtype)
    window = kernel.shape[:-2]
    reach = extents(window, dilation)
    if isinstance(padding, str):
        pads = tuple(_transposed_pads(k, s, padding) for k, s in zip(reach, stride, strict=True))
    else:
        pads = padding
    keywords: dict[str, Any] = {"stride": stride, "pads": pads, "dilation": dilation}
    return by_platform(
        platform,
        x,
        kernel,
        cpu=functools.partial(_conv_transpose_on_cpu, **keywords),
        default=functools.partial(_conv_transpose_by_xla, **keywords),
    )


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
        out_sharding=of_product(x, kernel),
    )


def _transposed_pads(extent: int, stride: int, padding: str) -> tuple[int, int]:
    if padding == "SAME":
        total = extent + stride - 2
        low = extent - 1 if stride > extent - 1 else -(-total // 2)
    else:
        total = extent + stride - 2 + max(extent - stride, 0)
        low = extent - 1
    return low, total - low


def _conv_transpose_on_cpu(x: Array, kernel: Array, **keywords: Any) -> Array:
    """Of few outputs the overlapping ones are cheaper to move, else the patches of the inputs; each
    by 3 to 20 times.
    """
    *_, inputs, outputs = kernel.shape
    by = _conv_transpose_by_overlap if MANY_INPUTS * outputs < inputs else _conv_transpose_by_phases
    return by(x, kernel, **keywords)


def _conv_transpose_by_overlap(
    x: Array, kernel: Array, *, stride: Sizes, pads: Pads, dilation: Sizes
) -> Array:
    """One product gives what each input adds to each place of its window; padded to their places,
    these are summed.
    """
    *window, inputs, outputs = kernel.shape
    places = list(itertools.product(*map(range, window)))
    columns = jnp.moveaxis(kernel.reshape(len(places), inputs, outputs), 0, 1).reshape(inputs, -1)
    wide = widest(x.dtype)
    parts = lax.dot_general(
        x, columns, (((x.ndim - 1,), (0,)), ((), ())), preferred_element_type=wide
    )
    stretched = [(n - 1) * s + 1 for n, s in zip(x.shape[1:-1], stride, strict=True)]
    reach = extents(tuple(window), dilation)
    sizes = [
        n + low + high - (e - 1) for n, (low, high), e in zip(stretched, pads, reach, strict=True)
    ]
    zero, total = jnp.zeros((), wide), None
    for index, place in enumerate(places):
        part = parts[..., index * outputs : (index + 1) * outputs]
        before = [low - k * d for (low, _), k, d in zip(pads, place, dilation, strict=True)]
        after = [size - n - b for size, n, b in zip(sizes, stretched, before, strict=True)]
        spread = [(b, a, s - 1) for b, a, s in zip(before, after, stride, strict=True)]
        placed = lax.pad(part, zero, [(0, 0, 0), *spread, (0, 0, 0)])
        total = placed if total is None else total + placed
    assert total is not None
    return total.astype(x.dtype)


def _conv_transpose_by_phases(
    x: Array, kernel: Array, *, stride: Sizes, pads: Pads, dilation: Sizes
) -> Array:
    """Outputs of one place modulo the stride meet the same part of the window: a convolution of x
    for each such phase.

    Output q · s + r meets the places k for which r + k · d − low is a multiple m · s, each with the
    input q + m.
    """
    outputs = kernel.shape[-1]
    window, rank = kernel.shape[:-2], x.ndim - 2
    dimensions = list(zip(x.shape[1:-1], stride, pads, extents(window, dilation), strict=True))
    sizes = [(n - 1) * s + 1 + low + high - (e - 1) for n, s, (low, high), e in dimensions]
    turns = [-(-size // s) for size, s in zip(sizes, stride, strict=True)]
    met = [
        _met(*each) for each in zip(window, stride, [low for low, _ in pads], dilation, strict=True)
    ]
    moved = [[m for phase in phases for _, m in phase] for phases in met]
    before = [max(0, -min(each)) for each in moved]
    after = [
        max(0, turn - 1 + max(each) - (n - 1))
        for turn, each, n in zip(turns, moved, x.shape[1:-1], strict=True)
    ]
    padded = pad_space(x.astype(widest(x.dtype)), tuple(zip(before, after, strict=True)), 0)
    parts = []
    for phase in itertools.product(*met):
        places = list(itertools.product(*phase))
        if not places:
            parts.append(jnp.zeros((x.shape[0], *turns, outputs), x.dtype))
            continue
        starts = [[m + b for (_, m), b in zip(place, before, strict=True)] for place in places]
        slices = [
            lax.slice(
                padded,
                (0, *start, 0),
                (x.shape[0], *(i + n for i, n in zip(start, turns, strict=True)), x.shape[-1]),
            )
            for start in starts
        ]
        weights = [kernel[tuple(k for k, _ in place)] for place in places]
        patches = jnp.concatenate(slices, -1).astype(x.dtype)
        y = product(patches.reshape(-1, patches.shape[-1]), jnp.concatenate(weights, 0))
        parts.append(y.reshape(x.shape[0], *turns, outputs))
    y = reshape(jnp.stack(parts, 1), (x.shape[0], *stride, *turns, outputs))
    woven = [axis for d in range(1, rank + 1) for axis in (rank + d, d)]
    y = y.transpose(0, *woven, 2 * rank + 1)
    y = reshape(
        y, (x.shape[0], *(turn * s for turn, s in zip(turns, stride, strict=True)), outputs)
    )
    return lax.slice(y, (0,) * y.ndim, (x.shape[0], *sizes, outputs))


def _met(window: int, stride: int, low: int, dilation: int) -> list[list[tuple[int, int]]]:
    """For each phase of one dimension, the places k that it meets and the inputs' moves m."""
    phases = [
        [(k, *divmod(phase + k * dilation - low, stride)) for k in range(window)]
        for phase in range(stride)
    ]
    return [[(k, move) for k, move, rest in phase if rest == 0] for phase in phases]


def _conv_transpose_by_xla(
    x: Array, kernel: Array, *, stride: Sizes, pads: Pads, dilation: Sizes
) -> Array:
    return lax.conv_transpose(
        x, kernel, stride, pads, rhs_dilation=dilation, dimension_numbers=layout(x.ndim - 2)
    )
