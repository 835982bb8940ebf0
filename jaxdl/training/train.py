"""`train`: the loop for any step and its data."""

import contextlib
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax
from jax import Array
from jax.sharding import Mesh

from jaxdl.checkpoint.checkpoints import Checkpoints
from jaxdl.compiling import threefry
from jaxdl.compiling.draws import Computes
from jaxdl.compiling.initialization import Made, made_of, values_of
from jaxdl.compiling.jitted import jit_once
from jaxdl.compiling.target import compiling_for, single_platform
from jaxdl.core.hashable import check_hashable
from jaxdl.core.tree import Shapes, frozen_shapes, strongly_typed, thawed_shapes
from jaxdl.data.source import Batch
from jaxdl.optim.optimizers import LearningRate, Optimizer, as_optimizer
from jaxdl.training import checks, sources, step_checks
from jaxdl.training.callbacks import Callbacks, copied
from jaxdl.training.feed import Feed
from jaxdl.training.guard import Guarded, IfNotFinite
from jaxdl.training.history import EarlyStopping
from jaxdl.training.interrupts import catch_interrupts
from jaxdl.training.mixing import check_functions
from jaxdl.training.objective import Objective
from jaxdl.training.options import ObjectiveArguments, SupervisedOptions, check_names
from jaxdl.training.run import Run
from jaxdl.training.run_options import Compile, RunOptions
from jaxdl.training.run_training import run_training
from jaxdl.training.spread import as_mesh, parts, whole, without_mesh
from jaxdl.training.state import TrainState, distinct_arrays
from jaxdl.training.step import TrainingStep
from jaxdl.training.step_form import StepForm, open_step
from jaxdl.training.steps.minimize import Minimize


@catch_interrupts()
@without_mesh()
def train(
    step: TrainingStep | Objective,
    data: Any,
    *,
    optimizer: Optimizer | None = None,
    learning_rate: LearningRate | None = None,
    epochs: int = 1,
    steps: int | None = None,
    batch_size: int = 32,
    validation: Any = None,
    early_stopping: EarlyStopping | None = None,
    every: str = "1 epoch",
    callbacks: Callbacks = (),
    seed: int | Array = 0,
    initial: TrainState | None = None,
    shuffle: bool = True,
    steps_per_epoch: int | None = None,
    new_shapes: bool = False,
    drop_last: bool = False,
    compile: Compile = "auto",
    progress: bool = True,
    checkpoint: Checkpoints | None = None,
    if_not_finite: IfNotFinite = "stop",
    debug: bool = False,
    devices: Sequence[Any] | None = None,
    **options: Unpack[ObjectiveArguments],
) -> Run:
    """Minimises an objective, or runs a training step, over data: what `fit` is for a model and its
    loss, for an objective of one's own, an autoencoder, a GAN.

    History, validation, early stopping, the progress bar, Ctrl-C and the ways to run are those of
    `fit`.

    Args:
        step: an `Objective`, with an optimizer; or a `TrainingStep`, which has its own:
            `Reconstruction`, `Variational`, `Adversarial`, `Supervised`, or any other.
        data: inputs alone, as an array or a dict of arrays; `(inputs,)`, `(inputs, targets)` or
            `(inputs, targets, weights)`, where targets may be None; or anything that yields one of
            these a batch at a time (a list is such a stream). Inputs keep their dtype on the
            device, so that images may stay uint8.
        optimizer, learning_rate: of an objective, as in `fit`.
        epochs, steps, batch_size, shuffle, steps_per_epoch, new_shapes, drop_last: as in `fit`.
        validation: data of the same kind, measured by `step.evaluation()` after each epoch, or as
            `every` says; or the share of the examples to set aside for it.
        early_stopping: when to end early; it may monitor any figure of the history.
        every, callbacks: as in `fit`.
        seed: an int or a typed key; initial weights, orders and all that the step draws come from
            it.
        initial: a state to start from, such as the `train_state` of an earlier run, the optimizers'
            too; None draws a new one.
        compile: as in `fit`; "auto" is "epoch" for arrays and "step" for streams.
        progress: whether to show a progress bar (plain lines where there is no terminal).
        checkpoint: where the run saves itself; one that finds itself there goes on as if it had not
            stopped, to the bit.
        if_not_finite, debug: as in `fit`.
        devices: as in `fit`, for an objective.
        options: `clip_norm`, `accumulate`, `average` and `precision` as in `fit`, for an objective.

    Returns:
        The run; after Ctrl-C, or a figure that is not finite, the run so far. Its `params` and
        `state` are the step's.

    Raises:
        ValueError, TypeError: an argument does not fit, said before anything is compiled.

    >>> import numpy as np, optax, jaxdl as dl
    >>> model = dl.models.mlp(2, 3)
    >>> step = dl.Reconstruction(model, dl.losses.mean_squared_error, optax.adam(1e-2))
    >>> run = dl.train(step, np.ones((8, 3), np.float32), epochs=2, progress=False)
    >>> list(run.history)
    ['loss', 'learning_rate', 'seconds']
    """
    run_options = RunOptions.of(locals())
    key = sources.as_key(seed)
    mesh = as_mesh(devices)
    check = None
    if not isinstance(step, Objective):
        check = step_checks.check_step(step)
        given = {"optimizer": optimizer, "learning_rate": learning_rate, "devices": devices}
        _check_no_options(step, given | options)
    feed, held = run_options.feeds(data, key, mesh, labelled=False, check=check)
    if isinstance(step, Objective):
        total = run_options.total_steps(feed)
        step = _minimized(step, feed, optimizer, learning_rate, total, mesh, options)
    began = time.perf_counter()
    start = begun_state(step, feed, held, key, initial)
    prepared = time.perf_counter() - began
    start = start if mesh is None else jax.device_put(start, whole(mesh))
    done = run(step, feed, held, start, run_options, initial=initial, prepared=prepared)
    return done if mesh is None else done.on(mesh.devices[0])


def _check_no_options(step: TrainingStep, given: Mapping[str, Any]) -> None:
    """Refuses what an objective is minimised with, beside a step that has its own."""
    for name, value in given.items():
        if value is not None:
            raise TypeError(
                f"train: {type(step).__name__} is a training step, which has its own optimizer and "
                f"options — {name} is for an Objective."
            )


def begun_state(
    step: TrainingStep,
    feed: Feed,
    held: Feed | None,
    key: Array,
    initial: TrainState | None,
) -> TrainState:
    """The first state, once step and data are known to fit each other."""
    start = _start(step, feed.example, key, initial)
    step_checks.check_step_runs(step, start, feed)
    check_functions("data", step, start, feed)
    if held is not None:
        step_checks.check_measures(step, start, held)
        check_functions("validation", step, start, held)
    return start


def _minimized(
    objective: Objective,
    feed: Feed,
    optimizer: Optimizer | None,
    learning_rate: LearningRate | None,
    total: int | None,
    mesh: Mesh | None,
    options: ObjectiveArguments,
) -> Minimize:
    """The step of an objective."""
    check_names("train", options, ObjectiveArguments)
    if optimizer is None:
        raise TypeError(
            f"optimizer: {type(objective).__name__} is an Objective, which needs an optimizer — "
            f"give optimizer=optax.adam(1e-3)."
        )
    check_hashable("step", objective)
    supervised = SupervisedOptions.of(feed, options)
    checks.check_accumulate(supervised.accumulate, feed.example, parts(mesh))
    transformation = as_optimizer(optimizer, learning_rate, total, feed.steps)
    return supervised.minimize(objective, transformation, mesh)


def run(
    step: TrainingStep,
    feed: Feed,
    held: Feed | None,
    start: TrainState,
    options: RunOptions,
    *,
    initial: Any,
    prepared: float,
) -> Run:
    """The loop for a step whose data and first state are known to fit it.

    Args:
        step: what is done with each batch.
        feed: the data.
        held: those to validate with.
        start: the first state.
        options: how the run goes on and ends.
        initial: what a caller has given to start from, which tells the run from others.
        prepared: how many seconds the first state has taken.
    """
    step_checks.check_monitor(options.early_stopping, step, start, feed, held)
    checks.check_if_not_finite(options.if_not_finite, options.debug, start)
    if options.if_not_finite != "stop":
        step = Guarded(step, options.if_not_finite)
        start = step.begin(start)
    start = distinct_arrays(start)
    loop = options.loop(feed, held)
    return run_training(step, feed, start, loop, initial=initial, prepared=prepared)


def first_state(step: TrainingStep, example: Batch, key: Array) -> TrainState:
    """The step's first state: what draws is compiled, and the rest only where something is computed
    of it.
    """
    form, numbers = open_step(step)
    made = _made(form, frozen_shapes(example))
    if made is not None and threefry.words_of(key) is not None:
        with contextlib.suppress(Computes):
            drawn: Any = values_of(made, numbers, key)
            return drawn
    made_by_program: Any = _init_once(form, frozen_shapes(example), numbers, key)
    return made_by_program


def _start(
    step: TrainingStep,
    example: Batch,
    key: Array,
    initial: TrainState | None,
) -> TrainState:
    if initial is None:
        return first_state(step, example, key)
    start: Any = copied(initial._replace(guard=None))  # the run donates its state
    expected = jax.eval_shape(lambda key: step.init(key, example), key)
    step_checks.check_same_tree("initial", expected, start)
    return start


@functools.lru_cache(maxsize=64)
def _made(step: StepForm, example: Shapes) -> Made | None:
    """How the first state is made without computing; None where something is computed."""
    try:
        return made_of(
            functools.partial(_init, step, example), step.example, threefry.of_seed(0)
        )
    except Computes:
        return None


def _init(step: StepForm, example: Shapes, numbers: Any, key: Array) -> TrainState:
    numbered: Any = step.step(numbers)
    with compiling_for(single_platform()):
        return strongly_typed(numbered.init(key, thawed_shapes(example)))


_init_once = jit_once(_init, static_argnums=(0, 1))
