"""Pictures of a population."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.core.plotting import new_figure, save_figure


def plot_runs(runs: Any, path: str | Path | None = None) -> Any:
    """The curves of all members with their spread; and, where something was swept, the score over
    it.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    history = runs.history
    names = [
        name
        for name in history
        if not name.startswith("validation_") and name not in ("seconds", "learning_rate")
    ]
    names = [name for name in names if history[name].ndim == 2]
    swept = [name for name in runs.members[0].hyperparameters if len(_values(runs, name)) > 1]
    panels = len(names) + bool(swept)
    figure = new_figure(4.8 * panels, 3.6)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for axis, name in zip(axes, names, strict=False):
        for label, key, color in (
            ("training", name, "C0"),
            ("validation", f"validation_{name}", "C1"),
        ):
            if key in history:
                _curves(axis, history[key], label, color)
        axis.set_xlabel("epoch")
        axis.set_ylabel(name.replace("_", " "))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    if len(swept) == 2:
        _heat_map(figure, axes[-1], runs, *swept)
    elif swept:
        _scatter(axes[-1], runs, swept[0])
    save_figure(figure, path)
    return figure


def _curves(axis: Any, values: np.ndarray, label: str, color: str) -> None:
    """The median of the members still going, and the range that holds the middle four fifths of
    them.
    """
    epochs = np.arange(1, len(values) + 1)
    known = ~np.isnan(values).all(1)
    low, middle, high = np.nanpercentile(values[known], [10, 50, 90], axis=1)
    axis.plot(
        epochs[known], middle, color=color, marker="o", markersize=3, label=f"{label}, median"
    )
    axis.fill_between(
        epochs[known], low, high, color=color, alpha=0.2, label="10th to 90th percentile"
    )


def _values(runs: Any, name: str) -> list[float]:
    return sorted({member.hyperparameters[name] for member in runs.members})


def _mean(runs: Any, **fixed: float) -> float:
    """The mean score over the members with those hyperparameters; NaN where none has a score."""
    chosen = [
        m.number
        for m in runs.members
        if all(m.hyperparameters[name] == value for name, value in fixed.items())
    ]
    scores = runs.scores[chosen]
    scores = scores[~np.isnan(scores)]
    return float(scores.mean()) if len(scores) else float("nan")


def _heat_map(figure: Any, axis: Any, runs: Any, down: str, across: str) -> None:
    rows = _values(runs, down)
    columns = _values(runs, across)
    grid = np.array(
        [[_mean(runs, **{down: row, across: column}) for column in columns] for row in rows]
    )
    image = axis.imshow(grid, aspect="auto", origin="lower", cmap="viridis")
    axis.set_xticks(range(len(columns)), [f"{value:.3g}" for value in columns], rotation=45)
    axis.set_yticks(range(len(rows)), [f"{value:.3g}" for value in rows])
    axis.set_xlabel(across.replace("_", " "))
    axis.set_ylabel(down.replace("_", " "))
    if grid.size <= 64:
        middle = np.nanmean([np.nanmin(grid), np.nanmax(grid)])
        for (i, j), value in np.ndenumerate(grid):
            color = "white" if value < middle else "black"
            axis.text(j, i, f"{value:.3g}", ha="center", va="center", color=color, fontsize=8)
    figure.colorbar(
        image, ax=axis, label=f"{runs.monitor[0].replace('_', ' ')}, mean over seeds"
    )


def _scatter(axis: Any, runs: Any, name: str) -> None:
    values = _values(runs, name)
    axis.plot(
        [m.hyperparameters[name] for m in runs.members],
        runs.scores,
        "o",
        color="C0",
        alpha=0.4,
        label="a member",
    )
    axis.plot(
        values,
        [_mean(runs, **{name: value}) for value in values],
        color="C1",
        label="mean over seeds",
    )
    if min(values) > 0 and max(values) / min(values) >= 10:
        axis.set_xscale("log")
    axis.set_xlabel(name.replace("_", " "))
    axis.set_ylabel(runs.monitor[0].replace("_", " "))
    axis.grid(alpha=0.3)
    axis.legend()
