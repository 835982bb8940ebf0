"""Who takes part: what a peer must offer, and where each one's file is."""

from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from benchmarks.networks import NETWORKS, Network, Weights


class Peer(Protocol):
    """One library training one network, as its own documentation recommends."""

    def load(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        """Takes the data, in whatever form this library likes best. Not timed."""

    def reset(self, weights: Weights) -> None:
        """Lays the weights over the model's own parameters and forgets the optimizer's state. Not timed."""

    def train(self, epochs: int, shuffle: bool) -> None:
        """Trains over the data and returns when the last step is done. Timed."""

    def loss(self) -> float:
        """The mean loss over the data, with the weights as they are now."""
        ...


@dataclass(frozen=True)
class Entry:
    """A line of the table: the class `maker` of `module`, called with a network and `options`.

    Args:
        packages: what must be installed, by the names they are imported by.
        networks: names of the networks it takes part in.
        environment: variables that its process needs.
    """

    name: str
    module: str
    maker: str
    packages: tuple[str, ...]
    networks: tuple[str, ...] = tuple(NETWORKS)
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def missing(self) -> list[str]:
        """The packages it needs and this Python does not have."""
        return [package for package in self.packages if find_spec(package) is None]

    def make(self, network: Network) -> Peer:
        return getattr(import_module(self.module), self.maker)(network, **self.options)


KERAS = {"KERAS_BACKEND": "jax"}
ENTRIES = (
    Entry("jaxdl", "benchmarks.jaxdl_", "Jaxdl", ("jaxdl",)),
    Entry("jax by hand", "benchmarks.jax_by_hand", "JaxByHand", ("jax", "optax")),
    Entry("torch eager", "benchmarks.torch_eager", "TorchEager", ("torch",)),
    Entry("keras on jax", "benchmarks.keras_jax", "KerasJax", ("keras", "jax"), environment=KERAS),
    Entry(
        "keras on jax by 32 steps",
        "benchmarks.keras_jax",
        "KerasJax",
        ("keras", "jax"),
        networks=("mlp",),
        options={"steps_per_execution": 32},
        environment=KERAS,
    ),
    Entry("flax nnx", "benchmarks.flax_nnx", "FlaxNnx", ("flax", "optax")),
    Entry("equinox", "benchmarks.equinox_", "Equinox", ("equinox", "optax")),
)
