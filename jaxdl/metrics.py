"""Metrics: per-example functions in lower case, whose weighted mean is taken, and `Metric` values in capitals.

    metrics={"accuracy": metrics.accuracy, "top 3": functools.partial(metrics.top_k_accuracy, k=3), "r2": metrics.R2()}

Class labels are whole numbers `[batch, ...]` or one-hot `[batch, ..., classes]`. Outputs of one column, `[batch]` or
`[batch, ..., 1]`, are binary: the positive class is predicted above a threshold (0 for logits, 0.5 for probabilities),
and labels are 0 and 1, or -1 and +1. In the per-example functions every axis after the batch is averaged; in the
values that count classes every position of a sequence is an example of its sequence's weight.

Of `Padded` sequences, be it the outputs or the targets, only the steps within the lengths count: a per-example function
gives the mean over those of each example, of which the mean over examples is taken; a value that counts takes each of
them as an example.

An output that is NaN predicts no class. In what counts classes (`accuracy`, `top_k_accuracy`, `Precision`, `Recall`,
`F1`, `ConfusionMatrix`) such an example is wrong: it is no true positive, is predicted to be nothing, and stays out of
every column of the matrix. What is computed of the outputs themselves (errors, `Perplexity`, `ROCAUC`, `R2`) is NaN then.
"""

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from jaxdl.classification import (
    Average,
    area_under_roc,
    averaged,
    check_average,
    class_labels,
    classified,
    counts,
    divided,
    from_counts,
    is_binary,
    log_odds,
    weight_by_pair,
    weight_of_each,
)
from jaxdl.losses import cross_entropies
from jaxdl.metric import Mean as Mean
from jaxdl.metric import Metric as Metric
from jaxdl.metric import as_metric as as_metric
from jaxdl.metric import ratio, weighted_sum
from jaxdl.per_example import shown
from jaxdl.targets import AnyArray, Sequences, check_setting, floating, over_examples, pair, without_padding


def accuracy(outputs: Sequences, targets: Sequences, *, threshold: float = 0.0) -> Float[Array, " batch"]:
    """Whether the predicted class is the true one, 1 or 0, averaged over the axes after the batch.

    Outputs and targets of one shape with a last axis of two or more are read as classes and one-hot labels. Where an
    example has several binary labels, give both a last axis of length 1 (`outputs[..., None]`).

    Args:
        outputs: `[batch, ..., classes]`, of which the largest is predicted (the first of equals); or one column.
        targets: class numbers `[batch, ...]`, or one-hot `[batch, ..., classes]`; for one column 0 and 1.
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
    """Whether the true class is among the k largest outputs, 1 or 0, averaged over the axes after the batch.

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
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= outputs.shape[-1]:
        raise ValueError(f"top_k_accuracy: k is {k}, expected 1 to {outputs.shape[-1]}, the number of classes.")
    # Not by a sort: that puts -0.0 below 0.0 and NaN above all.
    own = jnp.take_along_axis(outputs, labels, axis=-1, mode="fill")
    classes = jnp.arange(outputs.shape[-1], dtype=jnp.int32).reshape(*[1] * (outputs.ndim - 1), -1)
    larger = (outputs > own) | ((outputs == own) & (classes < labels))
    found = (larger.sum(axis=-1, dtype=jnp.int32) < k) & ~jnp.isnan(outputs).any(axis=-1)
    known = (labels >= 0) & ~jnp.isnan(own)
    return over_examples((found & known.squeeze(-1)).astype(jnp.float32), real)


def squared_error(outputs: Sequences, targets: Sequences) -> Float[Array, " batch"]:
    """Squared error, `(outputs - targets)²`, averaged over the axes after the batch; shapes as for a loss."""
    outputs, targets, real = pair("squared_error", outputs, targets)
    return over_examples(optax.squared_error(outputs, targets), real)


def absolute_error(outputs: Sequences, targets: Sequences) -> Float[Array, " batch"]:
    """Absolute error, `|outputs - targets|`, averaged over the axes after the batch; shapes as for a loss."""
    outputs, targets, real = pair("absolute_error", outputs, targets)
    return over_examples(jnp.abs(outputs - targets), real)


@dataclasses.dataclass(frozen=True)
class Part(Metric):
    """A metric of one of several outputs, where a model gives a dict or a tuple of them.

    It measures `outputs[part]` against `targets[part]`, or against all targets where they are one array.

    Args:
        metric: a `Metric`, or a per-example function.
        part: a key of the outputs, or a number in a tuple.

    Example:
        >>> outputs, targets = {"tag": jnp.array([[0.0, 1.0]]), "size": jnp.array([3.0])}, {"tag": jnp.array([1])}
        >>> Part(F1(), "tag").measure(outputs, targets, jnp.ones(1))[0]["true_positives"]
        Array([0., 1.], dtype=float32)
    """

    metric: Any
    part: Hashable

    def __post_init__(self) -> None:
        object.__setattr__(self, "metric", as_metric(self.metric))

    def measure(self, outputs: PyTree, targets: PyTree, weights: Float[AnyArray, " batch"]) -> tuple[PyTree, PyTree]:
        output = self._of("outputs", outputs)
        if isinstance(targets, (Mapping, tuple, list)):
            targets = self._of("targets", targets)
        return self.metric.measure(output, targets, weights)

    def result(self, sums: PyTree, gathered: PyTree) -> float | np.ndarray:
        return self.metric.result(sums, gathered)

    def _of(self, what: str, tree: PyTree) -> PyTree:
        several: Any = tree
        parts = range(len(several)) if isinstance(tree, (tuple, list)) else ()
        if self.part in (several if isinstance(tree, Mapping) else parts):
            return several[self.part]
        raise ValueError(f"Part: there is no part {self.part!r} of {what}, which are {shown(tree)}.")


@dataclasses.dataclass(frozen=True)
class Precision(Metric):
    """Of what is predicted to be a class, the share that is: `true positives / predicted`, 0 where none is predicted.

    Args:
        average: how the classes become one number, as scikit-learn has it: "macro", their mean over the classes that
            occur among labels or predictions; "weighted", weighed by how often each is the label; "micro", from counts
            added over classes; None, an array of all. With outputs of one column it is the positive class's alone.
        threshold: above it one column predicts class 1; 0.5 where outputs are probabilities.
    """

    average: Average = "macro"
    threshold: float = 0.0

    def __post_init__(self) -> None:
        check_average("Precision", self.average)
        check_setting("Precision", "threshold", self.threshold)

    def measure(self, outputs: Sequences, targets: Sequences, weights: Float[AnyArray, " batch"]) -> tuple[PyTree, PyTree]:
        return counts("Precision", outputs, targets, weights, self.threshold), ()

    def result(self, sums: PyTree, gathered: PyTree) -> float | np.ndarray:
        return from_counts(self.average, sums, lambda true, predicted, actual: divided(true, predicted))


@dataclasses.dataclass(frozen=True)
class Recall(Metric):
    """Of what is a class, the share that is found: `true positives / actual`, 0 where the class does not occur.

    Args:
        average: as for `Precision`.
        threshold: above it one column predicts class 1; 0.5 where outputs are probabilities.
    """

    average: Average = "macro"
    threshold: float = 0.0

    def __post_init__(self) -> None:
        check_average("Recall", self.average)
        check_setting("Recall", "threshold", self.threshold)

    def measure(self, outputs: Sequences, targets: Sequences, weights: Float[AnyArray, " batch"]) -> tuple[PyTree, PyTree]:
        return counts("Recall", outputs, targets, weights, self.threshold), ()

    def result(self, sums: PyTree, gathered: PyTree) -> float | np.ndarray:
        return from_counts(self.average, sums, lambda true, predicted, actual: divided(true, actual))


@dataclasses.dataclass(frozen=True)
class F1(Metric):
    """The harmonic mean of precision and recall, `2 true positives / (predicted + actual)`, 0 where that is 0/0.

    Args:
        average: as for `Precision`.
        threshold: above it one column predicts class 1; 0.5 where outputs are probabilities.
    """

    average: Average = "macro"
    threshold: float = 0.0

    def __post_init__(self) -> None:
        check_average("F1", self.average)
        check_setting("F1", "threshold", self.threshold)

    def measure(self, outputs: Sequences, targets: Sequences, weights: Float[AnyArray, " batch"]) -> tuple[PyTree, PyTree]:
        return counts("F1", outputs, targets, weights, self.threshold), ()

    def result(self, sums: PyTree, gathered: PyTree) -> float | np.ndarray:
        return from_counts(self.average, sums, lambda true, predicted, actual: divided(2 * true, predicted + actual))


@dataclasses.dataclass(frozen=True)
class ConfusionMatrix(Metric):
    """The weight of examples for each true class (row) and predicted class (column), `[classes, classes]`.

    Without any weight it is a matrix of zeros: it counts, and does not average.

    Args:
        classes: how many classes there are; 2 for outputs of one column.
        threshold: above it one column predicts class 1; 0.5 where outputs are probabilities.
    """

    classes: int
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.classes, bool) or not isinstance(self.classes, (int, np.integer)) or self.classes < 2:
            raise ValueError(f"ConfusionMatrix: classes is a whole number of at least 2, got {self.classes!r}.")
        check_setting("ConfusionMatrix", "threshold", self.threshold)

    def measure(self, outputs: Sequences, targets: Sequences, weights: Float[AnyArray, " batch"]) -> tuple[PyTree, PyTree]:
        outputs, targets, real = without_padding("ConfusionMatrix", outputs, targets)
        predicted, labels, classes = classified("ConfusionMatrix", outputs, targets, self.threshold)
        if classes != self.classes:
            raise ValueError(
                f"ConfusionMatrix({self.classes}): outputs of shape {outputs.shape} have {classes} classes — write "
                f"ConfusionMatrix({classes})."
            )
        weight = weight_of_each(weights, labels, real)
        return weight_by_pair(labels.ravel(), predicted.ravel(), weight, classes), ()

    def result(self, sums: PyTree, gathered: PyTree) -> float | np.ndarray:
        return np.asarray(sums)


@dataclasses.dataclass(frozen=True)
class Perplexity(Metric):
    """`exp` of the weighted mean of the softmax cross-entropy, from logits `[batch, ..., classes]`."""

    def measure(self, outputs: Sequences, targets: Sequences, weights: Float[AnyArray, " batch"]) -> tuple[PyTree, PyTree]:
        logits, targets, real = without_padding("Perplexity", outputs, targets)
        entropies = cross_entropies("Perplexity", floating("Perplexity", logits), targets)
        total = weighted_sum(over_examples(entropies, real), weights)
        return {"total": total, "weight": weighted_sum(jnp.ones_like(weights), weights)}, ()

    def result(self, sums: PyTree, gathered: PyTree) -> float | np.ndarray:
        with np.errstate(over="ignore"):
            return float(np.exp(ratio(sums["total"], sums["weight"])))


@dataclasses.dataclass(frozen=True)
class ROCAUC(Metric):
    """The area under the ROC curve: how probably a positive example scores above a negative one, ties counting half.

    `Σ w⁺ w⁻ ([s⁺ > s⁻] + ½ [s⁺ = s⁻]) / Σ w⁺ Σ w⁻`, exact over all examples, in float64. With several columns each
    class is scored against the rest in the order of its softmax probability, taken as log-odds, which do not saturate.
    nan where a class has no positive or no negative examples, or an output is NaN.

    Args:
        average: how classes become one number: "macro", "weighted" by how often each is the label, "micro", over all
            pairs of example and class at once, or None, an array of all. Of no meaning with one column.

    Source: Hanley and McNeil, The Meaning and Use of the Area under a Receiver Operating Characteristic Curve, 1982.
    """

    average: Average = "macro"

    def __post_init__(self) -> None:
        check_average("ROCAUC", self.average)

    def measure(self, outputs: Sequences, targets: Sequences, weights: Float[AnyArray, " batch"]) -> tuple[PyTree, PyTree]:
        outputs, targets, real = without_padding("ROCAUC", outputs, targets)
        _, labels, _ = classified("ROCAUC", outputs, targets, 0.0)
        scores = floating("ROCAUC", outputs).reshape(labels.size, 1 if is_binary(outputs) else outputs.shape[-1])
        return (), {"scores": scores, "labels": labels.ravel(), "weights": weight_of_each(weights, labels, real)}

    def result(self, sums: PyTree, gathered: PyTree) -> float | np.ndarray:
        kept = gathered["weights"] != 0
        labels, scores, weights = (gathered[name][kept] for name in ("labels", "scores", "weights"))
        scores, weights = scores.astype(np.float64), weights.astype(np.float64)
        if scores.shape[1] == 1:
            return area_under_roc(scores[:, 0], labels == 1, weights)
        return self._over_classes(log_odds(scores), labels[:, None] == np.arange(scores.shape[1]), weights)

    def _over_classes(self, scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float | np.ndarray:
        if self.average == "micro":
            return area_under_roc(scores.ravel(), positive.ravel(), np.repeat(weights, scores.shape[1]))
        areas = np.array([area_under_roc(s, p, weights) for s, p in zip(scores.T, positive.T, strict=True)])
        return averaged(self.average, areas, support=weights @ positive, occurs=np.ones(len(areas), bool))


@dataclasses.dataclass(frozen=True)
class R2(Metric):
    """The coefficient of determination, `1 - Σ w (y - ŷ)² / Σ w (y - ȳ)²` with ȳ the weighted mean of the targets.

    Every number after the batch axis is an output of its own; their coefficients are averaged, as scikit-learn does. Of
    `Padded` sequences every step within the lengths is an example. It is taken in two passes in float64. Of fewer than
    two examples it is nan; for constant targets it is 1 if they are met exactly and 0 otherwise.
    """

    def measure(self, outputs: Sequences, targets: Sequences, weights: Float[AnyArray, " batch"]) -> tuple[PyTree, PyTree]:
        outputs, targets, real = pair("R2", outputs, targets)
        if real is not None:
            weights = weight_of_each(weights, real, real)
            outputs, targets = (values.reshape(real.size, -1) for values in (outputs, targets))
        return (), {"outputs": outputs, "targets": targets, "weights": jnp.asarray(weights)}

    def result(self, sums: PyTree, gathered: PyTree) -> float | np.ndarray:
        kept = gathered["weights"] != 0
        if np.count_nonzero(kept) < 2:
            return float("nan")
        weights, y, predicted = (
            gathered[name][kept].astype(np.float64).reshape(np.count_nonzero(kept), -1)
            for name in ("weights", "targets", "outputs")
        )
        residual = (weights * (y - predicted) ** 2).sum(axis=0)
        y = y - y[0]  # so that the spread of constant targets is 0, and not what their mean is rounded by
        spread = (weights * (y - np.average(y, axis=0, weights=weights[:, 0])) ** 2).sum(axis=0)
        varies = spread != 0
        return float(np.where(varies, 1 - residual / np.where(varies, spread, 1), residual == 0).mean())
