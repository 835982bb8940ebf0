"""How long it takes from a network's definition to its first training step, jaxdl beside its peers.

    python -m benchmarks.first_step --networks gpt,lstm --rounds 9

Every figure is that of a fresh process which has done its imports, and nothing else runs: the peers
take turns, so many rounds of them. Prints a table, and writes `first_step.json`, of which
`benchmarks.tables` makes the table in docs/benchmarks.md.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import machine
from benchmarks.networks import NETWORKS, Network, Precision
from benchmarks.peers import ENTRIES, Entry
from benchmarks.report import first_steps
from benchmarks.training import (
    TOLERANCES,
    chosen,
    earlier,
    in_turn,
    label,
    those_skipped,
    those_taking_part,
    usual_networks,
    usual_precisions,
    write,
)
from benchmarks.worker import start

STEPS = 4
"""In an epoch."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.first_step", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--networks",
        default=",".join(usual_networks()),
        help="which, with commas between: %(default)s",
    )
    parser.add_argument(
        "--peers", default=",".join(entry.name for entry in ENTRIES), help="which: %(default)s"
    )
    parser.add_argument(
        "--precision", default=",".join(usual_precisions()), help="which: %(default)s"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="fresh processes of each peer: %(default)s"
    )
    parser.add_argument(
        "--out", type=Path, default=machine.results(), help="folder for the files: %(default)s"
    )
    given = parser.parse_args(arguments)
    peers = {entry.name: entry for entry in ENTRIES}
    networks = [NETWORKS[name] for name in chosen(parser, "network", given.networks, NETWORKS)]
    entries = [peers[name] for name in chosen(parser, "peer", given.peers, peers)]
    precisions = chosen(parser, "precision", given.precision, TOLERANCES)
    measure(networks, entries, precisions, given.rounds, given.out, Console())


def measure(
    networks: Sequence[Network],
    entries: Sequence[Entry],
    precisions: Sequence[Precision],
    rounds: int,
    out: Path,
    console: Console,
) -> dict[str, Any]:
    """Measures every network with every peer that is installed, and writes `first_step.json` after
    each.
    """
    out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "machine": machine.description(),
        "skipped": those_skipped(entries, console),
        "networks": earlier(out / "first_step.json"),
    }
    for network, precision in product(networks, precisions):
        taking_part = those_taking_part(entries, network, label(network, precision), console)
        if not taking_part:
            continue
        seconds: dict[str, list[float]] = {entry.name: [] for entry in taking_part}
        for number in range(rounds):
            for entry in taking_part:
                seconds[entry.name].append(first_step(entry, network, precision, out))
                console.print(
                    f"{network.name}, round {number + 1}: {entry.name} "
                    f"{seconds[entry.name][-1]:.2f} s"
                )
        result["networks"][label(network, precision)] = {"peers": in_turn(seconds, "seconds")}
        write(result, out / "first_step.json")
    console.print("\n".join(first_steps(result)))
    return result


def first_step(entry: Entry, network: Network, precision: Precision, out: Path) -> float:
    """Seconds in a process of its own: what the first call of a short epoch took beyond the second,
    and one step.

    Of few steps, so that how long they take, which differs from call to call, is little beside what
    compiling takes; of whole batches, so that no peer compiles for a smaller last one, too.
    """
    with start(
        entry, replace(network, examples=STEPS * network.batch, epochs=1), precision, out
    ) as worker:
        return worker.ask("first", task="training", seconds=0.0)["first_step_seconds"]


if __name__ == "__main__":
    main()
