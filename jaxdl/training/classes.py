"""The classes that outputs of a classifier mean."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl import losses
from jaxdl.core.arrays import host_array
from jaxdl.core.padded import Padded
from jaxdl.losses.per_example import format_shapes
from jaxdl.metrics.classification import NO_CLASS, is_binary
from jaxdl.metrics.classification import predicted_classes as largest

BINARY = (
    losses.binary_cross_entropy,
    losses.binary_cross_entropy_from_probabilities,
    losses.focal,
    losses.hinge,
)
"""The losses that take each column of the outputs for a question of its own."""


def predicted_classes(outputs: Any, loss: Any, threshold: float | None = None) -> Array:
    """The class of each example, or of each step of a sequence, [examples, ...] int32.

    Args:
        outputs: [examples, ..., classes], or of binary questions.
        loss: of the run that gave them, or None.
        threshold: of binary outputs; None is 0, or 0.5 where the loss takes probabilities.

    Raises:
        ValueError: the outputs are several arrays, or are not floating.
    """
    values = outputs.values if isinstance(outputs, Padded) else outputs
    if not hasattr(values, "dtype") or not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(
            f"run.classify: expected one floating array of logits [examples, classes], or of one "
            f"column, got {format_shapes(outputs)} — take run.predict, and the classes of the "
            f"part that is meant."
        )
    function = loss
    while isinstance(function, functools.partial):
        function = function.func
    is_question = any(function is each for each in BINARY)
    if not is_binary(values) and not is_question:
        return largest(jnp.asarray(values))
    if threshold is None:
        threshold = 0.5 if function is losses.binary_cross_entropy_from_probabilities else 0.0
    found = _above(jnp.asarray(values), jnp.asarray(host_array(threshold), values.dtype))
    return found.squeeze(-1) if values.ndim > 1 and values.shape[-1] == 1 else found


@jax.jit
def _above(values: Array, threshold: Array) -> Array:
    positive = (values > threshold).astype(jnp.int32)
    return jnp.where(jnp.isnan(values), NO_CLASS, positive)
