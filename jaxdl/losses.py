"""Losses as per-example functions: `loss(outputs, targets) -> [batch]`, in optax's order.

Every axis after the batch is averaged, so logits `[batch, time, classes]` with labels `[batch, time]` give `[batch]`.
Outputs, targets or both may be `Padded` sequences: an example's loss is then the mean over its steps within the lengths,
and training takes the mean of these over the examples, whatever their lengths; what lies behind, be it NaN or a label
that no class has, changes neither value nor gradient.
Training weighs and sums these numbers, so that masks, sample weights and padded batches are exact. The arithmetic is
optax's wherever optax has the loss; what is added here is that shapes are matched and never broadcast, that a loss is
computed in at least float32, and that targets that do not fit are told so in a sentence.

A loss that takes settings is given them by `functools.partial(losses.huber, delta=2.0)`. One that mixes the examples of a
batch is declared by `batchwise`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from jaxdl.batchwise import batchwise as batchwise
from jaxdl.padded import Padded
from jaxdl.per_example import function_name, innermost, shown, telling_batch
from jaxdl.targets import (
    AnyArray,
    Sequences,
    Shape,
    certain_steps,
    check_array,
    check_every_length,
    check_finite,
    check_setting,
    check_steps,
    class_numbers,
    floating,
    holds_classes,
    over_examples,
    pair,
    replaced_behind,
    targets_that_count,
    vectors,
    wants_binary,
    wants_distributions,
    wants_labels,
    wants_numbers,
    wants_signs,
    wants_vectors,
    without_padding,
)

Loss = Callable[..., Array]
Setting = float | Array
"""A number; inside of a sweep one that is being traced."""

PROBABILITY_MARGIN = 1e-7  # as Keras clips; about two float32 steps below one
NORM_MARGIN = 1e-16  # of a squared norm: vectors shorter than 1e-8 count as that long, as in PyTorch


def mean_squared_error(outputs: Sequences, targets: Sequences) -> Float[Array, " batch"]:
    """Mean squared error, `mean (outputs - targets)²`.

    Args:
        outputs: predictions, `[batch, ...]` or `Padded`, floating.
        targets: real numbers of the same shape; a trailing axis of length 1 may be missing on one side.

    Returns:
        One number an example, `[batch]`, in at least float32.

    Raises:
        ValueError: if the shapes differ, or the outputs are not floating.

    Example:
        >>> mean_squared_error(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[0.0, 2.0], [3.0, 2.0]]))
        Array([0.5, 2. ], dtype=float32)
    """
    outputs, targets, real = pair("mean_squared_error", outputs, targets)
    return over_examples(optax.squared_error(outputs, targets), real)


def mean_absolute_error(outputs: Sequences, targets: Sequences) -> Float[Array, " batch"]:
    """Mean absolute error, `mean |outputs - targets|`.

    Args:
        outputs: predictions, `[batch, ...]` or `Padded`, floating.
        targets: real numbers of the same shape; a trailing axis of length 1 may be missing on one side.

    Returns:
        One number an example, `[batch]`, in at least float32.

    Raises:
        ValueError: if the shapes differ, or the outputs are not floating.
    """
    outputs, targets, real = pair("mean_absolute_error", outputs, targets)
    errors = outputs - targets
    return over_examples(jnp.maximum(errors, -errors), real)  # at 0 its derivative is 0, where that of jnp.abs is 1


def huber(outputs: Sequences, targets: Sequences, *, delta: Setting = 1.0) -> Float[Array, " batch"]:
    """Huber's loss of the error e: `½ e²` where `|e| <= delta`, and `delta (|e| - ½ delta)` beyond.

    Args:
        outputs: predictions, `[batch, ...]` or `Padded`, floating.
        targets: real numbers of the same shape; a trailing axis of length 1 may be missing on one side.
        delta: where the parabola turns into a line, in the targets' unit; positive.

    Returns:
        One number an example, `[batch]`, in at least float32.

    Raises:
        ValueError: if the shapes differ, or the outputs are not floating.

    Source: Huber, Robust Estimation of a Location Parameter, 1964.
    """
    delta = check_setting("huber", "delta", delta, least=0)
    outputs, targets, real = pair("huber", outputs, targets)
    return over_examples(optax.huber_loss(outputs, targets, delta=delta), real)


def binary_cross_entropy(logits: Sequences, labels: Sequences) -> Float[Array, " batch"]:
    """Binary cross-entropy from logits, `-y log σ(x) - (1 - y) log σ(-x)`.

    Args:
        logits: x, `[batch, ...]` or `Padded`, floating, before any sigmoid. Infinite ones are certain.
        labels: y, 0 and 1 or probabilities, of the same shape; a trailing axis of length 1 may be missing on one side.

    Returns:
        One number an example, `[batch]`, in nats, in at least float32.

    Raises:
        ValueError: if the shapes differ, or the logits are not floating.

    Example:
        >>> binary_cross_entropy(jnp.array([[0.0], [100.0]]), jnp.array([1, 1])).round(3)
        Array([0.693, 0.   ], dtype=float32)
    """
    logits, labels, real = pair("binary_cross_entropy", logits, labels)
    return over_examples(_free_where_certain(optax.sigmoid_binary_cross_entropy, logits, labels), real)


def binary_cross_entropy_from_probabilities(probabilities: Sequences, labels: Sequences) -> Float[Array, " batch"]:
    """Binary cross-entropy of probabilities, `-y log p - (1 - y) log(1 - p)`, for a model that ends in a sigmoid.

    p is clipped to `[1e-7, 1 - 1e-7]`, as Keras does, so that loss and gradient stay finite at 0 and 1. The price is
    that the loss never passes 16.1 and that beyond the clip its gradient is 0: prefer logits and
    `binary_cross_entropy`.

    Args:
        probabilities: p, `[batch, ...]` or `Padded`, floating, within 0 and 1.
        labels: y, 0 and 1 or probabilities, of the same shape; a trailing axis of length 1 may be missing on one side.

    Returns:
        One number an example, `[batch]`, in nats, in at least float32.

    Raises:
        ValueError: if the shapes differ, or the probabilities are not floating.
    """
    probabilities, labels, real = pair("binary_cross_entropy_from_probabilities", probabilities, labels)
    p = jnp.clip(probabilities, PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    return over_examples(-labels * jnp.log(p) - (1 - labels) * jnp.log1p(-p), real)


def softmax_cross_entropy(logits: Sequences, labels: Sequences, *, label_smoothing: Setting = 0.0) -> Float[Array, " batch"]:
    """Softmax cross-entropy, `H(y, softmax(x))`; smoothed by α, `(1 - α) H(y, softmax(x)) + α H(uniform, softmax(x))`.

    Args:
        logits: x, `[batch, ..., classes]` or `Padded`, floating, before any softmax. -inf rules a class out; where
            the label or its smoothing gives it a probability the loss is infinite.
        labels: y, class numbers `[batch, ...]` or `[batch, ..., 1]`, whole or Boolean; or one-hot or soft labels
            `[batch, ..., classes]` that sum to one.
        label_smoothing: α, within 0 and 1.

    Returns:
        One number an example, `[batch]`, in nats, in at least float32; axes between batch and classes are averaged.

    Raises:
        ValueError: if the shapes do not fit, class numbers are floating, or there are fewer than two classes.

    Source: Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2016, section 7 (smoothing).

    Example:
        >>> softmax_cross_entropy(jnp.zeros((2, 4)), jnp.array([3, 0])).round(3)
        Array([1.386, 1.386], dtype=float32)
    """
    label_smoothing = check_setting("softmax_cross_entropy", "label_smoothing", label_smoothing, 0, 1)
    logits, labels, real = without_padding("softmax_cross_entropy", logits, labels)
    logits = floating("softmax_cross_entropy", logits)
    loss = cross_entropies("softmax_cross_entropy", logits, labels)
    if isinstance(label_smoothing, Array) or label_smoothing:
        uniform = jnp.full_like(logits, 1 / logits.shape[-1])
        loss = (1 - label_smoothing) * loss + label_smoothing * _of_distributions(logits, uniform)
    return over_examples(loss, real)


def cross_entropies(name: str, logits: Float[Array, "..."], labels: AnyArray) -> Float[Array, "batch ..."]:
    """Softmax cross-entropy of each position, `[batch, ...]`, from class numbers, or one-hot or soft labels."""
    if holds_classes(name, logits, labels):
        return optax.softmax_cross_entropy_with_integer_labels(logits, class_numbers(logits, labels))
    return _of_distributions(logits, jnp.asarray(labels).astype(logits.dtype))


@jax.custom_jvp
def _of_distributions(logits: Float[Array, "batch ..."], labels: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
    """`-Σ y log softmax(x)`, where a class that is ruled out and is not the label costs nothing.

    As `optax.safe_softmax_cross_entropy`, whose forward-mode derivative is NaN there: it adds 0 · log 0.
    """
    return -jnp.where(labels == 0, 0, labels * jax.nn.log_softmax(logits)).sum(axis=-1)


@_of_distributions.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """`dL = (Σ y · softmax(x) - y) · dx - log softmax(x) · dy`."""
    logits, labels = primals
    by_logits = labels.sum(axis=-1, keepdims=True) * jax.nn.softmax(logits) - labels
    log_p = jax.nn.log_softmax(logits)
    by_labels = jnp.where(jnp.isneginf(log_p), 0, log_p)  # the tangent of labels that are constants is 0, not absent
    tangent = (by_logits * tangents[0] - by_labels * tangents[1]).sum(axis=-1)
    return _of_distributions(logits, labels), tangent


def _free_where_certain(
    loss: Callable[[Array, Array], Array], logits: Float[Array, "batch ..."], labels: Float[Array, "batch ..."]
) -> Float[Array, "batch ..."]:
    """A binary loss, where an infinite logit that is right costs nothing: arithmetic would make 0 · ∞ of it."""
    certain = jnp.isinf(logits) & ((logits > 0).astype(labels.dtype) == labels)
    return jnp.where(certain, 0, loss(jnp.where(certain, 0, logits), labels))


def hinge(outputs: Sequences, targets: Sequences) -> Float[Array, " batch"]:
    """Hinge loss of a support vector machine, `max(0, 1 - y x)`.

    Args:
        outputs: x, signed distances, `[batch, ...]` or `Padded`, floating.
        targets: y, -1 and +1 as in optax (not 0 and 1), of the same shape; a trailing axis of length 1 may be missing
            on one side.

    Returns:
        One number an example, `[batch]`, in at least float32.

    Raises:
        ValueError: if the shapes differ, or the outputs are not floating.

    Source: Cortes and Vapnik, Support-Vector Networks, 1995.
    """
    outputs, targets, real = pair("hinge", outputs, targets)
    return over_examples(optax.hinge_loss(outputs, targets), real)


def focal(
    logits: Sequences,
    labels: Sequences,
    *,
    alpha: Setting | None = None,
    gamma: Setting = 2.0,
) -> Float[Array, " batch"]:
    """Sigmoid focal loss, `-α_y (1 - p_y)^γ log p_y` with `p_y` the probability given to the true label.

    Args:
        logits: `[batch, ...]` or `Padded`, floating, before any sigmoid. Infinite ones are certain.
        labels: 0 and 1 or probabilities, of the same shape; a trailing axis of length 1 may be missing on one side.
        alpha: α, the weight of label 1, label 0 having 1 - α; None weighs neither.
        gamma: γ, how much easy examples count for less; 0 gives binary cross-entropy.

    Returns:
        One number an example, `[batch]`, in nats, in at least float32.

    Raises:
        ValueError: if the shapes differ, or the logits are not floating.

    Source: Lin et al., Focal Loss for Dense Object Detection, 2017.
    """
    gamma = check_setting("focal", "gamma", gamma, least=0)
    if alpha is not None:
        alpha = check_setting("focal", "alpha", alpha, 0, 1)
    logits, labels, real = pair("focal", logits, labels)
    loss = functools.partial(optax.sigmoid_focal_loss, alpha=alpha, gamma=gamma)
    return over_examples(_free_where_certain(loss, logits, labels), real)


def kl_divergence(log_probabilities: Sequences, targets: Sequences) -> Float[Array, " batch"]:
    """Kullback-Leibler divergence of the prediction from the target, `Σ y (log y - log p)` over the last axis.

    Args:
        log_probabilities: log p, `[batch, ..., classes]` or `Padded`, floating, as `jax.nn.log_softmax` gives;
            -inf is allowed where y is 0.
        targets: y, probabilities that sum to one, of the same shape; 0 log 0 counts as 0.

    Returns:
        One number an example, `[batch]`, in nats, in at least float32; axes between batch and classes are averaged.

    Raises:
        ValueError: if the shapes differ or have no class axis, or the log-probabilities are not floating.

    Source: Kullback and Leibler, On Information and Sufficiency, 1951.
    """
    log_probabilities, targets, real = vectors("kl_divergence", log_probabilities, targets)
    log_probabilities = jnp.where(targets == 0, 0, log_probabilities)  # otherwise 0 · -inf is NaN
    return over_examples(optax.kl_divergence(log_probabilities, targets), real)


def cosine_distance(outputs: Sequences, targets: Sequences) -> Float[Array, " batch"]:
    """Cosine distance, `1 - x·y / (|x| |y|)` over the last axis.

    A vector shorter than 1e-8 counts as that long, so that the distance of a zero vector is 1 and its gradient finite.

    Args:
        outputs: x, vectors `[batch, ..., features]` or `Padded`, floating.
        targets: y, vectors of the same shape.

    Returns:
        One number an example, `[batch]`, from 0 to 2, in at least float32; axes between are averaged.

    Raises:
        ValueError: if the shapes differ or have no feature axis, or the outputs are not floating.
    """
    outputs, targets, real = vectors("cosine_distance", outputs, targets)
    return over_examples(optax.cosine_distance(outputs, targets, epsilon=NORM_MARGIN), real)


def check_targets(loss: Loss, outputs: PyTree, targets: PyTree, inputs: PyTree = (), weights: AnyArray | None = None) -> None:
    """Checks all targets against what a loss wants of them, once, on the host, before anything is traced.

    A loss of this file is checked for shapes, dtypes and values; any other loss only for targets that are finite. Where
    outputs or targets are `Padded`, only the steps that count for certain are looked at.

    Args:
        loss: a loss, or a `functools.partial` or `jax.jit` of one.
        outputs: what the model gives, a `jax.ShapeDtypeStruct` `[batch, ...]`; its batch may have any length.
        targets: all targets, a NumPy array `[examples, ...]`; for a loss of one's own, any pytree of such arrays.
        inputs: all inputs, whose lengths `Padded` outputs have.
        weights: of all examples; one of weight 0 may have no step that counts.

    Raises:
        ValueError: how many targets are wrong, which is the first, and what to do.
    """
    name = function_name(loss)
    check = next((check for known, check in _CHECKS if innermost(known) is innermost(loss)), None)
    sources = inputs if _has_padded(outputs) else ()
    if check is None:
        for leaf in jax.tree.leaves(targets, is_leaf=_is_padded):
            check_finite(f"loss '{name}'", targets_that_count(leaf, sources))
        return
    check_array(name, "outputs", outputs)
    given: Any = targets
    if isinstance(given, (dict, tuple)):
        check_array(name, "targets", given)
    if _is_padded(outputs) or _is_padded(targets):
        _check_sequences(name, check, outputs, given, sources, weights)
        return
    values = np.asarray(given)
    if values.ndim == 0:
        raise ValueError(f"{name}: targets are a single number, expected an array, batch first.")
    check(name, jax.ShapeDtypeStruct((len(values), *outputs.shape[1:]), outputs.dtype), values)


def _check_sequences(name: str, check: Any, outputs: Any, targets: Any, sources: PyTree, weights: Any) -> None:
    """Checks the targets of the steps that count, where outputs or targets are `Padded`."""
    shape = (*targets.shape[:1], *outputs.shape[1:])
    check_steps(name, shape, targets.shape)
    check_every_length(name, targets.shape, (targets, sources), weights)
    shape = (*shape, 1) if len(shape) == 2 else shape
    values = _of_steps_that_count(check, shape, targets, sources)
    check(name, jax.ShapeDtypeStruct(shape, outputs.dtype), values)


def _of_steps_that_count(check: Any, shape: Shape, targets: AnyArray | Padded, sources: PyTree) -> np.ndarray:
    """Targets with values that no check refuses where steps do not count, or are not known to."""
    values = np.asarray(targets.values if isinstance(targets, Padded) else targets)
    real = certain_steps(values.shape, targets, sources)
    real = np.zeros(values.shape[:2], bool) if real is None else real
    good = np.ones(values.shape[2:])
    if check is wants_distributions or (check is wants_labels and values.shape == shape):
        good[..., 1:] = 0
    return replaced_behind(values, real, good)


def _is_padded(node: Any) -> bool:
    return isinstance(node, Padded)


def _has_padded(tree: PyTree) -> bool:
    return any(_is_padded(leaf) for leaf in jax.tree.leaves(tree, is_leaf=_is_padded))


def check_loss(loss: Any, outputs: PyTree, targets: PyTree) -> None:
    """Checks that a loss returns one number an example, by its shapes alone and without computing anything.

    Args:
        loss: any function `loss(outputs, targets)`.
        outputs: what the model gives, a pytree of `jax.ShapeDtypeStruct` (or arrays) `[batch, ...]`.
        targets: the same for the targets.

    Raises:
        TypeError: if the loss is no function.
        ValueError: what it returned instead. What the loss itself raises comes through with a note.
    """
    if not callable(loss):
        raise TypeError(
            f"loss is {loss!r}, expected a function loss(outputs, targets) -> [batch] — pass one such as "
            "losses.mean_squared_error."
        )
    batch = telling_batch(outputs, targets)
    given = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype), (outputs, targets))
    name, came = f"loss '{function_name(loss)}'", f"outputs of {shown(given[0])} and targets of {shown(given[1])}"
    try:
        returned = jax.eval_shape(loss, *given)
    except Exception as error:
        error.add_note(f"This came from {name}, called with {came}.")
        raise
    if not isinstance(returned, jax.ShapeDtypeStruct) or returned.shape != (batch,):
        raise ValueError(
            f"{name} returned {shown(returned)} for a batch of {batch} ({came}): return one number for each example "
            "([batch]); fit weighs and averages them. One that mixes examples is declared by losses.batchwise."
        )
    if not jnp.issubdtype(returned.dtype, jnp.floating):
        raise ValueError(f"{name} returned {returned.dtype} numbers, which have no gradient: return floating ones.")


_CHECKS: tuple[tuple[Loss, Callable[[str, jax.ShapeDtypeStruct, np.ndarray], None]], ...] = (
    (mean_squared_error, wants_numbers),
    (mean_absolute_error, wants_numbers),
    (huber, wants_numbers),
    (binary_cross_entropy, wants_binary),
    (binary_cross_entropy_from_probabilities, wants_binary),
    (focal, wants_binary),
    (hinge, wants_signs),
    (kl_divergence, wants_distributions),
    (cosine_distance, wants_vectors),
    (softmax_cross_entropy, wants_labels),
)
