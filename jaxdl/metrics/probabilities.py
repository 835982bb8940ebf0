"""Perplexity, and the area under the ROC curve."""

import dataclasses

import numpy as np

from jaxdl.compiling.pytree import PyTree
from jaxdl.losses.classification import cross_entropies
from jaxdl.losses.operands import (
    Sequences,
    Weights,
    floating,
    over_examples,
    without_padding,
)
from jaxdl.metrics.classification import (
    Average,
    area_under_roc,
    averaged,
    check_average,
    classified,
    is_binary,
    log_odds,
    weight_of_each,
)
from jaxdl.metrics.metric import Measured, Metric, Result, ratio, total_and_weight


@dataclasses.dataclass(frozen=True)
class Perplexity(Metric):
    """Perplexity, `exp(Σ w H(y, softmax(x)) / Σ w)`, of logits x `[batch, ..., classes]`.

    H is the softmax cross-entropy of an example, the mean over its steps, to labels y as
    `losses.softmax_cross_entropy` takes them.

    Source: Jelinek, Mercer, Bahl, Baker, *Perplexity — a measure of the difficulty of speech
    recognition tasks* (1977).
    """

    def measure(
        self,
        outputs: Sequences,
        targets: Sequences,
        weights: Weights,
    ) -> Measured:
        logits, targets, valid = without_padding("Perplexity", outputs, targets)
        logits = floating("Perplexity", logits)
        entropies = cross_entropies("Perplexity", logits, targets)
        means = over_examples(entropies, valid)
        return total_and_weight(means, weights), ()

    def result(self, sums: PyTree, gathered: PyTree) -> Result:
        mean = ratio(sums["total"], sums["weight"])
        with np.errstate(over="ignore"):
            return float(np.exp(mean))


@dataclasses.dataclass(frozen=True)
class ROCAUC(Metric):
    """The area under the ROC curve: how probably a positive example scores above a negative.

    It is `Σ w⁺ w⁻ ([s⁺ > s⁻] + ½ [s⁺ = s⁻]) / (Σ w⁺ Σ w⁻)` over all pairs, ties counting half,
    exact over all examples, in float64. With several columns each class is scored against the rest
    in the order of its softmax probability, taken as log-odds, which do not saturate. nan where a
    class has no positive or no negative examples, or an output is NaN.

    Args:
        average: over the classes: "macro"; "weighted" by how often each is the label; "micro", over
            all pairs of example and class at once; None, an array of all. Of no meaning with one
            column.

    Raises:
        ValueError: the average is none of these.

    Source: Hanley, McNeil, *The meaning and use of the area under a receiver operating
    characteristic curve* (1982).
    """

    average: Average = "macro"

    def __post_init__(self) -> None:
        check_average("ROCAUC", self.average)

    def measure(
        self,
        outputs: Sequences,
        targets: Sequences,
        weights: Weights,
    ) -> Measured:
        outputs, targets, valid = without_padding("ROCAUC", outputs, targets)
        _, labels, _ = classified("ROCAUC", outputs, targets, 0.0)
        columns = outputs.shape[-1]
        if is_binary(outputs):
            columns = 1
        scores = floating("ROCAUC", outputs)
        return (), {
            "scores": scores.reshape(labels.size, columns),
            "labels": labels.ravel(),
            "weights": weight_of_each(weights, labels, valid),
        }

    def result(self, sums: PyTree, gathered: PyTree) -> Result:
        kept = gathered["weights"] != 0
        labels = gathered["labels"][kept]
        scores = gathered["scores"][kept].astype(np.float64)
        weights = gathered["weights"][kept].astype(np.float64)
        classes = scores.shape[1]
        if classes == 1:
            return area_under_roc(scores[:, 0], labels == 1, weights)
        positive = labels[:, None] == np.arange(classes)
        return self._over_classes(log_odds(scores), positive, weights)

    def _over_classes(
        self, scores: np.ndarray, positive: np.ndarray, weights: np.ndarray
    ) -> Result:
        """The average over classes of the area of each against the rest."""
        if self.average == "micro":
            repeated = np.repeat(weights, scores.shape[1])
            return area_under_roc(scores.ravel(), positive.ravel(), repeated)
        columns = zip(scores.T, positive.T, strict=True)
        areas = [area_under_roc(column, is_class, weights) for column, is_class in columns]
        occurs = np.ones(len(areas), bool)
        support = weights @ positive
        return averaged(self.average, np.array(areas), support, occurs)
