"""What every experiment has: its command line, the tables it prints, and `result.json`."""

import dataclasses
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import jax
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from jaxdl.data import DataError

PACKAGES = ("jaxdl", "jax", "jaxlib", "numpy", "optax", "flax", "scikit-learn", "matplotlib")


class Config(Protocol):
    """What the config of every experiment has; a frozen dataclass."""

    @property
    def seed(self) -> int: ...
    @property
    def epochs(self) -> int: ...
    @property
    def out(self) -> Path: ...
    @property
    def quick(self) -> bool: ...


AnyConfig = TypeVar("AnyConfig", bound=Config)


@dataclasses.dataclass(frozen=True)
class Goal:
    """What one figure should reach.

    Args:
        figure: its name among the experiment's figures.
        limit: the number to reach.
        best: whether the figure should be "at least" or "at most" that.
    """

    figure: str
    limit: float
    best: Literal["at least", "at most"] = "at least"

    def reached(self, figures: Mapping[str, Any]) -> bool:
        value = figures[self.figure]
        return bool(value >= self.limit if self.best == "at least" else value <= self.limit)

    def __str__(self) -> str:
        return f"{self.best} {self.limit:g}"


def run(
    experiment: Callable[[AnyConfig], Any], config: type[AnyConfig], description: str | None
) -> None:
    """Reads the command line into the experiment's config, and runs it; data that cannot be had end
    it with a sentence.
    """
    import tyro

    try:
        experiment(
            tyro.cli(config, description=description, config=(tyro.conf.FlagCreatePairsOff,))
        )
    except DataError as error:
        raise SystemExit(str(error)) from error


def show_table(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[Any]], note: str | None = None
) -> None:
    """Prints a table: text in the first column, numbers in the others; None is a dash."""
    tight = {"box": box.SIMPLE_HEAD, "pad_edge": False, "padding": (0, 1, 0, 0)}
    table = Table(
        title=title, title_justify="left", caption=note, caption_justify="left", **tight
    )
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    for row in rows:
        table.add_row(*map(_cell, row))
    Console().print(table)


def write_result(
    experiment: str, config: Config, figures: Mapping[str, Any], goals: Sequence[Goal] = ()
) -> Path:
    """Writes `result.json` beside the pictures, and says which goals were reached and where
    everything lies.

    A quick run says nothing about goals: their `reached` is null.

    Args:
        experiment: its name.
        config: a dataclass.
        figures: what was measured, as numbers, lists and dicts by name.
        goals: what some of the figures should reach.

    Returns:
        The path of the file.
    """
    result = {
        "experiment": experiment,
        "figures": dict(figures),
        "goals": {
            goal.figure: {
                "to reach": str(goal),
                "reached": None if config.quick else goal.reached(figures),
            }
            for goal in goals
        },
        "settings": dataclasses.asdict(config),  # type: ignore[call-overload]
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
        },
        "device": _device(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    config.out.mkdir(parents=True, exist_ok=True)
    path = config.out / "result.json"
    path.write_text(json.dumps(_plain(result), indent=2, allow_nan=False) + "\n")
    console = Console(highlight=False, soft_wrap=True)
    for goal in goals:
        verdict = (
            "not judged in a quick run"
            if config.quick
            else "reached"
            if goal.reached(figures)
            else "NOT reached"
        )
        console.print(
            f"{goal.figure.replace('_', ' ')} {_cell(figures[goal.figure])}, expected {goal}: "
            f"{verdict}"
        )
    console.print(
        f"written to {config.out}: {', '.join(sorted(file.name for file in config.out.iterdir()))}"
    )
    return path


def first(count: int, data: tuple[Any, ...]) -> tuple[Any, ...]:
    """The first examples of a data set."""
    return tuple(part[:count] for part in data)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)


def _plain(value: Any) -> Any:
    """What JSON can hold: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if isinstance(value, (bool, int, str, type(None))) else str(value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device() -> dict[str, Any]:
    device = jax.devices()[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "platform": device.platform,
        "kind": device.device_kind,
        "processor": _processor(),
        "cores": cores,
    }


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
