"""The largest and the smallest value of a per-example function."""

import abc
import dataclasses

import jax.numpy as jnp
import numpy as np

from jaxdl.compiling.pytree import PyTree
from jaxdl.losses.operands import Weights, as_native
from jaxdl.metrics.metric import Measured, OfFunction, Result


class Extreme(OfFunction):
    """A metric of the values of a per-example function that no sum expresses: all are kept until
    the end of the epoch, with their weights.
    """

    @staticmethod
    @abc.abstractmethod
    def of_values(values: np.ndarray) -> float:
        """The metric of all values that count, of which there are some."""

    @property
    def what(self) -> str:
        return type(self).__name__.lower()

    def measure_output(self, outputs: PyTree, targets: PyTree, weights: Weights) -> Measured:
        values = self.values(outputs, targets, weights)
        return (), {
            "values": jnp.asarray(as_native("values", values)),
            "weights": jnp.asarray(as_native("weights", weights)),
        }

    def result(self, sums: PyTree, gathered: PyTree) -> Result:
        kept = np.asarray(gathered["weights"]) != 0
        values = np.asarray(gathered["values"])[kept]
        return self.of_values(values) if values.size else float("nan")


@dataclasses.dataclass(frozen=True, repr=False)
class Maximum(Extreme):
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

    @staticmethod
    def of_values(values: np.ndarray) -> float:
        return float(values.max())


@dataclasses.dataclass(frozen=True, repr=False)
class Minimum(Extreme):
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

    @staticmethod
    def of_values(values: np.ndarray) -> float:
        return float(values.min())
