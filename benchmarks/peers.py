"""Who takes part: what a peer must offer, and where each one's file is."""

import os
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from shutil import which
from typing import Any, Protocol

import numpy as np

from benchmarks import machine
from benchmarks.networks import NETWORKS, Network, Precision
from benchmarks.weights import Weights


class Peer(Protocol):
    """One library training one network, as its own documentation recommends."""

    def load(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        """Takes the data, in whatever form this library likes best. Not timed."""

    def reset(self, weights: Weights) -> None:
        """Lays the weights over the model's own parameters and forgets the optimizer's state. Not
        timed.
        """

    def train(self, epochs: int, shuffle: bool) -> float:
        """Trains over the data; returns the last epoch's mean loss, once the last step is done.
        Timed.

        A loss that nobody asks for is one that a compiler leaves out of the step. Of an adversarial
        pair it is the sum of both.
        """
        ...

    def predict(self) -> np.ndarray:
        """The outputs for all of the data in its order, batch by batch, with the weights as they
        are now. Timed.

        [examples, outputs]; of a language model the logits behind the last token; of an adversarial
        pair the scores of an image and of the fake made of the code beside it, [examples, 2].
        """
        ...


@dataclass(frozen=True)
class Entry:
    """A line of the table: the class `maker` of `module`, or for an adversarial pair `pair`, called
    with a network, a precision and `options`.

    Args:
        packages: what must be installed, by the names they are imported by.
        networks: names of the networks it takes part in.
        environment: variables that its process needs.
        programs: compilers that it calls, unless the variable CXX names another.
        devices: over how many of the CPU's devices it spreads a batch; where there is an
            accelerator, one that needs several does not take part.
    """

    name: str
    module: str
    maker: str
    packages: tuple[str, ...]
    pair: str = ""
    networks: tuple[str, ...] = tuple(NETWORKS)
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    programs: tuple[str, ...] = ()
    devices: int = 1

    def missing(self) -> list[str]:
        """The packages it needs and this Python does not have, and the programs this machine does
        not.
        """
        packages = [package for package in self.packages if find_spec(package) is None]
        return packages + [
            program
            for program in self.programs
            if which(os.environ.get("CXX", program)) is None
        ]

    def trains(self, network: Network) -> bool:
        present = self.devices == 1 or machine.device()[0] == "cpu"
        return (
            present
            and network.name in self.networks
            and bool(self.pair or not network.discriminator)
        )

    def make(self, network: Network, precision: Precision = "float32") -> Peer:
        maker = self.pair if network.discriminator else self.maker
        return getattr(import_module(self.module), maker)(network, precision, **self.options)


def keras(name: str, backend: str, package: str, **settings: Any) -> Entry:
    environment = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
    return Entry(
        name,
        "benchmarks.keras_",
        "Keras",
        ("keras", package),
        environment=environment,
        **settings,
    )


CORES = 2 ** (min(machine.cores(), 4).bit_length() - 1)
WITHOUT_RESNET = tuple(name for name in NETWORKS if name != "resnet")
ENTRIES = (
    Entry("jaxdl", "benchmarks.jaxdl_", "Jaxdl", ("jaxdl",), pair="JaxdlPair"),
    Entry(
        "jaxdl on cores as devices",
        "benchmarks.jaxdl_",
        "Jaxdl",
        ("jaxdl",),
        options={"spread": True},
        environment={"JAX_NUM_CPU_DEVICES": str(CORES)},
        devices=CORES,
    ),
    Entry(
        "jax by hand",
        "benchmarks.jax_by_hand",
        "JaxByHand",
        ("jax", "optax"),
        pair="JaxByHand",
        networks=WITHOUT_RESNET,
    ),
    Entry("torch eager", "benchmarks.torch_", "Torch", ("torch",), pair="TorchPair"),
    Entry(
        "torch compile",
        "benchmarks.torch_",
        "Torch",
        ("torch",),
        pair="TorchPair",
        options={"compile": True},
        programs=("g++",),
    ),
    keras("keras on jax", "jax", "jax", pair="KerasPair"),
    keras(
        "keras on jax by 32 steps",
        "jax",
        "jax",
        networks=("mlp",),
        options={"steps_per_execution": 32},
    ),
    keras("keras on torch", "torch", "torch"),
    keras("keras on tensorflow", "tensorflow", "tensorflow"),
    Entry("flax nnx", "benchmarks.flax_nnx", "FlaxNnx", ("flax", "optax"), pair="FlaxNnxPair"),
    Entry("flax linen", "benchmarks.flax_linen", "FlaxLinen", ("flax", "optax")),
    Entry("equinox", "benchmarks.equinox_", "Equinox", ("equinox", "optax")),
)
