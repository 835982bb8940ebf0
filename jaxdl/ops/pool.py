"""Pooling over windows, channels last.

On a CPU the window is split into strided slices, since XLA's `reduce_window` has a slow gradient
there; other platforms use `reduce_window`. Both give the gradient of a maximum to the first of
equal elements.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Shaped

from jaxdl.compiling.target import target
from jaxdl.ops.by_platform import by_platform
from jaxdl.ops.floating import widest
from jaxdl.ops.sharding import gathered, reshape
from jaxdl.ops.window import Pads, Sizes, pad_space, resolve_padding, shifted_slices

MAX_SLICES = 100
"""The maximum number of slices of a window: more take seconds or minutes to compile."""


class _Windows(NamedTuple):
    """The windows of a pooling, one size for each spatial dimension."""

    window: Sizes
    stride: Sizes
    pads: Pads
    dilation: Sizes

    @property
    def is_dilated(self) -> bool:
        return any(apart > 1 for apart in self.dilation)

    @property
    def are_disjoint(self) -> bool:
        """Whether the windows lie side by side."""
        return self.stride == self.window and not self.is_dilated


def max_pool(
    x: Shaped[Array, "batch *space channels"],
    *,
    window: Sizes,
    stride: Sizes,
    padding: str | Pads,
    dilation: Sizes | None = None,
) -> Shaped[Array, "batch *out channels"]:
    """y[n, p, c] = max_k x[n, p·stride + k·dilation − low, c], over the elements inside x.

    Args:
        x: [batch, *space, channels], of real numbers.
        window, stride: one for each spatial dimension.
        padding: "SAME", "VALID" or (low, high) for each spatial dimension.
        dilation: one for each spatial dimension; None is 1.

    Returns:
        [batch, *out, channels], in x's dtype.
    """
    return _max_pool(
        gathered(x, -1),
        window=window,
        stride=stride,
        padding=padding,
        dilation=dilation or (1,) * len(window),
        platform=target().platform,
    )


@functools.partial(
    jax.jit, static_argnames=("window", "stride", "padding", "dilation", "platform")
)
def _max_pool(
    x: Array,
    *,
    window: Sizes,
    stride: Sizes,
    padding: str | Pads,
    dilation: Sizes,
    platform: str | None,
) -> Array:
    windows = _windows(x, window, stride, padding, dilation)
    is_floating = jnp.issubdtype(x.dtype, jnp.floating)
    lowest = -np.inf if is_floating else jnp.iinfo(x.dtype).min
    overlap = any(step < size for step, size in zip(stride, window, strict=True))
    # The gradients of overlapping windows are summed in the wide dtype.
    has_sums = is_floating and (overlap or windows.is_dilated)
    wide = x.astype(widest(x.dtype)) if has_sums else x
    on_cpu = functools.partial(_max_by_slices, windows=windows, lowest=lowest)
    default = functools.partial(_max_by_xla, windows=windows, lowest=lowest)
    if windows.is_dilated:
        # JAX has no gradient of a dilated `reduce_window`.
        default = on_cpu
    return by_platform(platform, wide, cpu=on_cpu, default=default).astype(x.dtype)


def _windows(
    x: Array, window: Sizes, stride: Sizes, padding: str | Pads, dilation: Sizes
) -> _Windows:
    pads = resolve_padding(x.shape[1:-1], window, stride, padding, dilation)
    return _Windows(window, stride, pads, dilation)


def avg_pool(
    x: Float[Array, "batch *space channels"],
    *,
    window: Sizes,
    stride: Sizes,
    padding: str | Pads,
    count_padding: bool = True,
    dilation: Sizes | None = None,
) -> Float[Array, "batch *out channels"]:
    """y[n, p, c] = mean_k x[n, p·stride + k·dilation − low, c].

    Args:
        x: [batch, *space, channels].
        window, stride: one for each spatial dimension.
        padding: "SAME", "VALID" or (low, high) for each spatial dimension.
        count_padding: whether the mean is over the whole window, with zeros for padding, or over
            the elements inside x.
        dilation: one for each spatial dimension; None is 1.

    Returns:
        [batch, *out, channels], in x's dtype.
    """
    return _avg_pool(
        x,
        window=window,
        stride=stride,
        padding=padding,
        count_padding=count_padding,
        dilation=dilation or (1,) * len(window),
        platform=target().platform,
    )


@functools.partial(
    jax.jit,
    static_argnames=("window", "stride", "padding", "count_padding", "dilation", "platform"),
)
def _avg_pool(
    x: Array,
    *,
    window: Sizes,
    stride: Sizes,
    padding: str | Pads,
    count_padding: bool,
    dilation: Sizes,
    platform: str | None,
) -> Array:
    windows = _windows(x, window, stride, padding, dilation)
    wide = x.astype(widest(x.dtype))
    total = _window_sum(wide, windows, platform)
    if count_padding:
        return (total * (1 / math.prod(window))).astype(x.dtype)
    ones = jnp.ones((1, *x.shape[1:-1], 1), wide.dtype)
    return (total / _window_sum(ones, windows, platform)).astype(x.dtype)


def _window_sum(x: Array, windows: _Windows, platform: str | None) -> Array:
    on_cpu = functools.partial(_sum_by_slices, windows=windows)
    default = functools.partial(_sum_by_xla, windows=windows)
    return by_platform(platform, x, cpu=on_cpu, default=default)


@jax.custom_jvp
def first_maximum(a: Array, b: Array) -> Array:
    """max(a, b), whose gradient is that of a where they are equal."""
    return lax.max(a, b)


@first_maximum.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    # Cheaper than the rule of `lax.max`, which splits the gradient of ties.
    a, b = primals
    return lax.max(a, b), jnp.where(a >= b, *tangents)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def disjoint_maximum(x: Array, window: Sizes) -> Array:
    """The maximum over adjacent windows; the remainder at the end of a dimension is dropped.

    Its gradient keeps the position of each maximum, as a byte, and takes one pass over x.
    """
    return functools.reduce(lax.max, _elements(x, window))


@disjoint_maximum.defjvp
def _(window: Sizes, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,) = primals
    (tangent,) = tangents
    dtype = jnp.uint8 if math.prod(window) <= 256 else jnp.int32
    first, *others = _elements(x, window)
    maximum = first
    argmax = jnp.zeros(first.shape, dtype)
    for index, element in enumerate(others, start=1):
        argmax = jnp.where(element > maximum, jnp.asarray(index, dtype), argmax)
        maximum = lax.max(maximum, element)
    blocks = _blocks(tangent, window)
    window_axes = range(2, 2 * len(window) + 1, 2)
    shape = [n if axis in window_axes else 1 for axis, n in enumerate(blocks.shape)]
    positions = jnp.arange(math.prod(window), dtype=dtype).reshape(shape)
    is_maximum = lax.expand_dims(argmax, window_axes) == positions
    zero = jnp.zeros((), blocks.dtype)
    return maximum, jnp.where(is_maximum, blocks, zero).sum(window_axes)


def _elements(x: Array, window: Sizes) -> list[Array]:
    """For each position of the window, in row-major order, its element of every window."""
    return shifted_slices(x, window, window, (1,) * len(window))


def _blocks(x: Array, window: Sizes) -> Array:
    """[batch, out, window, out, window, …, channels]: each spatial dimension split into windows."""
    counts = [n // k for n, k in zip(x.shape[1:-1], window, strict=True)]
    kept = x[(slice(None), *(slice(n * k) for n, k in zip(counts, window, strict=True)))]
    space = [size for pair in zip(counts, window, strict=True) for size in pair]
    return reshape(kept, (x.shape[0], *space, x.shape[-1]))


def _max_by_slices(x: Array, *, windows: _Windows, lowest: float) -> Array:
    window = windows.window
    slices = math.prod(window) if windows.are_disjoint else sum(window)
    if slices > MAX_SLICES and not windows.is_dilated:
        return _max_by_xla(x, windows=windows, lowest=lowest)
    x = pad_space(x, windows.pads, lowest)
    if windows.are_disjoint:
        return disjoint_maximum(x, window)
    return _reduce_by_slices(first_maximum, x, windows)


def _sum_by_slices(x: Array, *, windows: _Windows) -> Array:
    if sum(windows.window) > MAX_SLICES:
        return _sum_by_xla(x, windows=windows)
    return _reduce_by_slices(lax.add, pad_space(x, windows.pads, 0), windows)


def _reduce_by_slices(
    operation: Callable[[Array, Array], Array], x: Array, windows: _Windows
) -> Array:
    """Reduces the last dimension of padded x first, so that the first of equal maxima in row-major
    order is taken, as in `reduce_window`.
    """
    dimensions = len(windows.window)
    sizes = (windows.window, windows.stride, windows.dilation)
    for axis in reversed(range(dimensions)):
        along = [
            tuple(size[axis] if i == axis else 1 for i in range(dimensions)) for size in sizes
        ]
        x = functools.reduce(operation, shifted_slices(x, *along))
    return x


def _max_by_xla(x: Array, *, windows: _Windows, lowest: float) -> Array:
    return _reduce_window(x, np.asarray(lowest, x.dtype), lax.max, windows)


def _sum_by_xla(x: Array, *, windows: _Windows) -> Array:
    return _reduce_window(x, np.zeros((), x.dtype), lax.add, windows)


def _reduce_window(
    x: Array, start: np.ndarray, operation: Callable[..., Array], windows: _Windows
) -> Array:
    return lax.reduce_window(
        x,
        start,
        operation,
        (1, *windows.window, 1),
        (1, *windows.stride, 1),
        ((0, 0), *windows.pads, (0, 0)),
        window_dilation=(1, *windows.dilation, 1),
    )
