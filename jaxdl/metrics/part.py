"""A metric of a part of the outputs and targets."""

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, PyTree

from jaxdl.losses.per_example import shown
from jaxdl.losses.targets import (
    AnyArray,
)
from jaxdl.metrics.metric import Mean as Mean
from jaxdl.metrics.metric import Metric as Metric
from jaxdl.metrics.metric import as_metric as as_metric


@dataclasses.dataclass(frozen=True)
class Part(Metric):
    """A metric of one of several outputs, where a model gives a dict or a tuple of them.

    It measures `outputs[part]` against `targets[part]`, or against all targets where they are one
    array.

    Args:
        metric: a `Metric`, or a per-example function.
        part: a key of the outputs, or a number in a tuple.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxdl.metrics import F1
        >>> outputs = {"tag": jnp.array([[0.0, 1.0]]), "size": jnp.array([3.0])}
        >>> targets = {"tag": jnp.array([1])}
        >>> Part(F1(), "tag").measure(outputs, targets, jnp.ones(1))[0]["true_positives"]
        Array([0., 1.], dtype=float32)
    """

    metric: Any
    part: Hashable

    def __post_init__(self) -> None:
        object.__setattr__(self, "metric", as_metric(self.metric))

    def measure(
        self, outputs: PyTree, targets: PyTree, weights: Float[AnyArray, " batch"]
    ) -> tuple[PyTree, PyTree]:
        output = self._of("outputs", outputs)
        if isinstance(targets, (Mapping, tuple, list)):
            targets = self._of("targets", targets)
        return self.metric.measure(output, targets, weights)

    def result(self, sums: PyTree, gathered: PyTree) -> float | np.ndarray:
        return self.metric.result(sums, gathered)

    def _of(self, what: str, tree: PyTree) -> PyTree:
        several: Any = tree
        parts = range(len(several)) if isinstance(tree, (tuple, list)) else ()
        if self.part in (several if isinstance(tree, Mapping) else parts):
            return several[self.part]
        raise ValueError(
            f"Part: there is no part {self.part!r} of {what}, which are {shown(tree)}."
        )
