"""Flax NNX: a module, `nnx.Optimizer` and a step under `nnx.jit`, as in its MNIST tutorial."""

from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from benchmarks.batches import batches
from benchmarks.networks import EPSILON, LEARNING_RATE, Conv, Dense, Flatten, Lstm, Network, Pool, Weights, as_floats, walk


class FlaxNnx:
    """`nnx.Module`, `nnx.jit`, and with `cached` the traversals kept by `nnx.cached_partial`."""

    def __init__(self, network: Network, cached: bool = True) -> None:
        self.network, self.cached = network, cached
        self.model = Model(network)
        self.optimizer_rule = optax.adam(LEARNING_RATE, eps=EPSILON)

    def load(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.inputs, self.labels = as_floats(inputs), labels

    def reset(self, weights: Weights) -> None:
        for name, arrays in weights.items():
            layer, arrays = getattr(self.model, name), jax.tree.map(jax.numpy.asarray, arrays)
            if isinstance(layer, nnx.RNN):
                cell: Any = layer.cell
                cell.dense_i.kernel[...] = arrays["kernel"]
                cell.dense_h.kernel[...], cell.dense_h.bias[...] = arrays["recurrent_kernel"], arrays["bias"]
            else:
                layer.kernel[...], layer.bias[...] = arrays["kernel"], arrays["bias"]
        self.optimizer = nnx.Optimizer(self.model, self.optimizer_rule, wrt=nnx.Param)

    def train(self, epochs: int, shuffle: bool) -> None:
        if self.cached:
            one_step = nnx.cached_partial(step, self.model, self.optimizer)
        else:
            one_step = lambda inputs, labels: step(self.model, self.optimizer, inputs, labels)  # noqa: E731
        for inputs, labels in batches(self.inputs, self.labels, self.network.batch, epochs, shuffle):
            one_step(inputs, labels)
        jax.block_until_ready((nnx.state(self.model), nnx.state(self.optimizer)))

    def loss(self) -> float:
        return float(nnx.jit(mean_loss)(self.model, self.inputs, self.labels))


class Model(nnx.Module):
    """The network, with each layer as an attribute under the name its weights have."""

    def __init__(self, network: Network) -> None:
        self.network = network
        rngs = nnx.Rngs(0)
        for name, part, shape in walk(network):
            if isinstance(part, Conv):
                setattr(self, name, nnx.Conv(shape[2], part.channels, (3, 3), padding="VALID", rngs=rngs))
            elif isinstance(part, Dense):
                setattr(self, name, nnx.Linear(shape[0], part.units, rngs=rngs))
            elif isinstance(part, Lstm):
                setattr(self, name, nnx.RNN(nnx.OptimizedLSTMCell(shape[-1], part.units, rngs=rngs), rngs=rngs))

    def __call__(self, x: Array) -> Array:
        for name, part, _ in walk(self.network):
            match part:
                case Conv():
                    x = nnx.relu(getattr(self, name)(x))
                case Pool():
                    x = nnx.max_pool(x, (2, 2), strides=(2, 2))
                case Flatten():
                    x = x.reshape(x.shape[0], -1)
                case Dense(_, relu):
                    x = getattr(self, name)(x)
                    x = nnx.relu(x) if relu else x
                case Lstm(_, last):
                    x = getattr(self, name)(x)
                    x = x[:, -1] if last else x
        return x


@nnx.jit
def step(model: Model, optimizer: nnx.Optimizer, inputs: np.ndarray, labels: np.ndarray) -> Float[Array, ""]:
    loss, gradients = nnx.value_and_grad(mean_loss)(model, inputs, labels)
    optimizer.update(model, gradients)
    return loss


def mean_loss(model: Model, inputs: np.ndarray, labels: np.ndarray) -> Float[Array, ""]:
    logits = model(jax.numpy.asarray(inputs))
    if logits.shape[-1] == 1:
        return optax.sigmoid_binary_cross_entropy(logits[:, 0], labels).mean()
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
