"""Precision, recall and other scores, and the confusion matrix, from counts of true and predicted
classes.
"""

import abc
import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from jaxdl.compiling.pytree import PyTree
from jaxdl.losses.operands import (
    AnyArray,
    Sequences,
    Weights,
    check_setting,
    without_padding,
)
from jaxdl.metrics.classification import (
    LabelAverage,
    averaged,
    check_average,
    classified,
    counts,
    counts_of_all,
    counts_of_labels,
    divided,
    from_counts,
    weight_by_pair,
    weight_of_each,
)
from jaxdl.metrics.metric import Measured, OfOutput, Result, ratio, total_and_weight


@dataclasses.dataclass(frozen=True)
class Score(OfOutput):
    """A score of classes from counts of true positives, of what is predicted and what is actual.

    A subclass says the score, in `fraction`.

    Args:
        average: over the classes, as in scikit-learn: "macro", the mean over the classes that occur
            among labels or predictions, or over all labels where an example has several;
            "weighted", the mean weighted by how often each is the label; "micro", from counts
            summed over classes; "samples", the mean over examples of several labels of the score
            of each; None, an array of all. With outputs of one column it is the positive class's
            alone.
        threshold: above it one column predicts class 1, and of several labels each is predicted;
            0.5 where outputs are probabilities.
        multilabel: whether an example has several labels: outputs and targets are `[batch, ...,
            labels]`.
        output: of several outputs, the name of the one to measure.
        ignore: a target that does not count, as in `OfOutput`.

    Raises:
        ValueError: the average is none of these, or a setting is out of bounds.
    """

    average: LabelAverage = "macro"
    threshold: float = 0.0
    multilabel: bool = dataclasses.field(default=False, kw_only=True)
    bounds: ClassVar[tuple[tuple[str, float], ...]] = ()
    """Settings of a subclass, and their least values."""

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        check_average(name, self.average, self.multilabel)
        check_setting(name, "threshold", self.threshold)
        for setting, least in self.bounds:
            check_setting(name, setting, getattr(self, setting), least)

    @abc.abstractmethod
    def fraction(
        self, true: AnyArray, predicted: AnyArray, actual: AnyArray
    ) -> tuple[AnyArray, AnyArray]:
        """The numerator and the denominator of the score, which is 0 where both are 0.

        Args:
            true: what is predicted and actual, of each class or example, on the host or traced.
            predicted: what is predicted.
            actual: what is actual.
        """

    def measure_output(
        self,
        outputs: Sequences,
        targets: Sequences,
        weights: Weights,
    ) -> Measured:
        name = type(self).__name__
        if not self.multilabel:
            return counts(name, outputs, targets, weights, self.threshold), ()
        each, weight = counts_of_labels(name, outputs, targets, weights, self.threshold)
        if self.average == "samples":
            totals = [counted.sum(axis=-1) for counted in each.values()]
            numerator, denominator = self.fraction(*totals)
            denominator = jnp.where(denominator == 0, 1, denominator)
            return total_and_weight(numerator / denominator, weight), ()
        sums = {key: (weight[:, None] * counted).sum(axis=0) for key, counted in each.items()}
        return {**sums, "weight": weight.sum(keepdims=True)}, ()

    def result(self, sums: PyTree, gathered: PyTree) -> Result:
        if self.average == "samples":
            return ratio(sums["total"], sums["weight"])
        return from_counts(self.average, sums, self.fraction, every=self.multilabel)


@dataclasses.dataclass(frozen=True)
class Precision(Score):
    """Precision, `true positives / predicted` of each class; 0 where none is predicted.

    Args:
        average: over the classes, as in scikit-learn: "macro", the mean over the classes that occur
            among labels or predictions, or over all labels where an example has several;
            "weighted", the mean weighted by how often each is the label; "micro", from counts
            summed over classes; "samples", the mean over examples of several labels of the score
            of each; None, an array of all. With outputs of one column it is the positive class's
            alone.
        threshold: above it one column predicts class 1, and of several labels each is predicted;
            0.5 where outputs are probabilities.
        multilabel: whether an example has several labels: outputs and targets are `[batch, ...,
            labels]`.
        output: of several outputs, the name of the one to measure.
        ignore: a target that does not count, as in `OfOutput`.

    Raises:
        ValueError: the average is none of these, or the threshold is not finite.

    Source: van Rijsbergen, *Information retrieval* (1979), chapter 7.
    """

    def fraction(
        self, true: AnyArray, predicted: AnyArray, actual: AnyArray
    ) -> tuple[AnyArray, AnyArray]:
        return true, predicted


@dataclasses.dataclass(frozen=True)
class Recall(Score):
    """Recall, `true positives / actual` of each class; 0 where the class does not occur.

    Args:
        average: over the classes, as for `Precision`.
        threshold: as for `Precision`.
        multilabel: as for `Precision`.
        output: of several outputs, the name of the one to measure.
        ignore: a target that does not count, as in `OfOutput`.

    Raises:
        ValueError: as for `Precision`.

    Source: van Rijsbergen, *Information retrieval* (1979), chapter 7.
    """

    def fraction(
        self, true: AnyArray, predicted: AnyArray, actual: AnyArray
    ) -> tuple[AnyArray, AnyArray]:
        return true, actual


@dataclasses.dataclass(frozen=True)
class F1(Score):
    """F1, the harmonic mean of precision and recall of each class.

    It is `2 true positives / (predicted + actual)`, and 0 where that is 0/0.

    Args:
        average: over the classes, as for `Precision`.
        threshold: as for `Precision`.
        multilabel: as for `Precision`.
        output: of several outputs, the name of the one to measure.
        ignore: a target that does not count, as in `OfOutput`.

    Raises:
        ValueError: as for `Precision`.

    Source: van Rijsbergen, *Information retrieval* (1979), chapter 7.
    """

    def fraction(
        self, true: AnyArray, predicted: AnyArray, actual: AnyArray
    ) -> tuple[AnyArray, AnyArray]:
        return 2 * true, predicted + actual


@dataclasses.dataclass(frozen=True)
class FBeta(Score):
    """F_β, the harmonic mean of precision and recall of each class, recall counting β² times.

    It is `(1 + β²) true positives / (predicted + β² actual)`, and 0 where that is 0/0. β = 1 is
    `F1`, β = 0 precision, and a large β approaches recall.

    Args:
        average: over the classes, as for `Precision`.
        threshold: as for `Precision`.
        multilabel: as for `Precision`.
        beta: β, how many times as important as precision recall is.
        output: of several outputs, the name of the one to measure.
        ignore: a target that does not count, as in `OfOutput`.

    Raises:
        ValueError: as for `Precision`, or β is negative.

    Source: van Rijsbergen, *Information retrieval* (1979), chapter 7.

    Example:
        >>> import jax
        >>> outputs, labels = jnp.array([1.0, 1.0, -1.0]), jnp.array([1, 0, 0])
        >>> metric = FBeta(beta=2.0)
        >>> sums, _ = metric.measure(outputs, labels, jnp.ones(3))
        >>> round(metric.result(jax.device_get(sums), ()), 4)
        0.8333
    """

    beta: float = dataclasses.field(kw_only=True)
    bounds: ClassVar[tuple[tuple[str, float], ...]] = (("beta", 0.0),)

    def fraction(
        self, true: AnyArray, predicted: AnyArray, actual: AnyArray
    ) -> tuple[AnyArray, AnyArray]:
        square = float(self.beta) ** 2
        return (1 + square) * true, predicted + square * actual


@dataclasses.dataclass(frozen=True)
class IoU(Score):
    """Intersection over union (Jaccard index) of each class; its "macro" average is the mean IoU.

    It is `true positives / (predicted + actual - true positives)`, and 0 where that is 0/0. Every
    position of a map `[batch, height, width, classes]` is an example.

    Args:
        average: over the classes, as for `Precision`.
        threshold: as for `Precision`.
        multilabel: as for `Precision`.
        output: of several outputs, the name of the one to measure.
        ignore: a target that does not count, as in `OfOutput`.

    Raises:
        ValueError: as for `Precision`.

    Source: Jaccard, *The distribution of the flora in the alpine zone* (1912).
    """

    def fraction(
        self, true: AnyArray, predicted: AnyArray, actual: AnyArray
    ) -> tuple[AnyArray, AnyArray]:
        return true, predicted + actual - true


@dataclasses.dataclass(frozen=True)
class BalancedAccuracy(OfOutput):
    """Balanced accuracy, the mean of the recalls of the classes that occur among the labels.

    With outputs of one column it is the mean of sensitivity and specificity.

    Args:
        threshold: above it one column predicts class 1; 0.5 where outputs are probabilities.
        output: of several outputs, the name of the one to measure.
        ignore: a target that does not count, as in `OfOutput`.

    Raises:
        ValueError: the threshold is not finite.

    Source: Brodersen et al., *The balanced accuracy and its posterior distribution* (2010).
    """

    threshold: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_setting("BalancedAccuracy", "threshold", self.threshold)

    def measure_output(
        self,
        outputs: Sequences,
        targets: Sequences,
        weights: Weights,
    ) -> Measured:
        name = "BalancedAccuracy"
        sums, _ = counts_of_all(name, outputs, targets, weights, self.threshold)
        return {"true_positives": sums["true_positives"], "actual": sums["actual"]}, ()

    def result(self, sums: PyTree, gathered: PyTree) -> Result:
        actual = np.asarray(sums["actual"], np.float64)
        recalls = divided(np.asarray(sums["true_positives"], np.float64), actual)
        return averaged("macro", recalls, support=actual, occurs=actual != 0)


@dataclasses.dataclass(frozen=True)
class ConfusionMatrix(OfOutput):
    """The weight of the examples of each true class (row) and predicted class (column).

    The result is `[classes, classes]`, `M[i, j] = Σ w [y = i] [ŷ = j]`; zeros without any weight,
    since nothing is averaged.

    Args:
        classes: the number of classes; 2 for outputs of one column.
        threshold: above it one column predicts class 1; 0.5 where outputs are probabilities.
        output: of several outputs, the name of the one to measure.
        ignore: a target that does not count, as in `OfOutput`.

    Raises:
        ValueError: there are fewer than two classes, or the threshold is not finite.
    """

    classes: int
    threshold: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        count = self.classes
        whole = isinstance(count, (int, np.integer)) and not isinstance(count, bool)
        if not whole or count < 2:
            raise ValueError(
                f"ConfusionMatrix: classes is a whole number of at least 2, got {count!r}."
            )
        check_setting("ConfusionMatrix", "threshold", self.threshold)

    def measure_output(
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
