"""jaxdl: `dl.fit` on NumPy arrays, every epoch compiled into one program. Whole calls are timed."""

from typing import Literal

import jax
import numpy as np
import optax

import jaxdl as dl
from benchmarks.networks import EPSILON, LEARNING_RATE, Conv, Dense, Flatten, Lstm, Network, Pool, Weights, walk
from jaxdl import losses


class Jaxdl:
    """`dl.Sequential` and `dl.fit`, compiled as said. uint8 images stay uint8."""

    def __init__(self, network: Network, compile: Literal["eager", "step", "epoch"] = "epoch") -> None:
        self.network = network
        self.compile: Literal["eager", "step", "epoch"] = compile
        self.model = model_of(network)
        self.optimizer = optax.adam(LEARNING_RATE, eps=EPSILON)
        self.loss_function = losses.binary_cross_entropy if network.binary else losses.softmax_cross_entropy

    def load(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.data = inputs, labels[:, None] if self.network.binary else labels

    def reset(self, weights: Weights) -> None:
        self.params, self.state = weights, {}

    def train(self, epochs: int, shuffle: bool) -> None:
        run = dl.fit(
            self.model,
            self.data,
            loss=self.loss_function,
            optimizer=self.optimizer,
            epochs=epochs,
            batch_size=self.network.batch,
            progress=False,
            seed=0,
            compile=self.compile,
            initial=(self.params, self.state),
            shuffle=shuffle,
        )
        self.params, self.state = jax.block_until_ready((run.params, run.state))

    def loss(self) -> float:
        return float(dl.evaluate(self.model, self.params, self.state, self.data, loss=self.loss_function)["loss"])


def model_of(network: Network) -> dl.Sequential:
    layers = []
    for _, part, _ in walk(network):
        match part:
            case Conv(channels):
                layers += [dl.Conv(channels, 3, padding="VALID"), jax.nn.relu]
            case Pool():
                layers.append(dl.MaxPool(2))
            case Flatten():
                layers.append(dl.Flatten())
            case Dense(units, relu):
                layers += [dl.Dense(units)] + [jax.nn.relu] * relu
            case Lstm(units, last):
                layers.append(dl.LSTM(units, sequence=not last))
    return dl.Sequential(*layers)
