"""Compile time of jaxdl's training: one step as a program against an epoch as a program, in fresh
processes.

    python -m benchmarks.compile_time --networks cifar --repeats 3

What counts is what JAX itself reports: tracing, lowering and compiling, from the first `fit` of a
process.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any, Literal

from benchmarks import machine
from benchmarks.networks import NETWORKS, Network
from benchmarks.processes import Answer, Worker, serve

WAYS = ("step", "epoch")
STEPS = 2


def compile_times(network: Network, repeats: int, out: Path) -> dict[str, Any]:
    """Seconds that `fit` spends on compiling for each way, in `repeats` fresh processes in turn,
    and their ratio.
    """
    out.mkdir(parents=True, exist_ok=True)
    answers: dict[str, list[Answer]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way in WAYS:
            log = out / f"{network.name}-compile-{way}.log"
            with Worker(
                f"compile {way}",
                "benchmarks.compile_time",
                "--serve",
                network.name,
                way,
                log=log,
            ) as worker:
                answers[way].append(worker.ask("compile"))
    summary: dict[str, Any] = {
        way: {
            "median": median(answer["seconds"] for answer in answers[way]),
            "processes": answers[way],
        }
        for way in WAYS
    }
    ratios = [
        epoch["seconds"] / step["seconds"]
        for step, epoch in zip(answers["step"], answers["epoch"], strict=True)
    ]
    return {**summary, "epoch_by_step": median(ratios)}


def compile_once(network: Network, way: Literal["step", "epoch"]) -> Answer:
    """Trains two steps in this process and reports how long JAX was compiling, and what."""
    import jax
    from jax import monitoring

    from benchmarks.examples import examples
    from benchmarks.jaxdl_ import Jaxdl, JaxdlPair
    from benchmarks.weights import initial_weights

    spans: list[tuple[str, str, float, float]] = []
    prefix = "/jax/core/compile/"

    def listen(event: str, start_time: float, end_time: float, **about: Any) -> None:
        if event.startswith(prefix):
            spans.append(
                (event.removeprefix(prefix), str(about.get("fun_name")), start_time, end_time)
            )

    peer = (JaxdlPair if network.discriminator else Jaxdl)(network, "float32", compile=way)
    peer.load(*examples(network, STEPS * network.batch))
    peer.reset(jax.tree.map(jax.numpy.asarray, initial_weights(network)))
    monitoring.register_event_time_span_listener(listen)
    peer.train(1, shuffle=True)
    programs: dict[str, float] = {}
    for event, function, start, end in spans:
        if event == "backend_compile_duration":
            programs[function] = programs.get(function, 0.0) + end - start
    return {
        "seconds": covered([(start, end) for *_, start, end in spans]),
        "programs": programs,
    }


def covered(spans: list[tuple[float, float]]) -> float:
    """The length of the union of the spans: tracing a function inside another is counted once."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compile_time")
    parser.add_argument("--networks", default="mlp,wide,mnist,cifar", help="which: %(default)s")
    parser.add_argument(
        "--repeats", type=int, default=3, help="fresh processes for each: %(default)s"
    )
    parser.add_argument(
        "--out", type=Path, default=machine.results(), help="folder: %(default)s"
    )
    parser.add_argument("--serve", nargs=2, metavar=("NETWORK", "WAY"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        name, way = given.serve
        serve({"compile": lambda: compile_once(NETWORKS[name], way)})
        return
    times = {
        name: compile_times(NETWORKS[name], given.repeats, given.out)
        for name in given.networks.split(",")
    }
    for name, of_network in times.items():
        step, epoch = of_network["step"]["median"], of_network["epoch"]["median"]
        print(
            f"{name}: one step {step:.2f} s, the epoch {epoch:.2f} s: "
            f"{of_network['epoch_by_step']:.2f} times"
        )
    (given.out / "compile_time.json").write_text(json.dumps(times, indent=2) + "\n")


if __name__ == "__main__":
    main()
