"""The speed of jaxdl and its peers: the same networks, weights and data, in one run, round by round
in turn.

    python -m benchmarks.training --networks mlp,cifar,gpt --task training,inference --rounds 7

Prints a table for each network, and writes `training.json` with every round's figures;
`benchmarks.tables` makes the tables of it, `benchmarks.plots` its bars. On an accelerator
it measures in bfloat16 too, and a GPT of 124 million parameters.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from rich.console import Console

from benchmarks import machine
from benchmarks.compile_time import compile_times
from benchmarks.networks import NETWORKS, Network, Precision, Task, flops
from benchmarks.peers import ENTRIES, Entry
from benchmarks.processes import Answer, Worker
from benchmarks.report import tables
from benchmarks.weights import initial_weights, parameter_count
from benchmarks.worker import start

TOLERANCES: dict[Precision, float] = {"float32": 1e-3, "bfloat16": 2e-2}
TASKS: tuple[Task, ...] = ("training", "inference")
REFERENCE = "jaxdl"
Name = TypeVar("Name", bound=str)
PRODUCT = "matrix product"


def usual_networks() -> tuple[str, ...]:
    """All, but on a CPU those that are meant for an accelerator."""
    return tuple(
        name
        for name, network in NETWORKS.items()
        if accelerated() or not network.accelerator_only
    )


def usual_precisions() -> tuple[Precision, ...]:
    return ("float32", "bfloat16") if accelerated() else ("float32",)


def accelerated() -> bool:
    return machine.device()[0] != "cpu"


@dataclass(frozen=True)
class Settings:
    """What a run of the benchmark does.

    Args:
        tasks: training, inference or both.
        precisions: in which the networks compute.
        rounds: how many turns each peer takes.
        seconds: about how long a turn lasts; one timed call at least.
        compilations: fresh processes for each compile time of jaxdl; 0 leaves compile times out.
        epochs: epochs of a timed call, where not the network's own.
        examples: examples of an epoch, where not the network's own.
        batch: the batch size, where not the network's own.
        out: the folder for `training.json` and what the processes print.
    """

    networks: tuple[str, ...]
    tasks: tuple[Task, ...] = TASKS
    precisions: tuple[Precision, ...] = ("float32",)
    rounds: int = 7
    seconds: float = 1.0
    compilations: int = 1
    epochs: int | None = None
    examples: int | None = None
    batch: int | None = None
    out: Path = field(default_factory=machine.results)

    def network(self, name: str) -> Network:
        own = NETWORKS[name]
        lengths = {"epochs": self.epochs, "examples": self.examples, "batch": self.batch}
        return replace(own, **{name: length for name, length in lengths.items() if length})


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
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--networks",
        default=",".join(usual_networks()),
        help="which, with commas between: %(default)s",
    )
    parser.add_argument(
        "--peers", default=",".join(entry.name for entry in ENTRIES), help="which: %(default)s"
    )
    parser.add_argument("--task", default=",".join(TASKS), help="which: %(default)s")
    parser.add_argument(
        "--precision", default=",".join(usual_precisions()), help="which: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns of each peer: %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="about how long a turn lasts: %(default)s"
    )
    parser.add_argument(
        "--compilations",
        type=int,
        default=1,
        help="fresh processes a compile time: %(default)s",
    )
    parser.add_argument(
        "--epochs", type=int, help="epochs of a timed call, instead of each network's own"
    )
    parser.add_argument(
        "--examples", type=int, help="examples of an epoch, instead of each network's own"
    )
    parser.add_argument(
        "--batch", type=int, help="the batch size, instead of each network's own"
    )
    parser.add_argument(
        "--out", type=Path, default=machine.results(), help="folder for the files: %(default)s"
    )
    given = vars(parser.parse_args(arguments))
    peers = {entry.name: entry for entry in ENTRIES}
    entries = [peers[name] for name in chosen(parser, "peer", given.pop("peers"), peers)]
    networks = chosen(parser, "network", given.pop("networks"), NETWORKS)
    tasks = chosen(parser, "task", given.pop("task"), dict.fromkeys(TASKS))
    precisions = chosen(parser, "precision", given.pop("precision"), TOLERANCES)
    return Settings(networks, tasks=tasks, precisions=precisions, **given), entries


def chosen(
    parser: argparse.ArgumentParser, kind: str, given: str, known: Mapping[Name, Any]
) -> tuple[Name, ...]:
    """The names that were given with commas between; ends the program where one is not known."""
    names = {str(name): name for name in known}
    if unknown := [name for name in given.split(",") if name not in names]:
        parser.error(
            f"unknown {kind} {', '.join(map(repr, unknown))}; expected some of: {', '.join(names)}"
        )
    return tuple(names[name] for name in given.split(","))


def label(network: Network, precision: Precision) -> str:
    """What a network is called in files and tables."""
    return network.name + ("" if precision == "float32" else f" {precision}")


def measure(settings: Settings, entries: Sequence[Entry], console: Console) -> dict[str, Any]:
    """Measures every network with every peer that is installed, and writes `training.json` after
    each.

    Raises:
        Disagreement: peers end the check with different losses.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    skipped = those_skipped(entries, console)
    result: dict[str, Any] = {
        "machine": machine.description(),
        "settings": {
            "rounds": settings.rounds,
            "seconds_a_round": settings.seconds,
            "optimizer": "adam",
            "tolerance_of_losses": TOLERANCES,
        },
        "skipped": skipped,
        "networks": earlier(settings.out / "training.json"),
    }
    write(result, settings.out / "training.json")
    for name, precision in product(settings.networks, settings.precisions):
        network = settings.network(name)
        taking_part = [
            entry for entry in entries if entry.name not in skipped and entry.trains(network)
        ]
        if not taking_part:
            console.print(
                f"{label(network, precision)}: left out, because none of the peers asked for is "
                f"installed and trains it"
            )
            continue
        result["networks"][label(network, precision)] = measure_network(
            settings, network, precision, taking_part, console
        )
        write(result, settings.out / "training.json")
    return result


def those_skipped(entries: Sequence[Entry], console: Console) -> dict[str, list[str]]:
    """The peers that cannot take part, and what they lack; says so."""
    skipped = {entry.name: entry.missing() for entry in entries if entry.missing()}
    for name, packages in skipped.items():
        console.print(f"{name}: skipped, because {', '.join(packages)} is not installed")
    return skipped


def those_taking_part(
    entries: Sequence[Entry], network: Network, label: str, console: Console
) -> list[Entry]:
    """The peers that are installed and train a network; says so where there is none."""
    found = [entry for entry in entries if not entry.missing() and entry.trains(network)]
    if not found:
        console.print(
            f"{label}: left out, because none of the peers asked for is installed and trains it"
        )
    return found


def earlier(path: Path) -> dict[str, Any]:
    """The networks in a file that were measured before on this machine with these versions; those
    asked for replace theirs.
    """
    now = machine.description()
    before = json.loads(path.read_text()) if path.exists() else {"machine": {}, "networks": {}}
    same = all(
        before["machine"].get(name) == value for name, value in now.items() if name != "date"
    )
    return before["networks"] if same else {}


def write(result: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(result, indent=2) + "\n")


def measure_network(
    settings: Settings,
    network: Network,
    precision: Precision,
    entries: Sequence[Entry],
    console: Console,
) -> dict[str, Any]:
    """Starts a process for each peer, requires that they agree, lets them take turns at each task,
    and sums up.
    """
    with ExitStack() as processes:
        started = [start(entry, network, precision, settings.out) for entry in entries]
        workers = [processes.enter_context(worker) for worker in started]
        peers: dict[str, dict[str, Any]] = {}
        for worker in workers:
            console.print(f"{network.name}: {worker.name} compiles and is checked")
            calls = worker.ask("first", task="training", seconds=settings.seconds)[
                "calls_per_round"
            ]
            peers[worker.name] = {
                "calls_per_round": calls,
                **worker.ask("memory"),
                "check": worker.ask("check"),
            }
        require_agreement(
            network,
            {name: peer["check"] for name, peer in peers.items()},
            TOLERANCES[precision],
        )
        product = processes.enter_context(start_product(settings, precision))
        turns = {
            task: take_turns(workers, product, settings, network, task, console)
            for task in settings.tasks
        }
    answer = {
        "date": machine.description()["date"],
        "network": described(network, precision),
        "peers": peers,
    }
    for task, of_task in turns.items():
        reached = [turn["flops_per_second"] for turn in of_task.pop(PRODUCT)]
        milliseconds = {
            name: [1e3 * turn["seconds"] / turn["steps"] for turn in own]
            for name, own in of_task.items()
        }
        for name, own in in_turn(milliseconds, "milliseconds_a_step").items():
            peers[name].update(own if task == "training" else {task: own})
        if task == "training":
            answer["matrix_product"] = shares(flops(network), peers, reached, precision)
    if REFERENCE in peers and settings.compilations and precision == "float32":
        console.print(f"{network.name}: compile times of jaxdl")
        answer["compile_time"] = compile_times(network, settings.compilations, settings.out)
    return answer


def start_product(settings: Settings, precision: Precision) -> Worker:
    arguments = ("benchmarks.matrix_product", precision, str(settings.seconds))
    return Worker(PRODUCT, *arguments, log=settings.out / "matrix-product.log")


def require_agreement(network: Network, checks: dict[str, Answer], tolerance: float) -> None:
    """Every loss of the check must lie near the middle one of all peers; what counts as near is a
    part of the first loss.

    The same of the mean losses that the peers themselves tell of an epoch.
    """
    every = list(checks.values())
    near = tolerance * abs(every[0]["losses"][0])
    for kind, which, steps_of in (
        ("loss", "losses", "steps"),
        ("mean loss of an epoch", "told", "told_after"),
    ):
        for number, steps in enumerate(every[0][steps_of]):
            middle = median(check[which][number] for check in every)
            apart = [
                name
                for name, check in checks.items()
                if not abs(check[which][number] - middle) <= near
            ]
            if apart:
                losses = "; ".join(
                    f"{name} {check[which][number]:.6f}" for name, check in checks.items()
                )
                raise Disagreement(
                    f"{network.name}: expected one {kind} from all peers after {steps} checked "
                    f"steps, but "
                    f"{', '.join(apart)} stand apart — their networks or optimizers are not the "
                    f"same. All losses: {losses}."
                )


def take_turns(
    workers: Sequence[Worker],
    product: Worker,
    settings: Settings,
    network: Network,
    task: Task,
    console: Console,
) -> dict[str, list[Answer]]:
    """A B C, A B C, …: whatever else the machine does hurts all alike."""
    turns: dict[str, list[Answer]] = {worker.name: [] for worker in (*workers, product)}
    if task != "training":
        for worker in workers:
            worker.ask("first", task=task, seconds=settings.seconds)
    for number in range(settings.rounds):
        console.print(f"{network.name}: {task}, round {number + 1} of {settings.rounds}")
        for worker in workers:
            turns[worker.name].append(worker.ask("round", task=task))
        turns[PRODUCT].append(product.ask("round"))
    return turns


def in_turn(rounds: dict[str, list[float]], unit: str) -> dict[str, dict[str, Any]]:
    """Each peer's figure over its rounds, and the median of its ratios to jaxdl's, round by
    round.
    """
    reference = rounds.get(REFERENCE)
    answer: dict[str, dict[str, Any]] = {}
    for name, own in rounds.items():
        answer[name] = {
            unit: {"median": median(own), "min": min(own), "max": max(own)},
            "rounds": own,
        }
        if reference:
            ratios = [value / other for value, other in zip(own, reference, strict=True)]
            answer[name]["ratio_to_jaxdl"] = {"median": median(ratios), "rounds": ratios}
    return answer


def shares(
    operations: float, peers: dict[str, Any], products: list[float], precision: Precision
) -> dict[str, Any]:
    """Each peer's part of what the machine's matrix product reached in the same rounds, and of what
    its maker promises.
    """
    rates = {
        name: [1e3 * operations / milliseconds for milliseconds in peer["rounds"]]
        for name, peer in peers.items()
    }
    share = {
        name: {
            "performed": median(
                rate / product for rate, product in zip(own, products, strict=True)
            )
        }
        for name, own in rates.items()
    }
    peak = machine.peak_flops(machine.device()[1]) if precision == "bfloat16" else None
    if peak:
        share = {
            name: own | {"of_peak": median(rates[name]) / peak} for name, own in share.items()
        }
    return {
        "flops_a_step": operations,
        "flops_per_second": {"median": median(products), "rounds": products},
        "peak": peak,
        "share": share,
    }


def described(network: Network, precision: Precision) -> dict[str, Any]:
    return {
        "parts": [repr(part) for part in (*network.parts, *network.discriminator)],
        "input_shape": network.input_shape,
        "parameters": parameter_count(initial_weights(network)),
        "precision": precision,
        "learning_rate": network.learning_rate,
        "batch": network.batch,
        "examples": network.examples,
        "epochs_a_call": network.epochs,
        "steps_a_call": network.epochs * network.steps_per_epoch,
    }


if __name__ == "__main__":
    main()
