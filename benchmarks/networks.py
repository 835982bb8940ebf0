"""The networks that every peer trains: their parts, their data, and the weights that all of them start from."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod
from typing import TypeAlias

import numpy as np

Weights: TypeAlias = dict[str, dict[str, np.ndarray]]

LEARNING_RATE = 1e-3
EPSILON = 1e-8


@dataclass(frozen=True)
class Conv:
    """A 3x3 convolution without padding, then relu."""

    channels: int


@dataclass(frozen=True)
class Pool:
    """The maximum of each 2x2 window; a row or column too many is left out."""


@dataclass(frozen=True)
class Flatten:
    """[batch, height, width, channels] -> [batch, height * width * channels]."""


@dataclass(frozen=True)
class Dense:
    """A matrix and a bias, then relu if the layer is hidden."""

    units: int
    relu: bool = True


@dataclass(frozen=True)
class Lstm:
    """A long short-term memory, [batch, time, inputs] to [batch, time, units], or to its last state [batch, units]."""

    units: int
    last: bool = False


Part: TypeAlias = Conv | Pool | Flatten | Dense | Lstm


@dataclass(frozen=True)
class Network:
    """A network and the run that times it.

    One timed call trains `epochs` epochs over `examples` examples in batches of `batch`, the smaller last one included.
    With one output the loss is the binary cross-entropy of logits, with more the softmax cross-entropy. The optimizer
    is Adam.
    """

    name: str
    input_shape: tuple[int, ...]
    parts: tuple[Part, ...]
    batch: int
    examples: int
    epochs: int

    @property
    def outputs(self) -> int:
        last = self.parts[-1]
        assert isinstance(last, Dense)
        return last.units

    @property
    def binary(self) -> bool:
        return self.outputs == 1

    @property
    def steps_per_epoch(self) -> int:
        return ceil(self.examples / self.batch)


NETWORKS = {
    network.name: network
    for network in (
        Network("mlp", (10,), (Dense(10), Dense(10), Dense(1, relu=False)), batch=32, examples=1000, epochs=100),
        Network(
            "wide",
            (28, 28, 1),
            (Flatten(), Dense(1024), Dense(1024), Dense(10, relu=False)),
            batch=256,
            examples=16384,
            epochs=1,
        ),
        Network(
            "mnist",
            (28, 28, 1),
            (Conv(32), Pool(), Conv(64), Pool(), Conv(64), Flatten(), Dense(64), Dense(10, relu=False)),
            batch=64,
            examples=4096,
            epochs=2,
        ),
        Network(
            "cifar",
            (32, 32, 3),
            (Conv(32), Pool(), Conv(64), Pool(), Conv(128), Pool(), Flatten(), Dense(128), Dense(10, relu=False)),
            batch=64,
            examples=4096,
            epochs=1,
        ),
        Network("lstm", (100, 10), (Lstm(64), Lstm(64, last=True), Dense(10, relu=False)), batch=64, examples=1280, epochs=1),
    )
}


def walk(network: Network) -> Iterator[tuple[str, Part, tuple[int, ...]]]:
    """Yields each part's name (`conv_0`, `dense_1`; empty where it has no weights), the part, and its input's shape."""
    shape, seen = network.input_shape, {"conv": 0, "dense": 0, "lstm": 0}
    for part in network.parts:
        kind = {Conv: "conv", Dense: "dense", Lstm: "lstm"}.get(type(part), "")
        yield (f"{kind}_{seen[kind]}" if kind else ""), part, shape
        if kind:
            seen[kind] += 1
        shape = output_shape(part, shape)


def output_shape(part: Part, shape: tuple[int, ...]) -> tuple[int, ...]:
    match part:
        case Conv(channels):
            return shape[0] - 2, shape[1] - 2, channels
        case Pool():
            return shape[0] // 2, shape[1] // 2, shape[2]
        case Flatten():
            return (prod(shape),)
        case Dense(units):
            return (units,)
        case Lstm(units, last):
            return (units,) if last else (shape[0], units)


def initial_weights(network: Network, seed: int = 0) -> Weights:
    """Glorot-uniform kernels (`HWIO`; dense `[in, out]`) and small random biases, so that a bias laid wrong shows.

    An LSTM has `kernel` [in, 4 * units], `recurrent_kernel` [units, 4 * units] and `bias`, its gates in the order i, f, g, o.
    """
    generator = np.random.default_rng(seed)
    weights: Weights = {}
    for name, part, shape in walk(network):
        match part:
            case Conv(channels):
                kernel_shape = (3, 3, shape[2], channels)
            case Dense(units):
                kernel_shape = (shape[0], units)
            case Lstm(units):
                kernel_shape = (shape[-1], 4 * units)
            case _:
                continue
        weights[name] = {"kernel": glorot(generator, kernel_shape)}
        if isinstance(part, Lstm):
            weights[name]["recurrent_kernel"] = glorot(generator, (part.units, 4 * part.units))
        weights[name]["bias"] = generator.uniform(-0.05, 0.05, kernel_shape[-1:]).astype(np.float32)
    return weights


def glorot(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    limit = np.sqrt(6 / (prod(shape[:-2]) * (shape[-2] + shape[-1])))
    return generator.uniform(-limit, limit, shape).astype(np.float32)


def rows_channels_first(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Reorders a dense kernel's rows: from flattened `[height, width, channels]` to `[channels, height, width]`."""
    height, width, channels = shape
    return kernel.reshape(height, width, channels, -1).transpose(2, 0, 1, 3).reshape(height * width * channels, -1)


def flattened_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """The image shape that each dense layer right behind a `Flatten` reads, by the layer's name."""
    shapes, before = {}, None
    for name, part, shape in walk(network):
        if isinstance(part, Flatten):
            before = shape
        elif isinstance(part, Dense) and before is not None:
            shapes[name], before = before, None
    return shapes


def examples(network: Network, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Makes data from a seed: uint8 images with int32 labels, float32 sequences with int32 labels, or float32 features with
    0.0 and 1.0 as labels.

    Each class has a pattern of its own under the noise, so that training is neither hopeless nor done at once.
    """
    generator = np.random.default_rng(seed)
    if network.binary:
        features = generator.normal(size=(count, *network.input_shape)).astype(np.float32)
        return features, (features[:, 0] + features[:, 1] > 1).astype(np.float32)
    labels = generator.integers(0, network.outputs, count, dtype=np.int32)
    if len(network.input_shape) == 2:
        tunes = generator.normal(size=(network.outputs, *network.input_shape))
        return (tunes[labels] + generator.normal(size=(count, *network.input_shape))).astype(np.float32), labels
    patterns = generator.integers(0, 193, (network.outputs, *network.input_shape), dtype=np.uint8)
    images = generator.integers(0, 64, (count, *network.input_shape), dtype=np.uint8)
    for label, pattern in enumerate(patterns):
        images[labels == label] += pattern
    return images, labels


def as_floats(inputs: np.ndarray) -> np.ndarray:
    """uint8 images as float32 in [0, 1], without a second float copy in between; features as they are."""
    if inputs.dtype != np.uint8:
        return inputs
    return np.multiply(inputs, np.float32(1 / 255), dtype=np.float32)


def parameter_count(network: Network) -> int:
    return sum(array.size for layer in initial_weights(network).values() for array in layer.values())


def dense_flops(network: Network) -> dict[str, float]:
    """Floating-point operations of one training step's matrix products, for a network of dense layers.

    `counted` is the usual estimate, three products of two operations for each parameter and example: 6 * batch *
    parameters. `performed` leaves out the gradient by the network's input, which nobody computes, and the biases.
    """
    kernels = [layer["kernel"].size for layer in initial_weights(network).values()]
    return {
        "counted": 6.0 * network.batch * parameter_count(network),
        "performed": 6.0 * network.batch * sum(kernels) - 2.0 * network.batch * kernels[0],
    }
