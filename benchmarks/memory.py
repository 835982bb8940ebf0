"""Peak memory of one CIFAR run, jaxdl's `fit` beside Keras on JAX, in fresh processes.

    python -m benchmarks.memory --examples 50000 --epochs 1

Both get the same images. jaxdl is measured twice, with the images as uint8, as its loaders give
them, and with the float32 array that Keras is given.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.peers import ENTRIES, Entry
from benchmarks.processes import Answer, Worker, serve

WAYS = {
    "jaxdl": ("jaxdl", False),
    "jaxdl, float32 images": ("jaxdl", True),
    "keras on jax": ("keras on jax", True),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory")
    parser.add_argument("--examples", type=int, default=50_000, help="images: %(default)s")
    parser.add_argument("--epochs", type=int, default=1, help="epochs: %(default)s")
    parser.add_argument(
        "--out", type=Path, default=machine.results(), help="folder for the file: %(default)s"
    )
    parser.add_argument("--serve", nargs=2, metavar=("PEER", "FLOATS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        peer, floats = given.serve
        serve(
            {
                "train": lambda: train(
                    entry_of(peer), floats == "True", given.examples, given.epochs
                )
            }
        )
        return
    given.out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "machine": machine.description(),
        "examples": given.examples,
        "epochs": given.epochs,
    }
    result["runs"] = {
        way: measure(way, given.examples, given.epochs, given.out) for way in WAYS
    }
    for way, run in result["runs"].items():
        print(
            f"{way:24} {run['peak_bytes'] / 1e6:6.0f} MB at most, {run['before_bytes'] / 1e6:6.0f} "
            f"MB before training"
        )
    (given.out / "memory.json").write_text(json.dumps(result, indent=2) + "\n")


def measure(way: str, examples: int, epochs: int, out: Path) -> Answer:
    """Trains in a process of its own and asks it for its peak."""
    peer, floats = WAYS[way]
    arguments = (
        "--examples",
        str(examples),
        "--epochs",
        str(epochs),
        "--serve",
        peer,
        str(floats),
    )
    log = out / f"memory-{way.replace(' ', '-').replace(',', '')}.log"
    with Worker(
        way, "benchmarks.memory", *arguments, log=log, environment=entry_of(peer).environment
    ) as worker:
        return worker.ask("train")


def train(entry: Entry, floats: bool, count: int, epochs: int) -> Answer:
    from benchmarks.examples import as_floats, examples
    from benchmarks.networks import NETWORKS
    from benchmarks.weights import initial_weights

    network = NETWORKS["cifar"]
    peer = entry.make(network)
    inputs, labels = examples(network, count)
    if floats:
        inputs = as_floats(inputs)
    peer.load(inputs, labels)
    peer.reset(initial_weights(network))
    before = machine.peak_memory()
    peer.train(epochs, shuffle=True)
    return {
        "before_bytes": before,
        "peak_bytes": machine.peak_memory(),
        "data_bytes": inputs.nbytes,
    }


def entry_of(peer: str) -> Entry:
    return next(entry for entry in ENTRIES if entry.name == peer)


if __name__ == "__main__":
    main()
