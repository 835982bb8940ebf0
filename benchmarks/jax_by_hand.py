"""JAX by hand: what an expert writes for one network. The whole training run is one scanned
program.
"""

from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from benchmarks.networks import (
    EPSILON,
    LEAK,
    NORM_EPSILON,
    Block,
    Conv,
    Dense,
    Flatten,
    Logits,
    Lstm,
    Network,
    Norm,
    Pool,
    Positions,
    Precision,
    Tokens,
    walk,
)
from benchmarks.optax_losses import cross_entropy, fooled, judged
from benchmarks.weights import Weights

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "leaky relu": partial(jax.nn.leaky_relu, negative_slope=LEAK),
    "tanh": jnp.tanh,
    "linear": lambda x: x,
}


class JaxByHand:
    """Epochs and steps under `lax.scan`; data on the device as uint8, shuffled and gathered inside
    the program.
    """

    def __init__(self, network: Network, precision: Precision) -> None:
        self.network = network
        self.precision: Precision = precision

    def load(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.inputs, self.labels = jnp.asarray(inputs), jnp.asarray(labels)

    def reset(self, weights: Weights) -> None:
        self.params = jax.tree.map(jnp.array, weights)
        optimizer = optimizer_of(self.network)
        players = self.params if self.network.discriminator else {"": self.params}
        states = {name: optimizer.init(params) for name, params in players.items()}
        self.optimizer_state = states if self.network.discriminator else states[""]

    def train(self, epochs: int, shuffle: bool) -> float:
        keys = jax.random.split(jax.random.key(0), epochs)
        carried = self.params, self.optimizer_state
        carried, losses = training(
            self.network, self.precision, shuffle, carried, self.inputs, self.labels, keys
        )
        self.params, self.optimizer_state = carried
        return float(np.asarray(losses)[-1])

    def predict(self) -> np.ndarray:
        return np.asarray(
            predictions(self.network, self.precision, self.params, self.inputs, self.labels)
        )


def optimizer_of(network: Network) -> optax.GradientTransformation:
    return optax.adam(network.learning_rate, b1=network.b1, eps=EPSILON)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def training(
    network: Network,
    precision: Precision,
    shuffle: bool,
    carried: Any,
    inputs: Array,
    labels: Array,
    keys: Array,
) -> tuple[Any, Array]:
    """One epoch for each key; returns the new parameters with the new optimizer state, and the mean
    loss of each epoch.
    """
    count = len(inputs)
    steps = ceil(count / network.batch)
    rows = jnp.arange(steps * network.batch).reshape(steps, network.batch)
    present = (rows < count).astype(jnp.float32)
    step: Callable[..., Any] = play if network.discriminator else descend

    def one(carried, chosen_and_mask):
        chosen, mask = chosen_and_mask
        *carried, loss = step(
            network, precision, *carried, inputs[chosen], labels[chosen], mask
        )
        return tuple(carried), loss * mask.sum()

    def epoch(carried, key):
        order = jax.random.permutation(key, count) if shuffle else jnp.arange(count)
        padded = jnp.pad(order, (0, steps * network.batch - count)).reshape(
            steps, network.batch
        )
        carried, losses = jax.lax.scan(one, carried, (padded, present))
        return carried, losses.sum() / count

    return jax.lax.scan(epoch, carried, keys)


def descend(
    network: Network,
    precision: Precision,
    params: Any,
    state: Any,
    inputs: Array,
    labels: Array,
    mask: Array,
) -> tuple[Any, Any, Array]:
    """One step, and its loss."""

    def objective(params):
        return (
            jnp.vdot(cross_entropy(forward(network, precision, params, inputs), labels), mask)
            / mask.sum()
        )

    loss, gradients = jax.value_and_grad(objective)(params)
    return *stepped(network, gradients, state, params), loss


def play(
    network: Network,
    precision: Precision,
    params: Any,
    states: Any,
    images: Array,
    codes: Array,
    mask: Array,
) -> tuple[Any, Any, Array]:
    """One update of the discriminator, then one of the generator against the new discriminator, of
    the same fakes.

    Returns the sum of their losses, too. The examples must fill their batches.
    """
    del mask
    players = network.players()
    images, judge = signed(images), partial(forward, players["discriminator"], precision)
    fakes, pullback = jax.vjp(
        lambda params: forward(players["generator"], precision, params, codes),
        params["generator"],
    )
    of_discriminator, slopes = jax.value_and_grad(
        lambda params: judged(judge(params, images), judge(params, fakes))
    )(params["discriminator"])
    discriminator, by_discriminator = stepped(
        network, slopes, states["discriminator"], params["discriminator"]
    )
    of_generator, slopes = jax.value_and_grad(
        lambda fakes: fooled(judge(discriminator, fakes))
    )(fakes)
    (slopes,) = pullback(slopes)
    generator, by_generator = stepped(network, slopes, states["generator"], params["generator"])
    params = {"generator": generator, "discriminator": discriminator}
    return (
        params,
        {"generator": by_generator, "discriminator": by_discriminator},
        of_discriminator + of_generator,
    )


def stepped(network: Network, gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
    updates, state = optimizer_of(network).update(gradients, state, params)
    return jax.tree.map(jnp.add, params, updates), state


@partial(jax.jit, static_argnums=(0, 1))
def predictions(
    network: Network, precision: Precision, params: Any, inputs: Array, labels: Array
) -> Array:
    """The outputs of all examples, a batch at a time."""

    def outputs(inputs: Array, labels: Array) -> Array:
        if not network.discriminator:
            given = forward(network, precision, params, inputs)
            return given[:, -1] if network.reads_tokens else given
        players = network.players()
        fakes = forward(players["generator"], precision, params["generator"], labels)
        judge = partial(forward, players["discriminator"], precision, params["discriminator"])
        return jnp.concatenate([judge(signed(inputs)), judge(fakes)], -1)

    whole = len(inputs) // network.batch * network.batch
    split = (
        arrays[:whole].reshape(-1, network.batch, *arrays.shape[1:])
        for arrays in (inputs, labels)
    )
    given = jax.lax.map(lambda both: outputs(*both), tuple(split))
    given = given.reshape(whole, given.shape[-1])
    return (
        jnp.concatenate([given, outputs(inputs[whole:], labels[whole:])])
        if whole < len(inputs)
        else given
    )


def signed(images: Array) -> Array:
    return images.astype(jnp.float32) * (2 / 255) - 1


def forward(network: Network, precision: Precision, params: Any, x: Array) -> Array:
    """The outputs in float32, computed in a precision."""
    if x.dtype == jnp.uint8:
        x = x.astype(jnp.float32) / 255
    low = jnp.dtype(precision)
    params, x = jax.tree.map(
        lambda leaf: leaf.astype(low) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        (params, x),
    )
    for name, part, _ in walk(network):
        match part:
            case Conv():
                x = jax.nn.relu(convolution(x, **params[name]))
            case Pool():
                x = max_pool(x)
            case Flatten():
                x = x.reshape(x.shape[0], -1)
            case Dense(_, activation):
                x = ACTIVATIONS[activation](x @ params[name]["kernel"] + params[name]["bias"])
            case Lstm(_, last):
                states = lstm(x.swapaxes(0, 1), **params[name])
                x = states[-1] if last else states.swapaxes(0, 1)
            case Tokens():
                x = params[name]["embedding"][x]
            case Positions():
                x = x + params[name]["embedding"][None, : x.shape[1]]
            case Block(heads):
                x = block(x, heads, params[name])
            case Norm():
                x = layer_norm(x, params[name]["scale"])
            case Logits():
                x = x @ params["tokens_0"]["embedding"].T
    return x.astype(jnp.float32)


def block(x: Array, heads: int, params: dict[str, Array]) -> Array:
    """A transformer block; query, key and value come of one product."""
    kernel = jnp.concatenate([params[name] for name in ("query", "key", "value")], -1)
    projected = layer_norm(x, params["attention_norm"]) @ kernel
    query, key, value = (
        part.reshape(*x.shape[:2], heads, -1) for part in jnp.split(projected, 3, -1)
    )
    fused = "cudnn" if jax.default_backend() == "gpu" and x.dtype == jnp.bfloat16 else None
    attended = jax.nn.dot_product_attention(
        query, key, value, is_causal=True, implementation=fused
    )
    x = x + attended.reshape(x.shape) @ params["out"]
    return (
        x
        + jax.nn.gelu(layer_norm(x, params["mlp_norm"]) @ params["hidden"]) @ params["mlp_out"]
    )


def layer_norm(x: Array, scale: Array) -> Array:
    y = x.astype(jnp.float32)
    y = y - y.mean(-1, keepdims=True)
    return (y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + NORM_EPSILON)).astype(
        x.dtype
    ) * scale


def lstm(x: Array, kernel: Array, recurrent_kernel: Array, bias: Array) -> Array:
    """The states of all steps, [time, batch, units]; the inputs' product is formed at once, in
    front of the loop.
    """
    projected = x @ kernel + bias

    def step(carry, projected):
        hidden, cell = carry
        i, f, g, o = jnp.split(projected + hidden @ recurrent_kernel, 4, axis=-1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (hidden, cell), hidden

    zeros = jnp.zeros((x.shape[1], recurrent_kernel.shape[0]), x.dtype)
    return jax.lax.scan(step, (zeros, zeros), projected)[1]


def convolution(x: Array, kernel: Array, bias: Array) -> Array:
    """Nine shifted slices side by side, times one matrix: in a loop on a CPU far faster than
    `lax.conv`'s gradient.
    """
    if jax.default_backend() != "cpu":
        return (
            jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            + bias
        )
    height, width, channels = x.shape[1] - 2, x.shape[2] - 2, kernel.shape[-1]
    shifted = [
        x[:, row : row + height, column : column + width]
        for row in range(3)
        for column in range(3)
    ]
    patches = jnp.concatenate(shifted, axis=-1).reshape(-1, kernel[..., 0].size)
    return (patches @ kernel.reshape(-1, channels) + bias).reshape(-1, height, width, channels)


def max_pool(x: Array) -> Array:
    """The maximum of strided slices, columns and then rows: the fastest of the ways tried, its
    gradient included.
    """
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    columns = jnp.maximum(x[:, :height, 0:width:2], x[:, :height, 1:width:2])
    return jnp.maximum(columns[:, 0::2], columns[:, 1::2])
