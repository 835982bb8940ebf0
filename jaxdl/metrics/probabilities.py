"""Perplexity."""

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
from jaxdl.metrics.metric import Measured, OfOutput, Result, ratio, total_and_weight


@dataclasses.dataclass(frozen=True)
class Perplexity(OfOutput):
    """Perplexity, `exp(Σ w H(y, softmax(x)) / Σ w)`, of logits x `[batch, ..., classes]`.

    H is the softmax cross-entropy of an example, the mean over its steps, to labels y as
    `losses.softmax_cross_entropy` takes them. With `ignore` the mean is over all steps of all
    examples that count, as is usual for language models of texts of different lengths.

    Args:
        output: of several outputs, the name of the one to measure.
        ignore: a target that does not count, as in `OfOutput`.

    Source: Jelinek, Mercer, Bahl, Baker, *Perplexity — a measure of the difficulty of speech
    recognition tasks* (1977).
    """

    def measure_output(
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
