"""The plain convolutional network: convolutions and pooling, then dense layers."""

from collections.abc import Sequence

from jax import Array

from jaxdl.layers.arguments import is_zero
from jaxdl.layers.combine import Sequential
from jaxdl.layers.conv import Conv, Padding
from jaxdl.layers.dropout import Dropout
from jaxdl.layers.pool import MaxPool
from jaxdl.layers.shape import Flatten
from jaxdl.models.mlp import Activation, mlp
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
    """Stages of convolution, activation and maximum pooling, then an `mlp`: [batch, *space,
    channels] to [batch, classes].

    Source: LeCun, Bottou, Bengio, Haffner, *Gradient-based learning applied to document
    recognition* (1998), section II.

    Args:
        features: the channels of each stage.
        head: the width of each dense layer, the last that of the output.
        pool: the window of each stage's pooling, or one for all; 1 pools nothing.
        kernel_size, padding: of every convolution.
        activation: after every layer but the last.
        dropout: the rate at which the units that the head reads, and its hidden ones, are dropped
            in training.

    Raises:
        ValueError: there is not one pooling window a stage.

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
    stages = []
    for channels, window in zip(features, windows, strict=True):
        stages += [
            Conv(channels, kernel_size, padding=padding),
            activation,
            *([MaxPool(window)] if window > 1 else []),
        ]
    drop = [] if is_zero(dropout) else [Dropout(dropout)]
    return Sequential(
        *stages, Flatten(), *drop, *mlp(*head, activation=activation, dropout=dropout)
    )
