"""The plain convolutional network: convolutions and pooling, then dense layers."""

from collections.abc import Sequence

from jax import Array

from jaxdl.layers.conv import Conv
from jaxdl.layers.inputs import Padding
from jaxdl.layers.pool import MaxPool
from jaxdl.layers.sequential import Sequential
from jaxdl.layers.shape import Flatten
from jaxdl.models.mlp import Activation, dropout_layers, mlp
from jaxdl.ops.activations import relu


def cnn(
    *features: int,
    head: Sequence[int] = (64, 10),
    pool: int | Sequence[int] = 2,
    kernel_size: int = 3,
    padding: Padding = "SAME",
    activation: Activation = relu,
    dropout: float | Array = 0.0,
) -> Sequential:
    """Stages of convolution, activation and maximum pooling, and then an `mlp`: [batch, *space,
    channels] to [batch, head[-1]].

    Source: LeCun, Bottou, Bengio, Haffner, *Gradient-based learning applied to document
    recognition* (1998), section II.

    Args:
        features: the channels of each stage.
        head: the width of each dense layer, the last that of the output.
        pool: the window of each stage's pooling, or one for all; 1 is no pooling.
        kernel_size, padding: of every convolution.
        activation: after every layer but the last.
        dropout: the probability that an input or a hidden unit of the head is dropped in training.

    Returns:
        A `Sequential` of `conv_0`, `conv_1`, … and `dense_0`, `dense_1`, ….

    Raises:
        ValueError: there is not one pooling window for each stage.
        LayerError: an argument of a layer is invalid.

    >>> cnn(32, 64, head=[10], pool=(2, 1), padding="VALID")
    Sequential(Conv(32, 3, padding='VALID'), relu, MaxPool(2), Conv(64, 3, padding='VALID'), relu,
               Flatten(), Dense(10))
    """
    windows = (pool,) * len(features) if isinstance(pool, int) else tuple(pool)
    if len(windows) != len(features):
        raise ValueError(
            f"cnn: {len(features)} stages need as many pooling windows, got {list(windows)} — 1 "
            f"pools nothing."
        )
    stages: list[Activation] = []
    for channels, window in zip(features, windows, strict=True):
        stages += [Conv(channels, kernel_size, padding=padding), activation]
        if window > 1:
            stages.append(MaxPool(window))
    classifier = mlp(*head, activation=activation, dropout=dropout)
    return Sequential(*stages, Flatten(), *dropout_layers(dropout), *classifier)
