"""The networks that every peer trains: their parts, their sizes, and the arithmetic they need."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Literal, TypeAlias

Activation: TypeAlias = Literal["relu", "leaky relu", "tanh", "linear"]
Task: TypeAlias = Literal["training", "inference"]
Precision: TypeAlias = Literal["float32", "bfloat16"]

EPSILON = 1e-8
LEAK = 0.2
NORM_EPSILON = 1e-5
MOMENTUM = 0.9


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
    """A matrix and a bias, then the activation."""

    units: int
    activation: Activation = "relu"


@dataclass(frozen=True)
class Lstm:
    """A long short-term memory, [batch, time, inputs] to [batch, time, units], or to its last state
    [batch, units].
    """

    units: int
    last: bool = False


@dataclass(frozen=True)
class Stage:
    """A padded 3x3 convolution without bias, the maximum of each 2x2 window, batch normalisation,
    relu.
    """

    channels: int


@dataclass(frozen=True)
class Residual:
    """x + f(x), f being twice a padded 3x3 convolution without bias, batch normalisation, relu."""


@dataclass(frozen=True)
class Mean:
    """The mean over height and width."""


@dataclass(frozen=True)
class Tokens:
    """The rows of an embedding, [batch, time] to [batch, time, features]."""

    count: int
    features: int


@dataclass(frozen=True)
class Positions:
    """A learned vector a step, added."""


@dataclass(frozen=True)
class Block:
    """A causal transformer block with the normalisation in front, gelu by tanh, four times as wide
    inside; no biases.
    """

    heads: int


@dataclass(frozen=True)
class Norm:
    """Layer normalisation without bias."""


@dataclass(frozen=True)
class Logits:
    """Products with the rows of the embedding in `Tokens`."""

    count: int


Part: TypeAlias = (
    Conv
    | Pool
    | Flatten
    | Dense
    | Lstm
    | Stage
    | Residual
    | Mean
    | Tokens
    | Positions
    | Block
    | Norm
    | Logits
)
NAMES: dict[type, str] = {
    Conv: "conv",
    Dense: "dense",
    Lstm: "lstm",
    Stage: "stage",
    Residual: "residual",
    Tokens: "tokens",
    Positions: "positions",
    Block: "block",
    Norm: "norm",
}


@dataclass(frozen=True)
class Network:
    """A network and the run that times it.

    One timed call trains `epochs` epochs over `examples` examples in batches of `batch`, the
    smaller last one included. With one output the loss is the binary cross-entropy of logits, with
    more the softmax cross-entropy. The optimizer is Adam. Where a `discriminator` is given, the
    parts are a generator, from codes of `input_shape` to images, and the two are trained against
    each other.
    """

    name: str
    input_shape: tuple[int, ...]
    parts: tuple[Part, ...]
    batch: int
    examples: int
    epochs: int = 1
    discriminator: tuple[Part, ...] = ()
    learning_rate: float = 1e-3
    b1: float = 0.9
    accelerator_only: bool = False

    @property
    def outputs(self) -> int:
        last = self.parts[-1]
        if isinstance(last, Logits):
            return last.count
        assert isinstance(last, Dense)
        return last.units

    @property
    def binary(self) -> bool:
        return self.outputs == 1

    @property
    def reads_tokens(self) -> bool:
        return isinstance(self.parts[0], Tokens)

    @property
    def steps_per_epoch(self) -> int:
        return ceil(self.examples / self.batch)

    def players(self) -> dict[str, "Network"]:
        """An adversarial pair's two networks."""
        discriminator = replace(
            self, parts=self.discriminator, input_shape=(self.outputs,), discriminator=()
        )
        return {"generator": replace(self, discriminator=()), "discriminator": discriminator}


def gpt(
    name: str,
    count: int,
    context: int,
    layers: int,
    heads: int,
    features: int,
    **settings: int | bool,
) -> Network:
    parts = (
        Tokens(count, features),
        Positions(),
        *[Block(heads)] * layers,
        Norm(),
        Logits(count),
    )
    return Network(name, (context,), parts, **settings)  # pyright: ignore[reportArgumentType]


def dense(*units: int, activation: Activation, last: Activation) -> tuple[Dense, ...]:
    return (*(Dense(width, activation) for width in units[:-1]), Dense(units[-1], last))


NETWORKS = {
    network.name: network
    for network in (
        Network(
            "mlp",
            (10,),
            dense(10, 10, 1, activation="relu", last="linear"),
            batch=32,
            examples=1000,
            epochs=100,
        ),
        Network(
            "wide",
            (28, 28, 1),
            (Flatten(), *dense(1024, 1024, 10, activation="relu", last="linear")),
            batch=256,
            examples=16384,
        ),
        Network(
            "mnist",
            (28, 28, 1),
            (
                Conv(32),
                Pool(),
                Conv(64),
                Pool(),
                Conv(64),
                Flatten(),
                Dense(64),
                Dense(10, "linear"),
            ),
            batch=64,
            examples=2048,
        ),
        Network(
            "cifar",
            (32, 32, 3),
            (
                Conv(32),
                Pool(),
                Conv(64),
                Pool(),
                Conv(128),
                Pool(),
                Flatten(),
                Dense(128),
                Dense(10, "linear"),
            ),
            batch=64,
            examples=2048,
        ),
        Network(
            "resnet",
            (32, 32, 3),
            (
                Stage(16),
                Residual(),
                Stage(32),
                Residual(),
                Stage(64),
                Residual(),
                Mean(),
                Dense(10, "linear"),
            ),
            batch=64,
            examples=1280,
        ),
        Network(
            "lstm",
            (100, 10),
            (Lstm(64), Lstm(64, last=True), Dense(10, "linear")),
            batch=64,
            examples=1280,
        ),
        gpt("gpt", 65, 64, layers=4, heads=4, features=128, batch=12, examples=480),
        Network(
            "gan",
            (128,),
            dense(256, 512, 1024, 784, activation="leaky relu", last="tanh"),
            batch=64,
            examples=3200,
            discriminator=dense(1024, 512, 256, 128, 1, activation="leaky relu", last="linear"),
            learning_rate=2e-4,
            b1=0.5,
        ),
        gpt(
            "gpt124m",
            50257,
            1024,
            layers=12,
            heads=12,
            features=768,
            batch=4,
            examples=128,
            accelerator_only=True,
        ),
    )
}


def walk(network: Network) -> Iterator[tuple[str, Part, tuple[int, ...]]]:
    """Yields each part's name (`conv_0`, `dense_1`; empty where it has no weights), the part, and
    its input's shape.
    """
    shape, seen = network.input_shape, dict.fromkeys(NAMES.values(), 0)
    for part in network.parts:
        kind = NAMES.get(type(part), "")
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
        case Stage(channels):
            return shape[0] // 2, shape[1] // 2, channels
        case Mean():
            return shape[-1:]
        case Tokens(_, features):
            return shape[0], features
        case Logits(count):
            return shape[0], count
        case Residual() | Positions() | Block() | Norm():
            return shape


def flattened_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """The image shape that each dense layer right behind a `Flatten` reads, by the layer's name."""
    shapes, before = {}, None
    for name, part, shape in walk(network):
        if isinstance(part, Flatten):
            before = shape
        elif isinstance(part, Dense) and before is not None:
            shapes[name], before = before, None
    return shapes


def products(network: Network) -> list[int]:
    """Multiplications of one example's forward pass, for each part that has any."""
    counts = []
    for _, part, shape in walk(network):
        match part:
            case Conv(channels):
                counts.append(9 * shape[2] * channels * (shape[0] - 2) * (shape[1] - 2))
            case Stage(channels):
                counts.append(9 * channels * prod(shape))
            case Residual():
                counts.append(2 * 9 * shape[2] * prod(shape))
            case Dense(units):
                counts.append(shape[0] * units)
            case Lstm(units):
                counts.append(shape[0] * 4 * units * (shape[1] + units))
            case Block():
                counts.append(shape[0] * shape[1] * (12 * shape[1] + 2 * shape[0]))
            case Logits(count):
                counts.append(prod(shape) * count)
    return counts


def flops(network: Network, task: Task = "training") -> float:
    """Floating-point operations of the products in one step, or in one batch of inference.

    A step takes three times the forward pass, less the gradient by the network's input, which
    nobody computes. An adversarial pair draws once, judges real images and fakes, and the fakes
    once more for the generator, which needs no gradient by the discriminator's weights. Attention
    counts whole, though half of it is masked.
    """
    if network.discriminator:
        drawing, judging = (products(player) for player in network.players().values())
        forward, first = sum(drawing) + 2 * sum(judging), drawing[0] + 2 * judging[0]
        training = 3 * sum(drawing) + 8 * sum(judging) - first
    else:
        forward = sum(products(network))
        training = 3 * forward - (0 if network.reads_tokens else products(network)[0])
    return 2.0 * network.batch * (training if task == "training" else forward)
