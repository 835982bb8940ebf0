"""Speed and memory from a batch of one example to the largest that fits, jaxdl beside its peers in
turn.

    python -m benchmarks.batch_sizes --networks mlp,cifar,gpt

Doubles the batch (`--factor`) until a peer's process is out of memory, holds more than its share of
the machine's, or takes longer than `--longest` seconds for a step. Writes `batch_sizes.json`, of
which `benchmarks.plots` draws examples a second over the batch.
"""

import argparse
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.networks import NETWORKS, Network, Precision
from benchmarks.peers import ENTRIES, Entry
from benchmarks.processes import Answer
from benchmarks.worker import start

MOST_STEPS = 32


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.batch_sizes", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--networks", default="mlp,cifar", help="which: %(default)s")
    parser.add_argument(
        "--peers",
        default=",".join(entry.name for entry in ENTRIES if entry.devices == 1),
        help="which: %(default)s",
    )
    parser.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "bfloat16"),
        help="default: %(default)s",
    )
    parser.add_argument(
        "--factor", type=int, default=2, help="from one batch size to the next: %(default)s"
    )
    parser.add_argument(
        "--largest", type=int, default=2**20, help="no batch is larger: %(default)s"
    )
    parser.add_argument(
        "--seconds", type=float, default=0.2, help="about how long each is timed: %(default)s"
    )
    parser.add_argument(
        "--longest",
        type=float,
        default=2.0,
        help="seconds a step, with which a peer ends: %(default)s",
    )
    parser.add_argument(
        "--memory",
        type=float,
        default=0.5,
        help="share of the memory, with which a peer ends: %(default)s",
    )
    parser.add_argument(
        "--out", type=Path, default=machine.results(), help="folder for the files: %(default)s"
    )
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    entries = [entry for entry in ENTRIES if entry.name in given.peers.split(",")]
    result: dict[str, Any] = {
        "machine": machine.description(),
        "precision": given.precision,
        "skipped": {entry.name: entry.missing() for entry in entries if entry.missing()},
        "networks": {},
    }
    for name in given.networks.split(","):
        taking_part = [
            entry for entry in entries if not entry.missing() and entry.trains(NETWORKS[name])
        ]
        result["networks"][name] = scan(NETWORKS[name], taking_part, given)
        (given.out / "batch_sizes.json").write_text(json.dumps(result, indent=2) + "\n")


def scan(
    network: Network, entries: Sequence[Entry], given: argparse.Namespace
) -> dict[str, list[Answer]]:
    """What each peer measured at each batch size, the last with `ended`: why there is no larger
    one.
    """
    precision: Precision = given.precision
    answers: dict[str, list[Answer]] = {entry.name: [] for entry in entries}
    with ExitStack() as processes:
        started = [start(entry, network, precision, given.out) for entry in entries]
        workers = [processes.enter_context(worker) for worker in started]
        batch = 1
        while workers and batch <= given.largest:
            steps = max(1, min(MOST_STEPS, network.examples // batch))
            for worker in list(workers):
                try:
                    answer = worker.ask(
                        "at_batch", batch=batch, steps=steps, seconds=given.seconds
                    )
                    answer["ended"] = limit(answer, given)
                except RuntimeError as error:
                    answer = {
                        "batch": batch,
                        "ended": "its process ended: " + str(error).splitlines()[-1],
                    }
                answers[worker.name].append(answer)
                told = (
                    answer["ended"]
                    or f"{answer['training']:.3g} ms a step, {answer['inference']:.3g} ms in "
                    f"inference"
                )
                print(f"{network.name}, batch {batch}: {worker.name}: {told}", flush=True)
                if answer["ended"]:
                    workers.remove(worker)
            batch *= given.factor
    return answers


def limit(answer: Answer, given: argparse.Namespace) -> str | None:
    """Which limit the answer has reached."""
    if answer["training"] > 1e3 * given.longest:
        return f"a step took longer than {given.longest} s"
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if answer["peak_bytes"] > given.memory * whole:
        return f"it held more than {given.memory:.0%} of the machine's memory"
    return None


if __name__ == "__main__":
    main()
