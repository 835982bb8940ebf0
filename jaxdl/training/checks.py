"""What is refused before anything is traced, in sentences."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl.compiling import threefry
from jaxdl.compiling.target import compiling_for, single_platform
from jaxdl.core.error import LayerError
from jaxdl.core.function import as_layer
from jaxdl.core.hashable import check_hashable
from jaxdl.core.layer import Layer
from jaxdl.core.number import is_number
from jaxdl.core.tree import Shapes, frozen_shapes, named_leaves, thawed_shapes
from jaxdl.core.warnings import warn
from jaxdl.data.source import Batch
from jaxdl.losses.batchwise import check_batchwise, is_batchwise
from jaxdl.losses.by_position import loss_sum, loss_weights
from jaxdl.losses.checks import check_loss, check_targets
from jaxdl.losses.per_example import format_shapes, function_name
from jaxdl.metrics.metric import Metric, as_metric
from jaxdl.metrics.part import measured
from jaxdl.optim.learning_rate import schedule_free
from jaxdl.training.arguments import check_figures, check_function
from jaxdl.training.class_weights import with_class_weights
from jaxdl.training.data_checks import check_counts, check_lengths
from jaxdl.training.feed import Feed, ResidentFeed
from jaxdl.training.mixing import check_unmixed
from jaxdl.training.state import EvalState, TrainState
from jaxdl.training.step_checks import check_same_tree
from jaxdl.training.steps.supervised import Evaluation, Supervised
from jaxdl.training.stream_feed import StreamFeed
from jaxdl.training.thresholds import check_thresholds

EXECUTIONS = ("eager", "step", "epoch", "auto")
"""What `compile` may be."""


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
    check_figures("metrics", metrics)
    return tuple((name, as_metric(metric)) for name, metric in metrics.items())


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
        class_weights = getattr(step, "class_weights", None)
        if class_weights is not None and isinstance(feed, StreamFeed):
            feed.check = with_class_weights(feed.check, class_weights)
        check_thresholds(step.loss, step.metrics)
    class_weighted = getattr(step, "class_weights", None) is not None
    shapes = frozen_shapes((outputs, example.targets, example.weights))
    _check_figures(step.loss, step.metrics, shapes, example.size, class_weighted)
    check_unmixed(name, step, outputs, example, feed)


@functools.lru_cache(maxsize=256)
def _check_figures(
    loss: Any,
    metrics: tuple[tuple[str, Metric], ...],
    shapes: Shapes,
    size: int,
    class_weighted: bool,
) -> None:
    outputs, targets, given = thawed_shapes(shapes)
    weights = given
    if weights is None:
        weights = jax.ShapeDtypeStruct((size,), jnp.float32)
    if weights.ndim > 1:
        _check_positions(loss, outputs, targets, weights, class_weighted)
    elif is_batchwise(loss):
        check_batchwise(loss, outputs, targets, given is not None or class_weighted)
    elif loss is not None:
        check_loss(loss, outputs, targets)
    for metric_name, metric in metrics:
        try:
            jax.eval_shape(functools.partial(measured, metric), outputs, targets, weights)
        except (ValueError, TypeError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"metric {metric_name!r}: {error}") from error
        except Exception as error:
            error.add_note(f"This came from metric {metric_name!r}.")
            raise


def _check_positions(
    loss: Any, outputs: Any, targets: Any, weights: Any, class_weighted: bool
) -> None:
    """Refuses weights by position of what has no positions."""
    if class_weighted:
        raise ValueError(
            f"class_weight: weights of shape {weights.shape} are by position, and classes have "
            "weights by example — multiply the weights of data by those of the classes."
        )
    if is_batchwise(loss):
        raise ValueError(
            f"loss '{function_name(loss)}' is batchwise, and weights of shape {weights.shape} are "
            "by position — give weights of examples, [examples]."
        )

    def total(outputs: Any, targets: Any, weights: Any) -> Any:
        each = loss_weights(loss, lambda: outputs, targets, weights)
        return loss_sum(loss, outputs, targets, each)

    if loss is not None:
        jax.eval_shape(total, outputs, targets, weights)


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
