"""Accuracies as per-example functions."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxdl.losses.operands import (
    AnyArray,
    Sequences,
    check_setting,
    class_numbers,
    floating,
    over_examples,
    without_padding,
)
from jaxdl.losses.shapes import are_class_numbers, check_integral
from jaxdl.metrics.classification import class_labels, classified


def accuracy(
    outputs: Sequences, targets: Sequences, *, threshold: float = 0.0
) -> Float[Array, " batch"]:
    """Accuracy: 1 where the predicted class is the true one, else 0.

        a = [argmax x = y],   and for one column   a = [[x > threshold] = y]

    Axes after the batch are averaged. Outputs and targets of one shape with a last axis of two or
    more are read as classes and one-hot labels. Where an example has several binary labels, give
    both a last axis of length 1 (`outputs[..., None]`).

    Args:
        outputs: `[batch, ..., classes]`, of which the largest is predicted (the first of equals);
            or one column.
        targets: class numbers `[batch, ...]`, or one-hot `[batch, ..., classes]`; for one column 0
            and 1.
        threshold: above it one column predicts class 1; 0.5 where outputs are probabilities.

    Returns:
        From 0 to 1 for each example, `[batch]`.

    Raises:
        ValueError: the shapes do not fit, or class numbers are floating, as in a regression.

    Example:
        >>> accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1]))
        Array([1., 0.], dtype=float32)
    """
    limit = check_setting("accuracy", "threshold", threshold)
    outputs, targets, valid = without_padding("accuracy", outputs, targets)
    predicted, labels, _ = classified("accuracy", outputs, targets, limit)
    correct = (predicted == labels).astype(jnp.float32)
    return over_examples(correct, valid)


def top_k_accuracy(
    outputs: Sequences, targets: Sequences, *, k: int = 5
) -> Float[Array, " batch"]:
    """Top-k accuracy: 1 where the true class is among the k largest outputs, else 0.

        a = [#{c : x_c > x_y} < k],   where of equal outputs the lower class is the larger

    Axes after the batch are averaged.

    Args:
        outputs: `[batch, ..., classes]`.
        targets: class numbers `[batch, ...]`, or one-hot `[batch, ..., classes]`.
        k: from 1 to the number of classes.

    Returns:
        From 0 to 1 for each example, `[batch]`.

    Raises:
        ValueError: the shapes do not fit, k is out of range, or class numbers are floating.
    """
    name = "top_k_accuracy"
    outputs, targets, valid = without_padding(name, outputs, targets)
    outputs = floating(name, outputs)
    labels = class_labels(name, outputs, targets)[..., None]
    classes = outputs.shape[-1]
    _check_k(name, k, classes)
    # Not by a sort: that puts -0.0 below 0.0 and NaN above all.
    own = jnp.take_along_axis(outputs, labels, axis=-1, mode="fill")
    numbers = jnp.arange(classes, dtype=jnp.int32)
    numbers = numbers.reshape(*[1] * (outputs.ndim - 1), -1)
    ties = (outputs == own) & (numbers < labels)
    larger = (outputs > own) | ties
    rank = larger.sum(axis=-1, dtype=jnp.int32)
    found = (rank < k) & ~jnp.isnan(outputs).any(axis=-1)
    known = ((labels >= 0) & ~jnp.isnan(own)).squeeze(-1)
    return over_examples((found & known).astype(jnp.float32), valid)


def top_k_precision(
    outputs: Sequences, targets: Sequences, *, k: int = 5
) -> Float[Array, " batch"]:
    """Precision at k: the fraction of the k largest outputs whose labels the example has.

        p = #{c among the k largest : y_c = 1} / k

    Of equal outputs the one with the lower c is the larger. Axes after the batch are averaged. An
    example with an output that is NaN has precision 0.

    Args:
        outputs: `[batch, ..., labels]`.
        targets: of the same shape, 1 for each label that an example has and 0 for the others; or
            class numbers `[batch, ...]`, where it has one.
        k: from 1 to the number of labels.

    Returns:
        From 0 to 1 for each example, `[batch]`.

    Raises:
        ValueError: the shapes do not fit, k is out of range, or targets are floating.

    Source: Järvelin, Kekäläinen, *IR evaluation methods for retrieving highly relevant documents*
    (2000).

    Example:
        >>> outputs = jnp.array([[0.1, 0.9, 0.5]])
        >>> top_k_precision(outputs, jnp.array([[1, 1, 0]]), k=2)
        Array([0.5], dtype=float32)
    """
    name = "top_k_precision"
    outputs, targets, valid = without_padding(name, outputs, targets)
    outputs = floating(name, outputs)
    relevant = _relevant(name, outputs, targets)
    _check_k(name, k, outputs.shape[-1])
    # `top_k` puts -0.0 below 0.0.
    positive_zero = jnp.where(outputs == 0, 0, outputs)
    _, chosen = lax.top_k(positive_zero, k)
    hits = jnp.take_along_axis(relevant, chosen, axis=-1, mode="promise_in_bounds")
    precision = hits.astype(jnp.float32).mean(axis=-1)
    known = ~jnp.isnan(outputs).any(axis=-1)
    return over_examples(jnp.where(known, precision, 0), valid)


def _relevant(
    name: str, outputs: Float[Array, "batch ... labels"], targets: AnyArray
) -> Bool[Array, "batch ... labels"]:
    """Which labels each example has."""
    if are_class_numbers(name, outputs, targets):
        numbers = class_numbers(outputs, targets)[..., None]
        labels = jnp.arange(outputs.shape[-1], dtype=jnp.int32)
        return numbers == labels.reshape(*[1] * (outputs.ndim - 1), -1)
    check_integral(name, targets)
    return jnp.asarray(targets) > 0


def _check_k(name: str, k: object, classes: int) -> None:
    if isinstance(k, (int, np.integer)) and not isinstance(k, bool) and 1 <= k <= classes:
        return
    raise ValueError(f"{name}: k is {k}, expected 1 to {classes}, the number of classes.")
