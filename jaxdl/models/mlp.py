"""The multilayer perceptron."""

from collections.abc import Callable
from typing import Any

from jax import Array

from jaxdl.core.layer import Layer
from jaxdl.layers.arguments import is_zero
from jaxdl.layers.dense import Dense
from jaxdl.layers.dropout import Dropout
from jaxdl.layers.sequential import Sequential
from jaxdl.ops.activations import relu

Activation = Layer | Callable[[Any], Any]
"""A layer, or a plain function of one array."""


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
        output: the activation of the last layer, such as `jax.nn.sigmoid`; None gives logits.
        dropout: the probability that a hidden unit is dropped in training.
        dense: further arguments of every `Dense`, such as `kernel_init`.

    Returns:
        A `Sequential` of `dense_0`, `dense_1`, … and the activations.

    Raises:
        ValueError: no width is given.
        LayerError: an argument of a layer is invalid.

    >>> mlp(10, 10, 1)
    Sequential(Dense(10), relu, Dense(10), relu, Dense(1))
    """
    if not features:
        raise ValueError("mlp: expected the width of at least one layer, such as mlp(64, 10).")
    drop = dropout_layers(dropout)
    parts: list[Activation] = []
    for width in features[:-1]:
        parts += [Dense(width, **dense), activation, *drop]
    parts.append(Dense(features[-1], **dense))
    if output is not None:
        parts.append(output)
    return Sequential(*parts)


def dropout_layers(rate: float | Array) -> list[Dropout]:
    """A `Dropout` of that rate, or none if it is known to be zero."""
    return [] if is_zero(rate) else [Dropout(rate)]
