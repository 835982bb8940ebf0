"""The process in which one peer trains one network: `python -m benchmarks.worker PEER NETWORK EPOCHS EXAMPLES`."""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from math import ceil

from benchmarks.machine import peak_memory
from benchmarks.networks import NETWORKS, Network, examples, initial_weights
from benchmarks.peers import ENTRIES, Entry
from benchmarks.processes import Answer, serve

CHECK_EPOCHS = (1, 2)
CHECK_BATCHES = 4


class Timing:
    """Answers a driver's questions about one peer: how fast it becomes, whether it is right, how fast it is."""

    def __init__(self, entry: Entry, network: Network) -> None:
        import_module(entry.module)
        self.entry, self.network, self.calls = entry, network, 1
        self.weights = initial_weights(network)
        self.data = examples(network, network.examples)

    def first(self, seconds: float) -> Answer:
        """Builds, compiles and trains once; once more to see the pace; then fixes how many calls make a round.

        What the first call took beyond the second is the price of the first step.
        """
        making = timed(self._make)
        resetting, training = timed(lambda: self.peer.reset(self.weights)), timed(self._train)
        self.peer.reset(self.weights)
        again = timed(self._train)
        self.calls = max(1, ceil(seconds / again))
        overhead = max(0.0, making + resetting + training - again)
        return {"first_step_seconds": overhead + again / self._steps_per_call(), "calls_per_round": self.calls}

    def check(self) -> Answer:
        """Losses of the weights that all start from, and after one and after two epochs in the data's own order.

        Where the timed epochs end with a smaller batch, these do too.
        """
        inputs, labels = self.data
        count = CHECK_BATCHES * self.network.batch + self.network.examples % self.network.batch
        self.peer.load(inputs[:count], labels[:count])
        self.peer.reset(self.weights)
        losses = [self.peer.loss()]
        for epochs in CHECK_EPOCHS:
            self.peer.reset(self.weights)
            self.peer.train(epochs, shuffle=False)
            losses.append(self.peer.loss())
        self.peer.load(inputs, labels)
        steps_per_epoch = ceil(count / self.network.batch)
        return {"losses": losses, "steps": [0, *(epochs * steps_per_epoch for epochs in CHECK_EPOCHS)]}

    def round(self) -> Answer:
        """Trains the fixed number of calls, each from the same weights: none trains on what another has overfitted."""
        seconds = 0.0
        for _ in range(self.calls):
            self.peer.reset(self.weights)
            seconds += timed(self._train)
        return {"seconds": seconds, "steps": self.calls * self._steps_per_call()}

    def memory(self) -> Answer:
        return {"peak_bytes": peak_memory()}

    def _make(self) -> None:
        self.peer = self.entry.make(self.network)
        self.peer.load(*self.data)

    def _train(self) -> None:
        self.peer.train(self.network.epochs, shuffle=True)

    def _steps_per_call(self) -> int:
        return self.network.epochs * self.network.steps_per_epoch


def timed(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    peer, network, epochs, count = sys.argv[1:]
    (entry,) = [entry for entry in ENTRIES if entry.name == peer]
    timing = Timing(entry, replace(NETWORKS[network], epochs=int(epochs), examples=int(count)))
    serve({"first": timing.first, "check": timing.check, "round": timing.round, "memory": timing.memory})


if __name__ == "__main__":
    main()
