"""Where a run is: all that goes on changing while it trains."""

import dataclasses
import operator
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from jaxdl.training.cursor import Cursor, EpochCarry
from jaxdl.training.history import Best, History
from jaxdl.training.program import EpochMetrics

FIRST = Cursor(0, 0)


@dataclasses.dataclass
class MetricAccumulator:
    """What was measured of one row of the history so far.

    Args:
        sums: of the row so far.
        gathered: rows, of each run of a program.
        observed: scalars after the last step.
        seconds: that its steps took.
        steps: how many were made.
        banked: sums of epochs that ended within the row; None before one has. Each epoch's own
            begin at zero.
    """

    sums: dict[str, Any] = dataclasses.field(default_factory=dict)
    gathered: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    observed: dict[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    steps: int = 0
    banked: dict[str, Any] | None = None

    def add(self, metrics: EpochMetrics, seconds: float) -> None:
        self.take(metrics.sums)
        self.gathered.append(metrics.gathered)
        self.observed = metrics.observed
        self.seconds += seconds
        self.steps += metrics.steps

    def take(self, sums: dict[str, Any]) -> None:
        """Takes the sums of the epoch so far, or of its part in this row."""
        self.sums = sums
        if self.banked is not None:
            self.sums = jax.tree.map(operator.add, self.banked, sums)

    def bank(self) -> None:
        """Keeps the sums, where an epoch ends and the row goes on."""
        self.banked = self.sums

    def joined(self) -> dict[str, Any]:
        """The rows of all runs, concatenated."""
        if not self.gathered:
            return {}
        return jax.tree.map(lambda *rows: np.concatenate(rows), *self.gathered)


@dataclasses.dataclass
class Ends:
    """How far each member of a population is.

    Args:
        stopped: why each ended, "" while it goes on.
        epochs: [members], how many each has completed.
    """

    stopped: list[str]
    epochs: Int[np.ndarray, " members"]

    @classmethod
    def none(cls, count: int) -> "Ends":
        """Before the first epoch."""
        return cls([""] * count, np.zeros(count, np.int32))

    def copy(self) -> "Ends":
        return Ends(list(self.stopped), self.epochs.copy())


@dataclasses.dataclass
class LoopState:
    """Where a run is.

    Args:
        state: the step's. There is one: the next run of a program donates it.
        carry: of the epoch at the cursor.
        cursor: the next step.
        metrics: what was measured of the row of the history at hand.
        history: of the rows before it.
        best: of them.
        steps: how many were made in all.
        stream: where a stream of batches is, as it reports itself.
        ends: of the members, where this is a population.
        ended: whether the row at hand has ended and is not yet in the history.
    """

    state: Any
    carry: EpochCarry
    cursor: Cursor = FIRST
    metrics: MetricAccumulator = dataclasses.field(default_factory=MetricAccumulator)
    history: History = dataclasses.field(default_factory=dict)
    best: Best | None = None
    steps: int = 0
    stream: Any = None
    ends: Ends | None = None
    ended: bool = False

    @property
    def rows(self) -> int:
        """How many rows the history has."""
        return max(map(len, self.history.values()), default=0)

    def record(self, metrics: dict[str, Any]) -> None:
        """Adds a row to the history; NaN for rows in which a metric was not measured, as by other
        settings.
        """
        rows = self.rows
        for name, value in metrics.items():
            self.history.setdefault(name, [_nothing(value)] * rows).append(value)
        for name in self.history.keys() - metrics.keys():
            self.history[name].append(_nothing(self.history[name][-1]))

    def copy(self) -> "LoopState":
        """The same; what is added to this one later is not added to it. The step's state is
        shared.
        """
        return dataclasses.replace(
            self,
            history={name: list(values) for name, values in self.history.items()},
            metrics=dataclasses.replace(self.metrics, gathered=list(self.metrics.gathered)),
            ends=None if self.ends is None else self.ends.copy(),
        )


def _nothing(value: Any) -> Any:
    """NaN in the place of a metric."""
    return float("nan") if np.ndim(value) == 0 else np.full(np.shape(value), np.nan)
