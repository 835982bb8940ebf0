"""Errors and the coefficient of determination."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from jaxdl.losses.targets import (
    AnyArray,
    Sequences,
    over_examples,
    pair,
)
from jaxdl.metrics.classification import (
    weight_of_each,
)
from jaxdl.metrics.metric import Mean as Mean
from jaxdl.metrics.metric import Metric as Metric
from jaxdl.metrics.metric import as_metric as as_metric


def squared_error(outputs: Sequences, targets: Sequences) -> Float[Array, " batch"]:
    """Squared error, `(outputs - targets)²`, averaged over the axes after the batch; shapes as for
    a loss.
    """
    outputs, targets, real = pair("squared_error", outputs, targets)
    return over_examples(optax.squared_error(outputs, targets), real)


def absolute_error(outputs: Sequences, targets: Sequences) -> Float[Array, " batch"]:
    """Absolute error, `|outputs - targets|`, averaged over the axes after the batch; shapes as for
    a loss.
    """
    outputs, targets, real = pair("absolute_error", outputs, targets)
    return over_examples(jnp.abs(outputs - targets), real)


@dataclasses.dataclass(frozen=True)
class R2(Metric):
    """The coefficient of determination, `1 - Σ w (y - ŷ)² / Σ w (y - ȳ)²` with ȳ the weighted mean
    of the targets.

    Every number after the batch axis is an output of its own; their coefficients are averaged, as
    scikit-learn does. Of `Padded` sequences every step within the lengths is an example. It is
    taken in two passes in float64. Of fewer than two examples it is nan; for constant targets it is
    1 if they are met exactly and 0 otherwise.
    """

    def measure(
        self, outputs: Sequences, targets: Sequences, weights: Float[AnyArray, " batch"]
    ) -> tuple[PyTree, PyTree]:
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
        y = (
            y - y[0]
        )  # so that the spread of constant targets is 0, and not what their mean is rounded by
        spread = (weights * (y - np.average(y, axis=0, weights=weights[:, 0])) ** 2).sum(axis=0)
        varies = spread != 0
        return float(
            np.where(varies, 1 - residual / np.where(varies, spread, 1), residual == 0).mean()
        )
