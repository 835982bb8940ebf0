"""A metric of one of several outputs."""

import dataclasses
from collections.abc import Callable, Hashable, Mapping

from jaxtyping import Array

from jaxdl.compiling.pytree import PyTree
from jaxdl.losses.operands import Weights
from jaxdl.losses.per_example import format_shapes
from jaxdl.metrics.metric import Measured, Metric, Result, as_metric


@dataclasses.dataclass(frozen=True)
class Part(Metric):
    """A metric of one of several outputs, where a model returns a dict or a tuple of them.

    It measures `outputs[part]` against `targets[part]`, or against all targets where they are one
    array.

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
        weights: Weights,
    ) -> Measured:
        output = self._of("outputs", outputs)
        target = targets
        if isinstance(targets, (Mapping, tuple, list)):
            target = self._of("targets", targets)
        return as_metric(self.metric).measure(output, target, weights)

    def result(self, sums: PyTree, gathered: PyTree) -> Result:
        return as_metric(self.metric).result(sums, gathered)

    def _of(self, what: str, tree: PyTree) -> PyTree:
        """The part of outputs or targets."""
        parts: dict[Hashable, PyTree] = {}
        if isinstance(tree, Mapping):
            parts = dict(tree)
        if isinstance(tree, (tuple, list)):
            parts = dict(enumerate(tree))
        if self.part in parts:
            return parts[self.part]
        shapes = format_shapes(tree)
        raise ValueError(f"Part: there is no part {self.part!r} of {what}, which are {shapes}.")
