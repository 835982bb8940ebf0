"""Writes the tables of the README, and of the page of the benchmarks, from the JSON in
`benchmarks/results/`.

python -m benchmarks.readme
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import faults, initial_values, populations
from benchmarks.experiments import NAMES
from benchmarks.report import markdown

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    for path, fill in (
        (ROOT / "README.md", filled),
        (ROOT / "benchmarks" / "README.md", filled_page),
    ):
        path.write_text(fill(path.read_text()))


def filled(readme: str) -> str:
    """The README with each table between its marks replaced."""
    tables = {
        "populations": populations.markdown(result("populations")),
        "faults": faults.markdown(result("faults")),
        "experiments": experiments_table(),
        "training": training_table(),
        "accelerators": "\n".join(map(accelerator_tables, accelerators())),
    }
    return with_tables(readme, tables)


def filled_page(page: str) -> str:
    """The page of the benchmarks with its table replaced."""
    return with_tables(page, {"initial values": initial_values.markdown(result("initial_values"))})


def with_tables(page: str, tables: dict[str, str]) -> str:
    """A page with each table between its marks replaced."""
    for name, table in tables.items():
        before, rest = page.split(f"<!-- {name} -->\n", 1)
        _, after = rest.split("<!-- end -->", 1)
        page = f"{before}<!-- {name} -->\n{table}<!-- end -->{after}"
    return page


def result(name: str) -> Any:
    """What a benchmark wrote."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def accelerators() -> list[Path]:
    """The folders of accelerators that were measured."""
    return sorted(path.parent for path in RESULTS.glob("*/training.json"))


def accelerator_tables(folder: Path) -> str:
    """All that was measured on one."""
    name = folder.name
    parts = [markdown(result(f"{name}/training"), result(f"{name}/first_step"))]
    if (folder / "populations.json").exists():
        parts.append(populations.markdown(result(f"{name}/populations")))
    return "\n".join(parts)


def experiments_table() -> str:
    """A row an experiment: what it should reach, what it reached, how long it took."""
    results = result("experiments")
    lines = [
        "| experiment | figure | to reach | measured | seconds |",
        "| --- | --- | --- | --- | ---: |",
    ]
    for name in NAMES:
        lines += rows(name, results[name])
    devices = {
        f"{result['device']['processor']}, {result['device']['cores']} cores"
        for result in results.values()
    }
    dates = sorted(result["date"][:10] for result in results.values())
    lines += [
        "",
        f"{'; '.join(sorted(devices))}; "
        f"{dates[0] if dates[0] == dates[-1] else f'{dates[0]} to {dates[-1]}'}.",
    ]
    return "\n".join(lines) + "\n"


def rows(name: str, result: dict[str, Any]) -> Iterator[str]:
    goals = result["goals"] or {"": {"to reach": "a plot"}}
    for index, (figure, goal) in enumerate(goals.items()):
        first = f"`{name}`" if index == 0 else ""
        seconds = f"{result['seconds']:.0f}" if index == 0 else ""
        value = result["figures"].get(figure)
        measured = "–" if value is None else f"{value:.4g}"
        yield (
            f"| {first} | {figure.replace('_', ' ')} | {goal['to reach']} | {measured} | "
            f"{seconds} |"
        )


def training_table() -> str:
    """Milliseconds a step beside the peers, then what the other benchmarks measured."""
    text = markdown(result("training"), result("first_step"))
    memory, importing = result("memory"), result("import_time")
    return f"{text}\n{remarks(memory, importing)}\n"


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
