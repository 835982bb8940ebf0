"""Rounds alternate, their repetitions fit the time, and a median that spreads too far is not known."""

from collections.abc import Callable

import numpy as np
import pytest

from jaxdl.speed.rounds import Steady, check_names, check_rounds, in_turn


class Clock:
    """A clock that only work moves."""

    def __init__(self) -> None:
        self.now, self.done = 0.0, list[str]()

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, seconds: float) -> Callable[[int], None]:
        def repeat(count: int) -> None:
            self.done.append(name)
            self.now += count * seconds

        return repeat


def test_functions_alternate_and_each_fills_its_time() -> None:
    clock = Clock()
    steady = in_turn(
        {"a": clock.work("a", 0.001), "b": clock.work("b", 5.0)}, 4, 0.1, clock=clock
    )
    assert clock.done[-8:] == ["a", "b"] * 4
    assert (steady["a"].repeats, steady["b"].repeats) == (100, 1)
    assert steady["a"].median == pytest.approx(0.001)
    assert steady["b"].seconds == pytest.approx((5.0,) * 4)


def test_no_round_runs_more_than_it_may() -> None:
    clock = Clock()
    assert in_turn({"a": clock.work("a", 1e-6)}, 3, 0.1, {"a": 7}, clock)["a"].repeats == 7


def test_the_spread_is_the_interquartile_range_over_the_median() -> None:
    times = np.random.default_rng(0).uniform(1, 2, 21)
    low, middle, high = np.quantile(times, [0.25, 0.5, 0.75])
    steady = Steady(tuple(times.tolist()), 1)
    assert steady.spread == pytest.approx((high - low) / middle)
    assert steady.known(steady.spread * 1.01)
    assert not steady.known(steady.spread * 0.99)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ((2, 0.1, 0.25), "rounds: expected an integer of at least 3"),
        ((3, 0.0, 0.25), "seconds: expected how long a round"),
        ((3, 0.1, 0.0), "widest_spread: expected a share"),
    ],
)
def test_settings_that_measure_nothing_are_refused(
    settings: tuple[int, float, float], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_rounds(*settings)


@pytest.mark.parametrize("ways", [(), ("step", "step"), ("jit",)])
def test_ways_are_some_of_those_there_are(ways: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="ways: expected some of 'eager', 'step', each once"):
        check_names("ways", ways, ("eager", "step"))
