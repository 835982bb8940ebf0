"""`fit`, `evaluate` and `predict`: the loop for a model, its data and a loss."""

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxdl.checkpoint.checkpoints import Checkpoints
from jaxdl.compiling import threefry
from jaxdl.compiling.draws import Computes, deferred_draws
from jaxdl.compiling.initialization import Made, made_of, values_of
from jaxdl.compiling.jitted import gc_disabled, jit_once
from jaxdl.compiling.target import compiling_for, single_platform
from jaxdl.core.arrays import convert_foreign
from jaxdl.core.layer import Layer, Params, State
from jaxdl.core.tree import Shapes, frozen_shapes, strongly_typed, thawed_shapes
from jaxdl.data.source import Batch
from jaxdl.optim.optimizers import LearningRate, Optimizer, as_optimizer
from jaxdl.training import checks, sources, step_checks
from jaxdl.training.callbacks import Callbacks
from jaxdl.training.feed import Feed
from jaxdl.training.guard import IfNotFinite
from jaxdl.training.history import EarlyStopping
from jaxdl.training.interrupts import catch_interrupts
from jaxdl.training.options import Loss, Precision, SupervisedOptions
from jaxdl.training.run import Run
from jaxdl.training.run_options import Compile, RunOptions
from jaxdl.training.spread import as_mesh, parts, whole, without_mesh
from jaxdl.training.state import TrainState, step_key
from jaxdl.training.step_form import StepForm, open_step
from jaxdl.training.steps.supervised import Supervised
from jaxdl.training.train import first_state, run
from jaxdl.training.update import Augment


@catch_interrupts()
@without_mesh()
def fit(
    model: Layer,
    data: Any,
    *,
    loss: Loss,
    optimizer: Optimizer,
    learning_rate: LearningRate | None = None,
    epochs: int = 1,
    steps: int | None = None,
    batch_size: int = 32,
    metrics: Mapping[str, Any] | None = None,
    validation: Any = None,
    class_weight: Mapping[int, float] | Sequence[float] | None = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    average: float | None = None,
    augment: Augment | None = None,
    early_stopping: EarlyStopping | None = None,
    every: str = "1 epoch",
    callbacks: Callbacks = (),
    seed: int | Array = 0,
    initial: tuple[Params, State] | None = None,
    shuffle: bool = True,
    steps_per_epoch: int | None = None,
    new_shapes: bool = False,
    drop_last: bool = False,
    precision: Precision | None = None,
    compile: Compile = "auto",
    devices: Sequence[Any] | None = None,
    progress: bool = True,
    checkpoint: Checkpoints | None = None,
    if_not_finite: IfNotFinite = "stop",
    debug: bool = False,
) -> Run:
    """Trains a model.

    A step minimises the weighted mean of the loss over a batch; what is measured of an epoch is
    exact over its examples, whatever the size of the last batch. Arrays go to the device whole and
    in the dtype they have (images stay uint8; float16 becomes float32, see `precision`), and are
    cut into batches there, in orders that are drawn on the host.

    Args:
        model: a layer, or a plain function of one array.
        data: `(inputs, targets)` or `(inputs, targets, weights)`, arrays (or trees of arrays) with
            one entry an example, or weights [examples, time] of positions: the loss is then
            Σ w·loss / Σ w over all positions of all examples of the batch, and so are metrics. It
            is called with each position as an example, so that no mean over an example's time is
            taken first; behind the end of `Padded` sequences w is 0. Or anything that yields such
            tuples a batch at a time: a DataLoader, a list, a function that returns a generator.
        loss: `loss(outputs, targets) -> [batch]`; one that mixes examples is declared,
            `losses.batchwise(loss)`, and given the `mask` of the rows that count. Of several
            outputs it is a dict of losses by their names, or `losses.ByOutput` with weights; each
            term then has an entry of its own in the history, such as "rating_loss". The mean over
            all positions of a batch, without targets to ignore, is `losses.ByPosition`.
        optimizer: of optax, such as `optax.adam(1e-3)`; or a function of a learning rate, such as
            `optax.adam`; or a name: "adam", "sgd", "schedule_free_adamw", … (those of
            `jaxdl.optim.optimizers.NAMES`, each with a learning rate), and "auto", which finds its
            step size itself in a run of some hundred steps or more. Calls that differ in the
            numbers of such an optimizer alone, as in its learning rate, share one compiled program;
            one written by hand is another for each object. Masks of optax freeze parameters and no
            statistics: that does `Frozen`. Where it is schedule-free, validation and the run's
                `params` are of the average it keeps.
        learning_rate: what the function, or the name's, is given: a number, a schedule of optax,
            which counts steps, or one of `jaxdl.optim.schedules`, which knows how many steps the
            run has.
        epochs: passes over the data.
        steps: the most steps in all; where given, epochs are as many as that needs.
        batch_size: examples a step, for arrays. A last, smaller batch is filled up with rows that
            are masked, or left out.
        metrics: by name, of `jaxdl.metrics.metric` or any per-example function.
        validation: data of the same kind, measured after each epoch, or as `every` says; or the
            share of the examples to set aside for it.
        class_weight: a weight for each class, in the loss alone, for targets that are class
            numbers, or one-hot or soft labels y [examples, classes], whose weight is Σ y w. Of a
            stream, every class from 0 to the last needs one.
        clip_norm: the largest norm a gradient keeps; larger ones are scaled down to it.
        accumulate: computes each batch in so many equal parts, one after another, for less memory.
            Gradients are summed and metrics are of all parts, so the update is that of the whole
            batch, to rounding, but for what a layer computes over
            the batch: BatchNorm has the moments of each part, and its running ones move once a part
                (a warning says so).
            Dropout draws for each part anew; `augment` is given the whole batch. A batchwise loss
            sees the outputs of all parts, which are computed twice for it.
        average: the decay of a moving average of the parameters, which validation then uses.
        augment: `augment(key, inputs, targets) -> (inputs, targets)` on each training batch.
        early_stopping: when to end early.
        every: how often a row of the history ends, as "100 steps", "1 epoch" or "5 epochs". Then
            validation is made, early stopping counts, and callbacks are called. Steps are those of
            the whole run, and the history has the "step" at which each row ended: metrics are over
            the steps since the row before, and the last row may be a shorter one. Programs are
            those of a run without it.
        callbacks: a `Callback`, or a function of a `Stage` that is called after each row of the
            history; one that returns True, or a `Change`, ends the run or changes it.
        seed: an int or a typed key; initial weights, orders, dropout and augmentation all come from
            it.
        initial: `(params, state)` to start from.
        shuffle: whether arrays are put in a new order each epoch.
        steps_per_epoch: how many batches of a stream make an epoch; None is one pass over it.
        new_shapes: whether a stream's batches may change shape, each shape being compiled anew.
        drop_last: whether a last, smaller batch is left out: of arrays, an epoch then lacks the
            examples that its order has last, others each time; of a stream, every batch with fewer
            examples than one of its shape had before. Steps, and schedules over them, are then
            fewer. Validation has all examples in any case.
        precision: "bfloat16" or "float16": the model computes in it, as `in_precision` says;
            parameters, the optimizer's state, the loss, metrics and statistics stay in float32. It
            costs accuracy, and pays where the device multiplies matrices of that dtype faster; most
            CPUs are slower with it. For float16 the loss is scaled, the scale adapts itself, and an
            update whose gradient overflows is skipped: the history then has the `loss_scale`, and
            the `skipped_steps` so far.
        compile: "epoch" runs compiled loops of about half a second, "step" one compiled step after
            another, "eager" operation by operation; all give the same numbers, to rounding. "auto"
            is "epoch" for arrays and "step" for streams.
        devices: over which each batch is split evenly, such as `jax.devices()`; None is the default
            one. Each has all parameters and all of the data, computes its part of a batch, and
            gradients are added up: the update is that of one device, to rounding, moments of batch
                normalisation too. What a step draws, for dropout or in `augment`, each
            device draws for itself. The run's arrays are on the first of them. On a CPU,
            `JAX_NUM_CPU_DEVICES=2` in the environment makes two of its cores, which helps models
            that compute in many small operations one after another.
        progress: whether to show a progress bar (plain lines where there is no terminal).
        checkpoint: where the run saves itself; one that finds itself there goes on as if it had not
            stopped, to the bit. One of other settings is refused; `Checkpoints` says what else can
            be done.
        if_not_finite: what happens where the loss, or the parameters after an update, are NaN or
            infinite. "stop" ends the run with the last finite state, and says at which step; "skip"
            leaves that update out, and the history has the `skipped_steps`; "rollback" takes a
            state of at least 100 updates ago and makes updates half as long from there on, and the
            history has the `rollbacks`.
        debug: whether a run that stops so also says which operation, in which layer, gave the first
            such number: it makes that step once more, operation by operation.

    Returns:
        The run; after Ctrl-C, or a loss that is not finite, the run so far.

    Raises:
        ValueError, TypeError: an argument does not fit, said before anything is compiled.
    """
    given = dict(locals())
    options = RunOptions.of(given)
    model = checks.check_model(model)
    mesh = as_mesh(devices)
    key = sources.as_key(seed)
    feed, held = options.feeds(data, key, mesh)
    transformation = as_optimizer(
        optimizer, learning_rate, options.total_steps(feed), feed.steps
    )
    step = SupervisedOptions.of(feed, given).step(model, loss, transformation, mesh)
    began = time.perf_counter()
    start = first_start(step, feed, key, initial)
    prepared = time.perf_counter() - began
    if held is not None:
        checks.check_fit("validation", step, start, held, held.example)
    made = run(step, feed, held, start, options, initial=initial, prepared=prepared)
    return made if mesh is None else made.on(mesh.devices[0])


@gc_disabled()
def first_start(
    step: Supervised,
    feed: Feed,
    key: Array,
    initial: tuple[Params, State] | None,
) -> TrainState:
    """The first state, once the data are known to fit the step."""
    checks.check_accumulate(step.accumulate, feed.example, parts(step.mesh))
    start = _start(step, feed.example, key, initial)
    checks.check_fit("data", step, start, feed, checks.augmented(step, feed.example))
    checks.warn_of_moments(step.accumulate, start.state, feed.example)
    return start if step.mesh is None else jax.device_put(start, whole(step.mesh))


def _start(
    step: Supervised,
    batch: Batch,
    key: Array,
    initial: tuple[Params, State] | None,
) -> TrainState:
    if initial is None:
        return first_state(step, batch, key)
    params, state = _arrays(initial)
    expected_params, expected_state = _expected(step.model, frozen_shapes(batch))
    step_checks.check_same_tree("initial params", expected_params, params)
    step_checks.check_same_tree("initial state", expected_state, state)
    return _restarted(step, params, state, key)._replace(key=step_key(key))


def _arrays(initial: Any) -> tuple[Params, State]:
    """Initial parameters and state as arrays of JAX."""
    if (
        not isinstance(initial, (tuple, list))
        or len(initial) != 2
        or not all(isinstance(part, dict) for part in initial)
    ):
        raise TypeError(
            f"initial: expected (params, state), two dicts of arrays, got {type(initial).__name__}."
        )
    given = convert_foreign("initial", tuple(initial))
    if not all(isinstance(leaf, (Array, np.ndarray)) for leaf in jax.tree.leaves(given)):
        raise TypeError(
            "initial: expected dicts of arrays, as model.init gives them, and some leaves are no "
            "arrays."
        )
    return jax.device_put(given, may_alias=False)


@functools.lru_cache(maxsize=64)
def _expected(model: Layer, example: Shapes) -> tuple[Params, State]:
    with compiling_for(single_platform()), deferred_draws():
        return jax.eval_shape(
            lambda key: model.init(key, thawed_shapes(example).inputs), threefry.of_seed(0)
        )


def _restarted(step: Supervised, params: Params, state: State, key: Array) -> TrainState:
    """The first state for given parameters, less its key; without a program, where there is nothing
    to compute.
    """
    form, numbers = open_step(step)
    made = _remade(form, frozen_shapes((params, state)))
    return (
        _restart(form, numbers, params, state, key)
        if made is None
        else values_of(made, numbers, params, state)
    )


@functools.lru_cache(maxsize=64)
def _remade(step: StepForm, given: Shapes) -> Made | None:
    """How `_restart` makes what it gives, where it computes nothing."""
    key = threefry.of_seed(0)
    try:
        return made_of(
            lambda numbers, *given: _begun(step, numbers, *given, key=key),
            step.example,
            *thawed_shapes(given),
        )
    except Computes:
        return None


@functools.partial(jit_once, static_argnums=(0,))
def _restart(
    step: StepForm,
    numbers: Any,
    params: Params,
    state: State,
    key: Array,
) -> TrainState:
    return _begun(step, numbers, params, state, key)


def _begun(
    step: StepForm,
    numbers: Any,
    params: Params,
    state: State,
    key: Array,
) -> TrainState:
    numbered: Any = step.step(numbers)
    return strongly_typed(
        numbered.start(key, params, state)._replace(key=None)
    )  # folded in on the host: a smaller program
