"""Schedules of the learning rate in fractions of a run, whatever its number of steps."""

import abc
import dataclasses
import functools

import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike


class Schedule(abc.ABC):
    """A learning rate that changes over a run, whatever its length; a frozen dataclass.

    `fit(..., optimizer=optax.adam, learning_rate=optim.Cosine(1e-3))` counts the steps of the run.
    For a schedule in absolute steps give optax's own, `learning_rate=optax.linear_schedule(...)`.
    """

    @abc.abstractmethod
    def over(self, steps: int) -> optax.Schedule:
        """The schedule of a run of `steps` steps, a function of the number of steps made."""


@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from the peak down to the end, after a linear warm-up from 0.

        rate = peak · (end + (1 − end) · (1 + cos πt) / 2)

    with t from 0 to 1 over the run after the warm-up.

    Args:
        peak: the largest rate; traced in a sweep.
        warmup: the fraction of the run for the warm-up; 0 begins at the peak.
        end: the last rate, as a fraction of the peak.

    Raises:
        ValueError: the peak is not above 0, or a fraction does not lie between 0 and 1.

    Source: Loshchilov, Hutter, *SGDR: stochastic gradient descent with warm restarts* (2017),
    equation 5.

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
        return _after_warmup(self.peak, rise, fall)


@dataclasses.dataclass(frozen=True)
class Linear(Schedule):
    """A straight line from the peak down to the end, after a linear warm-up from 0.

        rate = peak · (1 − (1 − end) · t)

    with t from 0 to 1 over the run after the warm-up. With `end=1` the rate stays at the peak.

    Args:
        peak: the largest rate; traced in a sweep.
        warmup: the fraction of the run for the warm-up; 0 begins at the peak.
        end: the last rate, as a fraction of the peak.

    Raises:
        ValueError: as in `Cosine`.

    Source: Goyal et al., *Accurate, large minibatch SGD* (2017), section 2.2, for the warm-up.

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
        return _after_warmup(self.peak, rise, fall)


@dataclasses.dataclass(frozen=True)
class OneCycle(Schedule):
    """Half a cosine up to the peak, and half a longer one down to nearly 0.

        rate = peak · (start + (1 − start) · (1 − cos πt) / 2)   on the way up, then
        rate = peak · (end + (1 − end) · (1 + cos πu) / 2)       on the way down

    with t and u from 0 to 1 over each.

    Args:
        peak: the largest rate; it may be larger than a constant rate could be.
        warmup: the fraction of the run for the way up; 0 begins at the peak.
        start: the first rate, as a fraction of the peak.
        end: the last rate, as a fraction of the peak.

    Raises:
        ValueError: as in `Cosine`.

    Source: Smith, Topin, *Super-convergence: very fast training of neural networks using large
    learning rates* (2018).

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
    """A rate that is multiplied by a factor once the training loss has stopped falling.

    It is optax's `reduce_on_plateau`, of the mean over each epoch of the loss in training.

    Args:
        rate: the first rate.
        factor: of each reduction.
        patience: the number of epochs without a lowest loss after which the rate is reduced.
        tolerance: the fraction of the lowest loss by which a loss has to be lower to count.
        cooldown: the number of epochs after a reduction that do not count.
        end: the least rate, as a fraction of the first.

    Raises:
        ValueError: an argument lies outside its range.
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
        """The transformation to chain behind an optimizer of this rate."""
        from optax.contrib import reduce_on_plateau

        return reduce_on_plateau(
            factor=self.factor,
            patience=self.patience,
            rtol=self.tolerance,
            cooldown=self.cooldown,
            accumulation_size=steps_per_epoch,
            min_scale=self.end,
        )


def _after_warmup(peak: float | Array, rise: int, fall: optax.Schedule) -> optax.Schedule:
    """A schedule after a linear rise from 0 of some steps, which may be none."""
    if rise == 0:
        return fall
    up = optax.linear_schedule(0.0, peak, rise)
    return optax.join_schedules([up, fall], [rise])


def _half_cosine_up(
    peak: float | Array,
    start: float | Array,
    rise: int | Array,
    count: ArrayLike,
) -> Array:
    """The rate after `count` of the `rise` steps of the way up from a fraction of the peak."""
    t = jnp.asarray(count, jnp.float32) / rise
    return peak * (1 - (1 - start) * (1 + jnp.cos(jnp.pi * t)) / 2)


def _rise(warmup: float, steps: int) -> int:
    """The number of steps of a warm-up: at least one where there is any, and never all."""
    if warmup == 0 or steps <= 1:
        return 0
    return min(max(round(warmup * steps), 1), steps - 1)


def _check(schedule: Schedule | Plateau, **fractions: float) -> None:
    """Checks the rate of a schedule, its first field, and its fractions.

    Raises:
        ValueError: the rate is not above 0, or a fraction does not lie between 0 and 1.
    """
    first = dataclasses.fields(schedule)[0].name  # pyright: ignore[reportArgumentType]
    rate = getattr(schedule, first)
    if not isinstance(rate, Array) and not rate > 0:
        raise ValueError(f"{schedule}: {first} is a learning rate and has to be larger than 0.")
    for name, fraction in fractions.items():
        whole = name == "warmup" and fraction == 1
        if whole or not 0 <= fraction <= 1:
            raise ValueError(f"{schedule}: {name} is a fraction, between 0 and 1.")
