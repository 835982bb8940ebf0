"""Equinox: a model as a pytree, `jax.vmap` over the batch, and a step under `eqx.filter_jit`, as in
its examples.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from benchmarks.batches import batches, mean_of_epoch
from benchmarks.examples import as_floats
from benchmarks.networks import (
    EPSILON,
    MOMENTUM,
    NORM_EPSILON,
    Block,
    Conv,
    Dense,
    Flatten,
    Logits,
    Lstm,
    Mean,
    Network,
    Norm,
    Pool,
    Positions,
    Precision,
    Residual,
    Stage,
    Tokens,
    flattened_shapes,
    walk,
)
from benchmarks.optax_losses import cross_entropy
from benchmarks.weights import Weights, rows_channels_first

KEY = jax.random.key(0)


class Equinox:
    """`eqx.nn` layers on channels-first images, `optax.adam`, arrays gathered by NumPy."""

    def __init__(self, network: Network, precision: Precision) -> None:
        self.network = network
        self.precision: Precision = precision
        self.optimizer = optax.adam(network.learning_rate, b1=network.b1, eps=EPSILON)

    def load(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        floats = as_floats(inputs)
        self.inputs = (
            np.ascontiguousarray(floats.transpose(0, 3, 1, 2)) if floats.ndim == 4 else floats
        )
        self.labels = labels

    def reset(self, weights: Weights) -> None:
        self.model, self.statistics = eqx.nn.make_with_state(Model)(self.network, weights)
        self.optimizer_state = self.optimizer.init(eqx.filter(self.model, eqx.is_inexact_array))
        self.statistics = self.model.begun(self.statistics)

    def train(self, epochs: int, shuffle: bool) -> float:
        carried, losses = (self.model, self.statistics, self.optimizer_state), []
        for inputs, labels in batches(
            self.inputs, self.labels, self.network.batch, epochs, shuffle
        ):
            *carried, loss = step(*carried, self.optimizer, self.precision, inputs, labels)
            losses.append(loss)
        self.model, self.statistics, self.optimizer_state = jax.block_until_ready(carried)
        return mean_of_epoch(jax.device_get, losses, len(self.inputs), self.network.batch)

    def predict(self) -> np.ndarray:
        model = eqx.nn.inference_mode(self.model)
        every = batches(self.inputs, self.labels, self.network.batch, 1, False)
        given = [
            outputs_of(model, self.statistics, self.precision, inputs) for inputs, _ in every
        ]
        return np.concatenate([np.asarray(outputs) for outputs in given])


class Model(eqx.Module):
    """The network's layers in their order, for one example."""

    network: Network = eqx.field(static=True)
    layers: list[PyTree]

    def __init__(self, network: Network, weights: Weights) -> None:
        self.network = network
        flattened = flattened_shapes(network)
        self.layers = [
            layer_of(part, shape, weights.get(name, {}), flattened.get(name))
            for name, part, shape in walk(network)
        ]

    def __call__(self, x: Array, statistics: eqx.nn.State) -> tuple[Array, eqx.nn.State]:
        for layer, (_, part, _) in zip(self.layers, walk(self.network), strict=True):
            match part:
                case Conv():
                    x = jax.nn.relu(layer(x))
                case Flatten():
                    x = x.ravel()
                case Dense(_, activation):
                    x = layer(x) if activation == "linear" else jax.nn.relu(layer(x))
                case Stage() | Residual():
                    x, statistics = layer(x, statistics)
                case Mean():
                    x = x.mean((1, 2))
                case Tokens() | Norm():
                    x = jax.vmap(layer)(x)
                case Positions():
                    x = x + layer.weight[: len(x)]
                case Logits():
                    x = x @ self.layers[0].weight.T
                case _:
                    x = layer(x)
        return x, statistics

    def begun(self, statistics: eqx.nn.State) -> eqx.nn.State:
        """With counts so high that running averages are read as they stand, as in every other
        library.
        """
        is_norm = lambda node: isinstance(node, eqx.nn.BatchNorm)  # noqa: E731
        for norm in filter(is_norm, jax.tree.leaves(self, is_leaf=is_norm)):
            statistics = statistics.set(norm.batch_counter, jnp.array(1_000_000))
        return statistics


def layer_of(
    part: Any,
    shape: tuple[int, ...],
    arrays: dict[str, np.ndarray],
    flattened: tuple[int, ...] | None,
) -> PyTree:
    match part:
        case Conv(channels):
            kernel = arrays["kernel"].transpose(3, 2, 0, 1)
            return laid(
                eqx.nn.Conv2d(shape[2], channels, 3, key=KEY),
                weight=kernel,
                bias=arrays["bias"][:, None, None],
            )
        case Pool():
            return eqx.nn.MaxPool2d(2, 2)
        case Dense(units):
            kernel = (
                rows_channels_first(arrays["kernel"], flattened)
                if flattened
                else arrays["kernel"]
            )
            return laid(
                eqx.nn.Linear(shape[0], units, key=KEY), weight=kernel.T, bias=arrays["bias"]
            )
        case Lstm(units, last):
            return Sequences(shape[-1], units, last, arrays)
        case Stage(channels):
            return Normalised(shape[2], channels, True, arrays, "")
        case Residual():
            return Added(
                [
                    Normalised(shape[2], shape[2], False, arrays, ending)
                    for ending in ("_0", "_1")
                ]
            )
        case Tokens(count, features):
            return laid(eqx.nn.Embedding(count, features, key=KEY), weight=arrays["embedding"])
        case Positions():
            return eqx.nn.Embedding(weight=jnp.asarray(arrays["embedding"]))
        case Block(heads):
            return TransformerBlock(shape[1], heads, arrays)
        case Norm():
            return layer_norm(arrays["scale"])
    return None


class Sequences(eqx.Module):
    """An LSTM cell under `jax.lax.scan`, as in Equinox's recurrent example."""

    cell: eqx.nn.LSTMCell
    last: bool = eqx.field(static=True)

    def __init__(
        self, inputs: int, units: int, last: bool, arrays: dict[str, np.ndarray]
    ) -> None:
        kernels = {"weight_ih": arrays["kernel"].T, "weight_hh": arrays["recurrent_kernel"].T}
        self.cell = laid(
            eqx.nn.LSTMCell(inputs, units, key=KEY), **kernels, bias=arrays["bias"]
        )
        self.last = last

    def __call__(self, x: Array) -> Array:
        def step(state, x):
            state = self.cell(x, state)
            return state, state[0]

        zeros = jnp.zeros(self.cell.hidden_size, x.dtype)
        (hidden, _), states = jax.lax.scan(step, (zeros, zeros), x)
        return hidden if self.last else states


class Normalised(eqx.Module):
    """A convolution, a pooling where said, batch normalisation, relu."""

    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    pool: bool = eqx.field(static=True)

    def __init__(
        self, inputs: int, channels: int, pool: bool, arrays: dict[str, np.ndarray], ending: str
    ) -> None:
        conv = eqx.nn.Conv2d(inputs, channels, 3, padding=1, use_bias=False, key=KEY)
        self.conv = laid(conv, weight=arrays[f"kernel{ending}"].transpose(3, 2, 0, 1))
        norm = eqx.nn.BatchNorm(
            channels, "batch", NORM_EPSILON, momentum=MOMENTUM, mode="batch"
        )
        self.norm = laid(norm, weight=arrays[f"scale{ending}"], bias=arrays[f"bias{ending}"])
        self.pool = pool

    def __call__(self, x: Array, statistics: eqx.nn.State) -> tuple[Array, eqx.nn.State]:
        x = self.conv(x)
        x = eqx.nn.MaxPool2d(2, 2)(x) if self.pool else x
        x, statistics = self.norm(x, statistics)
        return jax.nn.relu(x), statistics


class Added(eqx.Module):
    """x + f(x)."""

    layers: list[Normalised]

    def __call__(self, x: Array, statistics: eqx.nn.State) -> tuple[Array, eqx.nn.State]:
        y = x
        for layer in self.layers:
            y, statistics = layer(y, statistics)
        return x + y, statistics


class TransformerBlock(eqx.Module):
    """Attention and two dense layers, each behind a normalisation and added: [time, features] to
    the same.
    """

    attention: eqx.nn.MultiheadAttention
    hidden: eqx.nn.Linear
    mlp_out: eqx.nn.Linear
    attention_norm: eqx.nn.LayerNorm
    mlp_norm: eqx.nn.LayerNorm

    def __init__(self, features: int, heads: int, arrays: dict[str, np.ndarray]) -> None:
        attention = eqx.nn.MultiheadAttention(heads, features, key=KEY)
        kernels = [jnp.asarray(arrays[name].T) for name in ("query", "key", "value", "out")]

        def places(layer: eqx.nn.MultiheadAttention) -> list[jax.Array]:
            names = ("query", "key", "value", "output")
            return [getattr(layer, f"{name}_proj").weight for name in names]

        self.attention = eqx.tree_at(places, attention, kernels)
        self.hidden = laid(
            eqx.nn.Linear(features, 4 * features, use_bias=False, key=KEY),
            weight=arrays["hidden"].T,
        )
        self.mlp_out = laid(
            eqx.nn.Linear(4 * features, features, use_bias=False, key=KEY),
            weight=arrays["mlp_out"].T,
        )
        self.attention_norm, self.mlp_norm = (
            layer_norm(arrays["attention_norm"]),
            layer_norm(arrays["mlp_norm"]),
        )

    def __call__(self, x: Array) -> Array:
        y = jax.vmap(self.attention_norm)(x)
        x = x + self.attention(y, y, y, mask=jnp.tril(jnp.ones((len(x), len(x)), bool)))
        return x + jax.vmap(lambda x: self.mlp_out(jax.nn.gelu(self.hidden(self.mlp_norm(x)))))(
            x
        )


def layer_norm(scale: np.ndarray) -> eqx.nn.LayerNorm:
    return laid(eqx.nn.LayerNorm(len(scale), NORM_EPSILON, use_bias=False), weight=scale)


def laid(layer: Any, **arrays: np.ndarray) -> Any:
    """The layer with these weights in place of its own."""
    return eqx.tree_at(
        lambda layer: [getattr(layer, name) for name in arrays],
        layer,
        [jnp.asarray(a) for a in arrays.values()],
    )


def applied(
    model: PyTree, statistics: eqx.nn.State, precision: Precision, inputs: np.ndarray
) -> tuple[Array, eqx.nn.State]:
    """The outputs of a batch, computed in a precision."""
    model, x = jax.tree.map(
        lambda leaf: leaf.astype(precision) if eqx.is_inexact_array(leaf) else leaf,
        (model, jnp.asarray(inputs)),
    )
    return jax.vmap(model, in_axes=(0, None), out_axes=(0, None), axis_name="batch")(
        x, statistics
    )


@eqx.filter_jit
def step(
    model: PyTree,
    statistics: eqx.nn.State,
    state: optax.OptState,
    optimizer: optax.GradientTransformation,
    precision: Precision,
    inputs: np.ndarray,
    labels: np.ndarray,
) -> tuple[PyTree, eqx.nn.State, optax.OptState, Array]:
    @eqx.filter_value_and_grad(has_aux=True)
    def objective(model: PyTree) -> tuple[Array, eqx.nn.State]:
        outputs, new = applied(model, statistics, precision, inputs)
        return cross_entropy(outputs, jnp.asarray(labels)).mean(), new

    (loss, statistics), gradients = objective(model)
    updates, state = optimizer.update(gradients, state, eqx.filter(model, eqx.is_inexact_array))
    return eqx.apply_updates(model, updates), statistics, state, loss


@eqx.filter_jit
def outputs_of(
    model: PyTree, statistics: eqx.nn.State, precision: Precision, inputs: np.ndarray
) -> Array:
    outputs, _ = applied(model, statistics, precision, inputs)
    return (outputs[:, -1] if model.network.reads_tokens else outputs).astype(jnp.float32)
