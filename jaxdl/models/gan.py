"""The generators and discriminators of generative adversarial networks, dense and convolutional.

Images are in [0, 1]; the networks compute with them in [−1, 1], as is usual: the last layer of a
generator is σ(2y) = (tanh y + 1) / 2, and the first of a discriminator 2x − 1.
"""

import functools
import math
from collections.abc import Sequence

import jax
from jax import Array
from jaxtyping import Float

from jaxdl.layers.conv import Conv, ConvTranspose
from jaxdl.layers.dense import Dense
from jaxdl.layers.initializers import Normal
from jaxdl.layers.norm import BatchNorm
from jaxdl.layers.sequential import Sequential
from jaxdl.layers.shape import Flatten, Reshape
from jaxdl.models.mlp import Activation, dropout_layers, mlp
from jaxdl.ops.activations import leaky_relu, relu
from jaxdl.ops.floating import as_floating

leaky = functools.partial(leaky_relu, negative_slope=0.2)
normal = Normal(0.02)


def to_unit(y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """(tanh y + 1) / 2, in (0, 1)."""
    return jax.nn.sigmoid(2 * y)


def from_unit(x: Array) -> Float[Array, "*shape"]:
    """2x − 1, in [−1, 1]."""
    return 2 * as_floating(x) - 1


def dense_generator(
    *features: int, shape: int | Sequence[int], activation: Activation = leaky
) -> Sequential:
    """Dense layers from codes to images: [batch, latent] to [batch, *shape] in (0, 1).

    Source: Goodfellow et al., *Generative adversarial nets* (2014).

    Args:
        features: the width of each hidden layer.
        shape: of one image.
        activation: after every hidden layer.

    Returns:
        A `Sequential` of `dense_0`, `dense_1`, ….

    Raises:
        LayerError: an argument of a layer is invalid.
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    network = mlp(*features, math.prod(shape), activation=activation)
    return Sequential(*network, to_unit, Reshape(shape))


def dense_discriminator(
    *features: int, activation: Activation = leaky, dropout: float | Array = 0.0
) -> Sequential:
    """Dense layers from images in [0, 1] to a score: [batch, …] to [batch, 1].

    Source: as for `dense_generator`.

    Args:
        features: the width of each hidden layer.
        activation: after every hidden layer.
        dropout: the probability that a hidden unit is dropped in training.

    Returns:
        A `Sequential` of `dense_0`, `dense_1`, ….

    Raises:
        LayerError: an argument of a layer is invalid.
    """
    network = mlp(*features, 1, activation=activation, dropout=dropout)
    return Sequential(from_unit, Flatten(), *network)


def conv_generator(
    *features: int,
    size: int = 7,
    channels: int = 1,
    kernel_size: int = 4,
    activation: Activation = relu,
) -> Sequential:
    """A dense layer from a code to a small image, and transposed convolutions that double its size:
    [batch, latent] to [batch, height, width, channels] in (0, 1).

    BatchNorm follows every layer but the last, and weights are drawn from N(0, 0.02²). Source:
    Radford, Metz, Chintala, *Unsupervised representation learning with deep convolutional
    generative adversarial networks* (2016), section 3.

    Args:
        features: the channels of the small image, and after each doubling but the last: (128, 64)
            with size 7 gives 28×28.
        size: the height and width of the small image.
        channels: of the images.
        kernel_size: of every transposed convolution; with a multiple of the stride 2 every pixel
            is covered equally often.
        activation: after every layer but the last.

    Returns:
        A `Sequential` of `dense_0`, `conv_transpose_0`, `batch_norm_0`, ….

    Raises:
        LayerError: an argument of a layer is invalid.
    """
    first, *rest = features
    transposed = functools.partial(
        ConvTranspose, kernel_size=kernel_size, stride=2, kernel_init=normal
    )
    norm = BatchNorm(momentum=0.9)
    project = Dense(size * size * first, use_bias=False, kernel_init=normal)
    parts: list[Activation] = [project, Reshape((size, size, first)), norm, activation]
    for width in rest:
        parts += [transposed(width, use_bias=False), norm, activation]
    return Sequential(*parts, transposed(channels), to_unit)


def conv_discriminator(
    *features: int,
    kernel_size: int = 4,
    activation: Activation = leaky,
    dropout: float | Array = 0.0,
    normalise: bool = True,
) -> Sequential:
    """Convolutions that halve the size of an image, and a dense layer: [batch, height, width,
    channels] in [0, 1] to a score [batch, 1].

    Source: as for `conv_generator`.

    Args:
        features: the channels of each stage.
        kernel_size: of every convolution.
        activation: after every convolution.
        dropout: the probability that a hidden unit is dropped in training.
        normalise: whether BatchNorm follows every convolution but the first; a critic with a
            gradient penalty must have none.

    Returns:
        A `Sequential` of `conv_0`, `batch_norm_0`, … and `dense_0`.

    Raises:
        LayerError: an argument of a layer is invalid.
    """
    stages: list[Activation] = []
    for index, width in enumerate(features):
        norm = [BatchNorm(momentum=0.9)] if normalise and index else []
        convolution = Conv(width, kernel_size, stride=2, use_bias=not norm, kernel_init=normal)
        stages += [convolution, *norm, activation, *dropout_layers(dropout)]
    return Sequential(from_unit, *stages, Flatten(), Dense(1, kernel_init=normal))
