"""The largest and the smallest value of a per-example function."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdl.compiling.pytree import PyTree
from jaxdl.losses.operands import Weights, as_native
from jaxdl.metrics.metric import Measured, OfFunction, Result


@dataclasses.dataclass(frozen=True, repr=False)
class Maximum(OfFunction):
    """The largest value of a per-example function over all examples that have weight.

    Sums cannot express it, so every value is kept until the end of the epoch: with its weight 8
    bytes an example. nan where a value is NaN, or no example has weight.

    Args:
        function: `function(outputs, targets) -> [batch]`, or a `functools.partial` of one with
            hashable arguments.
        output: of several outputs, the name of the one to measure.
        ignore: a target that does not count, as in `OfOutput`.

    Raises:
        TypeError: an argument bound by a partial cannot be hashed.

    Example:
        >>> import jax
        >>> def error(outputs, targets):
        ...     return abs(outputs - targets)
        >>> outputs, weights = jnp.array([1.0, -3.0, 9.0]), jnp.array([1.0, 1.0, 0.0])
        >>> _, gathered = Maximum(error).measure(outputs, jnp.zeros(3), weights)
        >>> Maximum(error).result((), jax.device_get(gathered))
        3.0
    """

    @property
    def what(self) -> str:
        return "maximum"

    def measure_output(self, outputs: PyTree, targets: PyTree, weights: Weights) -> Measured:
        return (), rows(self, outputs, targets, weights)

    def result(self, sums: PyTree, gathered: PyTree) -> Result:
        values = values_with_weight(gathered)
        if not values.size:
            return float("nan")
        return float(values.max())


@dataclasses.dataclass(frozen=True, repr=False)
class Minimum(OfFunction):
    """The smallest value of a per-example function over all examples that have weight.

    As `Maximum`.

    Args:
        function: `function(outputs, targets) -> [batch]`, or a `functools.partial` of one with
            hashable arguments.
        output: of several outputs, the name of the one to measure.
        ignore: a target that does not count, as in `OfOutput`.

    Raises:
        TypeError: an argument bound by a partial cannot be hashed.
    """

    @property
    def what(self) -> str:
        return "minimum"

    def measure_output(self, outputs: PyTree, targets: PyTree, weights: Weights) -> Measured:
        return (), rows(self, outputs, targets, weights)

    def result(self, sums: PyTree, gathered: PyTree) -> Result:
        values = values_with_weight(gathered)
        if not values.size:
            return float("nan")
        return float(values.min())


def rows(
    metric: OfFunction, outputs: PyTree, targets: PyTree, weights: Weights
) -> dict[str, Array]:
    """The values of a batch and their weights, to be gathered."""
    values = metric.values(outputs, targets, weights)
    return {
        "values": jnp.asarray(as_native("values", values)),
        "weights": jnp.asarray(as_native("weights", weights)),
    }


def values_with_weight(gathered: dict[str, np.ndarray]) -> np.ndarray:
    """The values of the examples that count."""
    return np.asarray(gathered["values"])[np.asarray(gathered["weights"]) != 0]
