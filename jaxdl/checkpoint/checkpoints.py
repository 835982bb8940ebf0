"""When to save a run, and what to keep."""

import dataclasses
import re
from pathlib import Path
from typing import Literal

Unit = Literal["steps", "epochs", "seconds"]
OnChange = Literal["refuse", "continue", "restart"]

_UNITS: dict[str, tuple[Unit, int]] = {
    "step": ("steps", 1),
    "epoch": ("epochs", 1),
    "second": ("seconds", 1),
    "minute": ("seconds", 60),
    "hour": ("seconds", 3600),
}


@dataclasses.dataclass(frozen=True)
class Interval:
    """A number of steps, epochs or seconds between two saves."""

    count: float
    unit: Unit

    @classmethod
    def of(cls, told: str) -> "Interval":
        """The interval that a number and a unit tell, such as "500 steps" or "1 minute".

        >>> Interval.of("2.5 minutes")
        Interval(count=150.0, unit='seconds')
        """
        match = (
            re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+?)s?\s*", told)
            if isinstance(told, str)
            else None
        )
        if match is None or match[2] not in _UNITS or float(match[1]) <= 0:
            raise ValueError(
                f"Checkpoints: every is a number and what it counts, in steps, epochs, seconds, "
                f"minutes or hours, such as "
                f"'500 steps' or '5 minutes'; got {told!r}."
            )
        unit, factor = _UNITS[match[2]]
        count = float(match[1]) * factor
        if unit != "seconds" and not count.is_integer():
            raise ValueError(f"Checkpoints: every counts whole {unit}, got {told!r}.")
        return cls(count, unit)


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """Where a run saves itself, how often, and what it keeps.

    A run that finds checkpoints in its folder goes on from the newest that is whole, if that is of
    the same settings: model, data and how they are cut and shuffled, loss, metrics, optimizer with
    its numbers, seed, early stopping, and whatever else changes numbers. `epochs`, `steps`,
    callbacks and how programs are compiled may differ; where a schedule spans the run, more epochs
    are another schedule. Of arrays above 16 MB, rows that are spread over them are compared; of a
    stream that says where it is, its shapes, and what its method `identity()` tells.

    Args:
        folder: of this run alone; made where it is not there.
        every: how often, as a number and what it counts: "500 steps", "1 epoch", "30 seconds", "5
            minutes", "1 hour". Time is counted from the end of one save to the beginning of the
            next. The run is saved at its end too.
        keep: how many of the newest stay; None keeps all.
        best: a figure of the history, such as "validation_loss": after each epoch in which it is
            better than ever before the run is saved too, and the best stays beside the newest.
        mode: whether "min" or "max" of the figure is better; None knows it for a loss.
        on_change: what a run does that finds checkpoints of other settings. "refuse" raises an
            error that lists what differs. "continue" goes on from the newest with the new settings,
            such as another learning rate: the history keeps both parts (NaN where a figure was not
                measured), an epoch that had begun begins anew, and the best epoch before counts
            only where it was measured alike. "restart" moves all checkpoints into a folder
            `earlier-1`, `earlier-2`, … beside the new ones, where they stay, and begins anew.

    Raises:
        ValueError: an argument is not one of these.

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
        Interval.of(self.every)
        if not str(self.folder):
            raise ValueError("Checkpoints: folder is empty — name one, such as 'runs/mnist'.")
        if self.keep is not None and (isinstance(self.keep, bool) or self.keep < 1):
            raise ValueError(
                f"Checkpoints: keep is a whole number of at least 1, or None for all, got "
                f"{self.keep!r}."
            )
        if self.mode not in (None, "min", "max"):
            raise ValueError(f"Checkpoints: mode is 'min' or 'max', got {self.mode!r}.")
        if self.on_change not in ("refuse", "continue", "restart"):
            raise ValueError(
                f"Checkpoints: on_change is 'refuse', 'continue' or 'restart', got "
                f"{self.on_change!r}."
            )
        if self.best is None and self.mode is not None:
            raise ValueError(
                "Checkpoints: mode says which figure of best is better — name that figure by best."
            )
        if self.best is not None and self.mode is None and not self.best.endswith("loss"):
            raise ValueError(
                f"Checkpoints: say whether mode='min' or mode='max' is better for {self.best!r}."
            )

    @property
    def interval(self) -> Interval:
        """What `every` says."""
        return Interval.of(self.every)

    def better(self, figure: float, than: float | None) -> bool:
        """Whether a figure is better than another; NaN never is, and anything else is better than
        None.
        """
        if figure != figure:
            return False
        if than is None:
            return True
        return figure > than if self.mode == "max" else figure < than
