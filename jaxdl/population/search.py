"""Populations: many models trained as one program, over seeds and over hyperparameters."""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Unpack

import jax
import numpy as np

from jaxdl.compiling import threefry
from jaxdl.core.layer import Layer
from jaxdl.core.tree import Shapes, byte_count, frozen_shapes, parameter_count, thawed_shapes
from jaxdl.core.warnings import warn
from jaxdl.optim.optimizers import LearningRate, Optimizer
from jaxdl.optim.schedules import Schedule
from jaxdl.population.cohort import Member
from jaxdl.population.memory import available_bytes, step_bytes
from jaxdl.population.plan import Plan
from jaxdl.population.recipe import SupervisedRecipe, built_of
from jaxdl.population.runs import Runs
from jaxdl.training import checks, data_checks, sources, step_checks
from jaxdl.training.feed import Feed, ResidentFeed
from jaxdl.training.history import EarlyStopping
from jaxdl.training.interrupts import catch_interrupts
from jaxdl.training.loss_terms import as_loss
from jaxdl.training.objective import Objective
from jaxdl.training.options import (
    Loss,
    ObjectiveArguments,
    SupervisedArguments,
    SupervisedOptions,
    check_names,
)
from jaxdl.training.run_options import RunArguments, RunOptions
from jaxdl.training.spread import without_mesh
from jaxdl.training.state import TrainState
from jaxdl.training.steps.minimize import Minimize
from jaxdl.training.steps.supervised import Supervised
from jaxdl.training.train import begun_state

SMALL = 4096
"""Models of at most so many parameters have the members along the last axis of their arrays."""
SHARE_OF_MEMORY = 0.8


class Arguments(RunArguments, SupervisedArguments, total=False):
    """What a population takes from `fit`, with the same meaning."""


class FitArguments(Arguments, total=False):
    """The same, with the loss and the optimizer."""

    loss: Loss | None
    optimizer: Optimizer
    learning_rate: LearningRate | None


@without_mesh()
def fit_many(
    model: Layer | Objective,
    data: Any,
    *,
    seeds: int | Sequence[int],
    at_a_time: int | None = None,
    devices: Sequence[Any] | None = None,
    **options: Unpack[FitArguments],
) -> Runs:
    """Trains a model many times from different seeds, as one program.

    Member i is the run that `fit` makes with its seed: the same initial weights, orders, dropout
    and share of validation data.

    Args:
        model, data: as in `fit`; or an `Objective` and its data, as in `train`.
        seeds: how many, from 0 on; or which.
        at_a_time: how many members are trained together; None takes as many as fit in memory, and
            says so where it is fewer than all.
        devices: over which the members are spread; None means all that are present, where there is
            more than one.
        options: `loss`, `optimizer` and the others of `fit`, all but `seed`, `initial` and
            `callbacks`.

    Returns:
        The runs: `runs[i]`, `runs.best`, `runs.history`, `runs.plot()`, `runs.predict(inputs)` as
            an ensemble.

    Raises:
        ValueError, TypeError: an argument does not fit, said before anything is compiled.

    >>> import numpy as np, optax, jaxdl as dl
    >>> from jaxdl import losses
    >>> x = np.linspace(-1, 1, 32, dtype=np.float32)[:, None]
    >>> runs = dl.fit_many(
    ...     dl.Dense(1),
    ...     (x, 2 * x),
    ...     seeds=8,
    ...     loss=losses.mean_squared_error,
    ...     optimizer=optax.sgd(0.5),
    ...     epochs=9,
    ...     progress=False,
    ... )
    >>> len(runs), runs.history["loss"].shape
    (8, (9, 8))
    """
    return sweep(model, data, {}, seeds=seeds, at_a_time=at_a_time, devices=devices, **options)


@catch_interrupts()
@without_mesh()
def sweep(
    model: Layer | Objective | Callable[..., Any],
    data: Any,
    over: Mapping[str, Sequence[float]],
    *,
    loss: Loss | None = None,
    optimizer: Optimizer,
    learning_rate: LearningRate | Callable[..., Schedule] | None = None,
    seeds: int | Sequence[int] = 1,
    combine: Literal["grid", "zip"] = "grid",
    halving: Sequence[int] = (),
    monitor: str | None = None,
    at_a_time: int | None = None,
    devices: Sequence[Any] | None = None,
    **options: Unpack[Arguments],
) -> Runs:
    """Trains a model for many hyperparameters and seeds, as one program.

    A hyperparameter goes to whatever names it among its arguments: `optimizer=optax.adam` (or
    "adam") takes a "learning_rate", `learning_rate=optim.Cosine` a "peak", a loss such as
    `losses.huber` a "delta", and `model=lambda dropout: dl.Sequential(..., dl.Dropout(dropout),
    ...)` a "dropout". They are numbers that are traced, so that a program is compiled once for all
    of them: a rate, a weight, a slope, and not a number of features.

    Args:
        model: as in `fit`, or an `Objective`; or a function of hyperparameters that returns one.
        data: as in `fit`, or in `train`.
        over: the values of each hyperparameter, by name.
        loss: as in `fit`; it may name hyperparameters. None for an objective.
        optimizer: as in `fit`, or a function of hyperparameters that returns one.
        learning_rate: as in `fit`, or a function of hyperparameters that returns a schedule, such
            as `optim.Cosine`.
        seeds: how many of each combination, from 0 on; or which.
        combine: "grid" trains every combination of the values, "zip" the first of each, the second
            of each, ….
        halving: epochs after which the worse half of the members is dropped (successive halving;
            Jamieson and Talwalkar, 2016). Each such rung compiles one program more, for its number
            of members.
        monitor: the figure that tells better from worse; None means what `early_stopping` monitors,
            else the "validation_loss", else the "loss". Of a loss the least is best, of any other
            figure the largest.
        at_a_time, devices: as in `fit_many`.
        options: `epochs` and the others of `fit`, all but `initial`, `callbacks`, `if_not_finite`
            and `debug`. Early stopping ends each member by itself. A `checkpoint` is where the
            population saves itself, a folder for each group of members and each rung; one that
            finds itself there goes on as if it had not stopped, to the bit. Each member keeps its
            own best epoch: `best` of `Checkpoints` is not for it.

    Returns:
        The runs.

    Raises:
        ValueError, TypeError: an argument does not fit, said before anything is compiled.

    >>> import numpy as np, optax, jaxdl as dl
    >>> from jaxdl import losses
    >>> x = np.linspace(-1, 1, 32, dtype=np.float32)[:, None]
    >>> runs = dl.sweep(
    ...     dl.Dense(1), (x, 2 * x), {"learning_rate": [0.01, 0.1, 0.5]}, seeds=2,
    ...     loss=losses.mean_squared_error, optimizer=optax.sgd, epochs=5, progress=False,
    ... )
    >>> runs.best_member.hyperparameters
    {'learning_rate': 0.5}
    """
    check_names("sweep", options, Arguments)
    run_options = RunOptions.of(options)
    if run_options.checkpoint is not None and run_options.checkpoint.best is not None:
        raise ValueError(
            "checkpoint: each member of a population keeps its own best epoch — leave out best of "
            "Checkpoints."
        )
    members = _members(over, seeds, combine)
    labelled = not _is_objective(model, members[0], loss, options)
    key = sources.as_key(members[0].seed)
    feed, held = run_options.feeds(data, key, labelled=labelled)
    recipe = SupervisedRecipe(
        model=model,
        loss=as_loss(loss),
        optimizer=optimizer,
        options=SupervisedOptions.of(feed, options),
        learning_rate=learning_rate,
        steps=run_options.total_steps(feed),
        steps_per_epoch=feed.steps,
        names=tuple(sorted(members[0].hyperparameters)),
        some=tuple(sorted(members[0].hyperparameters.items())),
    )
    recipe.check()
    recipe = recipe.resolved()
    start = _checked_start(recipe.single, feed, held)
    share = run_options.share
    stopping = run_options.early_stopping
    step_checks.check_monitor(stopping, recipe.single, start, feed, held)
    devices = _devices(devices, len(members))
    plan = Plan(
        recipe=recipe,
        feed=feed,
        whole=None if share is None else data_checks.check_arrays("data", data, labelled),
        share=share,
        shuffle=run_options.shuffle,
        loop=run_options.loop(feed, held),
        small=parameter_count(start.params) <= SMALL,
        devices=devices,
        cut_for=len(devices),
        at_a_time=_at_a_time(at_a_time, len(members), start, recipe.single, feed),
        rungs=_rungs(halving, run_options.total_epochs(feed), feed),
        monitor=_monitor(monitor, stopping, held),
    )
    return plan.run(members)


def _is_objective(
    model: Any, member: Member, loss: Loss | None, options: Mapping[str, Any]
) -> bool:
    """Whether an objective is minimised.

    Raises:
        TypeError: a loss is missing, or is given beside an objective, or options that it has not.
    """
    made = built_of(model, member.hyperparameters)
    if not isinstance(made, Objective):
        if loss is None:
            raise TypeError(
                "loss: give the loss of the model, such as losses.mean_squared_error."
            )
        return False
    if loss is not None:
        raise TypeError(
            f"loss: {type(made).__name__} is an Objective, which has its own — leave it out."
        )
    others = (
        SupervisedArguments.__annotations__.keys() - ObjectiveArguments.__annotations__.keys()
    )
    for name in options:
        if name in others:
            raise TypeError(
                f"{name}: {type(made).__name__} is an Objective — {name} is for a model and its "
                f"loss."
            )
    return True


def _checked_start(single: Supervised | Minimize, feed: Feed, held: Feed | None) -> TrainState:
    """A member's first state, of which the shapes are read, once the data are known to fit it."""
    checks.check_accumulate(single.accumulate, feed.example)
    if isinstance(single, Minimize):
        return begun_state(single, feed, held, threefry.of_seed(0), None)
    start = _first_state(single, frozen_shapes(feed.example))
    if held is not None:
        checks.check_fit("validation", single, start, held, held.example)
    checks.check_fit("data", single, start, feed, checks.augmented(single, feed.example))
    checks.warn_of_moments(single.accumulate, start.state, feed.example)
    return start


@functools.lru_cache(maxsize=64)
def _first_state(step: Supervised, example: Shapes) -> TrainState:
    key = threefry.of_seed(0)
    return jax.eval_shape(lambda key: step.init(key, thawed_shapes(example)), key)


def _members(
    over: Mapping[str, Sequence[float]], seeds: int | Sequence[int], combine: str
) -> tuple[Member, ...]:
    if combine not in ("grid", "zip"):
        raise ValueError(f"combine is 'grid' or 'zip', got {combine!r}.")
    if isinstance(seeds, (int, np.integer)):
        chosen = list(range(checks.check_count("seeds", seeds)))
    elif isinstance(seeds, (list, tuple, range, np.ndarray)):
        chosen = [checks.check_count("seeds", seed, least=0) for seed in seeds]
    else:
        raise TypeError(f"seeds: expected how many, or a list of whole numbers, got {seeds!r}.")
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"seeds: at least one, and each once, got {chosen!r}.")
    if not isinstance(over, Mapping):
        raise TypeError(
            f"sweep: expected values by name, such as {{'learning_rate': [1e-3, 1e-2]}}, got "
            f"{over!r}."
        )
    for name, given in over.items():
        if not isinstance(name, str) or not isinstance(given, (list, tuple, range, np.ndarray)):
            raise TypeError(
                f"sweep: expected a list of values for each name, got {given!r} for {name!r}."
            )
    values = {name: [_number(name, value) for value in given] for name, given in over.items()}
    for name, given in values.items():
        if not given:
            raise ValueError(f"sweep: {name!r} has no values.")
    lengths = {name: len(given) for name, given in values.items()}
    if combine == "zip" and len(set(lengths.values())) > 1:
        raise ValueError(f"sweep: combine='zip' takes as many values of each, got {lengths}.")
    pairs = (
        zip(*values.values(), strict=True)
        if combine == "zip" and values
        else itertools.product(*values.values())
    )
    combinations = [dict(zip(values, combination, strict=True)) for combination in pairs]
    drawn = itertools.product(combinations, chosen)
    return tuple(
        Member(number, seed, combination) for number, (combination, seed) in enumerate(drawn)
    )


def _number(name: str, value: Any) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float, np.integer, np.floating))
        or not math.isfinite(value)
    ):
        raise ValueError(f"sweep: values of {name!r} are finite numbers, got {value!r}.")
    return float(value)


def _devices(devices: Sequence[Any] | None, members: int) -> tuple[Any, ...]:
    chosen = list(jax.local_devices() if devices is None else devices)
    if not chosen:
        raise ValueError("devices: at least one is needed.")
    if devices is None and len(chosen) == 1:
        return (None,)
    return tuple(chosen[:members])


def _at_a_time(
    asked: int | None, members: int, start: TrainState, single: Any, feed: Feed
) -> int:
    if asked is not None:
        return checks.check_count("at_a_time", asked)
    room = available_bytes()
    if room is None:
        return members
    each = 4 * byte_count((start.params, start.state, start.optimizer_state))
    each += step_bytes(single, frozen_shapes((start, feed.example)))
    fit = max(1, int(SHARE_OF_MEMORY * room / max(each, 1)))
    if fit < members:
        groups = -(-members // fit)
        warn(
            f"{members} members may need {members * each / 1e9:.1f} GB and {room / 1e9:.1f} GB are "
            f"free: they are trained in "
            f"{groups} groups, one after another — say at_a_time to decide it yourself.",
            UserWarning,
        )
        return -(-members // groups)
    return members


def _rungs(halving: Sequence[int], epochs: int, feed: Feed) -> tuple[int, ...]:
    rungs = tuple(checks.check_count("halving", epoch) for epoch in halving)
    if list(rungs) != sorted(set(rungs)) or (rungs and rungs[-1] >= epochs):
        raise ValueError(
            f"halving: epochs that grow, the last before epoch {epochs}, got {list(halving)!r}."
        )
    if rungs and not isinstance(feed, ResidentFeed):
        raise ValueError("halving: a stream cannot go on where it was — give arrays.")
    return rungs


def _monitor(
    monitor: str | None, early_stopping: EarlyStopping | None, held: Feed | None
) -> tuple[str, str]:
    if monitor is None and early_stopping is not None:
        return early_stopping.monitor, early_stopping.mode or "min"
    if monitor is not None and not isinstance(monitor, str):
        raise TypeError(
            f"monitor is the name of a figure, such as 'validation_loss', got {monitor!r}."
        )
    name = monitor or ("loss" if held is None else "validation_loss")
    return name, "min" if name.endswith("loss") else "max"
