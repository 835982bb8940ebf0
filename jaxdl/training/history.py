"""The history of a run, its best epoch, and when it ends early."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxdl.core.layer import Params, State
from jaxdl.core.plotting import new_figure, save_figure

History = dict[str, list[Any]]
"""One list a figure, one entry a row: an epoch, or what `every` of `fit` says."""


class Best(NamedTuple):
    """The parameters and state of the epoch whose monitored figure was best.

    Args:
        epoch: its number, from 0, which is its row in the history; where `every` of `fit` says
            otherwise, the number of the row.
        value: the figure.
        params, state: after that epoch.
    """

    epoch: int
    value: float
    params: Params
    state: State


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Ends a run when a figure of the history has not become better for some epochs.

    Where `every` of `fit` says how often a row of the history ends, it is those rows that count.

    Args:
        patience: how many epochs in a row without an improvement end the run; 0 is as 1: the first
            of them does.
        monitor: the name of the figure in the history.
        mode: whether "min" or "max" is better; None knows it for a loss.
        min_delta: the least change that counts as an improvement.
        restore_best: whether the run's `params` and `state` are then those of the best epoch.

    Raises:
        ValueError: the monitor is not a loss and no mode is given.
    """

    patience: int = 5
    monitor: str = "validation_loss"
    mode: Literal["min", "max"] | None = None
    min_delta: float = 0.0
    restore_best: bool = True

    def __post_init__(self) -> None:
        if (
            isinstance(self.patience, bool)
            or not isinstance(self.patience, (int, np.integer))
            or self.patience < 0
        ):
            raise ValueError(
                f"EarlyStopping: patience is a whole number of epochs, at least 0, got "
                f"{self.patience!r}."
            )
        if not isinstance(self.monitor, str):
            raise TypeError(
                f"EarlyStopping: monitor is the name of a figure, got {self.monitor!r}."
            )
        if (
            not isinstance(self.min_delta, (int, float, np.number))
            or not 0 <= self.min_delta < math.inf
        ):
            raise ValueError(
                f"EarlyStopping: min_delta is a finite number of at least 0, got "
                f"{self.min_delta!r}."
            )
        if not isinstance(self.restore_best, (bool, np.bool_)):
            raise TypeError(
                f"EarlyStopping: restore_best is True or False, got {self.restore_best!r}."
            )
        if self.mode is None and not self.monitor.endswith("loss"):
            raise ValueError(
                f"EarlyStopping: say whether mode='min' or mode='max' is better for "
                f"{self.monitor!r}."
            )
        if not (
            self.mode is None or (isinstance(self.mode, str) and self.mode in ("min", "max"))
        ):
            raise ValueError(f"EarlyStopping: mode is 'min' or 'max', got {self.mode!r}.")

    @property
    def epochs(self) -> int:
        """After how many epochs without an improvement the run ends."""
        return max(self.patience, 1)

    def better(self, value: float, best: float | None) -> bool:
        """Whether the value improves on the best so far; NaN never does."""
        if value != value:
            return False
        if best is None:
            return True
        return (
            value > best + self.min_delta
            if self.mode == "max"
            else value < best - self.min_delta
        )


NOT_DRAWN = ("seconds", "learning_rate", "loss_scale", "skipped_steps", "rollbacks")
"""What a history tells that is no figure of the model."""


def plot_history(history: History, path: str | Path | None = None) -> Any:
    """The curves of a history, one panel a figure.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    names = [
        name
        for name in history
        if not name.startswith("validation_") and not name.endswith(NOT_DRAWN)
    ]
    names = [name for name in names if history[name] and isinstance(history[name][0], float)]
    figure = new_figure(4.6 * max(len(names), 1), 3.4)
    axes = figure.subplots(1, max(len(names), 1), squeeze=False)[0]
    for axis, name in zip(axes, names, strict=False):
        for label, key in (("training", name), ("validation", f"validation_{name}")):
            if key in history:
                axis.plot(
                    history.get("step", range(1, len(history[key]) + 1)),
                    history[key],
                    marker="o",
                    markersize=3,
                    label=label,
                )
        axis.set_xlabel("step" if "step" in history else "epoch")
        axis.set_ylabel(name.replace("_", " "))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    save_figure(figure, path)
    return figure
