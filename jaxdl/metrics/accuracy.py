"""Accuracies, example by example."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdl.losses.targets import (
    Sequences,
    check_setting,
    floating,
    over_examples,
    without_padding,
)
from jaxdl.metrics.classification import (
    class_labels,
    classified,
)
from jaxdl.metrics.metric import Mean as Mean
from jaxdl.metrics.metric import Metric as Metric
from jaxdl.metrics.metric import as_metric as as_metric


def accuracy(
    outputs: Sequences, targets: Sequences, *, threshold: float = 0.0
) -> Float[Array, " batch"]:
    """Whether the predicted class is the true one, 1 or 0, averaged over the axes after the batch.

    Outputs and targets of one shape with a last axis of two or more are read as classes and one-hot
    labels. Where an example has several binary labels, give both a last axis of length 1
    (`outputs[..., None]`).

    Args:
        outputs: `[batch, ..., classes]`, of which the largest is predicted (the first of equals);
            or one column.
        targets: class numbers `[batch, ...]`, or one-hot `[batch, ..., classes]`; for one column 0
            and 1.
        threshold: above it one column predicts class 1; 0.5 where outputs are probabilities.

    Returns:
        From 0 to 1 for each example, `[batch]`.

    Raises:
        ValueError: if the shapes do not fit, or class numbers are floating, as in a regression.

    Example:
        >>> accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1]))
        Array([1., 0.], dtype=float32)
    """
    threshold = check_setting("accuracy", "threshold", threshold)
    outputs, targets, real = without_padding("accuracy", outputs, targets)
    predicted, labels, _ = classified("accuracy", outputs, targets, threshold)
    return over_examples((predicted == labels).astype(jnp.float32), real)


def top_k_accuracy(outputs: Sequences, targets: Sequences, *, k: int = 5) -> Float[Array, " batch"]:
    """Whether the true class is among the k largest outputs, 1 or 0, averaged over the axes after
    the batch.

    Args:
        outputs: `[batch, ..., classes]`; of equal outputs the first class is taken to be larger.
        targets: class numbers `[batch, ...]`, or one-hot `[batch, ..., classes]`.
        k: from 1 to the number of classes.

    Returns:
        From 0 to 1 for each example, `[batch]`.

    Raises:
        ValueError: if the shapes do not fit, k is out of range, or class numbers are floating.
    """
    outputs, targets, real = without_padding("top_k_accuracy", outputs, targets)
    outputs = floating("top_k_accuracy", outputs)
    labels = class_labels("top_k_accuracy", outputs, targets)[..., None]
    if (
        isinstance(k, bool)
        or not isinstance(k, (int, np.integer))
        or not 1 <= k <= outputs.shape[-1]
    ):
        raise ValueError(
            f"top_k_accuracy: k is {k}, expected 1 to {outputs.shape[-1]}, the number of classes."
        )
    # Not by a sort: that puts -0.0 below 0.0 and NaN above all.
    own = jnp.take_along_axis(outputs, labels, axis=-1, mode="fill")
    classes = jnp.arange(outputs.shape[-1], dtype=jnp.int32).reshape(*[1] * (outputs.ndim - 1), -1)
    larger = (outputs > own) | ((outputs == own) & (classes < labels))
    found = (larger.sum(axis=-1, dtype=jnp.int32) < k) & ~jnp.isnan(outputs).any(axis=-1)
    known = (labels >= 0) & ~jnp.isnan(own)
    return over_examples((found & known.squeeze(-1)).astype(jnp.float32), real)
