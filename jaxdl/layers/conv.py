"""Convolution layers, in as many dimensions as their input has."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdl import ops
from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError
from jaxdl.core.layer import Params, Stateless
from jaxdl.layers import arguments, inputs, parameters
from jaxdl.layers.arguments import Sizes
from jaxdl.layers.dense import lecun_normal, zeros
from jaxdl.layers.initializers import Initializer
from jaxdl.layers.inputs import Padding
from jaxdl.ops.floating import DType
from jaxdl.ops.linear import add_bias
from jaxdl.ops.window import Pads, extents


@dataclasses.dataclass(frozen=True)
class Conv(Stateless):
    """y = W ⋆ x + b, a convolution (cross-correlation): [batch, *space, channels] to [batch, *out,
    features].

    Parameters: `kernel` W [*kernel_size, channels / groups, features], `bias` b [features].

    Args:
        features: the number of output channels.
        kernel_size: of the window; an int is the size in all spatial dimensions, as in the
            arguments below.
        stride: the step of the window.
        padding: "SAME" (out = ⌈space / stride⌉), "VALID" (the window stays inside), or the number
            of zeros: on both sides of each dimension (an int, or one for each dimension, PyTorch's
            padding), or (low, high) pairs.
        dilation: the step between the elements of the window.
        groups: the number of blocks that channels are split into, which are convolved separately;
            groups = channels is a depthwise convolution.
        use_bias: whether b is added.
        kernel_init, bias_init: from `dl.initializers`.
        dtype: of the computation; None is the input's own (uint8 is scaled to x / 255, in
            float32).
        param_dtype: of the stored parameters.

    Raises:
        LayerError: an argument is invalid, or an input has another rank or number of channels than
            at init, or is smaller than the window.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> layer = dl.Conv(8, 3, stride=2)
    >>> images = jnp.ones((1, 28, 28, 1))
    >>> params, state = layer.init(jax.random.key(0), images)
    >>> layer.apply(params, state, images)[0].shape
    (1, 14, 14, 8)
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
        _check_arguments(self)

    def weights(self, key: Array, x: PyTree) -> Params:
        window, _, _ = _sizes(self, x)
        inputs.check_floating("Conv", x, self.dtype)
        shape = (*window, _channels_of_group(self, x), self.features)
        params = parameters.draw_affine(self, key, shape)
        self._check_window(x)
        return params

    def forward(self, params: Params, x: Array) -> Array:
        window, stride, dilation = _sizes(self, x)
        _check_parameters(self, params, x, window)
        inputs.check_features("Conv", x, params["kernel"].shape[-2] * self.groups, "channels")
        self._check_window(x)
        y = ops.conv.conv(
            inputs.as_computed("Conv", x, self.dtype),
            params["kernel"],
            stride=stride,
            padding=inputs.resolve_padding("Conv", x, self.padding),
            dilation=dilation,
            groups=self.groups,
        )
        return add_bias(y, params["bias"]) if self.use_bias else y

    def _check_window(self, x: PyTree) -> None:
        window, _, dilation = _sizes(self, x)
        padding = inputs.resolve_padding("Conv", x, self.padding)
        inputs.check_window("Conv", x, extents(window, dilation), padding)


@dataclasses.dataclass(frozen=True)
class ConvTranspose(Stateless):
    """The transposed convolution, y = W ⋆ x↑ + b: [batch, *space, channels] to [batch,
    *space · stride, features] with "SAME".

    x↑ is the input with `stride − 1` zeros between its elements, as in `jax.lax.conv_transpose` and
    Flax. Parameters: `kernel` W [*kernel_size, channels / groups, features], `bias` b [features].
    PyTorch has the window reversed along each dimension, and the channels of all groups first.

    Args:
        features: the number of output channels.
        kernel_size, stride, dilation: an int is the size in all spatial dimensions.
        padding: "SAME", "VALID" (space · stride + max(kernel_size − stride, 0) outputs), (low,
            high) pairs, added to the dilated input, or an int or one for each dimension, PyTorch's
            padding: that of the convolution whose transpose this is, which is cropped from both
            sides of all outputs that meet the input.
        groups: the number of blocks that channels are split into, as in `Conv`.
        output_padding: PyTorch's: with an int or one for each dimension as padding, the number of
            outputs added at the end of each dimension, below its stride or dilation: a convolution
            with a stride maps inputs of several sizes to one, of which this chooses. There are
            (space − 1) · stride − 2 · padding + dilation · (kernel_size − 1) + output_padding + 1
            outputs.
        use_bias, kernel_init, bias_init, dtype, param_dtype: as in `Conv`.

    Raises:
        LayerError: as in `Conv`.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> layer = dl.ConvTranspose(8, 3, stride=2, padding=1, output_padding=1)
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 7, 7, 4)))
    >>> layer.apply(params, state, jnp.ones((1, 7, 7, 4)))[0].shape
    (1, 14, 14, 8)
    """

    features: int
    kernel_size: Sizes
    stride: Sizes = 1
    padding: Padding = "SAME"
    dilation: Sizes = 1
    groups: int = 1
    output_padding: Sizes = 0
    use_bias: bool = True
    kernel_init: Initializer = lecun_normal
    bias_init: Initializer = zeros
    dtype: DType | None = None
    param_dtype: DType = jnp.float32

    def __post_init__(self) -> None:
        _check_arguments(self)
        _check_output_padding(self.output_padding, self.padding)

    def weights(self, key: Array, x: PyTree) -> Params:
        window, _, _ = _sizes(self, x)
        inputs.check_floating("ConvTranspose", x, self.dtype)
        shape = (*window, _channels_of_group(self, x), self.features)
        params = parameters.draw_affine(self, key, shape)
        self._check_window(x)
        return params

    def forward(self, params: Params, x: Array) -> Array:
        window, stride, dilation = _sizes(self, x)
        _check_parameters(self, params, x, window)
        channels = params["kernel"].shape[-2] * self.groups
        inputs.check_features("ConvTranspose", x, channels, "channels")
        self._check_window(x)
        y = ops.conv_transpose.conv_transpose(
            inputs.as_computed("ConvTranspose", x, self.dtype),
            params["kernel"],
            stride=stride,
            padding=self._resolve_padding(x),
            dilation=dilation,
            groups=self.groups,
        )
        return add_bias(y, params["bias"]) if self.use_bias else y

    def _check_window(self, x: PyTree) -> None:
        window, stride, dilation = _sizes(self, x)
        padding = self._resolve_padding(x)
        if padding != "VALID":
            extent = extents(window, dilation)
            inputs.check_window("ConvTranspose", x, extent, padding, stride)

    def _resolve_padding(self, x: PyTree) -> str | Pads:
        """The padding of the dilated input."""
        padding = inputs.resolve_padding("ConvTranspose", x, self.padding)
        if isinstance(padding, str) or not arguments.is_symmetric_padding(self.padding):
            return padding
        window, stride, dilation = _sizes(self, x)
        (added,) = inputs.per_dimension("ConvTranspose", x, output_padding=self.output_padding)
        for extra, step, apart in zip(added, stride, dilation, strict=True):
            if extra and extra >= max(step, apart):
                raise LayerError(
                    "ConvTranspose",
                    f"output_padding is below the stride or the dilation, got {extra} with stride "
                    f"{step} and dilation {apart} — those outputs would meet no input.",
                )
        reach = extents(window, dilation)
        sides = zip(reach, padding, added, strict=True)
        return tuple((e - 1 - low, e - 1 - high + extra) for e, (low, high), extra in sides)


def _check_output_padding(output_padding: object, padding: object) -> None:
    if not arguments.is_symmetric_padding(output_padding):
        raise LayerError(
            "ConvTranspose",
            f"output_padding is a whole number of at least 0, or a tuple of such, got "
            f"{output_padding!r}.",
        )
    if output_padding != 0 and not arguments.is_symmetric_padding(padding):
        raise LayerError(
            "ConvTranspose",
            f"output_padding belongs to PyTorch's padding, whole numbers, got padding "
            f"{padding!r} — write (low, high) pairs with a larger high.",
        )


def _check_arguments(layer: Conv | ConvTranspose) -> None:
    name = type(layer).__name__
    arguments.check_positive(name, features=layer.features, groups=layer.groups)
    arguments.check_sizes(
        name, kernel_size=layer.kernel_size, stride=layer.stride, dilation=layer.dilation
    )
    arguments.check_padding(name, layer.padding)
    arguments.check_fields(layer)
    if layer.features % layer.groups:
        raise LayerError(
            name,
            f"{layer.features} features cannot be split into {layer.groups} groups of one size.",
        )


def _channels_of_group(layer: Conv | ConvTranspose, x: PyTree) -> int:
    """The number of input channels of each group."""
    channels = x.shape[-1]
    if channels % layer.groups:
        raise LayerError(
            type(layer).__name__,
            f"{channels} input channels cannot be split into {layer.groups} groups of one size.",
        )
    return channels // layer.groups


def _sizes(layer: Conv | ConvTranspose, x: PyTree) -> tuple[tuple[int, ...], ...]:
    """Kernel size, stride and dilation, one for each spatial dimension of x."""
    return inputs.per_dimension(
        type(layer).__name__,
        x,
        kernel_size=layer.kernel_size,
        stride=layer.stride,
        dilation=layer.dilation,
    )


def _check_parameters(
    layer: Conv | ConvTranspose, params: Params, x: Array, window: tuple[int, ...]
) -> None:
    name = type(layer).__name__
    inputs.check_rank(name, x, np.ndim(parameters.lookup(name, params, "kernel")))
    kernel = (*window, None, layer.features)
    bias = (layer.features,) if layer.use_bias else None
    parameters.check_shapes(name, params, kernel=kernel, bias=bias)
