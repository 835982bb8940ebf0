"""JAX by hand: what an expert writes for one network on a CPU. The whole training run is one scanned program."""

from functools import partial
from math import ceil
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from benchmarks.networks import EPSILON, LEARNING_RATE, Conv, Dense, Flatten, Lstm, Network, Pool, Weights, walk

Params: TypeAlias = dict[str, dict[str, Array]]
OPTIMIZER = optax.adam(LEARNING_RATE, eps=EPSILON)


class JaxByHand:
    """Epochs and steps under `lax.scan`; data on the device as uint8, shuffled and gathered inside the program."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def load(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.inputs, self.labels = jnp.asarray(inputs), jnp.asarray(labels)

    def reset(self, weights: Weights) -> None:
        self.params = jax.tree.map(jnp.array, weights)
        self.optimizer_state = OPTIMIZER.init(self.params)

    def train(self, epochs: int, shuffle: bool) -> None:
        keys = jax.random.split(jax.random.key(0), epochs)
        self.params, self.optimizer_state, losses = training(
            self.network, shuffle, self.params, self.optimizer_state, self.inputs, self.labels, keys
        )
        np.asarray(losses)

    def loss(self) -> float:
        ones = jnp.ones(len(self.inputs))
        return float(jax.jit(mean_loss, static_argnums=0)(self.network, self.params, self.inputs, self.labels, ones))


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3))
def training(
    network: Network,
    shuffle: bool,
    params: Params,
    optimizer_state: optax.OptState,
    inputs: Array,
    labels: Array,
    keys: Array,
) -> tuple[Params, optax.OptState, Float[Array, " epochs"]]:
    """One epoch for each key; returns the new parameters, the new optimizer state and each epoch's mean loss."""
    count = len(inputs)
    steps = ceil(count / network.batch)
    rows = jnp.arange(steps * network.batch).reshape(steps, network.batch)
    present = (rows < count).astype(jnp.float32)

    def step(carry, chosen_and_mask):
        params, optimizer_state = carry
        chosen, mask = chosen_and_mask
        loss, gradients = jax.value_and_grad(mean_loss, argnums=1)(network, params, inputs[chosen], labels[chosen], mask)
        updates, optimizer_state = OPTIMIZER.update(gradients, optimizer_state, params)
        return (jax.tree.map(jnp.add, params, updates), optimizer_state), loss

    def epoch(carry, key):
        order = jax.random.permutation(key, count) if shuffle else jnp.arange(count)
        padded = jnp.pad(order, (0, steps * network.batch - count)).reshape(steps, network.batch)
        carry, losses = jax.lax.scan(step, carry, (padded, present))
        return carry, losses.mean()

    (params, optimizer_state), losses = jax.lax.scan(epoch, (params, optimizer_state), keys)
    return params, optimizer_state, losses


def mean_loss(network: Network, params: Params, inputs: Array, labels: Array, mask: Array) -> Float[Array, ""]:
    logits = forward(network, params, inputs)
    if network.binary:
        losses = optax.sigmoid_binary_cross_entropy(logits[:, 0], labels)
    else:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.vdot(losses, mask) / mask.sum()


def forward(network: Network, params: Params, x: Array) -> Float[Array, "batch outputs"]:
    if x.dtype == jnp.uint8:
        x = x.astype(jnp.float32) / 255
    for name, part, _ in walk(network):
        match part:
            case Conv():
                x = jax.nn.relu(convolution(x, **params[name]))
            case Pool():
                x = max_pool(x)
            case Flatten():
                x = x.reshape(x.shape[0], -1)
            case Dense(_, relu):
                x = x @ params[name]["kernel"] + params[name]["bias"]
                x = jax.nn.relu(x) if relu else x
            case Lstm(_, last):
                states = lstm(x.swapaxes(0, 1), **params[name])
                x = states[-1] if last else states.swapaxes(0, 1)
    return x


def lstm(x: Array, kernel: Array, recurrent_kernel: Array, bias: Array) -> Array:
    """The states of all steps, [time, batch, units]; the inputs' product is formed at once, in front of the loop."""
    projected = x @ kernel + bias

    def step(carry, projected):
        hidden, cell = carry
        i, f, g, o = jnp.split(projected + hidden @ recurrent_kernel, 4, axis=-1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (hidden, cell), hidden

    zeros = jnp.zeros((x.shape[1], recurrent_kernel.shape[0]))
    return jax.lax.scan(step, (zeros, zeros), projected)[1]


def convolution(x: Array, kernel: Array, bias: Array) -> Array:
    """Nine shifted slices side by side, times one matrix: in a loop on a CPU far faster than `lax.conv`'s gradient."""
    height, width, channels = x.shape[1] - 2, x.shape[2] - 2, kernel.shape[-1]
    shifted = [x[:, row : row + height, column : column + width] for row in range(3) for column in range(3)]
    patches = jnp.concatenate(shifted, axis=-1).reshape(-1, kernel[..., 0].size)
    return (patches @ kernel.reshape(-1, channels) + bias).reshape(-1, height, width, channels)


def max_pool(x: Array) -> Array:
    """The maximum of strided slices, columns and then rows: the fastest of the ways tried, its gradient included."""
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    columns = jnp.maximum(x[:, :height, 0:width:2], x[:, :height, 1:width:2])
    return jnp.maximum(columns[:, 0::2], columns[:, 1::2])
