"""The weights that all peers start from, drawn once in NumPy, in layouts that each peer turns into
its own.
"""

from math import prod
from typing import Any, TypeAlias

import numpy as np

from benchmarks.networks import (
    Block,
    Conv,
    Dense,
    Lstm,
    Network,
    Norm,
    Positions,
    Residual,
    Stage,
    Tokens,
    walk,
)

Weights: TypeAlias = dict[str, Any]


def initial_weights(network: Network, seed: int = 0) -> Weights:
    """Arrays by part and name; of an adversarial pair, by player, part and name.

    Kernels are Glorot-uniform (`HWIO`; dense `[in, out]`), those of a transformer normal(0.02), and
    biases small and random, so that a bias laid wrong shows. An LSTM has `kernel` [in, 4 * units],
    `recurrent_kernel` [units, 4 * units] and `bias`, its gates in the order i, f, g, o.
    """
    if network.discriminator:
        return {
            name: initial_weights(player, seed + index)
            for index, (name, player) in enumerate(network.players().items())
        }
    generator = np.random.default_rng(seed)
    drawn = {name: draw(generator, part, shape) for name, part, shape in walk(network) if name}
    return {
        name: {array: value.astype(np.float32) for array, value in arrays.items()}
        for name, arrays in drawn.items()
    }


def draw(
    generator: np.random.Generator, part: Any, shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """One part's arrays, for inputs of a shape."""
    match part:
        case Conv(channels):
            return {
                "kernel": glorot(generator, (3, 3, shape[2], channels)),
                "bias": small(generator, channels),
            }
        case Dense(units):
            return {
                "kernel": glorot(generator, (shape[0], units)),
                "bias": small(generator, units),
            }
        case Lstm(units):
            kernels = {
                "kernel": glorot(generator, (shape[-1], 4 * units)),
                "recurrent_kernel": glorot(generator, (units, 4 * units)),
            }
            return {**kernels, "bias": small(generator, 4 * units)}
        case Stage(channels):
            return normalised(generator, shape[2], channels)
        case Residual():
            units = [normalised(generator, shape[2], shape[2]) for _ in range(2)]
            return {
                f"{name}_{index}": array
                for index, unit in enumerate(units)
                for name, array in unit.items()
            }
        case Tokens(count, features):
            return {"embedding": generator.normal(0, 0.02, (count, features))}
        case Positions():
            return {"embedding": generator.normal(0, 0.02, shape)}
        case Norm():
            return {"scale": 1 + small(generator, shape[-1])}
        case Block():
            return block(generator, shape[-1])
    raise TypeError(f"{part}: expected a part that has weights")


def normalised(
    generator: np.random.Generator, inputs: int, channels: int
) -> dict[str, np.ndarray]:
    """A convolution's kernel, and the scale and bias of the normalisation behind it."""
    kernel = glorot(generator, (3, 3, inputs, channels))
    return {
        "kernel": kernel,
        "scale": 1 + small(generator, channels),
        "bias": small(generator, channels),
    }


def block(generator: np.random.Generator, features: int) -> dict[str, np.ndarray]:
    shapes = dict.fromkeys(("query", "key", "value", "out"), (features, features))
    shapes |= {"hidden": (features, 4 * features), "mlp_out": (4 * features, features)}
    arrays = {name: generator.normal(0, 0.02, shape) for name, shape in shapes.items()}
    return arrays | {
        name: 1 + small(generator, features) for name in ("attention_norm", "mlp_norm")
    }


def small(generator: np.random.Generator, size: int) -> np.ndarray:
    return generator.uniform(-0.05, 0.05, size)


def glorot(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    limit = np.sqrt(6 / (prod(shape[:-2]) * (shape[-2] + shape[-1])))
    return generator.uniform(-limit, limit, shape)


def rows_channels_first(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Reorders a dense kernel's rows: from flattened `[height, width, channels]` to `[channels,
    height, width]`.
    """
    height, width, channels = shape
    return (
        kernel.reshape(height, width, channels, -1)
        .transpose(2, 0, 1, 3)
        .reshape(height * width * channels, -1)
    )


def parameter_count(weights: Weights) -> int:
    return sum(
        value.size if isinstance(value, np.ndarray) else parameter_count(value)
        for value in weights.values()
    )
