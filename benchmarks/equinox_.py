"""Equinox: a model as a pytree, `jax.vmap` over the batch, and a step under `eqx.filter_jit`, as in its examples."""

import equinox as eqx
import jax
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from benchmarks.batches import batches
from benchmarks.networks import (
    EPSILON,
    LEARNING_RATE,
    Conv,
    Dense,
    Flatten,
    Lstm,
    Network,
    Pool,
    Weights,
    as_floats,
    flattened_shapes,
    rows_channels_first,
    walk,
)


class Equinox:
    """`eqx.nn` layers on channels-first images, `optax.adam`, arrays gathered by NumPy."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.optimizer = optax.adam(LEARNING_RATE, eps=EPSILON)

    def load(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        floats = as_floats(inputs)
        self.inputs = np.ascontiguousarray(floats.transpose(0, 3, 1, 2)) if floats.ndim == 4 else floats
        self.labels = labels

    def reset(self, weights: Weights) -> None:
        self.model = model_of(self.network, weights)
        self.optimizer_state = self.optimizer.init(eqx.filter(self.model, eqx.is_array))

    def train(self, epochs: int, shuffle: bool) -> None:
        model, state = self.model, self.optimizer_state
        for inputs, labels in batches(self.inputs, self.labels, self.network.batch, epochs, shuffle):
            model, state, _ = step(model, state, self.optimizer, inputs, labels)
        self.model, self.optimizer_state = jax.block_until_ready((model, state))

    def loss(self) -> float:
        return float(mean_loss(self.model, self.inputs, self.labels))


@eqx.filter_jit
def step(
    model: PyTree,
    state: optax.OptState,
    optimizer: optax.GradientTransformation,
    inputs: np.ndarray,
    labels: np.ndarray,
) -> tuple[PyTree, optax.OptState, Float[Array, ""]]:
    loss, gradients = eqx.filter_value_and_grad(mean_loss)(model, inputs, labels)
    updates, state = optimizer.update(gradients, state, model)
    return eqx.apply_updates(model, updates), state, loss


def mean_loss(model: PyTree, inputs: np.ndarray, labels: np.ndarray) -> Float[Array, ""]:
    logits = jax.vmap(model)(jax.numpy.asarray(inputs))
    if logits.shape[-1] == 1:
        return optax.sigmoid_binary_cross_entropy(logits[:, 0], labels).mean()
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def model_of(network: Network, weights: Weights) -> PyTree:
    flattened, layers = flattened_shapes(network), []
    key = jax.random.key(0)
    for name, part, shape in walk(network):
        match part:
            case Conv(channels):
                kernel, bias = weights[name]["kernel"].transpose(3, 2, 0, 1), weights[name]["bias"][:, None, None]
                layers.append(laid(eqx.nn.Conv2d(shape[2], channels, 3, key=key), kernel, bias))
                layers.append(eqx.nn.Lambda(jax.nn.relu))
            case Pool():
                layers.append(eqx.nn.MaxPool2d(2, 2))
            case Flatten():
                layers.append(eqx.nn.Lambda(jax.numpy.ravel))
            case Dense(units, relu):
                kernel = weights[name]["kernel"]
                if name in flattened:
                    kernel = rows_channels_first(kernel, flattened[name])
                layers.append(laid(eqx.nn.Linear(shape[0], units, key=key), kernel.T, weights[name]["bias"]))
                layers += [eqx.nn.Lambda(jax.nn.relu)] * relu
            case Lstm(units, last):
                layers.append(Sequences(shape[-1], units, last, weights[name]))
    return eqx.nn.Sequential(layers)


class Sequences(eqx.Module):
    """An LSTM cell under `jax.lax.scan`, as in Equinox's recurrent example."""

    cell: eqx.nn.LSTMCell
    last: bool = eqx.field(static=True)

    def __init__(self, inputs: int, units: int, last: bool, arrays: dict[str, np.ndarray]) -> None:
        cell = eqx.nn.LSTMCell(inputs, units, key=jax.random.key(0))
        laid_in = tuple(jax.numpy.asarray(a) for a in (arrays["kernel"].T, arrays["recurrent_kernel"].T, arrays["bias"]))
        self.cell = eqx.tree_at(lambda cell: (cell.weight_ih, cell.weight_hh, cell.bias), cell, laid_in)
        self.last = last

    def __call__(self, x: Array, *, key: Array | None = None) -> Array:
        del key

        def step(state, x):
            state = self.cell(x, state)
            return state, state[0]

        zeros = jax.numpy.zeros(self.cell.hidden_size)
        (hidden, _), states = jax.lax.scan(step, (zeros, zeros), x)
        return hidden if self.last else states


def laid(layer: eqx.Module, kernel: np.ndarray, bias: np.ndarray) -> eqx.Module:
    """The layer with these weights in place of its own."""
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, (jax.numpy.asarray(kernel), jax.numpy.asarray(bias)))
