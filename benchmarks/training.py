"""Training speed of jaxdl and its peers: the same networks, weights and data, in one run, round by round in turn.

    python -m benchmarks.training --networks mlp,wide,mnist,cifar --rounds 7

Prints a table for each network, and writes `training.json` with every round's figures; `benchmarks.readme` makes the README's
table of it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from benchmarks import machine
from benchmarks.compile_time import compile_times
from benchmarks.networks import LEARNING_RATE, NETWORKS, Network, dense_flops, parameter_count
from benchmarks.peers import ENTRIES, Entry
from benchmarks.processes import Answer, Worker
from benchmarks.report import tables

TOLERANCE = 1e-3
REFERENCE = "jaxdl"
PRODUCT = "matrix product"


@dataclass(frozen=True)
class Settings:
    """What a run of the benchmark does.

    Args:
        rounds: how many turns each peer takes.
        seconds: about how long a turn lasts; one timed call at least.
        compilations: fresh processes for each compile time of jaxdl; 0 leaves compile times out.
        epochs: epochs of a timed call, where not the network's own.
        examples: examples of an epoch, where not the network's own.
        out: the folder for `training.json` and what the processes print.
    """

    networks: tuple[str, ...] = tuple(NETWORKS)
    rounds: int = 7
    seconds: float = 1.0
    compilations: int = 3
    epochs: int | None = None
    examples: int | None = None
    out: Path = Path("benchmarks/results")

    def network(self, name: str) -> Network:
        own = NETWORKS[name]
        return replace(own, epochs=self.epochs or own.epochs, examples=self.examples or own.examples)


class Disagreement(RuntimeError):
    """Peers that were to train the same network did not."""


def main(arguments: Sequence[str] | None = None) -> None:
    settings, entries = parse(arguments)
    console = Console()
    try:
        result = measure(settings, entries, console)
    except Disagreement as error:
        sys.exit(str(error))
    for table in tables(result):
        console.print(table)
    console.print(f"written: {settings.out / 'training.json'}")


def parse(arguments: Sequence[str] | None) -> tuple[Settings, list[Entry]]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", default=",".join(NETWORKS), help="which, with commas between: %(default)s")
    parser.add_argument("--peers", help="which, with commas between; all when not said")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each peer: %(default)s")
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long a turn lasts: %(default)s")
    parser.add_argument("--compilations", type=int, default=3, help="fresh processes a compile time: %(default)s")
    parser.add_argument("--epochs", type=int, help="epochs of a timed call, instead of each network's own")
    parser.add_argument("--examples", type=int, help="examples of an epoch, instead of each network's own")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder for the files: %(default)s")
    given = vars(parser.parse_args(arguments))
    names, peers = given.pop("networks").split(","), given.pop("peers")
    by_name = {entry.name: entry for entry in ENTRIES}
    wanted = peers.split(",") if peers else list(by_name)
    for kind, asked, known in (("network", names, NETWORKS), ("peer", wanted, by_name)):
        if unknown := [name for name in asked if name not in known]:
            parser.error(f"unknown {kind} {', '.join(map(repr, unknown))}; expected some of: {', '.join(known)}")
    return Settings(networks=tuple(names), **given), [by_name[name] for name in wanted]


def measure(settings: Settings, entries: Sequence[Entry], console: Console) -> dict[str, Any]:
    """Measures every network with every peer that is installed, and writes `training.json` after each.

    Raises:
        Disagreement: peers end the check with different losses.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    skipped = {entry.name: entry.missing() for entry in entries if entry.missing()}
    for name, packages in skipped.items():
        console.print(f"{name}: skipped, because {', '.join(packages)} is not installed")
    result: dict[str, Any] = {
        "machine": machine.description(),
        "settings": {
            "rounds": settings.rounds,
            "seconds_a_round": settings.seconds,
            "optimizer": "adam",
            "learning_rate": LEARNING_RATE,
            "tolerance_of_losses": TOLERANCE,
        },
        "skipped": skipped,
        "networks": earlier(settings.out),
    }
    write(result, settings.out)
    for name in settings.networks:
        taking_part = [entry for entry in entries if entry.name not in skipped and name in entry.networks]
        if not taking_part:
            console.print(f"{name}: left out, because none of the peers asked for is installed and trains it")
            continue
        result["networks"][name] = measure_network(settings, settings.network(name), taking_part, console)
        write(result, settings.out)
    return result


def earlier(out: Path) -> dict[str, Any]:
    """The networks that were measured before on this machine with these versions; those asked for replace theirs."""
    path, now = out / "training.json", machine.description()
    before = json.loads(path.read_text()) if path.exists() else {"machine": {}, "networks": {}}
    same = all(before["machine"].get(name) == value for name, value in now.items() if name != "date")
    return before["networks"] if same else {}


def write(result: dict[str, Any], out: Path) -> None:
    (out / "training.json").write_text(json.dumps(result, indent=2) + "\n")


def measure_network(settings: Settings, network: Network, entries: Sequence[Entry], console: Console) -> dict[str, Any]:
    """Starts a process for each peer, requires that they agree, lets them take turns, and sums up."""
    with ExitStack() as processes:
        workers = [processes.enter_context(start(settings, network, entry)) for entry in entries]
        firsts, checks = {}, {}
        for worker in workers:
            console.print(f"{network.name}: {worker.name} compiles and is checked")
            firsts[worker.name] = worker.ask("first", seconds=settings.seconds)
            checks[worker.name] = worker.ask("check")
        require_agreement(network, checks)
        product = [processes.enter_context(start_product(settings))] if network.name == "wide" else []
        turns = take_turns([*workers, *product], settings, network, console)
        memory = {worker.name: worker.ask("memory") for worker in workers}
    products = turns.pop(PRODUCT, [])
    peers = {name: {**firsts[name], **memory[name], "check": checks[name], **figures(turns, name)} for name in turns}
    answer = {"date": machine.description()["date"], "network": described(network), "peers": peers}
    if products:
        answer["matrix_product"] = shares(network, peers, [turn["flops_per_second"] for turn in products])
    if REFERENCE in turns and settings.compilations:
        console.print(f"{network.name}: compile times of jaxdl")
        answer["compile_time"] = compile_times(network, settings.compilations, settings.out)
    return answer


def start(settings: Settings, network: Network, entry: Entry) -> Worker:
    log = settings.out / f"{network.name}-{entry.name.replace(' ', '-')}.log"
    arguments = (entry.name, network.name, str(network.epochs), str(network.examples))
    return Worker(entry.name, "benchmarks.worker", *arguments, log=log, environment=entry.environment)


def start_product(settings: Settings) -> Worker:
    arguments = ("benchmarks.matrix_product", str(settings.seconds))
    return Worker(PRODUCT, *arguments, log=settings.out / "matrix-product.log")


def require_agreement(network: Network, checks: dict[str, Answer]) -> None:
    """Every loss of the check must lie near the middle one of all peers; what counts as near is a part of the first loss."""
    every = list(checks.values())
    for number, steps in enumerate(every[0]["steps"]):
        middle = median(check["losses"][number] for check in every)
        near = TOLERANCE * abs(every[0]["losses"][0])
        apart = [name for name, check in checks.items() if not abs(check["losses"][number] - middle) <= near]
        if apart:
            losses = "; ".join(f"{name} {check['losses'][number]:.6f}" for name, check in checks.items())
            raise Disagreement(
                f"{network.name}: expected one loss from all peers after {steps} checked steps, but "
                f"{', '.join(apart)} stand apart — their networks or optimizers are not the same. All losses: {losses}."
            )


def take_turns(workers: Sequence[Worker], settings: Settings, network: Network, console: Console) -> dict[str, list[Answer]]:
    """A B C, A B C, …: whatever else the machine does hurts all alike."""
    turns: dict[str, list[Answer]] = {worker.name: [] for worker in workers}
    for number in range(settings.rounds):
        console.print(f"{network.name}: round {number + 1} of {settings.rounds}")
        for worker in workers:
            turns[worker.name].append(worker.ask("round"))
    return turns


def figures(turns: dict[str, list[Answer]], name: str) -> dict[str, Any]:
    """One peer's milliseconds a step over its rounds, and the median of its ratios to jaxdl, round by round."""
    milliseconds = [1e3 * turn["seconds"] / turn["steps"] for turn in turns[name]]
    answer: dict[str, Any] = {
        "milliseconds_a_step": {"median": median(milliseconds), "min": min(milliseconds), "max": max(milliseconds)},
        "steps_a_second": 1e3 / median(milliseconds),
        "rounds": milliseconds,
    }
    if REFERENCE in turns:
        reference = [1e3 * turn["seconds"] / turn["steps"] for turn in turns[REFERENCE]]
        ratios = [own / other for own, other in zip(milliseconds, reference, strict=True)]
        answer["ratio_to_jaxdl"] = {"median": median(ratios), "rounds": ratios}
    return answer


def shares(network: Network, peers: dict[str, Any], products: list[float]) -> dict[str, Any]:
    """Each peer's part of what the machine's matrix product reached in the same rounds."""
    flops = dense_flops(network)
    share = {
        name: {
            way: median(
                1e3 * count / milliseconds / product for milliseconds, product in zip(peer["rounds"], products, strict=True)
            )
            for way, count in flops.items()
        }
        for name, peer in peers.items()
    }
    return {"flops_a_step": flops, "flops_per_second": {"median": median(products), "rounds": products}, "share": share}


def described(network: Network) -> dict[str, Any]:
    return {
        "parts": [repr(part) for part in network.parts],
        "input_shape": network.input_shape,
        "parameters": parameter_count(network),
        "batch": network.batch,
        "examples": network.examples,
        "epochs_a_call": network.epochs,
        "steps_a_call": network.epochs * network.steps_per_epoch,
    }


if __name__ == "__main__":
    main()
