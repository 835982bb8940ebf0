"""Residual networks for small images."""

from functools import partial

from jaxdl.core.layer import Layer
from jaxdl.layers.combine import Residual, Sequential
from jaxdl.layers.conv import Conv
from jaxdl.layers.dense import Dense
from jaxdl.layers.initializers import HeNormal
from jaxdl.layers.norm import BatchNorm
from jaxdl.layers.pool import GlobalAvgPool, MaxPool
from jaxdl.ops.activations import relu

convolution = partial(Conv, kernel_size=3, use_bias=False, kernel_init=HeNormal())


def resnet(*features: int, blocks: int = 1, classes: int = 10) -> Sequential:
    """A residual network for small images: [batch, height, width, channels] to logits [batch,
    classes].

    Each stage widens and halves the image (convolution, pooling, normalisation, relu) and then adds
    residual blocks x + f(x), f being twice convolution, normalisation, relu. The mean over space is
    read by one dense layer.

    Source: He et al., *Deep residual learning for image recognition* (2016); the stages, with
    pooling in place of strides and before normalisation, are those of Page, *How to train your
    ResNet* (2018).

    Args:
        features: the channels of each stage.
        blocks: residual blocks a stage.
        classes: the number of outputs.

    >>> import jax, jax.numpy as jnp
    >>> model = resnet(32, 64, 128)
    >>> images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.uint8)
    >>> params, state = model.init(jax.random.key(0), images)
    >>> list(params)
    ['stage_0', 'stage_1', 'stage_2', 'logits']
    """
    stages = {f"stage_{index}": stage(channels, blocks) for index, channels in enumerate(features)}
    return Sequential(**stages, pool=GlobalAvgPool(), logits=Dense(classes))


def stage(channels: int, blocks: int) -> Sequential:
    """Halves height and width, and then adds residual blocks of so many channels."""
    return Sequential(
        convolution(channels),
        MaxPool(2),
        BatchNorm(momentum=0.9),
        relu,
        *[block(channels)] * blocks,
    )


def block(channels: int) -> Layer:
    """x + f(x), f being twice convolution, normalisation, relu."""
    return Residual(Sequential(*[convolution(channels), BatchNorm(momentum=0.9), relu] * 2))
