"""Precision, recall, F1 and the confusion matrix, from counts of true and predicted classes."""

import dataclasses

import numpy as np

from jaxdl.compiling.pytree import PyTree
from jaxdl.losses.operands import (
    Sequences,
    Weights,
    check_setting,
    without_padding,
)
from jaxdl.metrics.classification import (
    Average,
    check_average,
    classified,
    counts,
    divided,
    from_counts,
    weight_by_pair,
    weight_of_each,
)
from jaxdl.metrics.metric import Measured, Metric, Result


@dataclasses.dataclass(frozen=True)
class Precision(Metric):
    """Precision, `true positives / predicted` of each class; 0 where none is predicted.

    Args:
        average: over the classes, as in scikit-learn: "macro", the mean over the classes that occur
            among labels or predictions; "weighted", the mean weighted by how often each is the
            label; "micro", from counts summed over classes; None, an array of all. With outputs of
            one column it is the positive class's alone.
        threshold: above it one column predicts class 1; 0.5 where outputs are probabilities.

    Raises:
        ValueError: the average is none of these, or the threshold is not finite.

    Source: van Rijsbergen, *Information retrieval* (1979), chapter 7.
    """

    average: Average = "macro"
    threshold: float = 0.0

    def __post_init__(self) -> None:
        check_average("Precision", self.average)
        check_setting("Precision", "threshold", self.threshold)

    def measure(
        self,
        outputs: Sequences,
        targets: Sequences,
        weights: Weights,
    ) -> Measured:
        return counts("Precision", outputs, targets, weights, self.threshold), ()

    def result(self, sums: PyTree, gathered: PyTree) -> Result:
        return from_counts(self.average, sums, _precision)


@dataclasses.dataclass(frozen=True)
class Recall(Metric):
    """Recall, `true positives / actual` of each class; 0 where the class does not occur.

    Args:
        average: over the classes, as for `Precision`.
        threshold: above it one column predicts class 1; 0.5 where outputs are probabilities.

    Raises:
        ValueError: as for `Precision`.

    Source: van Rijsbergen, *Information retrieval* (1979), chapter 7.
    """

    average: Average = "macro"
    threshold: float = 0.0

    def __post_init__(self) -> None:
        check_average("Recall", self.average)
        check_setting("Recall", "threshold", self.threshold)

    def measure(
        self,
        outputs: Sequences,
        targets: Sequences,
        weights: Weights,
    ) -> Measured:
        return counts("Recall", outputs, targets, weights, self.threshold), ()

    def result(self, sums: PyTree, gathered: PyTree) -> Result:
        return from_counts(self.average, sums, _recall)


@dataclasses.dataclass(frozen=True)
class F1(Metric):
    """F1, the harmonic mean of precision and recall of each class.

    It is `2 true positives / (predicted + actual)`, and 0 where that is 0/0.

    Args:
        average: over the classes, as for `Precision`.
        threshold: above it one column predicts class 1; 0.5 where outputs are probabilities.

    Raises:
        ValueError: as for `Precision`.

    Source: van Rijsbergen, *Information retrieval* (1979), chapter 7.
    """

    average: Average = "macro"
    threshold: float = 0.0

    def __post_init__(self) -> None:
        check_average("F1", self.average)
        check_setting("F1", "threshold", self.threshold)

    def measure(
        self,
        outputs: Sequences,
        targets: Sequences,
        weights: Weights,
    ) -> Measured:
        return counts("F1", outputs, targets, weights, self.threshold), ()

    def result(self, sums: PyTree, gathered: PyTree) -> Result:
        return from_counts(self.average, sums, _f1)


def _precision(true: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    del actual
    return divided(true, predicted)


def _recall(true: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    del predicted
    return divided(true, actual)


def _f1(true: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    return divided(2 * true, predicted + actual)


@dataclasses.dataclass(frozen=True)
class ConfusionMatrix(Metric):
    """The weight of the examples of each true class (row) and predicted class (column).

    The result is `[classes, classes]`, `M[i, j] = Σ w [y = i] [ŷ = j]`; zeros without any weight,
    since nothing is averaged.

    Args:
        classes: the number of classes; 2 for outputs of one column.
        threshold: above it one column predicts class 1; 0.5 where outputs are probabilities.

    Raises:
        ValueError: there are fewer than two classes, or the threshold is not finite.
    """

    classes: int
    threshold: float = 0.0

    def __post_init__(self) -> None:
        count = self.classes
        whole = isinstance(count, (int, np.integer)) and not isinstance(count, bool)
        if not whole or count < 2:
            raise ValueError(
                f"ConfusionMatrix: classes is a whole number of at least 2, got {count!r}."
            )
        check_setting("ConfusionMatrix", "threshold", self.threshold)

    def measure(
        self,
        outputs: Sequences,
        targets: Sequences,
        weights: Weights,
    ) -> Measured:
        name = "ConfusionMatrix"
        outputs, targets, valid = without_padding(name, outputs, targets)
        predicted, labels, classes = classified(name, outputs, targets, self.threshold)
        if classes != self.classes:
            raise ValueError(
                f"ConfusionMatrix({self.classes}): outputs of shape {outputs.shape} have {classes} "
                f"classes — write ConfusionMatrix({classes})."
            )
        weight = weight_of_each(weights, labels, valid)
        labels = labels.ravel()
        predicted = predicted.ravel()
        return weight_by_pair(labels, predicted, weight, classes), ()

    def result(self, sums: PyTree, gathered: PyTree) -> Result:
        return np.asarray(sums)
