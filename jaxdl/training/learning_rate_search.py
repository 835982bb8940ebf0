"""A range test: one short training in which the learning rate grows, and the rate at which the loss
falls fastest.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Unpack

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float

from jaxdl.core.layer import Layer, Params, State
from jaxdl.core.plotting import new_figure, save_figure
from jaxdl.data.source import Batch
from jaxdl.optim.optimizers import Optimizer, as_optimizer
from jaxdl.training import checks, sources
from jaxdl.training.feed import Feed
from jaxdl.training.fit import first_start
from jaxdl.training.iteration import Iteration, initial_state
from jaxdl.training.options import (
    Loss,
    SupervisedArguments,
    SupervisedOptions,
    check_names,
)
from jaxdl.training.program import Program
from jaxdl.training.run_options import Compile, as_execution
from jaxdl.training.spread import without_mesh
from jaxdl.training.state import Measured, TrainState, distinct_arrays
from jaxdl.training.step import UpdateStep
from jaxdl.training.steps.supervised import Supervised

FEWEST = 10
"""How many steps have to be made before the loss diverges."""
MEMORY = 0.9
"""How much of the running mean, by which divergence is told, each step keeps."""


@dataclasses.dataclass(frozen=True, eq=False)
class LearningRateSearch:
    """What `find_learning_rate` found.

    Args:
        suggestion: the rate at which the smoothed loss falls most steeply.
        rates: of each step, growing geometrically.
        losses: of each step's batch, before its update.
        smoothed: the losses, smoothed.
        diverged: whether the loss diverged before the highest rate was reached.
    """

    suggestion: float
    rates: Float[np.ndarray, " steps"]
    losses: Float[np.ndarray, " steps"]
    smoothed: Float[np.ndarray, " steps"]
    diverged: bool

    def __repr__(self) -> str:
        end = "diverged" if self.diverged else "ended"
        last = f"{end} at {self.rates[-1]:.3g}"
        return f"LearningRateSearch(suggestion={self.suggestion:.3g}, {last})"

    def plot(self, path: str | Path | None = None) -> Any:
        """Draws the loss over the rate, on a logarithmic axis; a matplotlib `Figure`, saved where a
        path is given.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        figure = new_figure(5.6, 3.6)
        axis = figure.subplots()
        axis.plot(self.rates, self.losses, color="0.75", linewidth=0.8, label="each step")
        axis.plot(self.rates, self.smoothed, label="smoothed")
        height = np.interp(math.log(self.suggestion), np.log(self.rates), self.smoothed)
        axis.plot(
            [self.suggestion],
            [height],
            "o",
            color="C3",
            label=f"steepest fall: {self.suggestion:.2g}",
        )
        axis.axvline(self.suggestion, color="C3", linewidth=0.8, linestyle=":")
        axis.set_xscale("log")
        low = float(self.smoothed.min())
        high = float(self.smoothed[: max(len(self.smoothed) // 2, 1)].max())
        axis.set_ylim(low - 0.1 * (high - low), high + 0.5 * (high - low) + 1e-12)
        axis.set_xlabel("learning rate")
        axis.set_ylabel("training loss")
        axis.grid(alpha=0.3, which="both")
        axis.legend()
        save_figure(figure, path)
        return figure


@without_mesh()
def find_learning_rate(
    model: Layer,
    data: Any,
    *,
    loss: Loss,
    optimizer: Optimizer = optax.adam,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 200,
    batch_size: int = 32,
    drop_last: bool = False,
    seed: int | Array = 0,
    initial: tuple[Params, State] | None = None,
    compile: Compile = "auto",
    **options: Unpack[SupervisedArguments],
) -> LearningRateSearch:
    """Suggests a learning rate from one short training in which it grows.

    At step i the rate is lowest · (highest / lowest)^(i / (steps − 1)). The losses L of the steps
    are smoothed by a Gaussian whose deviation is 3 % of the steps, to both sides alike, so that
    nothing is shifted; the suggestion is the rate η of the least slope dL / d ln η before the
    lowest smoothed loss. The test ends early once the loss has diverged: once its running mean has
    risen over its start by more than its start (or by more than it had fallen, where that is more),
    or is not finite.

    The suggestion is where training goes fast, not an optimum: for a long training with a schedule
    it is a peak, and for a constant rate a half or a third of it may be safer. Where dropout or
    augmentation is strong, batches are small or the optimizer adapts (Adam), the curve is noisy:
    `plot()` it.

    Source: Smith, *Cyclical learning rates for training neural networks* (2017), section 3.3.

    Args:
        model, data, loss, batch_size, drop_last, initial, compile: as in `fit`.
        optimizer: a function of a learning rate, such as `functools.partial(optax.sgd,
            momentum=0.9)`; or a name.
        lowest, highest: the first and the last rate.
        steps: how many; the data are gone through as often as that needs.
        seed: of the initial weights, the order of the batches and all else that is drawn.
        options: `clip_norm`, `accumulate`, `augment`, `precision` and others, as in `fit`.

    Raises:
        ValueError: the loss diverges at once, or does not fall at any rate; or an argument does not
            fit.

    >>> import numpy as np, jaxdl as dl
    >>> x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    >>> found = dl.find_learning_rate(dl.Dense(1), (x, x[:, :1]), loss=dl.losses.mean_squared_error)
    >>> 1e-3 < found.suggestion < 1
    True
    """
    checks.check_execution(compile)
    check_names("find_learning_rate", options, SupervisedArguments)
    steps = checks.check_count("steps", steps, 2 * FEWEST)
    if not 0 < lowest < highest < math.inf:
        raise ValueError(
            f"find_learning_rate: rates grow from lowest to highest, got {lowest!r} and "
            f"{highest!r}."
        )
    if isinstance(optimizer, optax.GradientTransformation):
        raise ValueError(
            "optimizer: it has a learning rate already — give the function alone, such as "
            "optax.adam."
        )
    key = sources.as_key(seed)
    feed = sources.as_feed(
        "data",
        data,
        batch_size=checks.check_count("batch_size", batch_size),
        key=key,
        shuffle=True,
        new_shapes=False,
        drop_last=drop_last,
    )
    supervised = SupervisedOptions.of(feed, options)
    growing = as_optimizer(optimizer, _growing(float(lowest), float(highest), steps))
    step = supervised.step(checks.check_model(model), loss, growing)
    start = first_start(step, feed, key, initial)
    losses, diverged = _losses(_RangeTest(step), feed, start, steps, compile)
    rates = lowest * (highest / lowest) ** (np.arange(len(losses)) / (steps - 1))
    return _search(rates, losses, diverged, 0.03 * steps)


class _Watched(NamedTuple):
    """A training state and the running mean of its losses: how it began, its least value, and
    now.
    """

    train: TrainState
    first: Array
    least: Array
    mean: Array

    @property
    def step(self) -> Array:
        return self.train.step


@dataclasses.dataclass(frozen=True)
class _RangeTest(UpdateStep):
    """A supervised step that gathers its losses and ends once they diverge."""

    of: Supervised
    keeps_last_finite: ClassVar[bool] = True  # it ends at a step that counts

    def start(self, train: TrainState) -> _Watched:
        nothing = jnp.full((), jnp.inf, jnp.float32)
        return _Watched(train, nothing, nothing, jnp.zeros((), jnp.float32))

    def __call__(self, state: _Watched, batch: Batch) -> tuple[_Watched, Measured]:
        train, measured = self.of(state.train, batch)
        total, weight = measured.sums["loss"]
        loss = (total / jnp.where(weight > 0, weight, 1)).astype(jnp.float32)
        begins = state.train.step == 0
        mean = jnp.where(begins, loss, MEMORY * state.mean + (1 - MEMORY) * loss)
        first = jnp.where(begins, mean, state.first)
        least = jnp.minimum(state.least, mean)
        room = jnp.maximum(first - least, jnp.abs(first))
        going = jnp.isfinite(loss) & (mean <= first + room)
        watched = _Watched(train, first, least, mean)
        return watched, Measured({"going": going.astype(jnp.float32)}, {"loss": loss[None]})

    def finite(self, measured: Measured) -> Array:
        return measured.sums["going"] > 0

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        del sums
        return gathered


@functools.lru_cache(maxsize=64)
def _growing(lowest: float, highest: float, steps: int) -> Callable[[Any], Any]:
    """The geometric schedule; one object for equal arguments, so that a second test compiles
    nothing.
    """
    return optax.exponential_decay(lowest, steps - 1, highest / lowest)


def _losses(
    step: _RangeTest, feed: Feed, train: TrainState, steps: int, compile: Compile
) -> tuple[Float[np.ndarray, " steps"], bool]:
    """The loss of each step up to the one that diverged, and whether one did."""
    start = distinct_arrays(step.start(train))
    program = Program(as_execution(compile, feed), step, start)
    iteration = Iteration(program, feed, initial_state(program, feed, start))
    rows = []
    diverged = False
    for advance in iteration.chunks(steps, lambda: steps - iteration.here.steps):
        rows += [part.gathered["loss"] for part in advance.result.epochs]
        diverged = not advance.result.finite
        if iteration.here.steps >= steps:
            break
    return np.concatenate(rows), diverged


def _search(
    rates: Float[np.ndarray, " steps"],
    losses: Float[np.ndarray, " steps"],
    diverged: bool,
    deviation: float,
) -> LearningRateSearch:
    while len(losses) and not np.isfinite(losses[-1]):
        rates = rates[:-1]
        losses = losses[:-1]
    if len(losses) < FEWEST:
        raise ValueError(
            f"find_learning_rate: the loss diverged after {len(losses)} steps — begin with a lower "
            f"rate (lowest=…), or scale "
            "the inputs."
        )
    smoothed = _smoothed(losses.astype(np.float64), deviation)
    slope = np.gradient(smoothed, np.log(rates))
    before = slice(0, max(int(smoothed.argmin()), 1) + 1)
    steepest = int(slope[before].argmin())
    error = (losses - smoothed)[before].std() / math.sqrt(
        2 * math.sqrt(math.pi) * deviation
    )  # of a mean so weighted
    fall = smoothed[before].max() - smoothed.min()
    if not (slope[steepest] < 0 and fall > 4 * error + 1e-6 * abs(smoothed[0])):
        raise ValueError(
            f"find_learning_rate: the loss did not fall at any rate between {rates[0]:.3g} and "
            f"{rates[-1]:.3g} — try other "
            "rates (lowest=…, highest=…) or more steps."
        )
    return LearningRateSearch(float(rates[steepest]), rates, losses, smoothed, diverged)


def _smoothed(
    values: Float[np.ndarray, " steps"], deviation: float
) -> Float[np.ndarray, " steps"]:
    """Means weighted by a Gaussian of the distance in steps, over what there is on either side."""
    places = np.arange(len(values))
    weights = np.exp(-0.5 * ((places[:, None] - places[None]) / deviation) ** 2)
    return (weights @ values) / weights.sum(axis=1)
