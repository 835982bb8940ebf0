"""Functions timed in turn, and the statistics of their times."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

Name = TypeVar("Name", bound=str)

Repeat = Callable[[int], None]
"""Runs something as many times as it is given, and returns when the device has finished."""


@dataclasses.dataclass(frozen=True)
class Steady:
    """How long something takes once everything is warm.

    Args:
        seconds: of one repetition, in each round.
        repeats: how many repetitions a round had.
    """

    seconds: tuple[float, ...]
    repeats: int

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """The interquartile range over the median."""
        low, high = np.percentile(self.seconds, [25, 75])
        return float(high - low) / self.median

    def known(self, widest_spread: float) -> bool:
        """Whether the spread is narrow enough for the median to mean anything.

        Args:
            widest_spread: the largest spread for which it is.
        """
        return math.isfinite(self.spread) and self.spread <= widest_spread


def in_turn(
    repeated: Mapping[str, Repeat],
    rounds: int,
    seconds: float,
    max_repeats: Mapping[str, int] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Steady]:
    """Times several functions in turn, A B C, A B C, …, so that changes of the machine's speed
    affect all of them.

    Args:
        repeated: what is timed, by name.
        rounds: how many rounds there are, in each of which every function is timed once.
        seconds: about how long one of them takes in a round; what takes longer is run once.
        max_repeats: how many times each is run, at most, in a round.
        clock: in seconds.

    Returns:
        The times, by name.
    """
    limits = max_repeats or {}
    counts = {
        name: _count(repeat, seconds, limits.get(name, 2**30), clock)
        for name, repeat in repeated.items()
    }
    times: dict[str, list[float]] = {name: [] for name in repeated}
    for _ in range(rounds):
        for name, repeat in repeated.items():
            times[name].append(_timed(repeat, counts[name], clock) / counts[name])
    return {name: Steady(tuple(each), counts[name]) for name, each in times.items()}


def _count(repeat: Repeat, seconds: float, limit: int, clock: Callable[[], float]) -> int:
    """How many repetitions fit into a round; warms up by trying."""
    repeat(1)
    count = 1
    while True:
        took = _timed(repeat, count, clock)
        fitting = max(1, min(limit, round(count * seconds / max(took, 1e-7))))
        if took >= seconds / 4 or fitting <= count:
            return fitting
        count = min(fitting, 16 * count)


def _timed(repeat: Repeat, count: int, clock: Callable[[], float]) -> float:
    began = clock()
    repeat(count)
    return clock() - began


def check_rounds(rounds: int, seconds: float, widest_spread: float) -> None:
    """Checks the settings of a measurement.

    Args:
        rounds: at least 3.
        seconds: of one execution mode in a round, above 0.
        widest_spread: above 0.

    Raises:
        ValueError: one is out of its range.
    """
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 3:
        raise ValueError(
            f"rounds: expected an integer of at least 3, so that there is a spread, got {rounds!r}."
        )
    if not seconds > 0:
        raise ValueError(
            f"seconds: expected how long a round of one execution mode takes, above 0, got "
            f"{seconds!r}."
        )
    if not widest_spread > 0:
        raise ValueError(
            f"widest_spread: expected a share of the median above 0, such as 0.25, got "
            f"{widest_spread!r}."
        )


def check_names(name: str, given: Sequence[Name], known: Sequence[Name]) -> tuple[Name, ...]:
    """The names that were given.

    Args:
        name: of the argument.
        given: by the user.
        known: those that there are.

    Raises:
        ValueError: none was given, one is not known, or one is given twice.
    """
    given = tuple(given)
    if not given or set(given) - set(known) or len(set(given)) != len(given):
        raise ValueError(
            f"{name}: expected some of {', '.join(map(repr, known))}, each once, got {given!r}."
        )
    return given
