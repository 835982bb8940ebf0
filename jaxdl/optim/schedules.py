"""Learning rates over a run: schedules by shares of the run, which become optax's once the number
of steps is known.
"""

import abc
import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import optax
from jax import Array


class Schedule(abc.ABC):
    """A learning rate that changes over a run, whatever its length; a frozen dataclass.

    `fit(..., optimizer=optax.adam, learning_rate=optim.Cosine(1e-3))` counts the steps of the run
    and does the rest. A schedule in absolute steps needs none of this: give optax's own,
    `learning_rate=optax.linear_schedule(...)`.
    """

    @abc.abstractmethod
    def over(self, steps: int) -> optax.Schedule:
        """The rate at each of so many steps, as a function of the number of steps made."""


@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from the peak down to its end, after a straight rise from 0 (Loshchilov and
    Hutter, 2017).

    With t the share of the run after the warm-up, rate = peak · (end + (1 − end) · (1 + cos πt) /
    2).

    Args:
        peak: the largest rate; inside of a sweep one that is being traced.
        warmup: the share of the run for the rise; 0 begins at the peak.
        end: the last rate, as a share of the peak.

    >>> schedule = Cosine(1e-3, warmup=0.1).over(100)
    >>> [round(float(schedule(step)), 6) for step in (0, 5, 10, 55, 100)]
    [0.0, 0.0005, 0.001, 0.0005, 0.0]
    """

    peak: float | Array
    warmup: float = 0.0
    end: float = 0.0

    def __post_init__(self) -> None:
        _check(self, warmup=self.warmup, end=self.end)

    def over(self, steps: int) -> optax.Schedule:
        rise = _rise(self.warmup, steps)
        fall = optax.cosine_decay_schedule(self.peak, steps - rise, self.end)
        return (
            fall
            if rise == 0
            else optax.join_schedules([optax.linear_schedule(0.0, self.peak, rise), fall], [rise])
        )


@dataclasses.dataclass(frozen=True)
class Linear(Schedule):
    """A straight line from the peak down to its end, after a straight rise from 0. With `end=1` the
    rate stays at the peak.

    Args:
        peak, warmup, end: as in `Cosine`.

    >>> schedule = Linear(1.0, warmup=0.2).over(100)
    >>> [round(float(schedule(step)), 3) for step in (0, 10, 20, 60, 100)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    peak: float | Array
    warmup: float = 0.0
    end: float = 0.0

    def __post_init__(self) -> None:
        _check(self, warmup=self.warmup, end=self.end)

    def over(self, steps: int) -> optax.Schedule:
        rise = _rise(self.warmup, steps)
        fall = optax.linear_schedule(self.peak, self.end * self.peak, steps - rise)
        return (
            fall
            if rise == 0
            else optax.join_schedules([optax.linear_schedule(0.0, self.peak, rise), fall], [rise])
        )


@dataclasses.dataclass(frozen=True)
class OneCycle(Schedule):
    """Half a cosine up to the peak, and half a longer one down to next to nothing (Smith and Topin,
    2018).

    With t the share of the way up, and u that of the way down,

        rate = peak · (start + (1 − start) · (1 − cos πt) / 2),   then   peak · (end + (1 − end) ·
        (1 + cos πu) / 2)

    Args:
        peak: the largest rate; it may be larger than what a constant rate could be.
        warmup: the share of the run for the way up; 0 begins at the peak.
        start, end: the first and the last rate, as shares of the peak.

    >>> schedule = OneCycle(1.0).over(100)
    >>> [round(float(schedule(step)), 2) for step in (0, 30, 65, 100)]
    [0.04, 1.0, 0.5, 0.0]
    """

    peak: float | Array
    warmup: float = 0.3
    start: float = 0.04
    end: float = 4e-6

    def __post_init__(self) -> None:
        _check(self, warmup=self.warmup, start=self.start, end=self.end)

    def over(self, steps: int) -> optax.Schedule:
        rise = _rise(self.warmup, steps)
        fall = optax.cosine_decay_schedule(self.peak, steps - rise, self.end)
        if rise == 0:
            return fall

        up = functools.partial(_half_cosine_up, self.peak, self.start, rise)
        return optax.join_schedules([up, fall], [rise])


@dataclasses.dataclass(frozen=True)
class Plateau:
    """A rate that is multiplied by a factor once the training loss has stopped falling: optax's
    `reduce_on_plateau`.

    It follows the mean over each epoch of the loss that the optimizer sees, in training.

    Args:
        rate: the first.
        factor: of each reduction.
        patience: after so many epochs whose loss was not the lowest so far.
        tolerance: by which share of the lowest loss a loss has to be lower to count.
        cooldown: epochs after a reduction that do not count.
        end: the least rate, as a share of the first.
    """

    rate: float
    factor: float = 0.1
    patience: int = 5
    tolerance: float = 1e-4
    cooldown: int = 0
    end: float = 0.0

    def __post_init__(self) -> None:
        _check(self, end=self.end)
        if not 0 < self.factor < 1:
            raise ValueError(f"{self}: factor lies between 0 and 1.")
        if not (self.patience >= 1 and self.cooldown >= 0 and 0 < self.tolerance < 1):
            raise ValueError(
                f"{self}: patience is at least 1, cooldown at least 0, and tolerance lies between "
                f"0 and 1."
            )

    def scaling(self, steps_per_epoch: int) -> optax.GradientTransformation:
        """What is chained behind an optimizer of that rate."""
        from optax.contrib import reduce_on_plateau

        return reduce_on_plateau(
            factor=self.factor,
            patience=self.patience,
            rtol=self.tolerance,
            cooldown=self.cooldown,
            accumulation_size=steps_per_epoch,
            min_scale=self.end,
        )


def _half_cosine_up(peak: Any, start: Any, rise: Any, count: Any) -> Any:
    """The rate after so many steps of the way up from a share of the peak."""
    share = jnp.asarray(count, jnp.float32) / rise
    return peak * (1 - (1 - start) * (1 + jnp.cos(jnp.pi * share)) / 2)


def _rise(warmup: float, steps: int) -> int:
    """How many steps a warm-up takes: at least one where there is any, and never all."""
    return min(max(round(warmup * steps), 1), steps - 1) if warmup > 0 and steps > 1 else 0


def _check(schedule: Any, **shares: float) -> None:
    first = dataclasses.fields(schedule)[0].name
    rate = getattr(schedule, first)
    if not isinstance(rate, Array) and not rate > 0:
        raise ValueError(f"{schedule}: {first} is a learning rate and has to be larger than 0.")
    for name, share in shares.items():
        if not 0 <= share <= 1 or (name == "warmup" and share == 1):
            raise ValueError(f"{schedule}: {name} is a share, between 0 and 1.")
