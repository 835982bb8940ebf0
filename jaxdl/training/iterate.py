"""`make_step` and `iterate`: the parts of `fit` for who owns the loop."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypedDict, Unpack

import jax
from jax import Array

from jaxdl.core.interval import EACH_EPOCH, Interval
from jaxdl.core.layer import Layer
from jaxdl.data.source import Batch
from jaxdl.optim.optimizers import LearningRate, Optimizer, as_optimizer
from jaxdl.training import checks, sources, step_checks
from jaxdl.training.callbacks import Stage
from jaxdl.training.iteration import Iteration, Measurement, initial_state
from jaxdl.training.loop_options import LoopOptions
from jaxdl.training.loop_state import MetricAccumulator
from jaxdl.training.objective import Objective
from jaxdl.training.options import (
    Loss,
    ObjectiveArguments,
    SupervisedArguments,
    SupervisedOptions,
    check_names,
)
from jaxdl.training.program import Program
from jaxdl.training.rows import UNLIMITED, row_ends, steps_to_row
from jaxdl.training.run_options import Compile, RunOptions
from jaxdl.training.spread import without_mesh
from jaxdl.training.state import Measured, TrainState, distinct_arrays
from jaxdl.training.step import TrainingStep
from jaxdl.training.train import begun_state


class MadeStep(NamedTuple):
    """A training step, and its program.

    Args:
        step: pure: `step(state, batch) -> (state, measured)`, and `step.init(key, batch)`.
        jitted: the same under `jax.jit`; it donates the state that it is given.
    """

    step: TrainingStep
    jitted: Callable[[TrainState, Batch], tuple[TrainState, Measured]]


def make_step(
    model: Layer | Objective,
    loss: Loss | None = None,
    *,
    optimizer: Optimizer,
    learning_rate: LearningRate | None = None,
    steps: int | None = None,
    **options: Unpack[SupervisedArguments],
) -> MadeStep:
    """The step that `fit` makes of a model and its loss, or `train` of an objective.

    Args:
        model, loss, optimizer, learning_rate: as in `fit`; or an `Objective`, without a loss.
        steps: how many there will be, where a schedule of the learning rate has to know.
        options: `metrics`, `clip_norm`, `accumulate`, `average`, `augment` and `precision`, as in
            `fit`; of an objective, those that `train` takes.

    Returns:
        `(step, jitted)`.

    Raises:
        ValueError, TypeError: an argument does not fit.

    >>> import jax, numpy as np, optax, jaxdl as dl
    >>> step, jitted = dl.make_step(
    ...     dl.Dense(1), dl.losses.mean_squared_error, optimizer=optax.sgd(0.1)
    ... )
    >>> batch = dl.Batch(np.ones((4, 3), np.float32), np.ones((4, 1), np.float32))
    >>> state = step.init(jax.random.key(0), batch)
    >>> state, measured = jitted(state, batch)
    >>> int(state.step), sorted(step.report(measured.sums, measured.gathered))
    (1, ['loss'])
    """
    if "class_weight" in options:
        raise TypeError(
            "class_weight: make_step sees no data to know the classes by — weigh the examples of "
            "each batch, Batch(inputs, targets, weights)."
        )
    is_objective = isinstance(model, Objective)
    check_names(
        "make_step", options, ObjectiveArguments if is_objective else SupervisedArguments
    )
    supervised = SupervisedOptions.of(None, options)
    transformation = as_optimizer(optimizer, learning_rate, steps, None)
    if isinstance(model, Objective):
        if loss is not None:
            raise TypeError(
                f"loss: {type(model).__name__} is an Objective, which has its own — leave it out."
            )
        step: TrainingStep = supervised.minimize(model, transformation)
    else:
        if loss is None:
            raise TypeError(
                "loss: give the loss of the model, such as losses.mean_squared_error."
            )
        step = supervised.step(checks.check_model(model), loss, transformation)
    return MadeStep(step, jax.jit(step, donate_argnums=0))


class IterateArguments(TypedDict, total=False):
    """What `iterate` takes from `train`, with the same meaning."""

    epochs: int
    steps: int | None
    batch_size: int
    validation: Any
    shuffle: bool
    steps_per_epoch: int | None
    new_shapes: bool
    drop_last: bool
    compile: Compile


@without_mesh()
def iterate(
    step: TrainingStep,
    data: Any,
    *,
    every: str = "1 epoch",
    seed: int | Array = 0,
    initial: TrainState | None = None,
    **options: Unpack[IterateArguments],
) -> Iterator[Stage]:
    """Trains, and yields after each epoch or so many steps: `train` without its loop.

    What happens between two stages is the caller's: stopping is `break`, and what a stage holds may
    be shown, saved or compared.

    Args:
        step: of `make_step`, `Minimize`, `Supervised`, or any other `TrainingStep`.
        data: as in `train`.
        every: how often to yield, as "100 steps", "1 epoch" or "5 epochs", and at the end; as in
            `fit`.
        seed, initial: as in `train`.
        options: `epochs`, `steps`, `batch_size`, `validation`, `shuffle`, `steps_per_epoch`,
            `new_shapes`, `drop_last` and `compile`, as in `train`.

    Returns:
        An iterator of `Stage`; its metrics are over the steps since the stage before.

    Raises:
        ValueError, TypeError: an argument does not fit, said before anything is compiled.
        FloatingPointError: while it is iterated, the loss or a gradient was not finite.

    >>> import numpy as np, optax, jaxdl as dl
    >>> x = np.ones((64, 3), np.float32)
    >>> step, _ = dl.make_step(dl.Dense(1), dl.losses.mean_squared_error, optimizer="sgd")
    >>> stages = dl.iterate(step, (x, x[:, :1]), every="3 steps", epochs=4, batch_size=32)
    >>> [(stage.epoch, stage.steps, len(stage.metrics)) for stage in stages]
    [(1, 3, 2), (2, 6, 2), (3, 8, 2)]
    """
    check_names("iterate", options, IterateArguments)
    if isinstance(step, Objective):
        raise TypeError(
            f"iterate: {type(step).__name__} is an Objective — give the step that minimises it, "
            f"make_step({type(step).__name__}(…), optimizer=optax.adam(1e-3)).step."
        )
    run_options = RunOptions.of(options | {"every": every})
    key = sources.as_key(seed)
    feed, held = run_options.feeds(
        data, key, labelled=False, check=step_checks.check_step(step)
    )
    start = distinct_arrays(begun_state(step, feed, held, key, initial))
    loop = run_options.loop(feed, held)
    program = Program(loop.execution, step, start)
    iteration = Iteration(program, feed, initial_state(program, feed, start))
    measurement = None
    if held is not None:
        given = step.evaluation_state(start)
        measurement = Measurement(loop.execution, step.evaluation(), given, held)
    return _outside_of_meshes(_stages(step, iteration, loop, measurement))


def _outside_of_meshes(stages: Iterator[Stage]) -> Iterator[Stage]:
    """The stages, each trained without the mesh that a caller may have set."""
    while True:
        with without_mesh():
            stage = next(stages, None)
        if stage is None:
            return
        yield stage


def _stages(
    step: TrainingStep,
    iteration: Iteration,
    loop: LoopOptions,
    measurement: Measurement | None,
) -> Iterator[Stage]:
    here = iteration.here
    every = loop.every
    last = UNLIMITED if loop.steps is None else loop.steps

    def due() -> int:
        return steps_to_row(every, here.steps)

    iteration.compile()
    epoch = 0
    for advance in iteration.chunks(loop.epochs, lambda: last - here.steps, due):
        if not advance.result.finite:
            raise FloatingPointError(
                f"iterate: the loss or a gradient was not finite at step {here.steps + 1} — try a "
                f"smaller learning rate or clip_norm; a stage's train_state, read before the next "
                f"stage, is what to go on from."
            )
        (part,) = advance.result.epochs
        here.metrics.add(part, advance.seconds)
        epoch = advance.chunk.cursor.epoch
        if row_ends(every, here.steps, here.metrics.steps, epoch if advance.ends else None):
            yield _stage(step, iteration, epoch, every, measurement)
        elif advance.ends:
            here.metrics.bank()
        if here.steps >= last:
            break
    if here.metrics.steps:
        yield _stage(step, iteration, epoch, every, measurement)


def _stage(
    step: TrainingStep,
    iteration: Iteration,
    epoch: int,
    every: Interval,
    measurement: Measurement | None,
) -> Stage:
    here = iteration.here
    state = here.state
    metrics = step.report(here.metrics.sums, here.metrics.joined()) | here.metrics.observed
    if measurement is not None:
        given = step.evaluation_state(state)
        measured = measurement.of(given, iteration.interrupted)
        metrics |= {f"validation_{name}": value for name, value in measured.items()}
    here.record(metrics if every == EACH_EPOCH else {"step": here.steps} | metrics)
    here.metrics = MetricAccumulator()
    iteration.begin_epoch()
    return Stage(epoch, here.steps, metrics, here.history, _state=state)
