"""PyTorch, eager and compiled: the loop of its tutorials over tensors that are already loaded."""

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.batches import mean_of_epoch
from benchmarks.examples import as_floats, as_signed
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
    Mean,
    Network,
    Norm,
    Part,
    Pool,
    Positions,
    Precision,
    Residual,
    Stage,
    Tokens,
    flattened_shapes,
    walk,
)
from benchmarks.weights import Weights, rows_channels_first

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
if DEVICE.type == "cuda":
    torch.set_float32_matmul_precision(
        "high"
    )  # TensorFloat-32, as JAX multiplies float32 there
ACTIVATIONS = {
    "relu": nn.ReLU,
    "leaky relu": lambda: nn.LeakyReLU(LEAK),
    "tanh": nn.Tanh,
    "linear": nn.Identity,
}


class Torch:
    """`nn.Sequential`, `torch.optim.Adam` and a permutation an epoch, with PyTorch's own number of
    threads.

    Channels-last memory and the fused Adam are not PyTorch's defaults but its advice, and on a CPU
    the faster way for
    every network here: convolutions by up to a third, the smallest network by a quarter.
    """

    def __init__(self, network: Network, precision: Precision, compile: bool = False) -> None:
        self.network = network
        self.precision: Precision = precision
        self.model = placed(model_of(network))
        self.forward = compiled(self.model) if compile else self.model
        self.criterion = nn.BCEWithLogitsLoss() if network.binary else nn.CrossEntropyLoss()

    def load(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.inputs = torch.from_numpy(as_floats(inputs)).to(DEVICE)
        if self.inputs.ndim == 4:
            self.inputs = self.inputs.permute(0, 3, 1, 2).contiguous(
                memory_format=torch.channels_last
            )
        self.labels = torch.from_numpy(
            labels[:, None] if self.network.binary else labels.astype(np.int64)
        ).to(DEVICE)

    def reset(self, weights: Weights) -> None:
        self.model.load_state_dict(state_dict(self.network, weights))
        self.optimizer = adam(self.network, self.model)

    def train(self, epochs: int, shuffle: bool) -> float:
        self.model.train()
        losses = []
        for batch in batches(self.network, len(self.inputs), epochs, shuffle):
            with lowered(self.precision):
                outputs, labels = self.forward(self.inputs[batch]), self.labels[batch]
                if self.network.reads_tokens:
                    outputs, labels = outputs.flatten(0, 1), labels.flatten()
                loss = self.criterion(outputs, labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        finish()
        return mean_of_epoch(fetched, losses, len(self.inputs), self.network.batch)

    @torch.inference_mode()
    def predict(self) -> np.ndarray:
        self.model.eval()
        outputs = []
        for inputs in self.inputs.split(self.network.batch):
            with lowered(self.precision):
                given = self.forward(inputs)
            outputs.append(given[:, -1] if self.network.reads_tokens else given)
        return torch.cat(outputs).float().numpy(force=True)


class TorchPair:
    """The loop of PyTorch's tutorial on adversarial networks: fakes once, detached for the
    discriminator; fused Adams.
    """

    def __init__(self, network: Network, precision: Precision, compile: bool = False) -> None:
        self.network = network
        self.precision: Precision = precision
        self.players = {
            name: placed(model_of(player)) for name, player in network.players().items()
        }
        forwards = {
            name: compiled(model) if compile else model for name, model in self.players.items()
        }
        self.generator, self.discriminator = forwards["generator"], forwards["discriminator"]
        self.criterion = nn.BCEWithLogitsLoss()

    def load(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.codes = (
            torch.from_numpy(as_signed(inputs)).to(DEVICE),
            torch.from_numpy(labels).to(DEVICE),
        )

    def reset(self, weights: Weights) -> None:
        for name, player in self.network.players().items():
            self.players[name].load_state_dict(state_dict(player, weights[name]))
        self.optimizers = {
            name: adam(self.network, model) for name, model in self.players.items()
        }

    def train(self, epochs: int, shuffle: bool) -> float:
        losses = []
        for batch in batches(self.network, len(self.images), epochs, shuffle):
            ones, zeros = (
                torch.full((len(batch), 1), target, device=DEVICE) for target in (1.0, 0.0)
            )
            with lowered(self.precision):
                fakes = self.generator(self.codes[batch])
                judged = self.criterion(self.discriminator(self.images[batch]), ones)
                judged = judged + self.criterion(self.discriminator(fakes.detach()), zeros)
            self._step("discriminator", judged)
            with lowered(self.precision):
                fooled = self.criterion(self.discriminator(fakes), ones)
            self._step("generator", fooled)
            losses.append(judged.detach() + fooled.detach())
        finish()
        return mean_of_epoch(fetched, losses, len(self.images), self.network.batch)

    @torch.inference_mode()
    def predict(self) -> np.ndarray:
        scores = []
        for images, codes in zip(
            self.images.split(self.network.batch),
            self.codes.split(self.network.batch),
            strict=True,
        ):
            with lowered(self.precision):
                scores.append(
                    torch.cat(
                        [self.discriminator(images), self.discriminator(self.generator(codes))],
                        1,
                    )
                )
        return torch.cat(scores).float().numpy(force=True)

    def _step(self, player: str, loss: torch.Tensor) -> None:
        self.optimizers[player].zero_grad()
        loss.backward()
        self.optimizers[player].step()


def placed(model: nn.Module) -> nn.Module:
    return model.to(DEVICE).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def compiled(model: nn.Module) -> Any:
    """A program for each shape, none thrown away: those of an earlier batch size would count
    against the limit of eight.
    """
    torch.compiler.reset()
    return torch.compile(model, dynamic=False)


def adam(network: Network, model: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(
        model.parameters(), network.learning_rate, (network.b1, 0.999), eps=EPSILON, fused=True
    )


def lowered(precision: Precision) -> torch.autocast:
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == "bfloat16")


def batches(network: Network, count: int, epochs: int, shuffle: bool) -> list[torch.Tensor]:
    orders = (
        torch.randperm(count, device=DEVICE) if shuffle else torch.arange(count, device=DEVICE)
        for _ in range(epochs)
    )
    return [batch for order in orders for batch in order.split(network.batch)]


def fetched(losses: list[torch.Tensor]) -> np.ndarray:
    return torch.stack(losses).numpy(force=True)


def finish() -> None:
    """Waits for the device, which works on while Python goes ahead."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def model_of(network: Network) -> nn.Sequential:
    layers: dict[str, nn.Module] = {}
    for index, (name, part, shape) in enumerate(walk(network)):
        match part:
            case Conv(channels):
                layers |= {name: nn.Conv2d(shape[2], channels, 3), f"relu_{index}": nn.ReLU()}
            case Pool():
                layers[f"pool_{index}"] = nn.MaxPool2d(2)
            case Flatten():
                layers[f"flatten_{index}"] = nn.Flatten()
            case Dense(units, activation):
                layers[name] = nn.Linear(shape[0], units)
                if activation != "linear":
                    layers[f"activation_{index}"] = ACTIVATIONS[activation]()
            case Lstm(units, last):
                layers[name] = Sequences(shape[-1], units, last)
            case Stage(channels):
                layers[name] = normalised(shape[2], channels, nn.MaxPool2d(2))
            case Residual():
                layers[name] = Added(
                    normalised(shape[2], shape[2]), normalised(shape[2], shape[2])
                )
            case Mean():
                layers[f"mean_{index}"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            case Tokens(count, features):
                layers[name] = nn.Embedding(count, features)
            case Positions():
                layers[name] = AddedPositions(*shape)
            case Block(heads):
                layers[name] = TransformerBlock(shape[1], heads)
            case Norm():
                layers[name] = nn.LayerNorm(shape[1], NORM_EPSILON, bias=False)
            case Logits():
                layers["logits"] = TiedLogits(layers["tokens_0"])
    return nn.Sequential(OrderedDict(layers))


class Sequences(nn.Module):
    """`nn.LSTM`, batch first. Its second bias, which adds to the first, stays zero: the others have
    one.
    """

    def __init__(self, inputs: int, units: int, last: bool) -> None:
        super().__init__()
        self.lstm, self.last = nn.LSTM(inputs, units, batch_first=True), last
        self.lstm.bias_hh_l0.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(x)
        return states[:, -1] if self.last else states


def normalised(inputs: int, channels: int, *pool: nn.Module) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
    return nn.Sequential(
        OrderedDict(
            conv=convolution,
            pool=nn.Sequential(*pool),
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(),
        )
    )


class Added(nn.Sequential):
    """x + f(x)."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input + super().forward(input)


class AddedPositions(nn.Module):
    """x + positions."""

    def __init__(self, time: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(time, features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.weight[: x.shape[1]]


class TransformerBlock(nn.Module):
    """nanoGPT's form: one product for query, key and value, `scaled_dot_product_attention`."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = (
            nn.LayerNorm(features, NORM_EPSILON, bias=False) for _ in range(2)
        )
        self.projection, self.out = (
            nn.Linear(features, size * features, bias=False) for size in (3, 1)
        )
        self.hidden, self.mlp_out = (
            nn.Linear(features, 4 * features, bias=False),
            nn.Linear(4 * features, features, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.projection(self.attention_norm(x)).chunk(3, -1)
        )
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(-2))
        return x + self.mlp_out(
            functional.gelu(self.hidden(self.mlp_norm(x)), approximate="tanh")
        )


class TiedLogits(nn.Module):
    """Products with the rows of an embedding."""

    def __init__(self, tokens: nn.Module) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.tokens.weight)  # pyright: ignore[reportArgumentType]


def state_dict(network: Network, weights: Weights) -> dict[str, torch.Tensor]:
    """The weights under PyTorch's names, as `OIHW` and `[out, in]`."""
    flattened, tensors = flattened_shapes(network), {}
    for name, part, _ in walk(network):
        arrays = dict(weights.get(name, {}))
        if name in flattened:
            arrays["kernel"] = rows_channels_first(arrays["kernel"], flattened[name])
        tensors |= {
            f"{name or 'logits'}.{theirs}": array
            for theirs, array in part_arrays(part, arrays, weights).items()
        }
    return {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}


def part_arrays(part: Part, arrays: dict[str, np.ndarray], weights: Weights) -> dict[str, Any]:
    match part:
        case Conv() | Dense():
            return {"weight": outputs_first(arrays["kernel"]), "bias": arrays["bias"]}
        case Lstm(units):
            kernels = {
                "lstm.weight_ih_l0": arrays["kernel"].T,
                "lstm.weight_hh_l0": arrays["recurrent_kernel"].T,
            }
            return {
                **kernels,
                "lstm.bias_ih_l0": arrays["bias"],
                "lstm.bias_hh_l0": np.zeros(4 * units, np.float32),
            }
        case Stage():
            return normalised_arrays(arrays, "", "")
        case Residual():
            return normalised_arrays(arrays, "_0", "0.") | normalised_arrays(arrays, "_1", "1.")
        case Tokens() | Positions():
            return {"weight": arrays["embedding"]}
        case Norm():
            return {"weight": arrays["scale"]}
        case Block():
            projection = np.concatenate([arrays[name].T for name in ("query", "key", "value")])
            linear = {f"{name}.weight": arrays[name].T for name in ("out", "hidden", "mlp_out")}
            norms = {f"{name}.weight": arrays[name] for name in ("attention_norm", "mlp_norm")}
            return {"projection.weight": projection, **linear, **norms}
        case Logits():
            return {"tokens.weight": weights["tokens_0"]["embedding"]}
    return {}


def normalised_arrays(
    arrays: dict[str, np.ndarray], ending: str, prefix: str
) -> dict[str, Any]:
    """Those of a convolution and its batch normalisation, whose statistics begin anew."""
    scale, bias = arrays[f"scale{ending}"], arrays[f"bias{ending}"]
    norm = {
        "weight": scale,
        "bias": bias,
        "running_mean": np.zeros_like(bias),
        "running_var": np.ones_like(scale),
    }
    named = {f"{prefix}norm.{name}": array for name, array in norm.items()}
    return named | {
        f"{prefix}conv.weight": outputs_first(arrays[f"kernel{ending}"]),
        f"{prefix}norm.num_batches_tracked": np.int64(0),
    }


def outputs_first(kernel: np.ndarray) -> np.ndarray:
    return kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
