"""Convolution and its transpose, over any number of spatial dimensions, channels last.

On a CPU a convolution is a product of patches with a matrix: XLA's own convolution has a gradient that runs 8 to 20
times slower inside a compiled loop (jax-ml/jax#12868). Other platforms use `lax.conv_general_dilated`. Each function is
compiled as one operation when called eagerly.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from jaxdl.ops.product import product

Pads = tuple[tuple[int, int], ...]
Sizes = tuple[int, ...]
FEW_INPUTS = 4
"""Up to how many input channels the patches of a convolution on a CPU are put together dimension by dimension."""
MANY_INPUTS = 8
"""From how many input channels for each output on a transposed convolution on a CPU is summed from overlapping outputs."""


@functools.partial(jax.jit, static_argnames=("stride", "padding", "dilation", "groups"))
def conv(
    x: Float[Array, "batch *space inputs"],
    kernel: Float[Array, "*window inputs_of_group outputs"],
    *,
    stride: Sizes,
    padding: str | Pads,
    dilation: Sizes,
    groups: int = 1,
) -> Float[Array, "batch *out outputs"]:
    """y[n, p, o] = Σ_{k,c} x[n, p·stride + k·dilation − low, c] W[k, c, o], as deep learning calls a cross-correlation.

    Args:
        x: channels last.
        kernel: spatial axes, then input channels of one group, then output channels; group g makes the g-th block of them.
        stride, dilation: one number a spatial dimension.
        padding: "SAME", "VALID" or (low, high) for each spatial dimension; zeros are added.
        groups: input channels are split into so many groups, each with its own kernel.
    """
    kernel = kernel.astype(x.dtype)
    window = kernel.shape[:-2]
    pads = resolve_padding(x.shape[1:-1], window, stride, padding, dilation)
    keywords: dict[str, Any] = {"stride": stride, "pads": pads, "dilation": dilation, "groups": groups}
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_conv_by_patches, **keywords),
        default=functools.partial(_conv_by_xla, **keywords),
    )


@functools.partial(jax.jit, static_argnames=("stride", "padding", "dilation"))
def conv_transpose(
    x: Float[Array, "batch *space inputs"],
    kernel: Float[Array, "*window inputs outputs"],
    *,
    stride: Sizes,
    padding: str | Pads,
    dilation: Sizes,
) -> Float[Array, "batch *out outputs"]:
    """The convolution of x with `stride − 1` zeros put between its elements; as `jax.lax.conv_transpose` has it.

    "SAME" gives space · stride outputs, "VALID" all that touch the input; explicit (low, high) pads the stretched input.
    """
    kernel = kernel.astype(x.dtype)
    window = kernel.shape[:-2]
    extents = _extents(window, dilation)
    if isinstance(padding, str):
        pads = tuple(_transposed_pads(k, s, padding) for k, s in zip(extents, stride, strict=True))
    else:
        pads = padding
    keywords: dict[str, Any] = {"stride": stride, "pads": pads, "dilation": dilation}
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_conv_transpose_on_cpu, **keywords),
        default=functools.partial(_conv_transpose_by_xla, **keywords),
    )


def resolve_padding(space: Sizes, window: Sizes, stride: Sizes, padding: str | Pads, dilation: Sizes) -> Pads:
    """The (low, high) padding of each spatial dimension."""
    if isinstance(padding, str):
        return tuple(lax.padtype_to_pads(space, _extents(window, dilation), stride, padding))
    return padding


def shifted_slices(x: Array, window: Sizes, stride: Sizes, dilation: Sizes) -> list[Array]:
    """For each place of the window, row by row, the elements of (padded) x that it meets: [batch, *out, channels]."""
    out = [(n - e) // s + 1 for n, e, s in zip(x.shape[1:-1], _extents(window, dilation), stride, strict=True)]
    slices = []
    for place in itertools.product(*map(range, window)):
        start = [k * d for k, d in zip(place, dilation, strict=True)]
        stop = [i + (n - 1) * s + 1 for i, n, s in zip(start, out, stride, strict=True)]
        slices.append(lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[-1]), (1, *stride, 1)))
    return slices


def pad_space(x: Array, pads: Pads, value: Any) -> Array:
    """x with its spatial dimensions padded (or, where negative, cropped)."""
    if all(low == high == 0 for low, high in pads):
        return x
    return lax.pad(x, jnp.asarray(value, x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)])


def _extents(window: Sizes, dilation: Sizes) -> Sizes:
    return tuple((k - 1) * d + 1 for k, d in zip(window, dilation, strict=True))


def _conv_by_patches(x: Array, kernel: Array, *, stride: Sizes, pads: Pads, dilation: Sizes, groups: int) -> Array:
    *window, inputs, outputs = kernel.shape
    padded = pad_space(x, pads, 0)
    if groups == 1:
        patches = _patches(padded, tuple(window), stride, dilation)
        y = product(patches.reshape(-1, patches.shape[-1]), kernel.reshape(-1, outputs))  # a plain product is XLA's fastest
        return y.reshape(*patches.shape[:-1], outputs)
    slices = shifted_slices(padded, tuple(window), stride, dilation)
    if inputs == 1:
        return _depthwise(slices, kernel.reshape(len(slices), groups, outputs // groups))
    return _grouped(slices, kernel.reshape(len(slices), inputs, groups, outputs // groups))


def _patches(x: Array, window: Sizes, stride: Sizes, dilation: Sizes) -> Array:
    """What each place of the output meets, in the order of the kernel's rows: [batch, *out, window · channels].

    Of few channels they are put together dimension by dimension, in longer runs than those of one place of the window.
    """
    stages = [tuple(range(len(window)))] if x.shape[-1] > FEW_INPUTS else [(axis,) for axis in reversed(range(len(window)))]
    for axes in stages:
        sizes = [tuple(n if a in axes else 1 for a, n in enumerate(each)) for each in (window, stride, dilation)]
        slices = shifted_slices(x, *sizes)
        x = slices[0] if len(slices) == 1 else jnp.concatenate(slices, -1)
    return x


def _depthwise(slices: list[Array], kernel: Array) -> Array:
    """kernel: [window, channels, multiplier]. A product of matrices would be nine tenths zeros; sums of products are not."""
    shape = (*slices[0].shape, kernel.shape[-1])
    total = jnp.zeros(shape, slices[0].dtype)
    for part, weights in zip(slices, kernel, strict=True):
        total = total + part[..., None] * lax.broadcast_in_dim(weights, shape, (len(shape) - 2, len(shape) - 1))
    return total.reshape(*shape[:-2], -1)


def _grouped(slices: list[Array], kernel: Array) -> Array:
    """kernel: [window, inputs of a group, groups, outputs of a group]."""
    groups = kernel.shape[2]
    split = [part.reshape(*part.shape[:-1], groups, -1) for part in slices]
    patches = jnp.stack(split, -2)  # [batch, *out, groups, window, inputs]
    y = jnp.einsum("...gki,kigo->...go", patches, kernel)
    return y.reshape(*y.shape[:-2], -1)


def _conv_by_xla(x: Array, kernel: Array, *, stride: Sizes, pads: Pads, dilation: Sizes, groups: int) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        stride,
        pads,
        rhs_dilation=dilation,
        dimension_numbers=_layout(x.ndim - 2),
        feature_group_count=groups,
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
    """Of few outputs the overlapping ones are cheaper to move, else the patches of the inputs; each by 3 to 20 times."""
    *_, inputs, outputs = kernel.shape
    by = _conv_transpose_by_overlap if MANY_INPUTS * outputs < inputs else _conv_transpose_by_phases
    return by(x, kernel, **keywords)


def _conv_transpose_by_overlap(x: Array, kernel: Array, *, stride: Sizes, pads: Pads, dilation: Sizes) -> Array:
    """One product gives what each input adds to each place of its window; padded to their places, these are summed."""
    *window, inputs, outputs = kernel.shape
    places = list(itertools.product(*map(range, window)))
    columns = jnp.moveaxis(kernel.reshape(len(places), inputs, outputs), 0, 1).reshape(inputs, -1)
    parts = lax.dot_general(x, columns, (((x.ndim - 1,), (0,)), ((), ())))
    stretched = [(n - 1) * s + 1 for n, s in zip(x.shape[1:-1], stride, strict=True)]
    extents = _extents(tuple(window), dilation)
    sizes = [n + low + high - (e - 1) for n, (low, high), e in zip(stretched, pads, extents, strict=True)]
    zero, total = jnp.zeros((), x.dtype), None
    for index, place in enumerate(places):
        part = parts[..., index * outputs : (index + 1) * outputs]
        before = [low - k * d for (low, _), k, d in zip(pads, place, dilation, strict=True)]
        after = [size - n - b for size, n, b in zip(sizes, stretched, before, strict=True)]
        spread = [(b, a, s - 1) for b, a, s in zip(before, after, stride, strict=True)]
        placed = lax.pad(part, zero, [(0, 0, 0), *spread, (0, 0, 0)])
        total = placed if total is None else total + placed
    assert total is not None
    return total


def _conv_transpose_by_phases(x: Array, kernel: Array, *, stride: Sizes, pads: Pads, dilation: Sizes) -> Array:
    """Outputs of one place modulo the stride meet the same part of the window: a convolution of x for each such phase.

    Output q · s + r meets the places k for which r + k · d − low is a multiple m · s, each with the input q + m.
    """
    outputs = kernel.shape[-1]
    window, rank = kernel.shape[:-2], x.ndim - 2
    dimensions = list(zip(x.shape[1:-1], stride, pads, _extents(window, dilation), strict=True))
    sizes = [(n - 1) * s + 1 + low + high - (e - 1) for n, s, (low, high), e in dimensions]
    turns = [-(-size // s) for size, s in zip(sizes, stride, strict=True)]
    met = [_met(*each) for each in zip(window, stride, [low for low, _ in pads], dilation, strict=True)]
    moved = [[m for phase in phases for _, m in phase] for phases in met]
    before = [max(0, -min(each)) for each in moved]
    after = [max(0, turn - 1 + max(each) - (n - 1)) for turn, each, n in zip(turns, moved, x.shape[1:-1], strict=True)]
    padded = pad_space(x, tuple(zip(before, after, strict=True)), 0)
    parts = []
    for phase in itertools.product(*met):
        places = list(itertools.product(*phase))
        if not places:
            parts.append(jnp.zeros((x.shape[0], *turns, outputs), x.dtype))
            continue
        starts = [[m + b for (_, m), b in zip(place, before, strict=True)] for place in places]
        slices = [
            lax.slice(padded, (0, *start, 0), (x.shape[0], *(i + n for i, n in zip(start, turns, strict=True)), x.shape[-1]))
            for start in starts
        ]
        weights = [kernel[tuple(k for k, _ in place)] for place in places]
        patches = jnp.concatenate(slices, -1)
        y = product(patches.reshape(-1, patches.shape[-1]), jnp.concatenate(weights, 0))
        parts.append(y.reshape(x.shape[0], *turns, outputs))
    y = jnp.stack(parts).reshape(*stride, x.shape[0], *turns, outputs)
    woven = [axis for d in range(rank) for axis in (rank + 1 + d, d)]
    y = y.transpose(rank, *woven, 2 * rank + 1)
    y = y.reshape(x.shape[0], *(turn * s for turn, s in zip(turns, stride, strict=True)), outputs)
    return lax.slice(y, (0,) * y.ndim, (x.shape[0], *sizes, outputs))


def _met(window: int, stride: int, low: int, dilation: int) -> list[list[tuple[int, int]]]:
    """For each phase of one dimension, the places k that it meets and the inputs' moves m."""
    phases = [[(k, *divmod(phase + k * dilation - low, stride)) for k in range(window)] for phase in range(stride)]
    return [[(k, move) for k, move, rest in phase if rest == 0] for phase in phases]


def _conv_transpose_by_xla(x: Array, kernel: Array, *, stride: Sizes, pads: Pads, dilation: Sizes) -> Array:
    return lax.conv_transpose(x, kernel, stride, pads, rhs_dilation=dilation, dimension_numbers=_layout(x.ndim - 2))


def _layout(dimensions: int) -> tuple[str, str, str]:
    space = "DHW"[-dimensions:]
    return f"N{space}C", f"{space}IO", f"N{space}C"
