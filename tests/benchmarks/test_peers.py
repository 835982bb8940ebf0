"""Every peer on a small form of every kind of network: the same losses before and after training, in either precision."""

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import jax
import pytest

from benchmarks.examples import examples, mean_loss
from benchmarks.networks import (
    Block,
    Dense,
    Logits,
    Network,
    Norm,
    Positions,
    Precision,
    Tokens,
)
from benchmarks.peers import ENTRIES, Entry
from benchmarks.weights import initial_weights

GPT = Network(
    "gpt", (6,), (Tokens(11, 8), Positions(), Block(2), Norm(), Logits(11)), batch=4, examples=8
)
GAN = Network(
    "gan",
    (3,),
    (Dense(5, "leaky relu"), Dense(16, "tanh")),
    batch=4,
    examples=8,
    discriminator=(Dense(7, "leaky relu"), Dense(1, "linear")),
    learning_rate=2e-4,
    b1=0.5,
)
NAMES = {
    "gpt": ("jaxdl", "torch eager", "flax nnx", "flax linen"),
    "gan": ("jaxdl", "jax by hand", "torch eager", "flax nnx"),
}


@pytest.fixture(autouse=True)
def as_in_a_process_of_its_own(quickly_compiled: None) -> Iterator[None]:
    """Peers promote as their libraries do."""
    del quickly_compiled
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    jax.config.update("jax_numpy_rank_promotion", "allow")
    yield
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")


def losses(entry: Entry, network: Network, precision: Precision) -> list[float]:
    """Before and after two epochs, by one function; between them what the peer tells of the second."""
    weights, data = initial_weights(network), examples(network, network.examples)
    peer = entry.make(network, precision)
    peer.load(*data)
    found = []
    for epochs in (0, 2):
        peer.reset(weights)
        if epochs:
            found.append(peer.train(epochs, shuffle=False))
        found.append(mean_loss(network, peer.predict(), data[1]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("network", [GPT, GAN], ids=lambda network: network.name)
def test_all_peers_end_at_one_loss(network: Network) -> None:
    taking_part = [
        entry
        for entry in ENTRIES
        if entry.name in NAMES[network.name] and entry.trains(network) and not entry.missing()
    ]
    ours, *theirs = (losses(entry, network, "float32") for entry in taking_part)
    assert ours[-1] < ours[0]
    for other in theirs:
        assert other == pytest.approx(ours, rel=1e-4)


@pytest.mark.slow
def test_bfloat16_ends_near_float32_and_not_at_it() -> None:
    (entry,) = [entry for entry in ENTRIES if entry.name == "jax by hand"]
    exact, rounded = (losses(entry, GPT, precision) for precision in get_args(Precision))
    assert rounded == pytest.approx(exact, rel=2e-2)
    assert rounded != pytest.approx(exact, rel=1e-7)


def test_a_network_without_an_adversarial_peer_is_left_out() -> None:
    (linen,) = [entry for entry in ENTRIES if entry.name == "flax linen"]
    assert linen.trains(GPT)
    assert not linen.trains(GAN)
    assert not linen.trains(replace(GPT, name="another"))
