"""Convolution layers, in as many dimensions as their input has."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdl import ops
from jaxdl.core.error import LayerError
from jaxdl.core.layer import Params, Stateless
from jaxdl.layers import arguments
from jaxdl.layers.arguments import Sizes
from jaxdl.layers.dense import lecun_normal, zeros
from jaxdl.layers.initializers import Initializer
from jaxdl.ops.floating import DType
from jaxdl.ops.linear import add_bias

Padding = str | Sizes | tuple[tuple[int, int], ...]
"""A word, so much on both sides of all dimensions or of each (PyTorch's padding), or (low, high)
for each.
"""


@dataclasses.dataclass(frozen=True)
class Conv(Stateless):
    """y = W ⋆ x + b, a convolution (cross-correlation) of [batch, *space, channels] to [batch,
    *out, features].

    Parameters: `kernel` [*kernel_size, channels / groups, features], `bias` [features].

    Args:
        features: the number of output channels.
        kernel_size: of the window; an int stands for every spatial dimension, as in all that
            follow.
        stride: the step of the window.
        padding: "SAME" (out = ⌈space / stride⌉), "VALID" (the window stays inside), or how many
            zeros: on both sides of each dimension (an int or one a dimension, PyTorch's padding),
                or (low, high) pairs.
        dilation: the step between the window's own elements.
        groups: channels are split into so many groups, convolved apart; groups = channels is a
            depthwise convolution.
        use_bias: whether b is added.
        kernel_init, bias_init: from `dl.initializers`.
        dtype: of the computation; None computes in the input's own (uint8 is read as x / 255, in
            float32).
        param_dtype: of the stored parameters.
    """

    features: int
    kernel_size: Sizes
    stride: Sizes = 1
    padding: Padding = "SAME"
    dilation: Sizes = 1
    groups: int = 1
    use_bias: bool = True
    kernel_init: Initializer = lecun_normal
    bias_init: Initializer = zeros
    dtype: DType | None = None
    param_dtype: DType = jnp.float32

    def __post_init__(self) -> None:
        arguments.positive("Conv", features=self.features, groups=self.groups)
        arguments.sizes(
            "Conv", kernel_size=self.kernel_size, stride=self.stride, dilation=self.dilation
        )
        arguments.padding_argument("Conv", self.padding)
        arguments.declared(self)
        if self.features % self.groups:
            raise LayerError(
                "Conv",
                f"{self.features} features cannot be split into {self.groups} groups of one size.",
            )

    def weights(self, key: Array, x: Any) -> Params:
        (window,) = arguments.spatial("Conv", x, kernel_size=self.kernel_size)
        arguments.init_floating("Conv", x, self.dtype)
        if x.shape[-1] % self.groups:
            raise LayerError(
                "Conv",
                f"{x.shape[-1]} input channels cannot be split into {self.groups} groups of one "
                f"size.",
            )
        kernel_key, bias_key = jax.random.split(key)
        draw = functools.partial(arguments.drawn, "Conv", dtype=self.param_dtype)
        shape = (*window, x.shape[-1] // self.groups, self.features)
        params = {"kernel": draw("kernel_init", self.kernel_init, kernel_key, shape)}
        if self.use_bias:
            params["bias"] = draw("bias_init", self.bias_init, bias_key, shape[-1:])
        self._check_window(x)
        return params

    def forward(self, params: Params, x: Array) -> Array:
        window, stride, dilation = arguments.spatial(
            "Conv", x, kernel_size=self.kernel_size, stride=self.stride, dilation=self.dilation
        )
        _check_parameters(self, params, x, window)
        arguments.same_features("Conv", x, params["kernel"].shape[-2] * self.groups, "channels")
        self._check_window(x)
        y = ops.conv.conv(
            arguments.floating("Conv", x, self.dtype),
            params["kernel"],
            stride=stride,
            padding=arguments.spatial_padding("Conv", x, self.padding),
            dilation=dilation,
            groups=self.groups,
        )
        return add_bias(y, params["bias"]) if self.use_bias else y

    def _check_window(self, x: Any) -> None:
        window, _, dilation = arguments.spatial(
            "Conv", x, kernel_size=self.kernel_size, stride=self.stride, dilation=self.dilation
        )
        arguments.window_fits(
            "Conv",
            x,
            _extents(window, dilation),
            arguments.spatial_padding("Conv", x, self.padding),
        )


@dataclasses.dataclass(frozen=True)
class ConvTranspose(Stateless):
    """The convolution that enlarges: [batch, *space, channels] to [batch, *space · stride,
    features] with "SAME".

    The input is stretched by `stride − 1` zeros between its elements and convolved, as
    `jax.lax.conv_transpose` and Flax do it. Parameters: `kernel` [*kernel_size, channels,
    features], `bias` [features].

    Args:
        features: the number of output channels.
        kernel_size, stride, dilation: an int stands for every spatial dimension.
        padding: "SAME", "VALID" (space · stride + max(kernel_size − stride, 0) outputs), (low,
            high) pairs added to the stretched input, or an int or one a dimension, PyTorch's
            padding: that of the convolution whose transpose this is, which leaves as much off both
                sides of all outputs that touch the input.
        use_bias, kernel_init, bias_init, dtype, param_dtype: as in `Conv`.
    """

    features: int
    kernel_size: Sizes
    stride: Sizes = 1
    padding: Padding = "SAME"
    dilation: Sizes = 1
    use_bias: bool = True
    kernel_init: Initializer = lecun_normal
    bias_init: Initializer = zeros
    dtype: DType | None = None
    param_dtype: DType = jnp.float32

    def __post_init__(self) -> None:
        arguments.positive("ConvTranspose", features=self.features)
        arguments.sizes(
            "ConvTranspose",
            kernel_size=self.kernel_size,
            stride=self.stride,
            dilation=self.dilation,
        )
        arguments.padding_argument("ConvTranspose", self.padding)
        arguments.declared(self)

    def weights(self, key: Array, x: Any) -> Params:
        (window,) = arguments.spatial("ConvTranspose", x, kernel_size=self.kernel_size)
        arguments.init_floating("ConvTranspose", x, self.dtype)
        kernel_key, bias_key = jax.random.split(key)
        draw = functools.partial(arguments.drawn, "ConvTranspose", dtype=self.param_dtype)
        shape = (*window, x.shape[-1], self.features)
        params = {"kernel": draw("kernel_init", self.kernel_init, kernel_key, shape)}
        if self.use_bias:
            params["bias"] = draw("bias_init", self.bias_init, bias_key, shape[-1:])
        self._check_window(x)
        return params

    def forward(self, params: Params, x: Array) -> Array:
        window, stride, dilation = arguments.spatial(
            "ConvTranspose",
            x,
            kernel_size=self.kernel_size,
            stride=self.stride,
            dilation=self.dilation,
        )
        _check_parameters(self, params, x, window)
        arguments.same_features("ConvTranspose", x, params["kernel"].shape[-2], "channels")
        self._check_window(x)
        y = ops.conv.conv_transpose(
            arguments.floating("ConvTranspose", x, self.dtype),
            params["kernel"],
            stride=stride,
            padding=self._pads(x),
            dilation=dilation,
        )
        return add_bias(y, params["bias"]) if self.use_bias else y

    def _check_window(self, x: Any) -> None:
        window, stride, dilation = arguments.spatial(
            "ConvTranspose",
            x,
            kernel_size=self.kernel_size,
            stride=self.stride,
            dilation=self.dilation,
        )
        padding = self._pads(x)
        if padding != "VALID":
            arguments.window_fits("ConvTranspose", x, _extents(window, dilation), padding, stride)

    def _pads(self, x: Any) -> Any:
        """The padding of the stretched input."""
        padding = arguments.spatial_padding("ConvTranspose", x, self.padding)
        if not arguments.pads_both_sides(self.padding):
            return padding
        window, dilation = arguments.spatial(
            "ConvTranspose", x, kernel_size=self.kernel_size, dilation=self.dilation
        )
        extents = _extents(window, dilation)
        return tuple(
            (extent - 1 - low, extent - 1 - high)
            for extent, (low, high) in zip(extents, padding, strict=True)
        )


def _check_parameters(
    layer: Conv | ConvTranspose, params: Params, x: Array, window: tuple[int, ...]
) -> None:
    name = type(layer).__name__
    arguments.same_rank(name, x, np.ndim(arguments.holds(name, params, "kernel")))
    bias = (layer.features,) if layer.use_bias else None
    arguments.parameters(name, params, kernel=(*window, None, layer.features), bias=bias)


def _extents(window: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    return tuple((k - 1) * d + 1 for k, d in zip(window, dilation, strict=True))
