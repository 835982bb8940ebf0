"""The process in which one peer trains one network: `python -m benchmarks.worker '{"peer": …,
"network": …}'`.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from math import ceil
from pathlib import Path

from benchmarks.examples import examples, mean_loss
from benchmarks.machine import device_memory, peak_memory
from benchmarks.networks import NETWORKS, Network, Precision, Task
from benchmarks.peers import ENTRIES, Entry
from benchmarks.processes import Answer, Worker, serve
from benchmarks.weights import initial_weights

CHECK_EPOCHS = (1, 2)
CHECK_BATCHES = 4


@dataclass(frozen=True)
class Job:
    """What a process is for: a peer, and a network with the lengths of its run."""

    peer: str
    network: str
    batch: int
    examples: int
    epochs: int
    precision: Precision = "float32"

    @staticmethod
    def of(entry: Entry, network: Network, precision: Precision) -> "Job":
        return Job(
            entry.name, network.name, network.batch, network.examples, network.epochs, precision
        )

    def resolved(self) -> tuple[Entry, Network]:
        (entry,) = [entry for entry in ENTRIES if entry.name == self.peer]
        lengths = {"batch": self.batch, "examples": self.examples, "epochs": self.epochs}
        return entry, replace(NETWORKS[self.network], **lengths)


def start(entry: Entry, network: Network, precision: Precision, out: Path) -> Worker:
    """The driver's end of such a process; what it prints goes to a file in the folder `out`."""
    log = out / f"{network.name}-{entry.name.replace(' ', '-')}.log"
    job = json.dumps(asdict(Job.of(entry, network, precision)))
    return Worker(entry.name, "benchmarks.worker", job, log=log, environment=entry.environment)


class Timing:
    """Answers a driver's questions about one peer: how fast it becomes, whether it is right, how
    fast it is.
    """

    def __init__(self, entry: Entry, network: Network, precision: Precision) -> None:
        import_module(entry.module)
        self.entry = entry
        self.precision: Precision = precision
        self.calls: dict[str, int] = {}
        self._draw(network)

    def first(self, task: Task, seconds: float) -> Answer:
        """Builds, compiles and runs once; once more to see the pace; then fixes how many calls make
        a round.

        What the first call took beyond the second is the price of the first step. Inference is
        asked for after training, whose model it uses.
        """
        making = timed(self._make) if task == "training" else 0.0
        call = self._call(task)
        resetting, running = timed(lambda: self.peer.reset(self.weights)), timed(call)
        self.peer.reset(self.weights)
        again = timed(call)
        self.calls[task] = max(1, ceil(seconds / again))
        overhead = max(0.0, making + resetting + running - again)
        return {
            "first_step_seconds": overhead + again / self._steps(task),
            "calls_per_round": self.calls[task],
        }

    def check(self) -> Answer:
        """Losses of the weights that all start from, and after one and after two epochs in the
        data's own order.

        And the mean loss that the peer itself tells of the last of those epochs. Where the timed
        epochs end with a smaller batch, these do too.
        """
        inputs, labels = self.data
        count = CHECK_BATCHES * self.network.batch + self.network.examples % self.network.batch
        inputs, labels = inputs[:count], labels[:count]
        self.peer.load(inputs, labels)
        self.peer.reset(self.weights)
        losses, told = [mean_loss(self.network, self.peer.predict(), labels)], []
        for epochs in CHECK_EPOCHS:
            self.peer.reset(self.weights)
            told.append(self.peer.train(epochs, shuffle=False))
            losses.append(mean_loss(self.network, self.peer.predict(), labels))
        self.peer.load(*self.data)
        steps_per_epoch = ceil(len(inputs) / self.network.batch)
        steps = [epochs * steps_per_epoch for epochs in CHECK_EPOCHS]
        return {"losses": losses, "steps": [0, *steps], "told": told, "told_after": steps}

    def round(self, task: Task) -> Answer:
        """The fixed number of calls, each from the same weights: none trains on what another has
        overfitted.
        """
        seconds, call = 0.0, self._call(task)
        for _ in range(self.calls[task]):
            if task == "training":
                self.peer.reset(self.weights)
            seconds += timed(call)
        return {"seconds": seconds, "steps": self.calls[task] * self._steps(task)}

    def memory(self) -> Answer:
        device = device_memory()
        return {"peak_bytes": peak_memory()} | (
            {} if device is None else {"device_peak_bytes": device}
        )

    def at_batch(self, batch: int, steps: int, seconds: float) -> Answer:
        """Milliseconds a step of training and a batch of inference at another batch size, and the
        memory so far.
        """
        self._draw(replace(self.network, batch=batch, examples=batch * steps, epochs=1))
        answer: Answer = {"batch": batch}
        tasks: tuple[Task, ...] = ("training", "inference")
        for task in tasks:
            self.first(task, seconds)
            turn = self.round(task)
            answer[task] = 1e3 * turn["seconds"] / turn["steps"]
        return answer | self.memory()

    def _draw(self, network: Network) -> None:
        self.network, self.weights = network, initial_weights(network)
        self.data = examples(network, network.examples)

    def _make(self) -> None:
        self.peer = self.entry.make(self.network, self.precision)
        self.peer.load(*self.data)

    def _call(self, task: Task) -> Callable[[], object]:
        if task == "training":
            return lambda: self.peer.train(self.network.epochs, shuffle=True)
        return self.peer.predict

    def _steps(self, task: Task) -> int:
        return self.network.steps_per_epoch * (self.network.epochs if task == "training" else 1)


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    timing = Timing(*job.resolved(), job.precision)
    commands = (timing.first, timing.check, timing.round, timing.memory, timing.at_batch)
    serve({command.__name__: command for command in commands})


if __name__ == "__main__":
    main()
