"""Flax Linen: a compact module, `TrainState`, and a step under `jax.jit`, as in its getting-started
guide.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState
from jaxtyping import Array

from benchmarks.batches import batches, mean_of_epoch
from benchmarks.examples import as_floats
from benchmarks.flax_nnx import ACTIVATIONS, block_tree
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
    walk,
)
from benchmarks.optax_losses import cross_entropy
from benchmarks.weights import Weights


class State(TrainState):
    """With the statistics of batch normalisation, as Flax's guide to it has it."""

    batch_stats: Any


class FlaxLinen:
    """`nn.Module.apply` under `jax.jit`, its state given away at each step."""

    def __init__(self, network: Network, precision: Precision) -> None:
        self.network = network
        self.model = Model(network, precision)
        self.rule = optax.adam(network.learning_rate, b1=network.b1, eps=EPSILON)

    def load(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.inputs, self.labels = as_floats(inputs), labels

    def reset(self, weights: Weights) -> None:
        params, statistics = jax.tree.map(jnp.array, trees(self.network, weights))
        self.state = State.create(
            apply_fn=self.model.apply, params=params, tx=self.rule, batch_stats=statistics
        )

    def train(self, epochs: int, shuffle: bool) -> float:
        losses = []
        for inputs, labels in batches(
            self.inputs, self.labels, self.network.batch, epochs, shuffle
        ):
            self.state, loss = step(self.state, inputs, labels)
            losses.append(loss)
        jax.block_until_ready(self.state)
        return mean_of_epoch(jax.device_get, losses, len(self.inputs), self.network.batch)

    def predict(self) -> np.ndarray:
        variables = {"params": self.state.params, "batch_stats": self.state.batch_stats}
        every = batches(self.inputs, self.labels, self.network.batch, 1, False)
        given = [outputs_of(self.model, variables, inputs) for inputs, _ in every]
        return np.concatenate([np.asarray(outputs) for outputs in given])


class Model(nn.Module):
    """The network, with each layer under the name its weights have."""

    network: Network
    precision: Precision

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        dtype = jnp.dtype(self.precision)
        tokens: Any = None
        for name, part, shape in walk(self.network):
            match part:
                case Conv(channels):
                    x = nn.relu(
                        nn.Conv(channels, (3, 3), padding="VALID", dtype=dtype, name=name)(x)
                    )
                case Pool():
                    x = nn.max_pool(x, (2, 2), strides=(2, 2))
                case Flatten():
                    x = x.reshape(x.shape[0], -1)
                case Dense(units, activation):
                    x = ACTIVATIONS[activation](nn.Dense(units, dtype=dtype, name=name)(x))
                case Lstm(units, last):
                    states: Any = nn.RNN(nn.OptimizedLSTMCell(units, dtype=dtype, name=name))(x)
                    x = states[:, -1] if last else states
                case Stage(channels):
                    x = normalised(x, channels, name, train, dtype, pool=True)
                case Residual():
                    y = normalised(x, shape[2], f"{name}_0", train, dtype)
                    x = x + normalised(y, shape[2], f"{name}_1", train, dtype)
                case Mean():
                    x = x.mean((1, 2))
                case Tokens(count, features):
                    tokens = nn.Embed(count, features, dtype=dtype, name=name)
                    x = tokens(x)
                case Positions():
                    x = (
                        x
                        + nn.Embed(*shape, dtype=dtype, name=name)(jnp.arange(x.shape[1]))[None]
                    )
                case Block(heads):
                    x = TransformerBlock(heads, dtype, name=name)(x)
                case Norm():
                    x = nn.LayerNorm(
                        use_bias=False, epsilon=NORM_EPSILON, dtype=dtype, name=name
                    )(x)
                case Logits():
                    x = tokens.attend(x)
        return x


class TransformerBlock(nn.Module):
    """Attention and two dense layers, each behind a normalisation and added."""

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        norm = partial(nn.LayerNorm, use_bias=False, epsilon=NORM_EPSILON, dtype=self.dtype)
        dense = partial(nn.Dense, use_bias=False, dtype=self.dtype)
        attention = nn.MultiHeadDotProductAttention(
            self.heads, use_bias=False, dtype=self.dtype, name="attention"
        )
        mask = nn.make_causal_mask(x[..., 0])
        x = x + attention(norm(name="attention_norm")(x), mask=mask)
        y = nn.gelu(dense(4 * x.shape[-1], name="hidden")(norm(name="mlp_norm")(x)))
        return x + dense(x.shape[-1], name="mlp_out")(y)


def normalised(
    x: Array, channels: int, name: str, train: bool, dtype: Any, pool: bool = False
) -> Array:
    x = nn.Conv(channels, (3, 3), use_bias=False, dtype=dtype, name=f"{name}_conv")(x)
    x = nn.max_pool(x, (2, 2), strides=(2, 2)) if pool else x
    norm = nn.BatchNorm(
        not train, momentum=MOMENTUM, epsilon=NORM_EPSILON, dtype=dtype, name=f"{name}_norm"
    )
    return nn.relu(norm(x))


def trees(network: Network, weights: Weights) -> tuple[dict[str, Any], dict[str, Any]]:
    """The common weights as Linen nests them, and the first statistics of batch normalisation."""
    params, statistics = {}, {}
    for name, part, shape in walk(network):
        arrays = weights.get(name, {})
        match part:
            case Lstm():
                gates = zip(
                    "ifgo", *(np.split(array, 4, -1) for array in arrays.values()), strict=True
                )
                params[name] = {}
                for gate, kernel, recurrent, bias in gates:
                    params[name] |= {
                        f"i{gate}": {"kernel": kernel},
                        f"h{gate}": {"kernel": recurrent, "bias": bias},
                    }
            case Stage() | Residual():
                for ending in ("",) if isinstance(part, Stage) else ("_0", "_1"):
                    scale, bias = arrays[f"scale{ending}"], arrays[f"bias{ending}"]
                    params[f"{name}{ending}_conv"] = {"kernel": arrays[f"kernel{ending}"]}
                    params[f"{name}{ending}_norm"] = {"scale": scale, "bias": bias}
                    statistics[f"{name}{ending}_norm"] = {
                        "mean": np.zeros_like(bias),
                        "var": np.ones_like(scale),
                    }
            case Block(heads):
                params[name] = block_tree(arrays, shape[1], heads)
            case _ if name:
                params[name] = arrays
    return params, statistics


@partial(jax.jit, donate_argnums=0)
def step(state: State, inputs: np.ndarray, labels: np.ndarray) -> tuple[State, Array]:
    def objective(params: Any) -> tuple[Array, Any]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        outputs, changed = state.apply_fn(variables, inputs, True, mutable=["batch_stats"])
        return cross_entropy(outputs, jnp.asarray(labels)).mean(), changed.get(
            "batch_stats", {}
        )

    (loss, statistics), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
    return state.apply_gradients(grads=gradients, batch_stats=statistics), loss


@partial(jax.jit, static_argnums=0)
def outputs_of(model: Model, variables: Any, inputs: np.ndarray) -> Array:
    outputs: Any = model.apply(variables, inputs, False)
    return (outputs[:, -1] if model.network.reads_tokens else outputs).astype(jnp.float32)
