"""Pooling layers, in as many dimensions as their input has."""

import dataclasses
import math
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

from jaxdl import ops
from jaxdl.core.error import LayerError
from jaxdl.core.layer import OnPadded, Parameterless
from jaxdl.core.padded import Padded
from jaxdl.layers import arguments
from jaxdl.layers.arguments import Sizes
from jaxdl.layers.conv import Padding
from jaxdl.ops.floating import widest


@dataclasses.dataclass(frozen=True)
class MaxPool(Parameterless):
    """The maximum over each window: [batch, *space, channels] to [batch, *out, channels].

    Args:
        window: its size; an int stands for every spatial dimension.
        stride: its step; None means the window itself, so that windows do not overlap.
        padding: "VALID" (the window stays inside, what is left over at the end is dropped), "SAME",
            an int or one a dimension for both sides (PyTorch's padding), or (low, high) pairs;
            padding never wins.
    """

    window: Sizes
    stride: Sizes | None = None
    padding: Padding = "VALID"
    takes_bytes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check("MaxPool", self)

    def compute(self, x: Array) -> Array:
        arguments.ordered("MaxPool", x)
        return ops.pool.max_pool(x, **_spread("MaxPool", self, x))


@dataclasses.dataclass(frozen=True)
class AvgPool(Parameterless):
    """The mean over each window: [batch, *space, channels] to [batch, *out, channels].

    Args:
        window, stride, padding: as in `MaxPool`.
        count_padding: whether padding counts as zeros (as in Flax and PyTorch) or not at all (as in
            Keras).
    """

    window: Sizes
    stride: Sizes | None = None
    padding: Padding = "VALID"
    count_padding: bool = True

    def __post_init__(self) -> None:
        _check("AvgPool", self)

    def compute(self, x: Array) -> Array:
        x = arguments.floating("AvgPool", x)
        return ops.pool.avg_pool(x, **_spread("AvgPool", self, x), count_padding=self.count_padding)


@dataclasses.dataclass(frozen=True)
class GlobalMaxPool(Parameterless):
    """The maximum over all space: [batch, *space, channels] to [batch, channels]; of `Padded`
    sequences, over their steps.

    An empty sequence gives 0.
    """

    padded: ClassVar[OnPadded] = "whole"
    takes_bytes: ClassVar[bool] = True

    def compute(self, x: Any) -> Array:
        arguments.spatial("GlobalMaxPool", x)
        arguments.ordered("GlobalMaxPool", x)
        if not isinstance(x, Padded):
            return x.max(tuple(range(1, x.ndim - 1)))
        counts, values = _within(x), arguments.floating("GlobalMaxPool", x.values)
        largest = jnp.where(counts, values, -jnp.inf).max(_space(x))
        return jnp.where(_lengths(x) > 0, largest, 0)


@dataclasses.dataclass(frozen=True)
class GlobalAvgPool(Parameterless):
    """The mean over all space: [batch, *space, channels] to [batch, channels]; of `Padded`
    sequences, over their steps.

    An empty sequence gives 0.
    """

    padded: ClassVar[OnPadded] = "whole"

    def compute(self, x: Any) -> Array:
        arguments.spatial("GlobalAvgPool", x)
        if not isinstance(x, Padded):
            x = arguments.floating("GlobalAvgPool", x)
            return x.astype(widest(x.dtype)).mean(_space(x)).astype(x.dtype)
        values = arguments.floating("GlobalAvgPool", x.values)
        total = jnp.where(_within(x), values, 0).astype(widest(values.dtype)).sum(_space(x))
        count = jnp.maximum(_lengths(x), 1) * math.prod(x.shape[2:-1])
        return (total / count.astype(total.dtype)).astype(values.dtype)


def _space(x: Any) -> tuple[int, ...]:
    return tuple(range(1, x.ndim - 1))


def _lengths(x: Padded) -> Array:
    """[batch, 1] int32."""
    return jnp.asarray(x.lengths, jnp.int32)[:, None]


def _within(x: Padded) -> Array:
    """The mask, with an axis of length 1 for each further axis of the values."""
    return x.mask.reshape(x.shape[:2] + (1,) * (x.ndim - 2))


def _check(name: str, pool: MaxPool | AvgPool) -> None:
    arguments.sizes(
        name, window=pool.window, **({} if pool.stride is None else {"stride": pool.stride})
    )
    arguments.padding_argument(name, pool.padding)
    arguments.declared(pool)
    by_hand = isinstance(pool.padding, tuple) and not arguments.pads_both_sides(pool.padding)
    pairs: Any = pool.padding if by_hand else ()
    if any(n < 0 for pair in pairs for n in pair):
        raise LayerError(
            name,
            f"padding adds at least 0 on each side, got {pool.padding!r} — crop the input itself.",
        )


def _spread(name: str, pool: MaxPool | AvgPool, x: Array) -> dict[str, Any]:
    stride = pool.window if pool.stride is None else pool.stride
    window, stride = arguments.spatial(name, x, window=pool.window, stride=stride)
    padding = arguments.spatial_padding(name, x, pool.padding)
    arguments.window_fits(name, x, window, padding)
    if not isinstance(padding, str) and any(
        n >= size for pair, size in zip(padding, window, strict=True) for n in pair
    ):
        raise LayerError(
            name,
            f"padding {padding!r} leaves windows {window!r} with nothing inside — pad by less.",
        )
    return {"window": window, "stride": stride, "padding": padding}
