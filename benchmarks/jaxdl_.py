"""jaxdl: `dl.fit` on NumPy arrays, every epoch compiled into one program. Whole calls are timed."""

import functools
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdl as dl
from benchmarks.networks import (
    EPSILON,
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
from jaxdl import losses, models
from jaxdl.models.gpt import TokenLogits
from jaxdl.models.resnet import block, convolution

Way: TypeAlias = Literal["eager", "step", "epoch"]


class Jaxdl:
    """`dl.Sequential` and `dl.fit`, compiled as said, each batch spread over all devices or not.
    uint8 images stay uint8.
    """

    def __init__(
        self,
        network: Network,
        precision: Precision,
        compile: Way = "epoch",
        spread: bool = False,
    ) -> None:
        self.network = network
        self.devices = jax.devices() if spread else None
        self.compile: Way = compile
        model = model_of(network)
        self.model = model if precision == "float32" else dl.in_precision(model, precision)
        self.optimizer = optax.adam(network.learning_rate, b1=network.b1, eps=EPSILON)
        self.loss = (
            losses.binary_cross_entropy if network.binary else losses.softmax_cross_entropy
        )

    def load(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.data = inputs, labels[:, None] if self.network.binary else labels

    def reset(self, weights: Weights) -> None:
        params = params_of(self.network, weights)
        self.params, self.state = jax.device_put((params, first_statistics(params)))

    def train(self, epochs: int, shuffle: bool) -> float:
        run = dl.fit(
            self.model,
            self.data,
            loss=self.loss,
            optimizer=self.optimizer,
            epochs=epochs,
            batch_size=self.network.batch,
            progress=False,
            seed=0,
            compile=self.compile,
            devices=self.devices,
            initial=(self.params, self.state),
            shuffle=shuffle,
        )
        self.params, self.state = jax.block_until_ready((run.params, run.state))
        return run.history["loss"][-1]

    def predict(self) -> np.ndarray:
        model = LastToken(self.model) if self.network.reads_tokens else self.model
        given = {"batch_size": self.network.batch, "devices": self.devices}
        return np.asarray(dl.predict(model, self.params, self.state, self.data[0], **given))


class JaxdlPair:
    """`dl.Adversarial` and `dl.train`; the codes come with the images."""

    def __init__(self, network: Network, precision: Precision, compile: Way = "epoch") -> None:
        self.network = network
        self.compile: Way = compile
        adam = optax.adam(network.learning_rate, b1=network.b1, eps=EPSILON)
        drawing = [getattr(part, "units") for part in network.parts]  # noqa: B009
        judging = [getattr(part, "units") for part in network.discriminator]  # noqa: B009
        generator: dl.Layer = models.dense_generator(*drawing[:-1], shape=drawing[-1])
        discriminator: dl.Layer = models.dense_discriminator(*judging[:-1])
        if precision != "float32":
            generator, discriminator = (
                dl.in_precision(generator, precision),
                dl.in_precision(discriminator, precision),
            )
        self.step = GivenCodes(generator, discriminator, network.input_shape[0], adam, adam)
        self.judge = Judged(generator, discriminator)

    def load(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.data = inputs, labels
        shapes = [
            jax.ShapeDtypeStruct((self.network.batch, *part.shape[1:]), part.dtype)
            for part in self.data
        ]
        first = jax.jit(
            lambda key: self.step.init(key, dl.Batch(*shapes))._replace(params=None)
        )  # draws no parameters
        self.first_state = first(jax.random.key(0))

    def reset(self, weights: Weights) -> None:
        self.start = self.first_state._replace(params=jax.tree.map(jnp.asarray, weights))

    def train(self, epochs: int, shuffle: bool) -> float:
        run = dl.train(
            self.step,
            self.data,
            epochs=epochs,
            batch_size=self.network.batch,
            progress=False,
            compile=self.compile,
            initial=self.start,
            shuffle=shuffle,
        )
        self.start = self.start._replace(params=jax.block_until_ready(run.params))
        return run.history["discriminator_loss"][-1] + run.history["generator_loss"][-1]

    def predict(self) -> np.ndarray:
        scores = dl.predict(
            self.judge,
            self.start.params,
            self.start.state,
            self.data,
            batch_size=self.network.batch,
        )
        return np.asarray(scores)


class GivenCodes(dl.Adversarial):
    """The pair with codes from the data in place of drawn ones, so that every peer's fakes are the
    same.
    """

    def fakes(
        self, params: Any, state: Any, batch: dl.Batch, key: jax.Array, train: bool
    ) -> Any:
        del key, train
        return self.generator.apply(params, state, batch.targets)


@dataclass(frozen=True)
class Judged(dl.Layer):
    """The scores of an image and of a fake, [batch, 2]."""

    generator: dl.Layer
    discriminator: dl.Layer

    def init(self, key: jax.Array, x: Any) -> Any:
        players = {
            "generator": (self.generator, x[1]),
            "discriminator": (self.discriminator, x[0]),
        }
        drawn = {name: player.init(key, inputs) for name, (player, inputs) in players.items()}
        return {name: params for name, (params, _) in drawn.items()}, {
            name: state for name, (_, state) in drawn.items()
        }

    def apply(self, params: Any, state: Any, x: Any, mode: dl.Mode = dl.Eval()) -> Any:
        fakes, _ = self.generator.apply(params["generator"], state["generator"], x[1], mode)
        judged = [
            self.discriminator.apply(
                params["discriminator"], state["discriminator"], images, mode
            )[0]
            for images in (x[0], fakes)
        ]
        return jnp.concatenate(judged, axis=-1), state


@dataclass(frozen=True)
class LastToken(dl.Layer):
    """What a language model says behind the last token."""

    model: dl.Layer

    def init(self, key: jax.Array, x: Any) -> Any:
        return self.model.init(key, x)

    def apply(self, params: Any, state: Any, x: Any, mode: dl.Mode = dl.Eval()) -> Any:
        y, state = self.model.apply(params, state, x, mode)
        return y[:, -1], state


def model_of(network: Network) -> dl.Sequential:
    layers: dict[str, Any] = {}
    for index, (name, part, shape) in enumerate(walk(network)):
        match part:
            case Conv(channels):
                layers |= {
                    name: dl.Conv(channels, 3, padding="VALID"),
                    f"relu_{index}": jax.nn.relu,
                }
            case Pool():
                layers[f"pool_{index}"] = dl.MaxPool(2)
            case Flatten():
                layers[f"flatten_{index}"] = dl.Flatten()
            case Dense(units, activation):
                layers |= {name: dl.Dense(units)} | (
                    {f"relu_{index}": jax.nn.relu} if activation == "relu" else {}
                )
            case Lstm(units, last):
                layers[name] = dl.LSTM(units, sequence=not last)
            case Stage(channels):
                layers[name] = dl.Sequential(
                    convolution(channels), dl.MaxPool(2), dl.BatchNorm(0.9), jax.nn.relu
                )
            case Residual():
                layers[name] = block(shape[-1])
            case Mean():
                layers["mean"] = dl.GlobalAvgPool()
            case Tokens() | Positions() | Block() | Norm() | Logits():
                layers |= transformer_part(name, part, network)
    return dl.Sequential(**layers)


@functools.cache
def transformer_block(heads: int, norm: dl.Layer) -> dl.Layer:
    """One for all places, as `models.gpt` has it."""
    return dl.TransformerBlock(heads, causal=True, flash=True, norm_layer=norm, use_bias=False)


def transformer_part(name: str, part: Any, network: Network) -> dict[str, Any]:
    """A part of `models.gpt`, under our name for it."""
    norm = dl.LayerNorm(epsilon=1e-5, use_bias=False)
    match part:
        case Tokens(count, features):
            return {name: dl.Embedding(count, features)}
        case Positions():
            return {name: dl.LearnedPositions(network.input_shape[0])}
        case Block(heads):
            return {name: transformer_block(heads, norm)}
        case Norm():
            return {name: norm}
    return {"logits": dl.Tied("tokens_0", TokenLogits())}


def params_of(network: Network, weights: Weights) -> Any:
    """The weights as jaxdl nests them."""
    params: dict[str, Any] = {}
    for name, part, _ in walk(network):
        arrays = weights.get(name, {})
        match part:
            case Stage():
                params[name] = normalised(arrays, "", 0)
            case Residual():
                params[name] = {
                    "body": normalised(arrays, "_0", 0) | normalised(arrays, "_1", 1)
                }
            case Block():
                attention = {
                    kernel: {"kernel": arrays[kernel]}
                    for kernel in ("query", "key", "value", "out")
                }
                mlp = {
                    "hidden": {"kernel": arrays["hidden"]},
                    "out": {"kernel": arrays["mlp_out"]},
                }
                norms = {
                    norm: {"scale": arrays[norm]} for norm in ("attention_norm", "mlp_norm")
                }
                params[name] = {"attention": attention, "mlp": mlp, **norms}
            case _ if name:
                params[name] = arrays
    return params


def first_statistics(params: Any) -> Any:
    """Those of batch normalisation."""
    found: dict[str, Any] = {}
    for name, part in params.items():
        if name.startswith("batch_norm"):
            found[name] = {
                "mean": np.zeros_like(part["bias"]),
                "var": np.ones_like(part["scale"]),
            }
        elif isinstance(part, dict) and (inner := first_statistics(part)):
            found[name] = inner
    return found


def normalised(arrays: dict[str, np.ndarray], ending: str, index: int) -> dict[str, Any]:
    norm = {"scale": arrays[f"scale{ending}"], "bias": arrays[f"bias{ending}"]}
    return {f"conv_{index}": {"kernel": arrays[f"kernel{ending}"]}, f"batch_norm_{index}": norm}
