"""The multilayer perceptron."""

from collections.abc import Callable
from typing import Any

from jax import Array

from jaxdl.core.layer import Layer
from jaxdl.layers.arguments import is_zero
from jaxdl.layers.combine import Sequential
from jaxdl.layers.dense import Dense
from jaxdl.layers.dropout import Dropout
from jaxdl.ops.activations import relu

Activation = Layer | Callable[[Any], Any]


def mlp(
    *features: int,
    activation: Activation = relu,
    output: Activation | None = None,
    dropout: float | Array = 0.0,
    **dense: Any,
) -> Sequential:
    """hᵢ = a(hᵢ₋₁ Wᵢ + bᵢ) for the hidden layers, y = h W + b for the last: [batch, …, inputs] to
    [batch, …, features].

    Args:
        features: the width of each layer, the last that of the output.
        activation: a, after every layer but the last.
        output: what follows the last layer, such as `jax.nn.sigmoid`; None leaves logits.
        dropout: the rate at which hidden units are dropped in training.
        dense: further arguments of every `Dense`, such as `kernel_init`.

    Raises:
        ValueError: no width is given.

    >>> mlp(10, 10, 1)
    Sequential(Dense(10), relu, Dense(10), relu, Dense(1))
    """
    if not features:
        raise ValueError("mlp: expected the width of at least one layer, such as mlp(64, 10).")
    drop = [] if is_zero(dropout) else [Dropout(dropout)]
    hidden = [
        part for width in features[:-1] for part in (Dense(width, **dense), activation, *drop)
    ]
    return Sequential(*hidden, Dense(features[-1], **dense), *([] if output is None else [output]))
