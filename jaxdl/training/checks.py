"""What is refused before anything is traced, in sentences."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl import losses
from jaxdl.compiling import threefry
from jaxdl.compiling.target import compiling_for, single_platform
from jaxdl.core.arrays import host_arrays
from jaxdl.core.error import LayerError
from jaxdl.core.function import as_layer
from jaxdl.core.layer import Layer
from jaxdl.core.number import is_number
from jaxdl.core.padded import Padded
from jaxdl.core.tree import Shapes, frozen_shapes, named_leaves, thawed_shapes
from jaxdl.core.warnings import warn
from jaxdl.data.source import Batch
from jaxdl.losses.batchwise import check_batchwise, is_batchwise
from jaxdl.losses.checks import check_loss, check_targets
from jaxdl.losses.per_example import format_shapes
from jaxdl.losses.targets import targets_that_count
from jaxdl.metrics.accuracy import accuracy
from jaxdl.metrics.metric import Mean, Metric, as_metric
from jaxdl.optim.learning_rate import schedule_free
from jaxdl.training.arguments import by_class, check_function, check_hashable
from jaxdl.training.feed import Feed, ResidentFeed, as_weights, lists_read, with_targets
from jaxdl.training.mixing import check_unmixed
from jaxdl.training.outcome import outcome
from jaxdl.training.run import EarlyStopping
from jaxdl.training.state import EvalState, Measured, TrainState
from jaxdl.training.step import EvaluationStep, Step, TrainingStep
from jaxdl.training.steps.supervised import Evaluation, Supervised
from jaxdl.training.stream_feed import StreamFeed

EXECUTIONS = ("eager", "step", "epoch", "auto")
MOST_CLASSES = 10**6
"""That classes may have weights for."""


def check_model(model: Any) -> Layer:
    """The model as a layer."""
    layer = as_layer(model)
    check_hashable("model", layer)
    return layer


def check_execution(compile: Any) -> None:
    """Refuses a way to run that is none."""
    if not isinstance(compile, str) or compile not in EXECUTIONS:
        raise ValueError(
            f"compile is one of {', '.join(map(repr, EXECUTIONS))}, got {compile!r}."
        )


def check_count(name: str, value: Any, least: int = 1) -> int:
    """A whole number, as an int."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} is a whole number of at least {least}, got {value!r}.")
    return int(value)


def check_optimizer(optimizer: Any) -> None:
    """Refuses what is not an optax optimizer."""
    if isinstance(optimizer, optax.GradientTransformation):
        return
    called = (
        " — call it, as in optax.adam(1e-3)"
        if callable(optimizer)
        else " — such as optax.adam(1e-3)"
    )
    if isinstance(optimizer, optax.MultiSteps):
        called = " — give optax.MultiSteps(…).gradient_transformation()"
    raise TypeError(f"optimizer: expected an optax optimizer, got {optimizer!r}{called}.")


def check_precision(precision: Any) -> None:
    """Refuses a precision that is none."""
    if not (
        precision is None
        or (isinstance(precision, str) and precision in ("bfloat16", "float16"))
    ):
        raise ValueError(f"precision is 'bfloat16', 'float16' or None, got {precision!r}.")


def check_if_not_finite(rule: Any, debug: Any, start: TrainState) -> None:
    """Refuses a rule that is none, or that does not go with the rest."""
    if not isinstance(rule, str) or rule not in ("stop", "skip", "rollback"):
        raise ValueError(f"if_not_finite is 'stop', 'skip' or 'rollback', got {rule!r}.")
    if debug and rule != "stop":
        raise ValueError(
            f"debug: a run says where a number first went wrong as it stops there; leave out "
            f"if_not_finite={rule!r}."
        )
    if rule == "rollback" and schedule_free(start.optimizer_state):
        raise ValueError(
            "if_not_finite: 'rollback' makes updates shorter, and a schedule-free optimizer "
            "averages whole ones — take "
            "'skip', or another optimizer."
        )


def check_average(average: float | None, optimizer: optax.GradientTransformation) -> None:
    """Refuses a moving average of the parameters of an optimizer that averages them itself."""
    if average is None:
        return
    if not is_number(average) or not 0 <= average < 1:
        raise ValueError(
            f"average: the decay of a moving average lies in [0, 1), got {average!r}."
        )
    state = jax.eval_shape(optimizer.init, {"w": jax.ShapeDtypeStruct((1,), jnp.float32)})
    if schedule_free(state):
        raise ValueError(
            "average: a schedule-free optimizer averages the parameters itself — leave it out."
        )


def check_metrics(metrics: Any) -> tuple[tuple[str, Metric], ...]:
    """Metrics by name, lifted."""
    if metrics is None:
        return ()
    if not isinstance(metrics, dict):
        raise TypeError(
            f"metrics: expected a dict by name, such as {{'accuracy': metrics.accuracy}}, got "
            f"{metrics!r}."
        )
    for name in metrics:
        if not isinstance(name, str):
            raise TypeError(f"metrics: expected words as names, got {name!r}.")
    own = ("loss", "seconds", "learning_rate", "loss_scale", "skipped_steps", "set_backs")
    reserved = [name for name in metrics if name in own or name.startswith("validation_")]
    if reserved:
        raise ValueError(
            f"metrics: {reserved[0]!r} is a name that the history uses itself — give the metric "
            f"another."
        )
    return tuple((name, as_metric(metric)) for name, metric in metrics.items())


def check_arrays(name: str, data: Any, labelled: bool = True) -> Batch:
    """`(inputs, targets)` or `(inputs, targets, weights)` as NumPy arrays of one length, finite and
    not empty.

    Where data need not be labelled, inputs may come alone.

    Raises:
        ValueError: lengths differ, there is nothing, or a number is not finite.
    """
    data = data if labelled else with_targets(data)
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        raise ValueError(
            f"{name}: expected a pair (inputs, targets), or with weights a triple, got "
            f"{type(data).__name__}."
        )
    inputs = host_arrays(f"{name} inputs", data[0])
    targets = host_arrays(f"{name} targets", data[1])
    batch = Batch(inputs, targets, as_weights(name, data[2]) if len(data) == 3 else None)
    check_lengths(name, batch, lists_read(data))
    check_finite(
        f"{name} inputs",
        [_that_count(leaf) for leaf in jax.tree.leaves(inputs, is_leaf=_is_padded)],
    )
    leaves = jax.tree.leaves(targets, is_leaf=_is_padded)
    check_finite(f"{name} targets", [targets_that_count(leaf, inputs) for leaf in leaves])
    return batch


def check_lengths(name: str, batch: Batch, advice: str = "") -> None:
    """Refuses arrays of different lengths, and empty ones; the sentence ends with the advice."""
    parts = {"inputs": batch.inputs, "targets": batch.targets, "weights": batch.weights}
    lengths = {
        part: {leaf.shape[:1] for leaf in jax.tree.leaves(tree)} for part, tree in parts.items()
    }
    for part, found in lengths.items():
        if () in found:
            raise ValueError(
                f"{name} {part}: expected arrays with one entry an example, got a scalar{advice}."
            )
    if not jax.tree.leaves(batch.inputs):
        raise ValueError(
            f"{name}: there are no inputs — expected arrays with one entry an example."
        )
    known = {part: sorted(n for (n,) in found) for part, found in lengths.items() if found}
    if len({n for found in known.values() for n in found}) > 1:
        told = ", ".join(
            f"{found[0] if len(found) == 1 else found} {part}" for part, found in known.items()
        )
        raise ValueError(f"{name}: every array needs one entry an example, got {told}{advice}.")
    if not known or 0 in known.get("inputs", []):
        raise ValueError(f"{name}: the set is empty — it has no examples.")


def check_finite(name: str, tree: Any) -> None:
    """Refuses NaN and infinity: how many, and where first."""
    for leaf in jax.tree.leaves(tree):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        wide = np.complex128 if np.iscomplexobj(leaf) else np.float64
        if np.isfinite(
            np.add.reduce(leaf, axis=None, dtype=wide)
        ):  # one pass; infinities and NaN carry through
            continue
        wrong = ~np.isfinite(leaf)
        if wrong.any():
            first = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(
                f"{name}: {int(wrong.sum())} of {leaf.size} numbers are not finite, the first is "
                f"{leaf[first]} at index "
                f"{list(first)} — remove or replace them."
            )


def check_model_on(model: Layer, params: Any, state: Any, example: Batch) -> Any:
    """The shape of the model's outputs, checked to have one entry an example."""
    for name, tree in (("params", params), ("state", state)):
        arrays = all(
            hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in jax.tree.leaves(tree)
        )
        if not (isinstance(tree, dict) and arrays):
            raise TypeError(
                f"{name}: expected a dict of arrays, as model.init and a run give it, got "
                f"{_kind(tree)}."
            )
    return _outputs(model, frozen_shapes((params, state, example.inputs)), example.size)


def _kind(tree: Any) -> str:
    return (
        f"a dict with {type(jax.tree.leaves(tree)[0]).__name__}"
        if isinstance(tree, dict)
        else type(tree).__name__
    )


@functools.lru_cache(maxsize=256)
def _outputs(model: Layer, shapes: Shapes, size: int) -> Any:
    params, state, inputs = thawed_shapes(shapes)
    try:
        with compiling_for(single_platform()):
            outputs = jax.eval_shape(
                lambda p, s, x: model.apply(p, s, x)[0], params, state, inputs
            )
    except LayerError:
        raise
    except Exception as error:
        _check_own(model, params, state, inputs)
        error.add_note(
            f"This came from the model, called with inputs of {format_shapes(inputs)}."
        )
        raise
    for leaf in jax.tree.leaves(outputs):
        if leaf.shape[:1] != (size,):
            raise ValueError(
                f"model: {size} examples go in and shape {leaf.shape} comes out — the first axis "
                f"has to stay the batch."
            )
    return outputs


def _check_own(model: Layer, params: Any, state: Any, inputs: Any) -> None:
    """Refuses parameters and state that are not those of a model which cannot run on them."""
    key = threefry.of_seed(0)
    expected = jax.eval_shape(model.init, key, inputs)
    check_same_tree("params", expected[0], params)
    check_same_tree("state", expected[1], state)


def check_fit(
    name: str,
    step: Supervised | Evaluation,
    start: TrainState | EvalState,
    feed: Feed,
    example: Batch,
) -> None:
    """Refuses data, a loss or metrics that do not fit the model's outputs, or one another.

    Args:
        name: what the data are called.
        step: the model, the loss and the metrics.
        start: parameters and state.
        feed: the data; targets that lie on the device are read.
        example: the shapes of a batch as the model gets it.
    """
    if step.loss is not None:
        check_function(
            "loss",
            step.loss,
            "loss(outputs, targets) -> [batch], such as losses.mean_squared_error",
        )
    check_counts(name, feed, getattr(step, "class_weights", None))
    outputs = check_model_on(step.model, start.params, start.state, example)
    if step.loss is not None:
        if getattr(step, "augment", None) is None:
            _check_targets(name, step, start, example, feed)
        check_thresholds(step.loss, step.metrics)
    weighted = example.weights is not None or getattr(step, "class_weights", None) is not None
    _check_figures(
        step.loss,
        step.metrics,
        frozen_shapes((outputs, example.targets)),
        example.size,
        weighted,
    )
    check_unmixed(name, step, outputs, example, feed)


@functools.lru_cache(maxsize=256)
def _check_figures(
    loss: Any,
    metrics: tuple[tuple[str, Metric], ...],
    shapes: Shapes,
    size: int,
    weighted: bool,
) -> None:
    outputs, targets = thawed_shapes(shapes)
    if is_batchwise(loss):
        check_batchwise(loss, outputs, targets, weighted)
    elif loss is not None:
        check_loss(loss, outputs, targets)
    weights = jax.ShapeDtypeStruct((size,), jnp.float32)
    for metric_name, metric in metrics:
        try:
            jax.eval_shape(metric.measure, outputs, targets, weights)
        except (ValueError, TypeError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"metric {metric_name!r}: {error}") from error
        except Exception as error:
            error.add_note(f"This came from metric {metric_name!r}.")
            raise


def check_split(validation: Any, size: int) -> int:
    """How many examples a share of the data is, at least one on either side."""
    if not 0 < validation < 1:
        raise ValueError(
            f"validation: a share of the data lies between 0 and 1, got {validation!r}."
        )
    count = max(1, math.floor(size * validation))
    if count >= size:
        raise ValueError(
            f"validation: {size} examples cannot be split, give more data or a validation set."
        )
    return count


def check_class_weight(class_weight: Any, targets: Any) -> tuple[float, ...] | None:
    """Weights of classes 0 … n − 1 as a tuple."""
    if class_weight is None:
        return None
    leaves = jax.tree.leaves(targets)
    if len(leaves) != 1:
        raise ValueError(
            f"class_weight: targets have to be one array of class labels, got {len(leaves)} arrays."
        )
    leaf = np.asarray(leaves[0])
    if not np.issubdtype(leaf.dtype, np.integer) and leaf.dtype != np.bool_:
        raise ValueError(
            f"class_weight: targets have to be class labels of an integer dtype, got {leaf.dtype}."
        )
    if leaf.size != len(leaf):
        raise ValueError(
            f"class_weight: each example needs one class label, got targets of shape {leaf.shape}."
        )
    classes = int(leaf.max()) + 1
    weights = by_class(class_weight)
    missing = sorted(set(np.unique(leaf).tolist()) - set(weights))
    if missing:
        raise ValueError(
            f"class_weight: class {missing[0]} has examples and no weight — give every class one."
        )
    if any(label > MOST_CLASSES for label in weights):
        raise ValueError(
            f"class_weight: classes are numbered from 0, got class {max(weights)}."
        )
    return tuple(float(weights.get(label, 0.0)) for label in range(classes))


def _check_targets(
    name: str,
    step: Supervised | Evaluation,
    start: TrainState | EvalState,
    example: Batch,
    feed: Feed,
) -> None:
    """Refuses targets that the loss cannot mean, such as labels outside the classes: at once, or
    batch by batch.
    """
    loss: Any = step.loss
    first = frozen_shapes((start.params, start.state, example.inputs))
    params, state, _ = thawed_shapes(first)
    rest = [leaf.shape[1:] for leaf in jax.tree.leaves(example.inputs)]

    def outputs_of(batch: Batch) -> Any:
        """A stream's batch may be of another shape than its first, and the outputs then are."""
        if [leaf.shape[1:] for leaf in jax.tree.leaves(batch.inputs)] == rest:
            return _outputs(step.model, first, example.size)
        return _outputs(step.model, frozen_shapes((params, state, batch.inputs)), batch.size)

    def check(place: str, batch: Batch) -> None:
        outputs = outputs_of(batch)
        try:
            check_targets(loss, outputs, batch.targets, batch.inputs, batch.weights)
        except ValueError as error:
            raise ValueError(f"{place} targets: {error}") from error

    if isinstance(feed, ResidentFeed):
        source = feed.source
        check(
            name, Batch(source.inputs, jax.tree.map(np.asarray, source.targets), source.weights)
        )
    elif isinstance(feed, StreamFeed):
        feed.check = check


def check_counts(name: str, feed: Feed, class_weights: tuple[float, ...] | None = None) -> None:
    """Refuses arrays of which no example counts; of a stream that cannot be known before."""
    if not isinstance(feed, ResidentFeed) or (
        feed.source.weights is None and class_weights is None
    ):
        return
    source = feed.source
    counts = np.ones(1, bool) if source.weights is None else np.asarray(source.weights) > 0
    if class_weights is not None:
        classes = np.asarray(jax.tree.leaves(source.targets)[0]).reshape(-1).astype(np.int64)
        counts = counts & (np.asarray(class_weights) > 0)[classes]
    if not counts.any():
        of = "" if class_weights is None else ", with those of their classes,"
        raise ValueError(
            f"{name}: the weights of all examples{of} are 0, so that none counts — give some of "
            f"them more."
        )


def _that_count(leaf: Any) -> Any:
    """An array of inputs, of `Padded` sequences with zeros behind their ends, as the model reads
    them.
    """
    return targets_that_count(leaf, leaf) if _is_padded(leaf) else leaf


def _is_padded(node: Any) -> bool:
    return isinstance(node, Padded)


def check_intensities(name: str, inputs: Any) -> None:
    """Refuses inputs of a dtype whose scale cannot be known."""
    for leaf in jax.tree.leaves(inputs):
        if leaf.dtype != np.uint8 and not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"{name} inputs: expected floating-point numbers, or images in uint8, got "
                f"{leaf.dtype}."
            )


def check_read_again(validation: Feed | None, epochs: int) -> None:
    """Refuses a validation set that ends with the first epoch."""
    if isinstance(validation, StreamFeed) and validation.is_read_once and epochs > 1:
        raise ValueError(
            "validation: a generator is used up after the first epoch, and each epoch reads it — "
            "pass a function that returns "
            "a fresh generator, or a list of its batches."
        )


def check_as_targets(name: str, loss: Callable[..., Any], inputs: np.ndarray) -> None:
    """Refuses inputs that a loss cannot mean as targets, such as pixels outside 0…1 as
    probabilities.
    """
    try:
        check_targets(loss, jax.ShapeDtypeStruct(inputs.shape, inputs.dtype), inputs)
    except ValueError as error:
        raise ValueError(f"{name} inputs: {error}") from error


def check_accumulate(parts: int, example: Batch, devices: int = 1) -> None:
    """Refuses parts that a batch, or what each device has of it, cannot be cut into."""
    size = example.size // devices
    if size % parts:
        of = (
            f"a batch of {size} examples"
            if devices == 1
            else f"what each device has of a batch, {size} examples,"
        )
        raise ValueError(f"accumulate: {of} cannot be cut into {parts} equal parts.")


def warn_of_moments(parts: int, state: Any, example: Batch) -> None:
    """Warns where a batch is computed in parts by a model that takes moments over it: the parts'
    are others.
    """
    names = named_leaves(state)
    means = [
        name
        for name in names
        if name.split(".")[-1] == "mean" and f"{name.removesuffix('mean')}var" in names
    ]
    if parts == 1 or not means:
        return
    first = means[0].rpartition(".")[0] or "the top"
    others = f" and {len(means) - 1} more" if len(means) > 1 else ""
    warn(
        f"accumulate={parts}: the moments of BatchNorm at {first!r}{others} are those of each part "
        f"of "
        f"{example.size // parts} examples, and its running ones move {parts} times an update, so "
        f"that the update is not that "
        f"of the batch of {example.size} — take LayerNorm or GroupNorm, or larger parts, where "
        f"that matters.",
        UserWarning,
    )


def augmented(step: Supervised, example: Batch) -> Batch:
    """The shapes of a batch after augmentation."""
    if step.augment is None:
        return example
    check_function(
        "augment", step.augment, "augment(key, inputs, targets) -> (inputs, targets)"
    )
    key = threefry.of_seed(0)
    try:
        pair = jax.eval_shape(step.augment, key, example.inputs, example.targets)
    except Exception as error:
        error.add_note(
            f"This came from augment, called with a key, {format_shapes(example.inputs)} and "
            f"{format_shapes(example.targets)}."
        )
        raise
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(
            f"augment returned {format_shapes(pair)}: return the pair (inputs, targets)."
        )
    batch = example._replace(inputs=pair[0], targets=pair[1])
    check_lengths("augment", batch)
    if batch.size != example.size:
        raise ValueError(
            f"augment returned {batch.size} examples of {example.size}: return as many as it is "
            f"given."
        )
    return batch


def check_same_tree(name: str, expected: Any, given: Any) -> None:
    """Refuses parameters that are not the model's: which leaves are missing, extra, or of another
    shape.
    """
    wanted = named_leaves(expected)
    got = named_leaves(given)
    problems = [f"{leaf} is missing" for leaf in wanted if leaf not in got]
    problems += [f"{leaf} is not the model's" for leaf in got if leaf not in wanted]
    problems += [
        f"{leaf} has shape {got[leaf].shape} where the model has {wanted[leaf].shape}"
        for leaf in wanted
        if leaf in got and got[leaf].shape != wanted[leaf].shape
    ]
    if problems:
        raise ValueError(f"{name}: {'; '.join(problems)}.")


def check_step(step: Any) -> None:
    """Refuses what is not a training step."""
    if not isinstance(step, TrainingStep):
        called = (
            f"the class {step.__name__} — call it" if isinstance(step, type) else f"{step!r}"
        )
        raise TypeError(
            f"step: expected a training step such as Reconstruction(model, loss, optimizer), got "
            f"{called}."
        )
    check_hashable("step", step)


def check_step_runs(step: TrainingStep, start: TrainState, feed: Feed) -> None:
    """Runs a step on shapes alone: errors of its layers come out, and a state of another structure
    is refused.
    """
    check_counts("data", feed, getattr(step, "class_weights", None))
    state = outcome(step, feed.first.source, start).state
    check_same_tree("step: the state after it", start, state)


def check_measures(step: TrainingStep, start: TrainState, feed: Feed) -> None:
    """Runs a step's evaluation on shapes alone."""
    check_counts("validation", feed)
    evaluation = step.evaluation()
    if not isinstance(evaluation, EvaluationStep):
        raise TypeError(
            f"step: its evaluation() returns an EvaluationStep, which measures a batch and changes "
            f"nothing, got {evaluation!r}."
        )
    outcome(evaluation, feed.first.source, jax.eval_shape(step.evaluation_state, start))


def check_monitor(
    early_stopping: EarlyStopping | None,
    step: TrainingStep,
    start: TrainState,
    feed: Feed,
    held: Feed | None,
) -> None:
    """Refuses to watch a figure that the history will not have."""
    if early_stopping is None:
        return
    if not isinstance(early_stopping, EarlyStopping):
        raise TypeError(
            f"early_stopping: expected EarlyStopping(patience=5), got {early_stopping!r}."
        )
    names = metric_names(step, feed, start)
    if held is not None:
        given = jax.eval_shape(step.evaluation_state, start)
        names += [f"validation_{name}" for name in metric_names(step.evaluation(), held, given)]
    if early_stopping.monitor not in names:
        raise ValueError(
            f"early_stopping: the history will have no {early_stopping.monitor!r} to monitor, only "
            f"{', '.join(names)} — "
            "give validation data, or monitor another figure."
        )


def metric_names(step: Step, feed: Feed, start: Any) -> list[str]:
    """The names of what a step reports, read from its report of a batch that weighs nothing."""
    nothing: Measured = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype),
        outcome(step, feed.first.source, start).measured,
    )
    with np.errstate(all="ignore"):
        return list(step.report(nothing.sums, nothing.gathered))


def check_thresholds(loss: Callable[..., Any], metrics: tuple[tuple[str, Metric], ...]) -> None:
    """Refuses metrics that would take a probability of 0.1 for a yes, because they are told that
    outputs are logits.
    """
    if loss is not losses.binary_cross_entropy_from_probabilities:
        return
    for name, metric in metrics:
        if decides_at_zero(metric):
            raise ValueError(
                f"metric {name!r} decides at 0, which is right for logits, and the loss takes "
                f"probabilities — give it "
                "threshold=0.5, as in functools.partial(metrics.accuracy, threshold=0.5)."
            )


def decides_at_zero(metric: Metric) -> bool:
    """Whether a metric tells yes from no at the threshold of logits."""
    if isinstance(metric, Mean):
        return (
            metric.function is accuracy and dict(metric.keywords).get("threshold", 0.0) == 0.0
        )
    return getattr(metric, "threshold", None) == 0.0
