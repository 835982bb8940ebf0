"""Errors as per-example functions, and the coefficient of determination."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxdl.compiling.pytree import PyTree
from jaxdl.losses.operands import (
    Sequences,
    Weights,
    as_native,
    over_examples,
    pair,
)
from jaxdl.metrics.classification import weight_of_each
from jaxdl.metrics.metric import Measured, OfOutput, Result


def squared_error(outputs: Sequences, targets: Sequences) -> Float[Array, " batch"]:
    """Squared error, `(outputs - targets)²`, averaged over the axes after the batch.

    Args:
        outputs: `[batch, ...]` or `Padded`, floating.
        targets: of the same shape; a trailing axis of length 1 may be missing on one side.

    Returns:
        The error of each example, `[batch]`, in at least float32.

    Raises:
        ValueError: the shapes differ, or the outputs are not floating.
    """
    outputs, targets, valid = pair("squared_error", outputs, targets)
    each = optax.squared_error(outputs, targets)
    return over_examples(each, valid)


def absolute_error(outputs: Sequences, targets: Sequences) -> Float[Array, " batch"]:
    """Absolute error, `|outputs - targets|`, averaged over the axes after the batch.

    Args:
        outputs: `[batch, ...]` or `Padded`, floating.
        targets: of the same shape; a trailing axis of length 1 may be missing on one side.

    Returns:
        The error of each example, `[batch]`, in at least float32.

    Raises:
        ValueError: the shapes differ, or the outputs are not floating.
    """
    outputs, targets, valid = pair("absolute_error", outputs, targets)
    each = jnp.abs(outputs - targets)
    return over_examples(each, valid)


@dataclasses.dataclass(frozen=True)
class R2(OfOutput):
    """The coefficient of determination, `1 - Σ w (y - ŷ)² / Σ w (y - ȳ)²`.

    ȳ is the weighted mean of the targets. Every element after the batch axis is an output of its
    own; their coefficients are averaged, as scikit-learn does. Of `Padded` sequences every step
    within the lengths is an example. It is taken in two passes in float64. Of fewer than two
    examples it is nan; for constant targets it is 1 if they are met exactly and 0 otherwise.

    Args:
        output: of several outputs, the name of the one to measure.
        ignore: a target that does not count, as in `OfOutput`.

    Source: Wright, *Correlation and causation* (1921).
    """

    def measure_output(
        self,
        outputs: Sequences,
        targets: Sequences,
        weights: Weights,
    ) -> Measured:
        outputs, targets, valid = pair("R2", outputs, targets)
        weights = jnp.asarray(as_native("weights", weights))
        if valid is not None:
            weights = weight_of_each(weights, valid, valid)
            outputs = outputs.reshape(valid.size, -1)
            targets = targets.reshape(valid.size, -1)
        gathered = {"outputs": outputs, "targets": targets, "weights": weights}
        return (), gathered

    def result(self, sums: PyTree, gathered: PyTree) -> Result:
        kept = gathered["weights"] != 0
        count = np.count_nonzero(kept)
        if count < 2:
            return float("nan")

        def column(name: str) -> np.ndarray:
            values = gathered[name][kept].astype(np.float64)
            return values.reshape(count, -1)

        w = column("weights")
        y = column("targets")
        residual = (w * (y - column("outputs")) ** 2).sum(axis=0)
        # The spread of constant targets is then 0, and not what their mean is rounded by.
        y = y - y[0]
        mean = np.average(y, axis=0, weights=w[:, 0])
        spread = (w * (y - mean) ** 2).sum(axis=0)
        varies = spread != 0
        divisor = np.where(varies, spread, 1)
        scores = np.where(varies, 1 - residual / divisor, residual == 0)
        return float(scores.mean())
