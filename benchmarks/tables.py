"""Writes the tables of README.md, docs/benchmarks.md and benchmarks/README.md from the JSON in
`benchmarks/results/`.

    python -m benchmarks.tables
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import faults, initial_values, populations
from benchmarks.experiments import NAMES
from benchmarks.report import markdown, milliseconds

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
BENCHMARKS = ROOT / "docs" / "benchmarks.md"
NOTES = ROOT / "benchmarks" / "README.md"
PEERS = {
    "jaxdl": "jaxdl",
    "jax by hand": "a loop by hand in JAX",
    "torch eager": "PyTorch",
    "torch compile": "PyTorch, `torch.compile`",
    "keras on jax": "Keras on JAX",
    "flax nnx": "Flax NNX",
    "flax linen": "Flax Linen",
    "equinox": "Equinox",
}
"""The peers in the README's table and their names there; docs/benchmarks.md has all of them."""


def main() -> None:
    for path in (README, BENCHMARKS, NOTES):
        path.write_text(filled(path))


def filled(path: Path) -> str:
    """A page with each table between its marks replaced."""
    page = path.read_text()
    for name, table in tables(path).items():
        before, rest = page.split(f"<!-- {name} -->\n", 1)
        _, after = rest.split("<!-- end -->", 1)
        page = f"{before}<!-- {name} -->\n{table}<!-- end -->{after}"
    return page


def tables(path: Path) -> dict[str, str]:
    """The tables of a page by the names of their marks."""
    if path == README:
        return {"training": short_training_table(), "experiments": short_experiments_table()}
    if path == NOTES:
        return {"initial values": initial_values.markdown(result("initial_values"))}
    return {
        "training": training_table(),
        "accelerators": "\n".join(map(accelerator_tables, accelerators())),
        "populations": populations.markdown(result("populations")),
        "experiments": experiments_table(),
        "faults": faults.markdown(result("faults")),
    }


def result(name: str) -> Any:
    """The result that a benchmark wrote."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def accelerators() -> list[Path]:
    """The folders of accelerators that were measured."""
    return sorted(path.parent for path in RESULTS.glob("*/training.json"))


def accelerator_tables(folder: Path) -> str:
    """All results of one accelerator."""
    name = folder.name
    parts = [markdown(result(f"{name}/training"), result(f"{name}/first_step"))]
    if (folder / "populations.json").exists():
        parts.append(populations.markdown(result(f"{name}/populations")))
    return "\n".join(parts)


def short_training_table() -> str:
    """Milliseconds a training step, a row for each of `PEERS`."""
    measured = result("training")
    networks = measured["networks"]
    lines = [f"| ms a step | {' | '.join(networks)} |", f"| --- |{' ---: |' * len(networks)}"]
    for peer, called in PEERS.items():
        cells = [
            milliseconds(network["peers"].get(peer, {}))[0] for network in networks.values()
        ]
        lines.append(f"| {called} | {' | '.join(cells)} |")
    machine = measured["machine"]
    lines += ["", f"{machine['processor']}, {machine['cores']} cores, {machine['date'][:10]}."]
    return "\n".join(lines) + "\n"


def short_experiments_table() -> str:
    """A row for each experiment with its first figure."""
    results = result("experiments")
    lines = [*HEADING, *(next(rows(name, results[name])) for name in NAMES)]
    return "\n".join([*lines, "", measured_on(results)]) + "\n"


def experiments_table() -> str:
    """A row for each figure of each experiment: its goal, its value, the experiment's duration."""
    results = result("experiments")
    lines: list[str] = [*HEADING]
    for name in NAMES:
        lines += rows(name, results[name])
    return "\n".join([*lines, "", measured_on(results)]) + "\n"


HEADING = (
    "| experiment | figure | to reach | measured | seconds |",
    "| --- | --- | --- | --- | ---: |",
)


def rows(name: str, result: dict[str, Any]) -> Iterator[str]:
    """The rows of one experiment; the first has its name and its duration."""
    goals = result["goals"] or {"": {"to reach": "a plot"}}
    first = f"`{name}`"
    # None where the machine did other work meanwhile.
    seconds = "–" if result["seconds"] is None else f"{result['seconds']:.0f}"
    for figure, goal in goals.items():
        value = result["figures"].get(figure)
        measured = "–" if value is None else f"{value:.4g}"
        shown = figure.replace("_", " ")
        yield f"| {first} | {shown} | {goal['to reach']} | {measured} | {seconds} |"
        first = ""
        seconds = ""


def measured_on(results: dict[str, Any]) -> str:
    """The processors and the dates of the experiments."""
    devices = {
        f"{result['device']['processor']}, {result['device']['cores']} cores"
        for result in results.values()
    }
    dates = sorted({result["date"][:10] for result in results.values()})
    period = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"{'; '.join(sorted(devices))}; {period}."


def training_table() -> str:
    """Milliseconds a step beside the peers, then what the other benchmarks measured."""
    text = markdown(result("training"), result("first_step"))
    return f"{text}\n{remarks(result('memory'), result('import_time'))}\n"


def remarks(memory: dict[str, Any], importing: dict[str, Any]) -> str:
    """One line on memory and import."""
    peak = {way: f"{run['peak_bytes'] / 1e6:.0f} MB" for way, run in memory["runs"].items()}
    return (
        f"Peak memory of one epoch of the cifar network over {memory['examples']} images: "
        + ", ".join(f"{way} {size}" for way, size in peak.items())
        + f". `import jaxdl` takes {importing['ratio']['median']:.2f} times as long as `import "
        f"jax, optax, flax`."
    )


if __name__ == "__main__":
    main()
