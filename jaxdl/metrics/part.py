"""A metric of one of several outputs, for a `Metric` that has no argument `output`."""

import dataclasses
from collections.abc import Callable, Hashable

from jaxtyping import Array

from jaxdl.compiling.pytree import PyTree
from jaxdl.losses.by_position import by_position
from jaxdl.losses.operands import PositionWeights
from jaxdl.metrics.metric import Measured, Metric, OfOutput, Result, as_metric, operands


@dataclasses.dataclass(frozen=True)
class Part(Metric):
    """A metric of one of several outputs, where a model returns a dict or a tuple of them.

    The metrics of this package take the name itself, `F1(output="tag")`; this is for a `Metric` of
    one's own. It measures `outputs[part]` against `targets[part]`, or against all targets where
    they are one array.

    Args:
        metric: a `Metric`, or a per-example function.
        part: a key of the outputs, or an index in a tuple.

    Raises:
        TypeError: the metric is neither a `Metric` nor a function.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxdl.metrics import F1
        >>> outputs = {"tag": jnp.array([[0.0, 1.0]]), "size": jnp.array([3.0])}
        >>> targets = {"tag": jnp.array([1])}
        >>> Part(F1(), "tag").measure(outputs, targets, jnp.ones(1))[0]["true_positives"]
        Array([0., 1.], dtype=float32)
    """

    metric: Metric | Callable[..., Array]
    part: Hashable

    def __post_init__(self) -> None:
        object.__setattr__(self, "metric", as_metric(self.metric))

    def measure(
        self,
        outputs: PyTree,
        targets: PyTree,
        weights: PositionWeights,
    ) -> Measured:
        output, target = operands(f"Part({self.part!r})", self.part, outputs, targets)
        return measured(as_metric(self.metric), output, target, weights)

    def result(self, sums: PyTree, gathered: PyTree) -> Result:
        return as_metric(self.metric).result(sums, gathered)


def measured(
    metric: Metric, outputs: PyTree, targets: PyTree, weights: PositionWeights
) -> Measured:
    """What a metric measures of a batch whose weights may be by position.

    One that knows of examples alone is given each position as an example.
    """
    if weights.ndim > 1 and not isinstance(metric, (OfOutput, Part)):
        name = type(metric).__name__
        outputs, targets, weights = by_position(name, outputs, targets, weights, None)
    return metric.measure(outputs, targets, weights)
