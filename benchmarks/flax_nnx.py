"""Flax NNX: a module, `nnx.Optimizer` and a step under `nnx.jit`, as in its MNIST tutorial."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array

from benchmarks.batches import batches, mean_of_epoch
from benchmarks.examples import as_floats, as_signed
from benchmarks.networks import (
    EPSILON,
    LEAK,
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
    walk,
)
from benchmarks.optax_losses import cross_entropy, fooled, judged
from benchmarks.weights import Weights

ACTIVATIONS: dict[str, Any] = {
    "relu": nnx.relu,
    "leaky relu": lambda x: nnx.leaky_relu(x, LEAK),
    "tanh": nnx.tanh,
    "linear": lambda x: x,
}


class FlaxNnx:
    """`nnx.Module`, `nnx.jit`, and the traversals kept by `nnx.cached_partial`."""

    def __init__(self, network: Network, precision: Precision) -> None:
        self.network = network
        self.model = Model(network, precision)
        self.rule = optax.adam(network.learning_rate, b1=network.b1, eps=EPSILON)

    def load(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.inputs, self.labels = as_floats(inputs), labels

    def reset(self, weights: Weights) -> None:
        self.model.lay(weights)
        self.optimizer = nnx.Optimizer(self.model, self.rule, wrt=nnx.Param)

    def train(self, epochs: int, shuffle: bool) -> float:
        one_step = nnx.cached_partial(step, self.model, self.optimizer)
        every = batches(self.inputs, self.labels, self.network.batch, epochs, shuffle)
        losses = [one_step(inputs, labels) for inputs, labels in every]
        jax.block_until_ready((nnx.state(self.model), nnx.state(self.optimizer)))
        return mean_of_epoch(jax.device_get, losses, len(self.inputs), self.network.batch)

    def predict(self) -> np.ndarray:
        one_batch = nnx.cached_partial(outputs_of, self.model)
        every = batches(self.inputs, self.labels, self.network.batch, 1, False)
        return np.concatenate(
            [np.asarray(given) for given in [one_batch(inputs) for inputs, _ in every]]
        )


class FlaxNnxPair:
    """Two modules, each with its optimizer, and one step under `nnx.jit` for both."""

    def __init__(self, network: Network, precision: Precision) -> None:
        self.network = network
        self.players = {
            name: Model(player, precision) for name, player in network.players().items()
        }
        self.rule = optax.adam(network.learning_rate, b1=network.b1, eps=EPSILON)

    def load(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.codes = as_signed(inputs), labels

    def reset(self, weights: Weights) -> None:
        for name, model in self.players.items():
            model.lay(weights[name])
        self.optimizers = {
            name: nnx.Optimizer(model, self.rule, wrt=nnx.Param)
            for name, model in self.players.items()
        }

    def train(self, epochs: int, shuffle: bool) -> float:
        one_step = nnx.cached_partial(play, *self.players.values(), *self.optimizers.values())
        every = batches(self.images, self.codes, self.network.batch, epochs, shuffle)
        losses = [one_step(images, codes) for images, codes in every]
        jax.block_until_ready([nnx.state(model) for model in self.players.values()])
        return mean_of_epoch(jax.device_get, losses, len(self.images), self.network.batch)

    def predict(self) -> np.ndarray:
        one_batch = nnx.cached_partial(scores_of, *self.players.values())
        every = batches(self.images, self.codes, self.network.batch, 1, False)
        return np.concatenate(
            [np.asarray(given) for given in [one_batch(*both) for both in every]]
        )


class Model(nnx.Module):
    """The network, with each layer as an attribute under the name its weights have."""

    def __init__(self, network: Network, precision: Precision) -> None:
        self.network = network
        settings: dict[str, Any] = {"dtype": jnp.dtype(precision), "rngs": nnx.Rngs(0)}
        for name, part, shape in walk(network):
            match part:
                case Conv(channels):
                    setattr(
                        self,
                        name,
                        nnx.Conv(shape[2], channels, (3, 3), padding="VALID", **settings),
                    )
                case Dense(units):
                    setattr(self, name, nnx.Linear(shape[0], units, **settings))
                case Lstm(units):
                    setattr(
                        self,
                        name,
                        nnx.RNN(
                            nnx.OptimizedLSTMCell(shape[-1], units, **settings),
                            rngs=settings["rngs"],
                        ),
                    )
                case Stage(channels):
                    setattr(self, name, Normalised(shape[2], channels, True, settings))
                case Residual():
                    for ending in ("_0", "_1"):
                        setattr(
                            self, name + ending, Normalised(shape[2], shape[2], False, settings)
                        )
                case Tokens(count, features):
                    setattr(self, name, nnx.Embed(count, features, **settings))
                case Positions():
                    setattr(self, name, nnx.Embed(*shape, **settings))
                case Block(heads):
                    setattr(self, name, TransformerBlock(shape[1], heads, settings))
                case Norm():
                    setattr(
                        self,
                        name,
                        nnx.LayerNorm(
                            shape[1], use_bias=False, epsilon=NORM_EPSILON, **settings
                        ),
                    )

    def __call__(self, x: Array, train: bool) -> Array:
        tokens: Any = None
        for name, part, _ in walk(self.network):
            match part:
                case Conv():
                    x = nnx.relu(getattr(self, name)(x))
                case Pool():
                    x = nnx.max_pool(x, (2, 2), strides=(2, 2))
                case Flatten():
                    x = x.reshape(x.shape[0], -1)
                case Dense(_, activation):
                    x = ACTIVATIONS[activation](getattr(self, name)(x))
                case Lstm(_, last):
                    x = getattr(self, name)(x)
                    x = x[:, -1] if last else x
                case Stage():
                    x = getattr(self, name)(x, train)
                case Residual():
                    x = x + getattr(self, f"{name}_1")(
                        getattr(self, f"{name}_0")(x, train), train
                    )
                case Mean():
                    x = x.mean((1, 2))
                case Tokens():
                    tokens = getattr(self, name)
                    x = tokens(x)
                case Block() | Norm():
                    x = getattr(self, name)(x)
                case Positions():
                    x = x + getattr(self, name)(jnp.arange(x.shape[1]))[None]
                case Logits():
                    x = tokens.attend(x)
        return x

    def lay(self, weights: Weights) -> None:
        """The common weights in NNX's places; statistics of batch normalisation begin anew."""
        for name, part, shape in walk(self.network):
            arrays = weights.get(name, {})
            match part:
                case Lstm():
                    inner = {"kernel": arrays["recurrent_kernel"], "bias": arrays["bias"]}
                    assign(
                        getattr(self, name).cell,
                        {"dense_i": {"kernel": arrays["kernel"]}, "dense_h": inner},
                    )
                case Stage():
                    getattr(self, name).lay(arrays, "")
                case Residual():
                    for ending in ("_0", "_1"):
                        getattr(self, name + ending).lay(arrays, ending)
                case Block(heads):
                    assign(getattr(self, name), block_tree(arrays, shape[1], heads))
                case _ if name:
                    assign(getattr(self, name), arrays)


class Normalised(nnx.Module):
    """A convolution, a pooling where said, batch normalisation, relu."""

    def __init__(
        self, inputs: int, channels: int, pool: bool, settings: dict[str, Any]
    ) -> None:
        self.pool, self.conv = (
            pool,
            nnx.Conv(inputs, channels, (3, 3), use_bias=False, **settings),
        )
        self.norm = nnx.BatchNorm(channels, momentum=MOMENTUM, epsilon=NORM_EPSILON, **settings)

    def __call__(self, x: Array, train: bool) -> Array:
        x = self.conv(x)
        x = nnx.max_pool(x, (2, 2), strides=(2, 2)) if self.pool else x
        return nnx.relu(self.norm(x, use_running_average=not train))

    def lay(self, arrays: dict[str, np.ndarray], ending: str) -> None:
        scale, bias = arrays[f"scale{ending}"], arrays[f"bias{ending}"]
        norm = {
            "scale": scale,
            "bias": bias,
            "mean": np.zeros_like(bias),
            "var": np.ones_like(scale),
        }
        assign(self, {"conv": {"kernel": arrays[f"kernel{ending}"]}, "norm": norm})


class TransformerBlock(nnx.Module):
    """Attention and two dense layers, each behind a normalisation and added."""

    def __init__(self, features: int, heads: int, settings: dict[str, Any]) -> None:
        self.attention = nnx.MultiHeadAttention(
            heads, features, use_bias=False, decode=False, **settings
        )
        self.hidden = nnx.Linear(features, 4 * features, use_bias=False, **settings)
        self.mlp_out = nnx.Linear(4 * features, features, use_bias=False, **settings)
        self.attention_norm, self.mlp_norm = (
            nnx.LayerNorm(features, use_bias=False, epsilon=NORM_EPSILON, **settings)
            for _ in range(2)
        )

    def __call__(self, x: Array) -> Array:
        x = x + self.attention(self.attention_norm(x), is_causal=True)
        return x + self.mlp_out(nnx.gelu(self.hidden(self.mlp_norm(x))))


def block_tree(arrays: dict[str, np.ndarray], features: int, heads: int) -> dict[str, Any]:
    """A transformer block's weights as Flax nests them, a head an axis."""
    split = (features, heads, features // heads)
    attention = {
        name: {"kernel": arrays[name].reshape(split)} for name in ("query", "key", "value")
    }
    attention["out"] = {"kernel": arrays["out"].reshape(heads, -1, features)}
    dense = {name: {"kernel": arrays[name]} for name in ("hidden", "mlp_out")}
    return {"attention": attention, **dense} | {
        name: {"scale": arrays[name]} for name in ("attention_norm", "mlp_norm")
    }


def assign(module: Any, tree: dict[str, Any]) -> None:
    for name, value in tree.items():
        if isinstance(value, dict):
            assign(getattr(module, name), value)
        else:
            getattr(module, name)[...] = jnp.asarray(value)


@nnx.jit
def step(
    model: Model, optimizer: nnx.Optimizer, inputs: np.ndarray, labels: np.ndarray
) -> Array:
    def objective(model: Model) -> Array:
        return cross_entropy(model(jnp.asarray(inputs), True), jnp.asarray(labels)).mean()

    loss, gradients = nnx.value_and_grad(objective)(model)
    optimizer.update(model, gradients)
    return loss


@nnx.jit
def outputs_of(model: Model, inputs: np.ndarray) -> Array:
    outputs = model(jnp.asarray(inputs), False)
    return (outputs[:, -1] if model.network.reads_tokens else outputs).astype(jnp.float32)


@nnx.jit
def play(
    generator: Model,
    discriminator: Model,
    by_generator: nnx.Optimizer,
    by_discriminator: nnx.Optimizer,
    images: np.ndarray,
    codes: np.ndarray,
) -> Array:
    """One update of the discriminator, then one of the generator against the new discriminator; the
    sum of their losses.
    """
    fakes = generator(jnp.asarray(codes), True)
    of_discriminator, slopes = nnx.value_and_grad(
        lambda player: judged(player(jnp.asarray(images), True), player(fakes, True))
    )(discriminator)
    by_discriminator.update(discriminator, slopes)
    of_generator, slopes = nnx.value_and_grad(
        lambda player: fooled(discriminator(player(jnp.asarray(codes), True), True))
    )(generator)
    by_generator.update(generator, slopes)
    return of_discriminator + of_generator


@nnx.jit
def scores_of(
    generator: Model, discriminator: Model, images: np.ndarray, codes: np.ndarray
) -> Array:
    fakes = generator(jnp.asarray(codes), False)
    scores = [discriminator(x, False) for x in (jnp.asarray(images), fakes)]
    return jnp.concatenate(scores, -1).astype(jnp.float32)
