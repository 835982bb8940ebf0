"""Pooling layers, in as many dimensions as their input has."""

import dataclasses
import math
from typing import ClassVar, TypedDict

import jax.numpy as jnp
from jax import Array

from jaxdl import ops
from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError
from jaxdl.core.layer import OnPadded, Parameterless
from jaxdl.core.padded import Padded
from jaxdl.layers import arguments, inputs
from jaxdl.layers.arguments import Sizes
from jaxdl.layers.inputs import Padding
from jaxdl.ops.floating import widest
from jaxdl.ops.window import Pads, extents, resolve_padding


class _Windows(TypedDict):
    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | Pads
    dilation: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class MaxPool(Parameterless):
    """y[p] = max_k x[p · stride + k · dilation]: the maximum over each window, [batch, *space,
    channels] to [batch, *out, channels].

    Args:
        window: its size; an int is the size in all spatial dimensions.
        stride: its step; None is the window itself, so that windows do not overlap.
        padding: "VALID" (the window stays inside, and the remainder at the end is dropped), "SAME",
            an int or one for each dimension, on both sides (PyTorch's padding), or (low, high)
            pairs; padding is never the maximum.
        dilation: the step between the elements of the window.

    Raises:
        LayerError: an argument is invalid, or an input is smaller than the window.
    """

    window: Sizes
    stride: Sizes | None = None
    padding: Padding = "VALID"
    dilation: Sizes = 1
    takes_bytes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_arguments("MaxPool", self)

    def compute(self, x: Array) -> Array:
        inputs.check_real("MaxPool", x)
        return ops.pool.max_pool(x, **_windows("MaxPool", self, x))


@dataclasses.dataclass(frozen=True)
class AvgPool(Parameterless):
    """y[p] = mean_k x[p · stride + k · dilation]: the mean over each window, [batch, *space,
    channels] to [batch, *out, channels].

    Args:
        window, stride, padding: as in `MaxPool`.
        count_padding: whether padding counts as zeros (as in Flax and PyTorch), or is left out of
            the mean (as in Keras).
        dilation: as in `MaxPool`.

    Raises:
        LayerError: as in `MaxPool`.
    """

    window: Sizes
    stride: Sizes | None = None
    padding: Padding = "VALID"
    count_padding: bool = True
    dilation: Sizes = 1

    def __post_init__(self) -> None:
        _check_arguments("AvgPool", self)

    def compute(self, x: Array) -> Array:
        x = inputs.as_computed("AvgPool", x)
        windows = _windows("AvgPool", self, x)
        return ops.pool.avg_pool(x, **windows, count_padding=self.count_padding)


@dataclasses.dataclass(frozen=True)
class AdaptiveMaxPool(Parameterless):
    """y[p] = max x[⌊p · space / size⌋ … ⌈(p + 1) · space / size⌉ − 1]: the maximum over each of
    `size` windows that cover the input, [batch, *space, channels] to [batch, *size, channels].

    The windows are those of PyTorch: they overlap where size does not divide space.

    Args:
        size: of the output; an int is the size in all spatial dimensions.

    Raises:
        LayerError: an argument is invalid, or an input has no spatial dimension, no elements, or
            is not of real numbers.

    >>> import jax.numpy as jnp, jaxdl as dl
    >>> x = jnp.arange(5)[None, :, None]
    >>> dl.AdaptiveMaxPool(2).apply({}, {}, x)[0].ravel()
    Array([2, 4], dtype=int32)
    """

    size: Sizes
    takes_bytes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        arguments.check_sizes("AdaptiveMaxPool", size=self.size)

    def compute(self, x: Array) -> Array:
        (size,) = inputs.per_dimension("AdaptiveMaxPool", x, size=self.size)
        inputs.check_real("AdaptiveMaxPool", x)
        return ops.adaptive_pool.max_pool(x, size=size)


@dataclasses.dataclass(frozen=True)
class AdaptiveAvgPool(Parameterless):
    """y[p] = mean x[⌊p · space / size⌋ … ⌈(p + 1) · space / size⌉ − 1]: the mean over each of the
    windows of `AdaptiveMaxPool`, [batch, *space, channels] to [batch, *size, channels].

    Args:
        size: as in `AdaptiveMaxPool`.

    Raises:
        LayerError: an argument is invalid, or an input has no spatial dimension or no elements.
    """

    size: Sizes

    def __post_init__(self) -> None:
        arguments.check_sizes("AdaptiveAvgPool", size=self.size)

    def compute(self, x: Array) -> Array:
        (size,) = inputs.per_dimension("AdaptiveAvgPool", x, size=self.size)
        x = inputs.as_computed("AdaptiveAvgPool", x)
        return ops.adaptive_pool.avg_pool(x, size=size)


@dataclasses.dataclass(frozen=True)
class GlobalMaxPool(Parameterless):
    """The maximum over all spatial dimensions: [batch, *space, channels] to [batch, channels]; of
    `Padded` sequences, over their steps.

    An empty sequence gives 0.

    Raises:
        LayerError: an input has no spatial dimension, no elements, or is not of real numbers.
    """

    padded: ClassVar[OnPadded] = "sequence"
    takes_bytes: ClassVar[bool] = True

    def compute(self, x: PyTree) -> Array:
        inputs.check_spatial("GlobalMaxPool", x)
        inputs.check_real("GlobalMaxPool", x)
        if not isinstance(x, Padded):
            return x.max(_space(x))
        mask = x.broadcast_mask()
        values = inputs.as_computed("GlobalMaxPool", x.values)
        maximum = jnp.where(mask, values, -jnp.inf).max(_space(x))
        return jnp.where(_lengths(x) > 0, maximum, 0)


@dataclasses.dataclass(frozen=True)
class GlobalAvgPool(Parameterless):
    """The mean over all spatial dimensions: [batch, *space, channels] to [batch, channels]; of
    `Padded` sequences, over their steps.

    An empty sequence gives 0.

    Raises:
        LayerError: an input has no spatial dimension or no elements.
    """

    padded: ClassVar[OnPadded] = "sequence"

    def compute(self, x: PyTree) -> Array:
        inputs.check_spatial("GlobalAvgPool", x)
        if not isinstance(x, Padded):
            x = inputs.as_computed("GlobalAvgPool", x)
            return x.astype(widest(x.dtype)).mean(_space(x)).astype(x.dtype)
        values = inputs.as_computed("GlobalAvgPool", x.values)
        values = jnp.where(x.broadcast_mask(), values, 0)
        total = values.astype(widest(values.dtype)).sum(_space(x))
        count = jnp.maximum(_lengths(x), 1) * math.prod(x.shape[2:-1])
        return (total / count.astype(total.dtype)).astype(values.dtype)


def _space(x: Array | Padded) -> tuple[int, ...]:
    return tuple(range(1, x.ndim - 1))


def _lengths(x: Padded) -> Array:
    """[batch, 1] int32."""
    return jnp.asarray(x.lengths, jnp.int32)[:, None]


def _check_arguments(name: str, pool: MaxPool | AvgPool) -> None:
    stride = pool.window if pool.stride is None else pool.stride
    arguments.check_sizes(name, window=pool.window, stride=stride, dilation=pool.dilation)
    arguments.check_padding(name, pool.padding)
    arguments.check_fields(pool)
    if isinstance(pool.padding, tuple) and not arguments.is_symmetric_padding(pool.padding):
        _check_pairs(name, pool.padding)


def _check_pairs(name: str, pairs: PyTree) -> None:
    if any(side < 0 for pair in pairs for side in pair):
        raise LayerError(
            name,
            f"padding adds at least 0 on each side, got {pairs!r} — crop the input itself.",
        )


def _windows(name: str, pool: MaxPool | AvgPool, x: Array) -> _Windows:
    """The arguments of the pooling, one for each spatial dimension of x."""
    stride = pool.window if pool.stride is None else pool.stride
    window, stride, dilation = inputs.per_dimension(
        name, x, window=pool.window, stride=stride, dilation=pool.dilation
    )
    padding = inputs.resolve_padding(name, x, pool.padding)
    extent = extents(window, dilation)
    inputs.check_window(name, x, extent, padding)
    space = x.shape[1:-1]
    pads = resolve_padding(space, window, stride, padding, dilation)
    if not isinstance(padding, str):
        _check_windows_meet_input(name, window, extent, pads)
    _check_dilation(name, space, dilation, pads)
    return _Windows(window=window, stride=stride, padding=padding, dilation=dilation)


def _check_windows_meet_input(
    name: str, window: tuple[int, ...], extent: tuple[int, ...], padding: Pads
) -> None:
    pairs = zip(padding, extent, strict=True)
    if any(side >= size for pair, size in pairs for side in pair):
        raise LayerError(
            name,
            f"padding {padding!r} leaves windows {window!r} with nothing inside — pad by less.",
        )


def _check_dilation(
    name: str, space: tuple[int, ...], dilation: tuple[int, ...], padding: Pads
) -> None:
    """Checks that no window has elements on both sides of the input and none inside."""
    for size, apart, pair in zip(space, dilation, padding, strict=True):
        if apart > size and any(pair):
            raise LayerError(
                name,
                f"with padding, a dilation of {apart} leaves windows over {size} elements with "
                f"nothing inside — dilate by less.",
            )
