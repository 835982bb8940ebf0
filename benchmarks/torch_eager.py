"""PyTorch, eager: the loop of its tutorials over tensors that are already loaded."""

import numpy as np
import torch
from torch import nn

from benchmarks.networks import (
    EPSILON,
    LEARNING_RATE,
    Conv,
    Dense,
    Flatten,
    Lstm,
    Network,
    Pool,
    Weights,
    as_floats,
    flattened_shapes,
    rows_channels_first,
    walk,
)


class TorchEager:
    """`nn.Sequential`, `torch.optim.Adam` and a permutation an epoch, with PyTorch's own number of threads.

    Channels-last memory and the fused Adam are not PyTorch's defaults but its advice, and on a CPU the faster way for
    every network here: convolutions by up to a third, the smallest network by a quarter.
    """

    def __init__(self, network: Network, channels_last: bool = True, fused: bool = True) -> None:
        self.network, self.fused = network, fused
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model_of(network).to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue]
        self.criterion = nn.BCEWithLogitsLoss() if network.binary else nn.CrossEntropyLoss()

    def load(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.inputs = torch.from_numpy(as_floats(inputs))
        if self.inputs.ndim == 4:
            self.inputs = self.inputs.permute(0, 3, 1, 2).contiguous(memory_format=self.memory_format)
        self.labels = torch.from_numpy(labels[:, None] if self.network.binary else labels.astype(np.int64))

    def reset(self, weights: Weights) -> None:
        self.model.load_state_dict(state_dict(self.network, weights))
        self.optimizer = torch.optim.Adam(self.model.parameters(), LEARNING_RATE, eps=EPSILON, fused=self.fused)

    def train(self, epochs: int, shuffle: bool) -> None:
        count = len(self.inputs)
        for _ in range(epochs):
            order = torch.randperm(count) if shuffle else torch.arange(count)
            for batch in order.split(self.network.batch):
                loss = self.criterion(self.model(self.inputs[batch]), self.labels[batch])
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()

    @torch.no_grad()
    def loss(self) -> float:
        return self.criterion(self.model(self.inputs), self.labels).item()


def model_of(network: Network) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _, part, shape in walk(network):
        match part:
            case Conv(channels):
                layers += [nn.Conv2d(shape[2], channels, 3), nn.ReLU()]
            case Pool():
                layers.append(nn.MaxPool2d(2))
            case Flatten():
                layers.append(nn.Flatten())
            case Dense(units, relu):
                layers += [nn.Linear(shape[0], units)] + [nn.ReLU()] * relu
            case Lstm(units, last):
                layers.append(Sequences(shape[-1], units, last))
    return nn.Sequential(*layers)


class Sequences(nn.Module):
    """`nn.LSTM`, batch first. Its second bias, which adds to the first, stays zero: the others have one."""

    def __init__(self, inputs: int, units: int, last: bool) -> None:
        super().__init__()
        self.lstm, self.last = nn.LSTM(inputs, units, batch_first=True), last
        self.lstm.bias_hh_l0.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(x)
        return states[:, -1] if self.last else states


def state_dict(network: Network, weights: Weights) -> dict[str, torch.Tensor]:
    """The weights under PyTorch's names (a layer's place in the `Sequential`), as `OIHW` and `[out, in]`."""
    flattened, tensors, place = flattened_shapes(network), {}, 0
    for name, part, _ in walk(network):
        if isinstance(part, Lstm):
            for arrays, theirs in (("kernel", "weight_ih"), ("recurrent_kernel", "weight_hh")):
                tensors[f"{place}.lstm.{theirs}_l0"] = torch.from_numpy(weights[name][arrays].T.copy())
            tensors[f"{place}.lstm.bias_ih_l0"] = torch.from_numpy(weights[name]["bias"])
            tensors[f"{place}.lstm.bias_hh_l0"] = torch.zeros(4 * part.units)
        elif name:
            kernel = weights[name]["kernel"]
            if name in flattened:
                kernel = rows_channels_first(kernel, flattened[name])
            kernel = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
            tensors[f"{place}.weight"] = torch.from_numpy(kernel.copy())
            tensors[f"{place}.bias"] = torch.from_numpy(weights[name]["bias"])
        place += 2 if isinstance(part, Conv) or (isinstance(part, Dense) and part.relu) else 1
    return tensors
