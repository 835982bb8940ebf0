"""Residual networks for small images."""

from functools import partial

from jaxdl.core.layer import Layer
from jaxdl.layers.combine import Residual
from jaxdl.layers.conv import Conv
from jaxdl.layers.dense import Dense
from jaxdl.layers.initializers import HeNormal
from jaxdl.layers.norm import BatchNorm
from jaxdl.layers.pool import GlobalAvgPool, MaxPool
from jaxdl.layers.sequential import Sequential
from jaxdl.ops.activations import relu

convolution = partial(Conv, kernel_size=3, use_bias=False, kernel_init=HeNormal())


def resnet(*features: int, blocks: int = 1, classes: int = 10) -> Sequential:
    """A residual network for small images: [batch, height, width, channels] to logits [batch,
    classes].

    Each stage widens and halves the image (convolution, pooling, normalisation, relu), and then has
    residual blocks x + f(x), where f is twice convolution, normalisation, relu. A dense layer takes
    the mean over space.

    Source: He et al., *Deep residual learning for image recognition* (2016); the stages, with
    pooling instead of strides and before normalisation, are those of Page, *How to train your
    ResNet* (2018).

    Args:
        features: the channels of each stage.
        blocks: the number of residual blocks of a stage.
        classes: the number of outputs.

    Returns:
        A `Sequential` of `stage_0`, `stage_1`, …, `pool` and `logits`.

    Raises:
        LayerError: an argument of a layer is invalid.

    >>> import jax, jax.numpy as jnp
    >>> model = resnet(32, 64, 128)
    >>> images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.uint8)
    >>> params, state = jax.eval_shape(model.init, jax.random.key(0), images)
    >>> sorted(params)
    ['logits', 'stage_0', 'stage_1', 'stage_2']
    """
    stages = {
        f"stage_{index}": stage(channels, blocks) for index, channels in enumerate(features)
    }
    return Sequential(**stages, pool=GlobalAvgPool(), logits=Dense(classes))


def stage(channels: int, blocks: int) -> Sequential:
    """Halves height and width, and then applies residual blocks."""
    return Sequential(
        convolution(channels),
        MaxPool(2),
        BatchNorm(momentum=0.9),
        relu,
        *[block(channels)] * blocks,
    )


def block(channels: int) -> Layer:
    """x + f(x), where f is twice convolution, normalisation, relu."""
    return Residual(Sequential(*[convolution(channels), BatchNorm(momentum=0.9), relu] * 2))
