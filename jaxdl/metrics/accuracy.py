"""Accuracies as per-example functions."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdl.losses.operands import (
    Sequences,
    check_setting,
    floating,
    over_examples,
    without_padding,
)
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
    _check_k(k, classes)
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


def _check_k(k: object, classes: int) -> None:
    if isinstance(k, (int, np.integer)) and not isinstance(k, bool) and 1 <= k <= classes:
        return
    raise ValueError(
        f"top_k_accuracy: k is {k}, expected 1 to {classes}, the number of classes."
    )
