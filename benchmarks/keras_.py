"""Keras 3 on JAX, PyTorch and TensorFlow: `compile` and `fit` on NumPy arrays, jitted as Keras does
by default.
"""

from typing import Any

import keras
import numpy as np

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
from benchmarks.weights import Weights

QUIET: Any = 0  # annotated in Keras as a string


class Keras:
    """A functional model and `fit`; `steps_per_execution` lets it go back to its own bookkeeping
    less often.
    """

    def __init__(
        self, network: Network, precision: Precision, steps_per_execution: int = 1
    ) -> None:
        keras.config.set_dtype_policy(policy(precision))
        self.network, self.model = network, model_of(network)
        self.model.compile(
            optimizer=adam(network),
            loss=keras.losses.BinaryCrossentropy(from_logits=True)
            if network.binary
            else keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            steps_per_execution=steps_per_execution,
        )
        self.fresh_optimizer = built(self.model.optimizer, self.model)
        logits: Any = self.model.output
        self.speaker = (
            keras.Model(self.model.input, logits[:, -1]) if network.reads_tokens else self.model
        )

    def load(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.inputs = as_floats(inputs)
        self.labels = labels[:, None] if self.network.binary else labels

    def reset(self, weights: Weights) -> None:
        lay(self.network, self.model, weights)
        for variable, value in zip(
            self.model.optimizer.variables, self.fresh_optimizer, strict=True
        ):
            variable.assign(value)

    def train(self, epochs: int, shuffle: bool) -> float:
        settings: dict[str, Any] = {
            "batch_size": self.network.batch,
            "epochs": epochs,
            "shuffle": shuffle,
            "verbose": QUIET,
        }
        return self.model.fit(self.inputs, self.labels, **settings).history["loss"][-1]

    def predict(self) -> np.ndarray:
        return self.speaker.predict(self.inputs, batch_size=self.network.batch, verbose=QUIET)


class KerasPair:
    """The loop that Keras's guide to training loops in JAX writes: `stateless_call`,
    `stateless_apply`, one jitted step.
    """

    def __init__(self, network: Network, precision: Precision) -> None:
        import jax

        keras.config.set_dtype_policy(policy(precision))
        self.network, self.jax = network, jax
        self.players = {name: model_of(player) for name, player in network.players().items()}
        self.optimizers = {name: adam(network) for name in self.players}
        self.fresh = {
            name: built(self.optimizers[name], model) for name, model in self.players.items()
        }
        self.step, self.judge = jax.jit(self._step, donate_argnums=0), jax.jit(self._judge)
        self.criterion = keras.losses.BinaryCrossentropy(from_logits=True)

    def load(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.codes = as_signed(inputs), labels

    def reset(self, weights: Weights) -> None:
        for name, player in self.network.players().items():
            lay(player, self.players[name], weights[name])
        params = {
            name: [self.jax.numpy.array(v.value) for v in model.trainable_variables]
            for name, model in self.players.items()
        }
        self.variables = params, self.jax.tree.map(self.jax.numpy.array, self.fresh)

    def train(self, epochs: int, shuffle: bool) -> float:
        losses = []
        for images, codes in batches(
            self.images, self.codes, self.network.batch, epochs, shuffle
        ):
            self.variables, loss = self.step(self.variables, images, codes)
            losses.append(loss)
        self.jax.block_until_ready(self.variables)
        return mean_of_epoch(self.jax.device_get, losses, len(self.images), self.network.batch)

    def predict(self) -> np.ndarray:
        every = batches(self.images, self.codes, self.network.batch, 1, False)
        return np.concatenate(
            [self.judge(self.variables[0], images, codes) for images, codes in every]
        )

    def _call(self, name: str, params: Any, x: Any) -> Any:
        return self.players[name].stateless_call(params, [], x, training=True)[0]

    def _step(self, variables: Any, images: Any, codes: Any) -> Any:
        params, optimizers = variables
        ones, zeros = keras.ops.ones((len(images), 1)), keras.ops.zeros((len(images), 1))
        fakes, pullback = self.jax.vjp(
            lambda params: self._call("generator", params, codes), params["generator"]
        )

        def judged(params: Any) -> Any:
            real, fake = (self._call("discriminator", params, x) for x in (images, fakes))
            losses: list[Any] = [self.criterion(ones, real), self.criterion(zeros, fake)]
            return losses[0] + losses[1]

        of_discriminator, gradients = self.jax.value_and_grad(judged)(params["discriminator"])
        discriminator, by_discriminator = self._apply(
            "discriminator", optimizers, gradients, params
        )
        fooled = self.jax.value_and_grad(
            lambda fakes: self.criterion(
                ones, self._call("discriminator", discriminator, fakes)
            )
        )
        of_generator, slopes = fooled(fakes)
        generator, by_generator = self._apply(
            "generator", optimizers, pullback(slopes)[0], params
        )
        params = {"generator": generator, "discriminator": discriminator}
        updated = params, {"generator": by_generator, "discriminator": by_discriminator}
        return updated, of_discriminator + of_generator

    def _apply(self, name: str, optimizers: Any, gradients: Any, params: Any) -> Any:
        return self.optimizers[name].stateless_apply(optimizers[name], gradients, params[name])

    def _judge(self, params: Any, images: Any, codes: Any) -> Any:
        fakes = self._call("generator", params["generator"], codes)
        return keras.ops.concatenate(
            [self._call("discriminator", params["discriminator"], x) for x in (images, fakes)],
            -1,
        )


def policy(precision: Precision) -> str:
    return "mixed_bfloat16" if precision == "bfloat16" else "float32"


def adam(network: Network) -> keras.optimizers.Adam:
    """Keras adds epsilon before it corrects the bias, which makes it larger: this is the others' at
    the first step.
    """
    return keras.optimizers.Adam(
        network.learning_rate, network.b1, epsilon=EPSILON * 0.001**0.5
    )


def built(optimizer: Any, model: keras.Model) -> list[np.ndarray]:
    """What the optimizer's variables are before the first step."""
    optimizer.build(model.trainable_variables)
    return [
        np.asarray(keras.ops.convert_to_numpy(variable)) for variable in optimizer.variables
    ]


def model_of(network: Network) -> keras.Model:
    layers = keras.layers
    given = x = keras.Input(
        network.input_shape, dtype="int32" if network.reads_tokens else None
    )
    tokens: Any = None
    for name, part, shape in walk(network):
        match part:
            case Conv(channels):
                x = layers.Conv2D(channels, 3, activation="relu", name=name)(x)
            case Pool():
                x = layers.MaxPooling2D(2)(x)
            case Flatten():
                x = layers.Flatten()(x)
            case Dense(units, activation):
                x = layers.Dense(
                    units,
                    name=name,
                    activation=None if activation == "leaky relu" else activation,
                )(x)
                x = layers.LeakyReLU(LEAK)(x) if activation == "leaky relu" else x
            case Lstm(units, last):
                x = layers.LSTM(units, return_sequences=not last, name=name)(x)
            case Stage(channels):
                x = normalised(x, channels, name, pool=True)
            case Residual():
                x = layers.Add()(
                    [x, normalised(normalised(x, shape[2], f"{name}_0"), shape[2], f"{name}_1")]
                )
            case Mean():
                x = layers.GlobalAveragePooling2D()(x)
            case Tokens(count, features):
                tokens = layers.ReversibleEmbedding(count, features, name=name)
                x = tokens(x)
            case Positions():
                x = AddedPositions(name=name)(x)
            case Block(heads):
                x = block(x, heads, shape[1], name)
            case Norm():
                x = layers.LayerNormalization(epsilon=NORM_EPSILON, center=False, name=name)(x)
            case Logits():
                x = tokens(x, reverse=True)
    return keras.Model(given, x)


class AddedPositions(keras.layers.Layer):
    """x + a learned vector a step."""

    def build(self, input_shape: Any) -> None:
        self.embedding = self.add_weight(shape=input_shape[1:], name="embedding")

    def call(self, x: Any) -> Any:
        return x + self.embedding


def normalised(x: Any, channels: int, name: str, pool: bool = False) -> Any:
    x = keras.layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = keras.layers.MaxPooling2D(2)(x) if pool else x
    return keras.layers.ReLU()(
        keras.layers.BatchNormalization(
            momentum=MOMENTUM, epsilon=NORM_EPSILON, name=f"{name}_norm"
        )(x)
    )


def block(x: Any, heads: int, features: int, name: str) -> Any:
    layers = keras.layers

    def gelu(x: Any) -> Any:
        return keras.ops.gelu(x, approximate=True)

    y = layers.LayerNormalization(
        epsilon=NORM_EPSILON, center=False, name=f"{name}_attention_norm"
    )(x)
    attention = layers.MultiHeadAttention(
        heads, features // heads, use_bias=False, name=f"{name}_attention"
    )
    x = x + attention(y, y, use_causal_mask=True)
    y = layers.LayerNormalization(epsilon=NORM_EPSILON, center=False, name=f"{name}_mlp_norm")(
        x
    )
    y = layers.Dense(4 * features, gelu, use_bias=False, name=f"{name}_hidden")(y)
    return x + layers.Dense(features, use_bias=False, name=f"{name}_mlp_out")(y)


def lay(network: Network, model: keras.Model, weights: Weights) -> None:
    """The common weights in Keras's places; statistics of batch normalisation begin anew."""
    for name, part, shape in walk(network):
        arrays = weights.get(name, {})
        match part:
            case Stage():
                lay_normalised(model, name, arrays, "")
            case Residual():
                for ending in ("_0", "_1"):
                    lay_normalised(model, name + ending, arrays, ending)
            case Block(heads):
                split = (shape[1], heads, -1)
                kernels = [
                    arrays[kernel].reshape(split) for kernel in ("query", "key", "value")
                ]
                model.get_layer(f"{name}_attention").set_weights(
                    [*kernels, arrays["out"].reshape(heads, -1, shape[1])]
                )
                for inner in ("attention_norm", "mlp_norm", "hidden", "mlp_out"):
                    model.get_layer(f"{name}_{inner}").set_weights([arrays[inner]])
            case _ if name:
                model.get_layer(name).set_weights(list(arrays.values()))


def lay_normalised(
    model: keras.Model, name: str, arrays: dict[str, np.ndarray], ending: str
) -> None:
    scale, bias = arrays[f"scale{ending}"], arrays[f"bias{ending}"]
    model.get_layer(f"{name}_conv").set_weights([arrays[f"kernel{ending}"]])
    model.get_layer(f"{name}_norm").set_weights(
        [scale, bias, np.zeros_like(bias), np.ones_like(scale)]
    )
