"""Metrics made of counts of true and predicted classes."""

import dataclasses

import numpy as np
from jaxtyping import Float, PyTree

from jaxdl.losses.targets import (
    AnyArray,
    Sequences,
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
from jaxdl.metrics.metric import Mean as Mean
from jaxdl.metrics.metric import Metric as Metric
from jaxdl.metrics.metric import as_metric as as_metric


@dataclasses.dataclass(frozen=True)
class Precision(Metric):
    """Of what is predicted to be a class, the share that is: `true positives / predicted`, 0 where
    none is predicted.

    Args:
        average: how the classes become one number, as scikit-learn has it: "macro", their mean over
            the classes that occur among labels or predictions; "weighted", weighed by how often
            each is the label; "micro", from counts added over classes; None, an array of all. With
            outputs of one column it is the positive class's alone.
        threshold: above it one column predicts class 1; 0.5 where outputs are probabilities.
    """

    average: Average = "macro"
    threshold: float = 0.0

    def __post_init__(self) -> None:
        check_average("Precision", self.average)
        check_setting("Precision", "threshold", self.threshold)

    def measure(
        self, outputs: Sequences, targets: Sequences, weights: Float[AnyArray, " batch"]
    ) -> tuple[PyTree, PyTree]:
        return counts("Precision", outputs, targets, weights, self.threshold), ()

    def result(self, sums: PyTree, gathered: PyTree) -> float | np.ndarray:
        return from_counts(
            self.average, sums, lambda true, predicted, actual: divided(true, predicted)
        )


@dataclasses.dataclass(frozen=True)
class Recall(Metric):
    """Of what is a class, the share that is found: `true positives / actual`, 0 where the class
    does not occur.

    Args:
        average: as for `Precision`.
        threshold: above it one column predicts class 1; 0.5 where outputs are probabilities.
    """

    average: Average = "macro"
    threshold: float = 0.0

    def __post_init__(self) -> None:
        check_average("Recall", self.average)
        check_setting("Recall", "threshold", self.threshold)

    def measure(
        self, outputs: Sequences, targets: Sequences, weights: Float[AnyArray, " batch"]
    ) -> tuple[PyTree, PyTree]:
        return counts("Recall", outputs, targets, weights, self.threshold), ()

    def result(self, sums: PyTree, gathered: PyTree) -> float | np.ndarray:
        return from_counts(
            self.average, sums, lambda true, predicted, actual: divided(true, actual)
        )


@dataclasses.dataclass(frozen=True)
class F1(Metric):
    """The harmonic mean of precision and recall, `2 true positives / (predicted + actual)`, 0 where
    that is 0/0.

    Args:
        average: as for `Precision`.
        threshold: above it one column predicts class 1; 0.5 where outputs are probabilities.
    """

    average: Average = "macro"
    threshold: float = 0.0

    def __post_init__(self) -> None:
        check_average("F1", self.average)
        check_setting("F1", "threshold", self.threshold)

    def measure(
        self, outputs: Sequences, targets: Sequences, weights: Float[AnyArray, " batch"]
    ) -> tuple[PyTree, PyTree]:
        return counts("F1", outputs, targets, weights, self.threshold), ()

    def result(self, sums: PyTree, gathered: PyTree) -> float | np.ndarray:
        return from_counts(
            self.average,
            sums,
            lambda true, predicted, actual: divided(2 * true, predicted + actual),
        )


@dataclasses.dataclass(frozen=True)
class ConfusionMatrix(Metric):
    """The weight of examples for each true class (row) and predicted class (column), `[classes,
    classes]`.

    Without any weight it is a matrix of zeros: it counts, and does not average.

    Args:
        classes: how many classes there are; 2 for outputs of one column.
        threshold: above it one column predicts class 1; 0.5 where outputs are probabilities.
    """

    classes: int
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if (
            isinstance(self.classes, bool)
            or not isinstance(self.classes, (int, np.integer))
            or self.classes < 2
        ):
            raise ValueError(
                f"ConfusionMatrix: classes is a whole number of at least 2, got {self.classes!r}."
            )
        check_setting("ConfusionMatrix", "threshold", self.threshold)

    def measure(
        self, outputs: Sequences, targets: Sequences, weights: Float[AnyArray, " batch"]
    ) -> tuple[PyTree, PyTree]:
        outputs, targets, real = without_padding("ConfusionMatrix", outputs, targets)
        predicted, labels, classes = classified("ConfusionMatrix", outputs, targets, self.threshold)
        if classes != self.classes:
            raise ValueError(
                f"ConfusionMatrix({self.classes}): outputs of shape {outputs.shape} have {classes} "
                f"classes — write "
                f"ConfusionMatrix({classes})."
            )
        weight = weight_of_each(weights, labels, real)
        return weight_by_pair(labels.ravel(), predicted.ravel(), weight, classes), ()

    def result(self, sums: PyTree, gathered: PyTree) -> float | np.ndarray:
        return np.asarray(sums)
