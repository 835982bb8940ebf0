"""How long `import jaxdl` takes beside `import jax, optax, flax`, in fresh processes that take
turns.

python -m benchmarks.import_time --rounds 9
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.processes import ROOT

STATEMENTS = ("import jaxdl", "import jax, optax, flax")
PROGRAM = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.import_time")
    parser.add_argument(
        "--rounds", type=int, default=9, help="processes for each statement: %(default)s"
    )
    parser.add_argument(
        "--out", type=Path, default=machine.results(), help="folder for the file: %(default)s"
    )
    given = parser.parse_args()
    result = measure(given.rounds)
    for statement in STATEMENTS:
        print(f"{statement:24} {result['seconds'][statement]['median']:.3f} s")
    print(f"ratio {result['ratio']['median']:.3f}")
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "import_time.json").write_text(json.dumps(result, indent=2) + "\n")


def measure(rounds: int) -> dict[str, Any]:
    """Seconds of each statement in `rounds` fresh processes, after one that is not counted, and the
    ratio by rounds.
    """
    seconds: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for number in range(rounds + 1):
        for statement in STATEMENTS:
            took = seconds_of(statement)
            if number:
                seconds[statement].append(took)
    ratios = [own / others for own, others in zip(*seconds.values(), strict=True)]
    return {
        "machine": machine.description(),
        "seconds": {
            statement: {"median": median(took), "rounds": took}
            for statement, took in seconds.items()
        },
        "ratio": {"median": median(ratios), "rounds": ratios},
    }


def seconds_of(statement: str) -> float:
    """In a process that may keep the bytecode of what it imports, as Python does unless it is told
    not to.
    """
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    command = [sys.executable, "-c", PROGRAM.format(statement)]
    finished = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment
    )
    return float(finished.stdout.split()[-1])


if __name__ == "__main__":
    main()
