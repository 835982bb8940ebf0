"""Transposed convolution over any number of spatial dimensions, channels last.

On a CPU it is a product of matrices, 3 to 20 times faster than `lax.conv_transpose`; other
platforms use that.
"""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple, TypedDict

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from jaxdl.compiling.target import target
from jaxdl.ops.by_platform import by_platform
from jaxdl.ops.floating import widest
from jaxdl.ops.primitives import product
from jaxdl.ops.sharding import gathered, reshape
from jaxdl.ops.window import Pads, Sizes, extents, layout, pad_space

MIN_INPUTS_PER_OUTPUT = 8
"""With more input channels per output, overlapping outputs are summed."""


class _Options(TypedDict):
    stride: Sizes
    pads: Pads
    dilation: Sizes


def conv_transpose(
    x: Float[Array, "batch *space inputs"],
    kernel: Float[Array, "*window inputs_of_group outputs"],
    *,
    stride: Sizes,
    padding: str | Pads,
    dilation: Sizes,
    groups: int = 1,
) -> Float[Array, "batch *out outputs"]:
    """The convolution of x with `stride − 1` zeros between its elements, as
    `jax.lax.conv_transpose` defines it.

    Args:
        x: [batch, *space, inputs].
        kernel: [*window, inputs / groups, outputs]; group g makes the g-th block of outputs.
        stride, dilation: one for each spatial dimension.
        padding: "SAME" gives space · stride outputs, "VALID" all that meet the input, and (low,
            high) for each spatial dimension pads the dilated input.
        groups: the number of blocks that input channels are split into, each with its own kernel.

    Returns:
        [batch, *out, outputs], in x's dtype.
    """
    return _conv_transpose(
        gathered(x, -1),
        gathered(kernel),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        mapped=target().population,
        platform=target().platform,
    )


@functools.partial(
    jax.jit, static_argnames=("stride", "padding", "dilation", "groups", "mapped", "platform")
)
def _conv_transpose(
    x: Array,
    kernel: Array,
    *,
    stride: Sizes,
    padding: str | Pads,
    dilation: Sizes,
    groups: int,
    mapped: bool,
    platform: str | None,
) -> Array:
    del mapped  # `product` reads it while it is traced.
    kernel = kernel.astype(x.dtype)
    if isinstance(padding, str):
        reach = extents(kernel.shape[:-2], dilation)
        pads = tuple(_resolve(k, s, padding) for k, s in zip(reach, stride, strict=True))
    else:
        pads = padding
    options = _Options(stride=stride, pads=pads, dilation=dilation)
    *_, inputs, outputs = kernel.shape
    sum_overlaps = MIN_INPUTS_PER_OUTPUT * outputs < inputs * groups
    on_cpu = functools.partial(_by_overlaps if sum_overlaps else _by_phases, **options)
    return by_platform(
        platform,
        x,
        kernel,
        cpu=on_cpu if groups == 1 else functools.partial(_by_groups, on_cpu, groups),
        default=functools.partial(_by_xla, **options, groups=groups),
    )


def _by_groups(
    function: Callable[[Array, Array], Array], groups: int, x: Array, kernel: Array
) -> Array:
    """A function of x and the kernel, mapped over the groups."""
    split = x.reshape(*x.shape[:-1], groups, -1)
    kernels = kernel.reshape(*kernel.shape[:-1], groups, -1)
    y = jax.vmap(function, (-2, -2), -2)(split, kernels)
    return y.reshape(*y.shape[:-2], -1)


def _resolve(extent: int, stride: int, padding: str) -> tuple[int, int]:
    """The (low, high) padding of the dilated input along one dimension."""
    if padding == "SAME":
        total = extent + stride - 2
        low = extent - 1 if stride > extent - 1 else -(-total // 2)
    else:
        total = extent + stride - 2 + max(extent - stride, 0)
        low = extent - 1
    return low, total - low


def _by_xla(
    x: Array, kernel: Array, *, stride: Sizes, pads: Pads, dilation: Sizes, groups: int = 1
) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (1,) * len(stride),
        pads,
        lhs_dilation=stride,
        rhs_dilation=dilation,
        dimension_numbers=layout(x.ndim - 2),
        feature_group_count=groups,
    )


def _output_space(space: Sizes, window: Sizes, options: _Options) -> list[int]:
    reach = extents(window, options["dilation"])
    each = zip(space, options["stride"], options["pads"], reach, strict=True)
    return [(n - 1) * s + 1 + low + high - (e - 1) for n, s, (low, high), e in each]


def _by_overlaps(
    x: Array, kernel: Array, *, stride: Sizes, pads: Pads, dilation: Sizes
) -> Array:
    """One product gives what each input adds to each position of its window; these are padded to
    their positions in the output, and summed.
    """
    *window, inputs, outputs = kernel.shape
    positions = list(itertools.product(*map(range, window)))
    columns = kernel.reshape(len(positions), inputs, outputs)
    columns = jnp.moveaxis(columns, 0, 1).reshape(inputs, -1)
    wide = widest(x.dtype)
    contracted = (((x.ndim - 1,), (0,)), ((), ()))
    parts = lax.dot_general(x, columns, contracted, preferred_element_type=wide)
    dilated = [(n - 1) * s + 1 for n, s in zip(x.shape[1:-1], stride, strict=True)]
    options = _Options(stride=stride, pads=pads, dilation=dilation)
    sizes = _output_space(x.shape[1:-1], tuple(window), options)
    zero = jnp.zeros((), wide)
    total: Array | None = None
    for index, position in enumerate(positions):
        part = parts[..., index * outputs : (index + 1) * outputs]
        each = zip(pads, position, dilation, strict=True)
        before = [low - k * d for (low, _), k, d in each]
        after = [size - n - b for size, n, b in zip(sizes, dilated, before, strict=True)]
        spread = [(b, a, s - 1) for b, a, s in zip(before, after, stride, strict=True)]
        padded = lax.pad(part, zero, [(0, 0, 0), *spread, (0, 0, 0)])
        total = padded if total is None else total + padded
    assert total is not None
    return total.astype(x.dtype)


class _Tap(NamedTuple):
    """A position of the window along one dimension, and the offset of the input that it meets."""

    position: int
    offset: int


Phases = list[list[_Tap]]
"""The taps of each phase along one dimension."""


def _by_phases(x: Array, kernel: Array, *, stride: Sizes, pads: Pads, dilation: Sizes) -> Array:
    """Outputs of one position modulo the stride meet the same part of the window: a convolution of
    x for each such phase.

    Output q · s + r meets the positions k for which r + k · d − low is a multiple m · s, each with
    the input q + m.
    """
    options = _Options(stride=stride, pads=pads, dilation=dilation)
    sizes = _output_space(x.shape[1:-1], kernel.shape[:-2], options)
    counts = [-(-size // s) for size, s in zip(sizes, stride, strict=True)]
    lows = [low for low, _ in pads]
    each = zip(kernel.shape[:-2], stride, lows, dilation, strict=True)
    phases = [_phases(*arguments) for arguments in each]
    padded, before = _pad_for(phases, x, counts)
    parts = []
    for phase in itertools.product(*phases):
        taps = list(itertools.product(*phase))
        parts.append(_convolve_phase(padded, kernel, taps, before, counts))
    return _interleave(parts, stride, counts, sizes)


def _phases(window: int, stride: int, low: int, dilation: int) -> Phases:
    """The taps of each phase along one dimension."""
    phases: Phases = []
    for phase in range(stride):
        taps = []
        for position in range(window):
            offset, rest = divmod(phase + position * dilation - low, stride)
            if rest == 0:
                taps.append(_Tap(position, offset))
        phases.append(taps)
    return phases


def _pad_for(phases: list[Phases], x: Array, counts: list[int]) -> tuple[Array, list[int]]:
    """x, padded to all inputs that the phases meet, in the wide dtype; and the padding before."""
    pads = []
    for dimension, count, size in zip(phases, counts, x.shape[1:-1], strict=True):
        offsets = [tap.offset for taps in dimension for tap in taps]
        after = count - 1 + max(offsets) - (size - 1)
        pads.append((max(0, -min(offsets)), max(0, after)))
    return pad_space(x.astype(widest(x.dtype)), tuple(pads), 0), [before for before, _ in pads]


def _convolve_phase(
    padded: Array,
    kernel: Array,
    taps: list[tuple[_Tap, ...]],
    before: list[int],
    counts: list[int],
) -> Array:
    """The outputs of one phase, [batch, *counts, outputs]."""
    batch = padded.shape[0]
    if not taps:
        return jnp.zeros((batch, *counts, kernel.shape[-1]), kernel.dtype)
    slices = []
    for along in taps:
        start = [tap.offset + b for tap, b in zip(along, before, strict=True)]
        stop = [first + count for first, count in zip(start, counts, strict=True)]
        slices.append(lax.slice(padded, (0, *start, 0), (batch, *stop, padded.shape[-1])))
    weights = [kernel[tuple(tap.position for tap in along)] for along in taps]
    patches = jnp.concatenate(slices, -1).astype(kernel.dtype)
    y = product(patches.reshape(-1, patches.shape[-1]), jnp.concatenate(weights, 0))
    return y.reshape(batch, *counts, kernel.shape[-1])


def _interleave(
    parts: list[Array], stride: Sizes, counts: list[int], sizes: list[int]
) -> Array:
    """The outputs of all phases in their order, cut to their sizes."""
    batch, *_, outputs = parts[0].shape
    rank = len(stride)
    y = reshape(jnp.stack(parts, 1), (batch, *stride, *counts, outputs))
    interleaved = [axis for d in range(1, rank + 1) for axis in (rank + d, d)]
    y = y.transpose(0, *interleaved, 2 * rank + 1)
    space = [count * s for count, s in zip(counts, stride, strict=True)]
    y = reshape(y, (batch, *space, outputs))
    return lax.slice(y, (0,) * y.ndim, (batch, *sizes, outputs))
