"""Keras 3 on JAX: `compile` and `fit` on NumPy arrays, jitted as Keras does by default."""

from typing import Any

import keras
import numpy as np

from benchmarks.networks import EPSILON, LEARNING_RATE, Conv, Dense, Flatten, Lstm, Network, Pool, Weights, as_floats, walk

QUIET: Any = 0  # annotated in Keras as a string


class KerasJax:
    """`keras.Sequential` and `fit`; `steps_per_execution` lets it go back to its own bookkeeping less often."""

    def __init__(self, network: Network, steps_per_execution: int = 1) -> None:
        if keras.backend.backend() != "jax":
            raise RuntimeError(f"keras: expected KERAS_BACKEND=jax, got '{keras.backend.backend()}'")
        self.network = network
        self.model = keras.Sequential([keras.Input(network.input_shape), *layers_of(network)])
        # Keras adds epsilon before it corrects the bias, which makes it larger: this is the others' at the first step.
        epsilon = EPSILON * 0.001**0.5
        self.model.compile(
            optimizer=keras.optimizers.Adam(LEARNING_RATE, epsilon=epsilon),
            loss=keras.losses.BinaryCrossentropy(from_logits=True)
            if network.binary
            else keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            steps_per_execution=steps_per_execution,
        )
        optimizer = self.model.optimizer
        optimizer.build(self.model.trainable_variables)
        self.fresh_optimizer = [np.asarray(variable) for variable in optimizer.variables]

    def load(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.inputs = as_floats(inputs)
        self.labels = labels[:, None] if self.network.binary else labels

    def reset(self, weights: Weights) -> None:
        self.model.set_weights([array for layer in weights.values() for array in layer.values()])
        for variable, value in zip(self.model.optimizer.variables, self.fresh_optimizer, strict=True):
            variable.assign(value)

    def train(self, epochs: int, shuffle: bool) -> None:
        self.model.fit(self.inputs, self.labels, batch_size=self.network.batch, epochs=epochs, shuffle=shuffle, verbose=QUIET)

    def loss(self) -> float:
        return float(self.model.evaluate(self.inputs, self.labels, batch_size=self.network.batch, verbose=QUIET))


def layers_of(network: Network) -> list[keras.Layer]:
    layers: list[keras.Layer] = []
    for _, part, _ in walk(network):
        match part:
            case Conv(channels):
                layers.append(keras.layers.Conv2D(channels, 3, activation="relu"))
            case Pool():
                layers.append(keras.layers.MaxPooling2D(2))
            case Flatten():
                layers.append(keras.layers.Flatten())
            case Dense(units, relu):
                layers.append(keras.layers.Dense(units, activation="relu" if relu else None))
            case Lstm(units, last):
                layers.append(keras.layers.LSTM(units, return_sequences=not last))
    return layers
