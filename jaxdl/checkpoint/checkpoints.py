"""The settings of a run's checkpoints: when to save, and what to keep."""

import dataclasses
from pathlib import Path
from typing import Literal

from jaxdl.checkpoint.reading import (
    Checkpoint,
    RunInfo,
    load_best,
    load_best_epoch,
    load_checkpoint,
    runs_in,
)
from jaxdl.core.interval import Interval

OnChange = Literal["refuse", "continue", "restart"]


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """Where a run saves its checkpoints, how often, and which it keeps.

    A run that finds checkpoints in its folder resumes from the newest one that can be read, if its
    settings are the same: model, data and how they are batched and shuffled, loss, metrics,
    optimizer with its hyperparameters, seed, early stopping, and whatever else changes results.
    `epochs`, `steps`, callbacks and how programs are compiled may differ; where a schedule spans
    the run, more epochs are another schedule. Of arrays above 16 MB, rows that are spread over them
    are compared; of a stream that reports its position, its shapes, and what its method
    `identity()` returns.

    Args:
        folder: of this run alone; it is created where it does not exist.
        every: how often, as a number and what it counts: "500 steps", "1 epoch", "30 seconds", "5
            minutes", "1 hour". Time is counted from the end of one save to the beginning of the
            next. The run is saved at its end too.
        keep: how many of the newest checkpoints are kept; None keeps all.
        best: a metric of the history, such as "validation_loss": the run is also saved after each
            epoch in which it is better than ever before, and the best checkpoint is kept beside the
            newest.
        mode: whether "min" or "max" of the metric is better; None knows it for a loss.
        on_change: what a run does that finds checkpoints of other settings. "refuse" raises an
            error that lists what differs. "continue" resumes from the newest with the new settings,
            such as another learning rate: the history keeps both parts (NaN where a metric was not
            measured), an epoch that had begun starts over, and the best epoch before counts only
            where it was measured in the same way. "restart" moves all checkpoints into a folder
            `earlier-1`, `earlier-2`, … beside the new ones, where they stay, and starts over.

    Raises:
        ValueError: an argument is out of its range.

    >>> Checkpoints("runs/mnist", every="500 steps", best="validation_loss").interval
    Interval(count=500.0, unit='steps')
    """

    folder: str | Path
    every: str = "5 minutes"
    keep: int | None = 3
    best: str | None = None
    mode: Literal["min", "max"] | None = None
    on_change: OnChange = "refuse"

    def __post_init__(self) -> None:
        Interval.parse(self.every, "Checkpoints: every")
        if not str(self.folder):
            raise ValueError("Checkpoints: folder is empty — name one, such as 'runs/mnist'.")
        if self.keep is not None and (isinstance(self.keep, bool) or self.keep < 1):
            raise ValueError(
                f"Checkpoints: keep is an integer of at least 1, or None for all, got "
                f"{self.keep!r}."
            )
        if self.on_change not in ("refuse", "continue", "restart"):
            raise ValueError(
                f"Checkpoints: on_change is 'refuse', 'continue' or 'restart', got "
                f"{self.on_change!r}."
            )
        self._check_mode()

    def _check_mode(self) -> None:
        if self.mode not in (None, "min", "max"):
            raise ValueError(f"Checkpoints: mode is 'min' or 'max', got {self.mode!r}.")
        if self.best is None and self.mode is not None:
            raise ValueError(
                "Checkpoints: mode says which value of the metric best is better — name that "
                "metric by best."
            )
        if self.best is not None and self.mode is None and not self.best.endswith("loss"):
            raise ValueError(
                f"Checkpoints: say whether mode='min' or mode='max' is better for {self.best!r}."
            )

    def runs(self) -> tuple[RunInfo, ...]:
        """The run whose checkpoints are in the folder, and before it those that `on_change` set
        aside, the newest first; no data is needed, and nothing is trained.

        Raises:
            CheckpointError: there is no such folder.
        """
        return runs_in(Path(self.folder))

    def load(self, step: int | None = None) -> Checkpoint:
        """Reads a checkpoint: parameters, state, history, settings. Every digest is checked.

        Args:
            step: the number of steps after which it was saved; None is the newest that can be
                read.

        Raises:
            CheckpointError: there is none, or it cannot be read; or it is of a population.
        """
        return load_checkpoint(Path(self.folder), step)

    def load_best(self) -> Checkpoint:
        """Reads the checkpoint that was saved with the best value of the metric `best`; where none
        is named, the best epoch that the run itself kept, by its validation or early stopping.

        Raises:
            CheckpointError: there is none, or it cannot be read; or it is of a population.
        """
        if self.best is None:
            return load_best_epoch(Path(self.folder))
        return load_best(Path(self.folder), self.better)

    @property
    def interval(self) -> Interval:
        """The interval that `every` describes."""
        return Interval.parse(self.every, "Checkpoints: every")

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value of the metric is better than another.

        Args:
            value: NaN is never better.
            than: None stands for no value, than which any other is better.
        """
        if value != value:
            return False
        if than is None:
            return True
        return value > than if self.mode == "max" else value < than
