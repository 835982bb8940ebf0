"""Pooling over windows, channels last.

On a CPU the window is taken apart into strided slices: XLA's `reduce_window` has a slow gradient
there. Elsewhere `reduce_window` is used. Both send the gradient of a maximum to the first of equal
elements.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Shaped

from jaxdl.compiling.jitted import program_platform
from jaxdl.ops.by_platform import by_platform
from jaxdl.ops.floating import widest
from jaxdl.ops.sharding import gathered, reshape
from jaxdl.ops.window import Pads, Sizes, pad_space, resolve_padding, shifted_slices

MOST_SLICES = 100
"""Windows that make more are not taken apart: compiling them takes seconds, and soon minutes."""


def max_pool(
    x: Shaped[Array, "batch *space channels"], *, window: Sizes, stride: Sizes, padding: str | Pads
) -> Shaped[Array, "batch *out channels"]:
    """y[n, p, c] = max_k x[n, p·stride + k − low, c]; padding never wins."""
    return _max_pool(
        gathered(x, -1), window=window, stride=stride, padding=padding, platform=program_platform()
    )


@functools.partial(jax.jit, static_argnames=("window", "stride", "padding", "platform"))
def _max_pool(
    x: Array, *, window: Sizes, stride: Sizes, padding: str | Pads, platform: str | None
) -> Array:
    pads = resolve_padding(x.shape[1:-1], window, stride, padding, (1,) * len(window))
    lowest: Any = -np.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    overlapping = any(step < size for step, size in zip(stride, window, strict=True))
    summed = overlapping and jnp.issubdtype(x.dtype, jnp.floating)  # in the gradient
    return by_platform(
        platform,
        x.astype(widest(x.dtype)) if summed else x,
        cpu=functools.partial(
            _max_by_slices, window=window, stride=stride, pads=pads, lowest=lowest
        ),
        default=functools.partial(
            _max_by_xla, window=window, stride=stride, pads=pads, lowest=lowest
        ),
    ).astype(x.dtype)


def avg_pool(
    x: Float[Array, "batch *space channels"],
    *,
    window: Sizes,
    stride: Sizes,
    padding: str | Pads,
    count_padding: bool = True,
) -> Float[Array, "batch *out channels"]:
    """y[n, p, c] = mean_k x[n, p·stride + k − low, c].

    The mean is over the whole window, padding counted as zeros, or with `count_padding=False` over
    what lies inside x.
    """
    platform = program_platform()
    return _avg_pool(
        x,
        window=window,
        stride=stride,
        padding=padding,
        count_padding=count_padding,
        platform=platform,
    )


@functools.partial(
    jax.jit, static_argnames=("window", "stride", "padding", "count_padding", "platform")
)
def _avg_pool(
    x: Array,
    *,
    window: Sizes,
    stride: Sizes,
    padding: str | Pads,
    count_padding: bool,
    platform: str | None,
) -> Array:
    pads = resolve_padding(x.shape[1:-1], window, stride, padding, (1,) * len(window))
    wide = x.astype(widest(x.dtype))
    total = _window_sum(wide, window, stride, pads, platform)
    if count_padding:
        return (total * (1 / math.prod(window))).astype(x.dtype)
    ones = jnp.ones((1, *x.shape[1:-1], 1), wide.dtype)
    return (total / _window_sum(ones, window, stride, pads, platform)).astype(x.dtype)


def _window_sum(x: Array, window: Sizes, stride: Sizes, pads: Pads, platform: str | None) -> Array:
    return by_platform(
        platform,
        x,
        cpu=functools.partial(_sum_by_slices, window=window, stride=stride, pads=pads),
        default=functools.partial(_sum_by_xla, window=window, stride=stride, pads=pads),
    )


@jax.custom_jvp
def first_maximum(a: Array, b: Array) -> Array:
    """max(a, b), whose gradient goes to a where they are equal."""
    return lax.max(a, b)


@first_maximum.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    a, b = primals
    return lax.max(a, b), jnp.where(
        a >= b, *tangents
    )  # cheaper than max's own rule, which shares the gradient of ties


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def disjoint_maximum(x: Array, window: Sizes) -> Array:
    """The maximum over windows side by side; what is left over at the end of a dimension is
    dropped.

    Its gradient remembers the place of each maximum, a byte, and spreads what comes back in one
    pass over x.
    """
    return functools.reduce(lax.max, _places(x, window))


@disjoint_maximum.defjvp
def _(window: Sizes, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    dtype = jnp.uint8 if math.prod(window) <= 256 else jnp.int32
    maximum, place = None, None
    for index, part in enumerate(_places(x, window)):
        if maximum is None or place is None:
            maximum, place = part, jnp.zeros(part.shape, dtype)
        else:
            place = jnp.where(part > maximum, jnp.asarray(index, dtype), place)
            maximum = lax.max(maximum, part)
    assert maximum is not None
    assert place is not None
    blocks = _blocks(tangent, window)
    within = range(2, 2 * len(window) + 1, 2)
    places = jnp.arange(math.prod(window), dtype=dtype).reshape(
        [n if a in within else 1 for a, n in enumerate(blocks.shape)]
    )
    chosen = lax.expand_dims(place, within) == places
    return maximum, jnp.where(chosen, blocks, jnp.zeros((), blocks.dtype)).sum(within)


def _places(x: Array, window: Sizes) -> list[Array]:
    """For each place of the window, row by row, what lies there in every window."""
    return shifted_slices(x, window, window, (1,) * len(window))


def _blocks(x: Array, window: Sizes) -> Array:
    """[batch, out, window, out, window, …, channels]: each spatial dimension cut into windows."""
    counts = [n // k for n, k in zip(x.shape[1:-1], window, strict=True)]
    kept = x[(slice(None), *(slice(n * k) for n, k in zip(counts, window, strict=True)))]
    return reshape(
        kept,
        (
            x.shape[0],
            *(size for pair in zip(counts, window, strict=True) for size in pair),
            x.shape[-1],
        ),
    )


def _max_by_slices(x: Array, *, window: Sizes, stride: Sizes, pads: Pads, lowest: Any) -> Array:
    if (math.prod(window) if stride == window else sum(window)) > MOST_SLICES:
        return _max_by_xla(x, window=window, stride=stride, pads=pads, lowest=lowest)
    x = pad_space(x, pads, lowest)
    return (
        disjoint_maximum(x, window)
        if stride == window
        else _reduce_by_slices(first_maximum, x, window, stride)
    )


def _sum_by_slices(x: Array, *, window: Sizes, stride: Sizes, pads: Pads) -> Array:
    if sum(window) > MOST_SLICES:
        return _sum_by_xla(x, window=window, stride=stride, pads=pads)
    return _reduce_by_slices(lax.add, pad_space(x, pads, 0), window, stride)


def _reduce_by_slices(operation: Any, x: Array, window: Sizes, stride: Sizes) -> Array:
    """The last dimension first, so that among equal maxima the first in row order wins, as in
    `reduce_window`.
    """
    dimensions = len(window)
    for axis in reversed(range(dimensions)):
        along = tuple(window[axis] if i == axis else 1 for i in range(dimensions))
        step = tuple(stride[axis] if i == axis else 1 for i in range(dimensions))
        x = functools.reduce(operation, shifted_slices(x, along, step, (1,) * dimensions))
    return x


def _max_by_xla(x: Array, *, window: Sizes, stride: Sizes, pads: Pads, lowest: Any) -> Array:
    start = np.asarray(lowest, x.dtype)
    return lax.reduce_window(
        x, start, lax.max, (1, *window, 1), (1, *stride, 1), ((0, 0), *pads, (0, 0))
    )


def _sum_by_xla(x: Array, *, window: Sizes, stride: Sizes, pads: Pads) -> Array:
    start = np.zeros((), x.dtype)
    return lax.reduce_window(
        x, start, lax.add, (1, *window, 1), (1, *stride, 1), ((0, 0), *pads, (0, 0))
    )
