"""The contract of a metric, and the lift that makes one of a per-example function.

A metric is a value, as a model is: a frozen dataclass that hashes, compares, and is a static
argument of `jit`. It is exact under masks, weights and batches of unequal size, because a batch
yields what can be merged, not a mean:

    measure: batch ──▶ sums (added over batches), gathered (joined over batches) ──▶ result: one
    number or array
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxdl.losses.batchwise import is_batchwise
from jaxdl.losses.per_example import function_name, shown
from jaxdl.losses.targets import AnyArray


class Metric(abc.ABC):
    """What is measured of each batch on the device, and what is made of it on the host."""

    @abc.abstractmethod
    def measure(
        self, outputs: PyTree, targets: PyTree, weights: Float[AnyArray, " batch"]
    ) -> tuple[PyTree, PyTree]:
        """Measures one batch; pure, and traced.

        Args:
            outputs: what the model gave, `[batch, ...]`.
            targets: what it should have given, `[batch, ...]`.
            weights: `[batch]`, the weight of each example; 0 for a row that only pads the batch.

        Returns:
            Two pytrees of arrays, either of which may be `()`. `sums` are added over batches.
            `gathered` have the batch as their leading axis and are concatenated over batches; they
            hold the weights, so that padding is known.
        """

    @abc.abstractmethod
    def result(self, sums: PyTree, gathered: PyTree) -> float | np.ndarray:
        """The metric over all batches, on the host; nan where no example has weight.

        Args:
            sums: the added sums, as NumPy arrays.
            gathered: the joined arrays, as NumPy arrays, `[examples, ...]`.
        """


@dataclasses.dataclass(frozen=True)
class Mean(Metric):
    """The weighted mean of a per-example function, `Σ w f / Σ w`.

    Two equal `functools.partial` of one function, which Python holds to be different, give equal
    metrics.

    Args:
        function: `function(outputs, targets) -> [batch]`, or a `functools.partial` of one with
            hashable arguments.

    Raises:
        TypeError: if an argument bound by a partial cannot be hashed.

    Example:
        >>> def error(outputs, targets, scale=1.0):
        ...     return scale * abs(outputs - targets)
        >>> Mean(functools.partial(error, scale=2.0)) == Mean(functools.partial(error, scale=2.0))
        True
        >>> Mean(functools.partial(error, scale=2.0))
        Mean(error, scale=2.0)
    """

    function: Callable[..., Any]
    arguments: tuple[Hashable, ...] = dataclasses.field(init=False, default=())
    keywords: tuple[tuple[str, Hashable], ...] = dataclasses.field(init=False, default=())

    def __post_init__(self) -> None:
        if isinstance(self.function, functools.partial):
            bound = self.function
            object.__setattr__(self, "function", bound.func)
            object.__setattr__(self, "arguments", bound.args)
            object.__setattr__(self, "keywords", tuple(sorted(bound.keywords.items())))
        for value in (self.function, *self.arguments, *dict(self.keywords).values()):
            _check_hashable(function_name(self.function), value)

    def __repr__(self) -> str:
        bound = [
            *map(repr, self.arguments),
            *(f"{name}={value!r}" for name, value in self.keywords),
        ]
        return f"Mean({', '.join([function_name(self.function), *bound])})"

    def measure(
        self, outputs: PyTree, targets: PyTree, weights: Float[AnyArray, " batch"]
    ) -> tuple[PyTree, PyTree]:
        values = self.function(*self.arguments, outputs, targets, **dict(self.keywords))
        if not isinstance(values, AnyArray) or values.shape != weights.shape:
            raise ValueError(
                f"metric '{function_name(self.function)}' returned {shown(values)} for a batch of "
                f"{len(weights)} — "
                "return one number for each example ([batch]); the weighted mean over examples is "
                "taken for it."
            )
        return {
            "total": weighted_sum(values, weights),
            "weight": weighted_sum(jnp.ones_like(weights), weights),
        }, ()

    def result(self, sums: PyTree, gathered: PyTree) -> float | np.ndarray:
        return ratio(sums["total"], sums["weight"])


def as_metric(function_or_metric: Any) -> Metric:
    """A metric as it is, and a per-example function lifted to its weighted mean.

    Args:
        function_or_metric: a `Metric`, or a function `(outputs, targets) -> [batch]`, or a
            `functools.partial` of one.

    Raises:
        TypeError: if it is neither, or a class in place of an instance.
    """
    if isinstance(function_or_metric, Metric):
        return function_or_metric
    if is_batchwise(function_or_metric):
        raise TypeError(
            f"metric {function_or_metric!r}: a batchwise loss is no metric, a figure of all "
            f"examples of an epoch — "
            "write a Metric, whose measure is given the weights, 0 for rows that only fill up a "
            "batch."
        )
    if isinstance(function_or_metric, type):
        name = function_or_metric.__name__
        raise TypeError(
            f"metric {name} is a class, expected a value — write {name}() with parentheses."
        )
    if callable(function_or_metric):
        return Mean(function_or_metric)
    raise TypeError(
        f"metric is {function_or_metric!r}, expected a function (outputs, targets) -> [batch] or a "
        f"Metric — pass one "
        "such as metrics.accuracy or metrics.R2()."
    )


def weighted_sum(values: AnyArray, weights: Float[AnyArray, " batch"]) -> Float[Array, ""]:
    """`Σ w v` over the batch in at least float32, where what a row of weight 0 holds, be it NaN,
    does not count.
    """
    values, weights = jnp.asarray(values), jnp.asarray(weights)
    dtype = values.dtype if values.dtype == jnp.float64 else jnp.dtype(jnp.float32)
    return jnp.sum(jnp.where(weights == 0, 0, values.astype(dtype)) * weights.astype(dtype))


def ratio(total: Any, weight: Any) -> float:
    """`total / weight` in float64, nan where the weight is 0."""
    return float(total) / float(weight) if weight else float("nan")


def _check_hashable(name: str, value: Any) -> None:
    try:
        hash(value)
    except TypeError as error:
        raise TypeError(
            f"metric '{name}': {value!r} cannot be hashed, and a metric is a static argument of "
            f"jit — bind numbers, "
            "strings or tuples."
        ) from error
