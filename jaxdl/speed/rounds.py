"""Times taken in turn, and what can be said of them."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

Name = TypeVar("Name", bound=str)
Repeat = Callable[[int], None]
"""Does a thing so many times, one after another, and returns when the device has done it."""


@dataclasses.dataclass(frozen=True)
class Steady:
    """How long a thing takes once everything is warm.

    Args:
        seconds: of one, in each round.
        repeats: how many made a round.
    """

    seconds: tuple[float, ...]
    repeats: int

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """The interquartile range over the median."""
        low, high = np.percentile(self.seconds, [25, 75])
        return float(high - low) / self.median

    def known(self, widest_spread: float) -> bool:
        """Whether the median means anything."""
        return math.isfinite(self.spread) and self.spread <= widest_spread


def in_turn(
    repeated: Mapping[str, Repeat],
    rounds: int,
    seconds: float,
    most: Mapping[str, int] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Steady]:
    """Times several things in turn, A B C, A B C, …, so that a machine's moods meet all alike.

    Args:
        repeated: what is timed, by name.
        rounds: how often each has its turn.
        seconds: about how long one turn takes; what takes longer is done once a turn.
        most: how many times, at most, in a turn.
        clock: in seconds.
    """
    counts = {
        name: _count(repeat, seconds, (most or {}).get(name, 2**30), clock)
        for name, repeat in repeated.items()
    }
    times: dict[str, list[float]] = {name: [] for name in repeated}
    for _ in range(rounds):
        for name, repeat in repeated.items():
            times[name].append(_timed(repeat, counts[name], clock) / counts[name])
    return {name: Steady(tuple(each), counts[name]) for name, each in times.items()}


def _count(repeat: Repeat, seconds: float, most: int, clock: Callable[[], float]) -> int:
    """How many fit into a turn; warms up by trying."""
    repeat(1)
    count = 1
    while True:
        took = _timed(repeat, count, clock)
        fitting = max(1, min(most, round(count * seconds / max(took, 1e-7))))
        if took >= seconds / 4 or fitting <= count:
            return fitting
        count = min(fitting, 16 * count)


def _timed(repeat: Repeat, count: int, clock: Callable[[], float]) -> float:
    began = clock()
    repeat(count)
    return clock() - began


def check_rounds(rounds: int, seconds: float, widest_spread: float) -> None:
    """Refuses settings that nothing can be measured with."""
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 3:
        raise ValueError(
            f"rounds: expected a whole number of at least 3, so that there is a spread, got "
            f"{rounds!r}."
        )
    if not seconds > 0:
        raise ValueError(
            f"seconds: expected how long a turn of one way takes, above 0, got {seconds!r}."
        )
    if not widest_spread > 0:
        raise ValueError(
            f"widest_spread: expected a share of the median above 0, such as 0.25, got "
            f"{widest_spread!r}."
        )


def check_names(name: str, given: Sequence[Name], known: Sequence[Name]) -> tuple[Name, ...]:
    """The ways that were asked for."""
    given = tuple(given)
    if not given or set(given) - set(known) or len(set(given)) != len(given):
        raise ValueError(
            f"{name}: expected some of {', '.join(map(repr, known))}, each once, got {given!r}."
        )
    return given
