"""Where a run is."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from jaxdl.training.program import Begun, Part, Place
from jaxdl.training.run import Best, History

FIRST = Place(0, 0)


@dataclasses.dataclass
class Tally:
    """What was measured of one epoch so far."""

    sums: dict[str, Any] = dataclasses.field(default_factory=dict)
    gathered: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    observed: dict[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    steps: int = 0

    def add(self, part: Part, seconds: float) -> None:
        self.sums = part.sums
        self.gathered.append(part.gathered)
        self.observed = part.observed
        self.seconds += seconds
        self.steps += part.steps

    def joined(self) -> dict[str, Any]:
        if not self.gathered:
            return {}
        return jax.tree.map(lambda *rows: np.concatenate(rows), *self.gathered)


@dataclasses.dataclass
class Ends:
    """How far each member of a population is.

    Args:
        stopped: why each ended, "" while it goes on.
        epochs: how many each has completed.
        earlier: how many updates before the last one each was sent back.
    """

    stopped: list[str]
    epochs: Int[np.ndarray, " members"]
    earlier: Int[np.ndarray, " members"]

    @classmethod
    def none(cls, count: int) -> "Ends":
        """Before the first epoch."""
        return cls([""] * count, np.zeros(count, np.int32), np.zeros(count, np.int32))

    def copy(self) -> "Ends":
        return Ends(list(self.stopped), self.epochs.copy(), self.earlier.copy())


@dataclasses.dataclass
class Position:
    """Where a run is: all that goes on changing while it trains.

    Args:
        state: the step's.
        begun: what the epoch at `place` carries.
        place: of the next step.
        tally: what was measured of that epoch.
        history: of the epochs before it.
        best: of them.
        steps: how many were made in all.
        stream: where a stream of batches is, as it says itself.
        ends: of the members, where this is a population.
    """

    state: Any
    begun: Begun
    place: Place = FIRST
    tally: Tally = dataclasses.field(default_factory=Tally)
    history: History = dataclasses.field(default_factory=dict)
    best: Best | None = None
    steps: int = 0
    stream: Any = None
    ends: Ends | None = None

    def record(self, figures: dict[str, Any]) -> None:
        """Adds the figures of an epoch to the history; NaN for epochs in which one was not
        measured, as by other settings.
        """
        epochs = max(map(len, self.history.values()), default=0)
        for name, value in figures.items():
            self.history.setdefault(name, [_nothing(value)] * epochs).append(value)
        for name in self.history.keys() - figures.keys():
            self.history[name].append(_nothing(self.history[name][-1]))

    def copy(self) -> "Position":
        """The same, and what is added to this one later is not added to it."""
        history = {name: list(values) for name, values in self.history.items()}
        tally = dataclasses.replace(self.tally, gathered=list(self.tally.gathered))
        ends = None if self.ends is None else self.ends.copy()
        return dataclasses.replace(self, history=history, tally=tally, ends=ends)


def _nothing(value: Any) -> Any:
    """NaN in the place of a figure."""
    return float("nan") if np.ndim(value) == 0 else np.full(np.shape(value), np.nan)
