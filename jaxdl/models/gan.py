"""The two players of a generative adversarial network, dense and convolutional.

Images lie in [0, 1] outside; the players compute with them in [−1, 1], as is usual: the last layer
of a generator is σ(2y) = (tanh y + 1) / 2, and the first of a discriminator 2x − 1.
"""

import functools
import math
from collections.abc import Sequence

import jax
from jax import Array
from jaxtyping import Float

from jaxdl.layers.arguments import is_zero
from jaxdl.layers.combine import Sequential
from jaxdl.layers.conv import Conv, ConvTranspose
from jaxdl.layers.dense import Dense
from jaxdl.layers.dropout import Dropout
from jaxdl.layers.initializers import Normal
from jaxdl.layers.norm import BatchNorm
from jaxdl.layers.shape import Flatten, Reshape
from jaxdl.models.mlp import Activation, mlp
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

    Args:
        features: the width of each hidden layer.
        shape: of one image.
        activation: after every hidden layer.
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return Sequential(
        *mlp(*features, math.prod(shape), activation=activation), to_unit, Reshape(shape)
    )


def dense_discriminator(
    *features: int, activation: Activation = leaky, dropout: float | Array = 0.0
) -> Sequential:
    """Dense layers from images in [0, 1] to a score: [batch, …] to [batch, 1].

    Args:
        features: the width of each hidden layer.
        activation: after every hidden layer.
        dropout: the rate at which hidden units are dropped in training.
    """
    return Sequential(
        from_unit, Flatten(), *mlp(*features, 1, activation=activation, dropout=dropout)
    )


def conv_generator(
    *features: int,
    size: int = 7,
    channels: int = 1,
    kernel_size: int = 4,
    activation: Activation = relu,
) -> Sequential:
    """A code becomes a small image, which transposed convolutions double: [batch, latent] to images
    in (0, 1).

    BatchNorm follows every layer but the last, and weights are drawn from N(0, 0.02²). Source:
    Radford, Metz, Chintala, *Unsupervised representation learning with deep convolutional
    generative adversarial networks* (2016), section 3.

    Args:
        features: the channels of the small image, and after each doubling but the last: (128, 64)
            with size 7 gives 28×28.
        size: the height and width of the small image.
        channels: of the images.
        kernel_size: of every transposed convolution; a multiple of the stride 2 covers every pixel
            alike.
        activation: after every layer but the last.
    """
    first, *rest = features
    transposed = functools.partial(
        ConvTranspose, kernel_size=kernel_size, stride=2, kernel_init=normal
    )
    small = [
        Dense(size * size * first, use_bias=False, kernel_init=normal),
        Reshape((size, size, first)),
    ]
    doubled = [
        part
        for width in rest
        for part in (transposed(width, use_bias=False), BatchNorm(momentum=0.9), activation)
    ]
    return Sequential(
        *small, BatchNorm(momentum=0.9), activation, *doubled, transposed(channels), to_unit
    )


def conv_discriminator(
    *features: int,
    kernel_size: int = 4,
    activation: Activation = leaky,
    dropout: float | Array = 0.0,
    normalise: bool = True,
) -> Sequential:
    """Convolutions that halve the image, and a dense layer: [batch, height, width, channels] in [0,
    1] to a score [batch, 1].

    Source: as for `conv_generator`.

    Args:
        features: the channels of each stage.
        kernel_size: of every convolution.
        activation: after every convolution.
        dropout: the rate at which hidden units are dropped in training.
        normalise: whether BatchNorm follows every convolution but the first; a critic with a
            gradient penalty must have none.
    """
    stages = []
    for index, width in enumerate(features):
        norm = [BatchNorm(momentum=0.9)] if normalise and index else []
        drop = [] if is_zero(dropout) else [Dropout(dropout)]
        convolution = Conv(width, kernel_size, stride=2, use_bias=not norm, kernel_init=normal)
        stages += [convolution, *norm, activation, *drop]
    return Sequential(from_unit, *stages, Flatten(), Dense(1, kernel_init=normal))
