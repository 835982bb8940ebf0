"""Metrics of how outputs rank examples: areas under curves, and points on them.

All are exact over all examples, for which every output is kept until the end of the epoch: outputs,
labels and weights, 4 bytes each. They are computed on the host in float64.
"""

import abc
import dataclasses
from typing import ClassVar, Literal

import numpy as np

from jaxdl.compiling.pytree import PyTree
from jaxdl.losses.operands import (
    Sequences,
    Weights,
    check_setting,
    floating,
    without_padding,
)
from jaxdl.metrics.classification import (
    Average,
    averaged,
    check_average,
    check_multilabel,
    classified,
    is_binary,
    weight_of_each,
)
from jaxdl.metrics.curves import (
    area_under_roc,
    at,
    average_precision,
    best_precision,
    best_recall,
    best_sensitivity,
    best_specificity,
    log_odds,
    of_pairs,
)
from jaxdl.metrics.metric import Measured, OfOutput, Result


@dataclasses.dataclass(frozen=True)
class Ranking(OfOutput):
    """A figure of the order in which outputs rank positive and negative examples.

    A subclass says the figure of one class against the rest, in `of_class`.

    Args:
        average: over the classes: "macro"; "weighted" by how often each is the label; "micro", over
            all pairs of example and class at once; None, an array of all. Of no meaning with one
            column.
        multilabel: whether an example has several labels, outputs and targets `[batch, ...,
            labels]`, each label ranked by its own outputs; else it has one class, ranked by the
            log-odds of its softmax probability, which do not saturate.
        multi_class: of three or more classes, "ovr" ranks each against the rest; "ovo" each against
            each other one, over the examples of the two alone, and averages over the pairs:
            "macro", or "weighted" by how many examples a pair has.
        output: of several outputs, the name of the one to measure.
        ignore: a target that does not count, as in `OfOutput`.

    Raises:
        ValueError: the average or `multi_class` is none of these, they do not go together, or a
            setting is out of bounds.
    """

    average: Average = "macro"
    multilabel: bool = dataclasses.field(default=False, kw_only=True)
    multi_class: Literal["ovr", "ovo"] = dataclasses.field(default="ovr", kw_only=True)
    bounds: ClassVar[tuple[str, ...]] = ()
    """The settings that lie within 0 and 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        check_average(name, self.average)
        self._check_pairs(name)
        for setting in self.bounds:
            check_setting(name, setting, getattr(self, setting), 0, 1)

    @abc.abstractmethod
    def of_class(self, scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
        """The figure of one class, on the host.

        Args:
            scores: `[examples]`.
            positive: `[examples]` bool.
            weights: `[examples]`, above 0.
        """

    def measure_output(
        self,
        outputs: Sequences,
        targets: Sequences,
        weights: Weights,
    ) -> Measured:
        name = type(self).__name__
        outputs, targets, valid = without_padding(name, outputs, targets)
        if self.multilabel:
            labels = check_multilabel(name, outputs, targets)
            columns = outputs.shape[-1]
            weight = weight_of_each(weights, labels[..., 0], valid)
            labels = labels.reshape(-1, columns)
        else:
            _, labels, _ = classified(name, outputs, targets, 0.0)
            columns = 1 if is_binary(outputs) else outputs.shape[-1]
            weight = weight_of_each(weights, labels, valid)
            labels = labels.ravel()
        scores = floating(name, outputs).reshape(len(labels), columns)
        return (), {"scores": scores, "labels": labels, "weights": weight}

    def result(self, sums: PyTree, gathered: PyTree) -> Result:
        kept = gathered["weights"] != 0
        labels = gathered["labels"][kept]
        scores = gathered["scores"][kept].astype(np.float64)
        weights = gathered["weights"][kept].astype(np.float64)
        classes = scores.shape[1]
        if self.multilabel:
            return self._over_classes(scores, labels == 1, weights)
        if classes == 1:
            return self.of_class(scores[:, 0], labels == 1, weights)
        odds = log_odds(scores)
        if self.multi_class == "ovo":
            return self._over_pairs(odds, labels, weights)
        positive = labels[:, None] == np.arange(classes)
        return self._over_classes(odds, positive, weights)

    def _check_pairs(self, name: str) -> None:
        """Checks that `multi_class` fits the other settings."""
        if self.multi_class == "ovr":
            return
        fits = not self.multilabel and self.average in ("macro", "weighted")
        if self.multi_class == "ovo" and fits:
            return
        raise ValueError(
            f"{name}: multi_class is {self.multi_class!r} with average={self.average!r} and "
            f"multilabel={self.multilabel} — expected 'ovr', or 'ovo' with the average 'macro' or "
            "'weighted' and one class an example."
        )

    def _over_pairs(self, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
        """The average over pairs of classes of the figure of one against the other."""
        figures, support = of_pairs(scores, labels, weights, self.of_class)
        every = np.ones(len(figures), bool)
        return float(averaged(self.average, figures, support, every))

    def _over_classes(
        self, scores: np.ndarray, positive: np.ndarray, weights: np.ndarray
    ) -> Result:
        """The average over classes of the figure of each against the rest."""
        if self.average == "micro":
            repeated = np.repeat(weights, scores.shape[1])
            return self.of_class(scores.ravel(), positive.ravel(), repeated)
        columns = zip(scores.T, positive.T, strict=True)
        figures = [self.of_class(column, is_class, weights) for column, is_class in columns]
        every = np.ones(len(figures), bool)
        support = weights @ positive
        return averaged(self.average, np.array(figures), support, every)


@dataclasses.dataclass(frozen=True)
class ROCAUC(Ranking):
    """The area under the ROC curve: how probably a positive example scores above a negative.

    It is `Σ w⁺ w⁻ ([s⁺ > s⁻] + ½ [s⁺ = s⁻]) / (Σ w⁺ Σ w⁻)` over all pairs, ties counting half,
    exact over all examples, in float64. With several columns each class is scored against the rest
    in the order of its softmax probability, taken as log-odds, which do not saturate. nan where a
    class has no positive or no negative examples, or an output is NaN.

    Args:
        average: over the classes: "macro"; "weighted" by how often each is the label; "micro", over
            all pairs of example and class at once; None, an array of all. Of no meaning with one
            column.
        multilabel: whether an example has several labels, outputs and targets `[batch, ...,
            labels]`, each ranked by its own outputs.
        multi_class: "ovr", each class against the rest; "ovo", each against each other one over the
            examples of the two alone, averaged over the pairs.
        output: of several outputs, the name of the one to measure.
        ignore: a target that does not count, as in `OfOutput`.

    Raises:
        ValueError: the average or `multi_class` is none of these, or they do not go together.

    Source: Hanley, McNeil, *The meaning and use of the area under a receiver operating
    characteristic curve* (1982); of pairs of classes Hand, Till, *A simple generalisation of the
    area under the ROC curve for multiple class classification problems* (2001).
    """

    def of_class(self, scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
        return area_under_roc(scores, positive, weights)


@dataclasses.dataclass(frozen=True)
class AveragePrecision(Ranking):
    """Average precision, the area under the precision-recall curve (PR AUC), as steps.

    It is `Σ_k (R_k - R_{k-1}) P_k` over the distinct outputs in falling order, with P_k and R_k the
    precision and the recall of a threshold at the k-th. Nothing is interpolated, which would be too
    optimistic. nan where a class has no positive examples, or an output is NaN.

    Args:
        average: over the classes, as for `ROCAUC`.
        multilabel: as for `ROCAUC`.
        multi_class: as for `ROCAUC`.
        output: of several outputs, the name of the one to measure.
        ignore: a target that does not count, as in `OfOutput`.

    Raises:
        ValueError: as for `ROCAUC`.

    Source: Davis, Goadrich, *The relationship between precision-recall and ROC curves* (2006).
    """

    def of_class(self, scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
        return average_precision(scores, positive, weights)


@dataclasses.dataclass(frozen=True)
class PrecisionAtRecall(Ranking):
    """The highest precision of any threshold whose recall is at least `recall`.

    Thresholds are the outputs themselves, so that it is exact. nan where a class has no positive
    examples, or an output is NaN.

    Args:
        average: over the classes, as for `ROCAUC`.
        multilabel: as for `ROCAUC`.
        multi_class: as for `ROCAUC`.
        recall: the least recall, from 0 to 1.
        output: of several outputs, the name of the one to measure.
        ignore: a target that does not count, as in `OfOutput`.

    Raises:
        ValueError: as for `ROCAUC`, or the recall is out of bounds.

    Example:
        >>> PrecisionAtRecall(recall=0.9)
        PrecisionAtRecall(recall=0.9)
    """

    recall: float = dataclasses.field(kw_only=True)
    bounds: ClassVar[tuple[str, ...]] = ("recall",)

    def of_class(self, scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
        return at(best_precision, self.recall, scores, positive, weights)


@dataclasses.dataclass(frozen=True)
class RecallAtPrecision(Ranking):
    """The highest recall of any threshold whose precision is at least `precision`; 0 if none is.

    Thresholds are the outputs themselves, so that it is exact. nan where a class has no positive
    examples, or an output is NaN.

    Args:
        average: over the classes, as for `ROCAUC`.
        multilabel: as for `ROCAUC`.
        multi_class: as for `ROCAUC`.
        precision: the least precision, from 0 to 1.
        output: of several outputs, the name of the one to measure.
        ignore: a target that does not count, as in `OfOutput`.

    Raises:
        ValueError: as for `ROCAUC`, or the precision is out of bounds.
    """

    precision: float = dataclasses.field(kw_only=True)
    bounds: ClassVar[tuple[str, ...]] = ("precision",)

    def of_class(self, scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
        return at(best_recall, self.precision, scores, positive, weights)


@dataclasses.dataclass(frozen=True)
class SensitivityAtSpecificity(Ranking):
    """The highest sensitivity of any threshold whose specificity is at least `specificity`.

    Sensitivity is the fraction of positive examples above the threshold, specificity that of
    negative ones below it. Thresholds are the outputs themselves, so that it is exact. nan where a
    class has no positive or no negative examples, or an output is NaN.

    Args:
        average: over the classes, as for `ROCAUC`.
        multilabel: as for `ROCAUC`.
        multi_class: as for `ROCAUC`.
        specificity: the least specificity, from 0 to 1.
        output: of several outputs, the name of the one to measure.
        ignore: a target that does not count, as in `OfOutput`.

    Raises:
        ValueError: as for `ROCAUC`, or the specificity is out of bounds.
    """

    specificity: float = dataclasses.field(kw_only=True)
    bounds: ClassVar[tuple[str, ...]] = ("specificity",)

    def of_class(self, scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
        return at(best_sensitivity, self.specificity, scores, positive, weights)


@dataclasses.dataclass(frozen=True)
class SpecificityAtSensitivity(Ranking):
    """The highest specificity of any threshold whose sensitivity is at least `sensitivity`.

    As `SensitivityAtSpecificity`, the other way round.

    Args:
        average: over the classes, as for `ROCAUC`.
        multilabel: as for `ROCAUC`.
        multi_class: as for `ROCAUC`.
        sensitivity: the least sensitivity, from 0 to 1.
        output: of several outputs, the name of the one to measure.
        ignore: a target that does not count, as in `OfOutput`.

    Raises:
        ValueError: as for `ROCAUC`, or the sensitivity is out of bounds.
    """

    sensitivity: float = dataclasses.field(kw_only=True)
    bounds: ClassVar[tuple[str, ...]] = ("sensitivity",)

    def of_class(self, scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
        return at(best_specificity, self.sensitivity, scores, positive, weights)
