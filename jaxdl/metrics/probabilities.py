"""Metrics of predicted probabilities and scores."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from jaxdl.losses.classification import cross_entropies
from jaxdl.losses.targets import (
    AnyArray,
    Sequences,
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
from jaxdl.metrics.metric import Mean as Mean
from jaxdl.metrics.metric import Metric as Metric
from jaxdl.metrics.metric import as_metric as as_metric
from jaxdl.metrics.metric import ratio, weighted_sum


@dataclasses.dataclass(frozen=True)
class Perplexity(Metric):
    """`exp` of the weighted mean of the softmax cross-entropy, from logits `[batch, ...,
    classes]`.
    """

    def measure(
        self, outputs: Sequences, targets: Sequences, weights: Float[AnyArray, " batch"]
    ) -> tuple[PyTree, PyTree]:
        logits, targets, real = without_padding("Perplexity", outputs, targets)
        entropies = cross_entropies("Perplexity", floating("Perplexity", logits), targets)
        total = weighted_sum(over_examples(entropies, real), weights)
        return {"total": total, "weight": weighted_sum(jnp.ones_like(weights), weights)}, ()

    def result(self, sums: PyTree, gathered: PyTree) -> float | np.ndarray:
        with np.errstate(over="ignore"):
            return float(np.exp(ratio(sums["total"], sums["weight"])))


@dataclasses.dataclass(frozen=True)
class ROCAUC(Metric):
    """The area under the ROC curve: how probably a positive example scores above a negative one,
    ties counting half.

    `Σ w⁺ w⁻ ([s⁺ > s⁻] + ½ [s⁺ = s⁻]) / Σ w⁺ Σ w⁻`, exact over all examples, in float64. With
    several columns each class is scored against the rest in the order of its softmax probability,
    taken as log-odds, which do not saturate. nan where a class has no positive or no negative
    examples, or an output is NaN.

    Args:
        average: how classes become one number: "macro", "weighted" by how often each is the label,
            "micro", over all pairs of example and class at once, or None, an array of all. Of no
            meaning with one column.

    Source: Hanley and McNeil, The Meaning and Use of the Area under a Receiver Operating
    Characteristic Curve, 1982.
    """

    average: Average = "macro"

    def __post_init__(self) -> None:
        check_average("ROCAUC", self.average)

    def measure(
        self, outputs: Sequences, targets: Sequences, weights: Float[AnyArray, " batch"]
    ) -> tuple[PyTree, PyTree]:
        outputs, targets, real = without_padding("ROCAUC", outputs, targets)
        _, labels, _ = classified("ROCAUC", outputs, targets, 0.0)
        scores = floating("ROCAUC", outputs).reshape(
            labels.size, 1 if is_binary(outputs) else outputs.shape[-1]
        )
        return (), {
            "scores": scores,
            "labels": labels.ravel(),
            "weights": weight_of_each(weights, labels, real),
        }

    def result(self, sums: PyTree, gathered: PyTree) -> float | np.ndarray:
        kept = gathered["weights"] != 0
        labels, scores, weights = (gathered[name][kept] for name in ("labels", "scores", "weights"))
        scores, weights = scores.astype(np.float64), weights.astype(np.float64)
        if scores.shape[1] == 1:
            return area_under_roc(scores[:, 0], labels == 1, weights)
        return self._over_classes(
            log_odds(scores), labels[:, None] == np.arange(scores.shape[1]), weights
        )

    def _over_classes(
        self, scores: np.ndarray, positive: np.ndarray, weights: np.ndarray
    ) -> float | np.ndarray:
        if self.average == "micro":
            return area_under_roc(
                scores.ravel(), positive.ravel(), np.repeat(weights, scores.shape[1])
            )
        areas = np.array(
            [area_under_roc(s, p, weights) for s, p in zip(scores.T, positive.T, strict=True)]
        )
        return averaged(
            self.average, areas, support=weights @ positive, occurs=np.ones(len(areas), bool)
        )
