"""The contract of a metric, and the lift that makes one of a per-example function.

A metric is a value, as a model is: a frozen dataclass that hashes, compares, and is a static
argument of `jit`. It is exact under masks, weights and batches of unequal size, because a batch
yields what can be merged, not a mean:

    measure: batch ──▶ sums (added over batches), gathered (concatenated over batches)
    result:  sums, gathered ──▶ a number or an array
"""

import abc
import dataclasses
from collections.abc import Callable, Hashable, Mapping
from typing import SupportsFloat

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.representation import call_repr
from jaxdl.losses.batchwise import is_batchwise
from jaxdl.losses.bound import Arguments, Keywords, check_bound, format_call, unbound
from jaxdl.losses.by_output import named_part
from jaxdl.losses.by_position import by_position, check_ignore
from jaxdl.losses.operands import AnyArray, PositionWeights, Weights, as_native
from jaxdl.losses.per_example import format_shapes, function_name
from jaxdl.losses.weighted import weighted_sum

Measured = tuple[PyTree, PyTree]
"""`(sums, gathered)` of a batch, as `Metric.measure` returns them."""

Result = float | np.ndarray
"""A metric over all batches: a number, or one for each class."""


class Metric(abc.ABC):
    """A metric: `measure` sums up each batch on the device, `result` is taken on the host."""

    @abc.abstractmethod
    def measure(
        self,
        outputs: PyTree,
        targets: PyTree,
        weights: PositionWeights,
    ) -> Measured:
        """Measures one batch; pure, and traced.

        Args:
            outputs: of the model, `[batch, ...]`.
            targets: `[batch, ...]`.
            weights: `[batch]`, the weight of each example; 0 for a row that only pads the batch.
                Where data have weights by position, training gives each position as an example.

        Returns:
            `(sums, gathered)`, two pytrees of arrays, either of which may be `()`. `sums` are added
            over batches. `gathered` have the batch as their leading axis and are concatenated over
            batches; they hold the weights, so that padding is known.
        """

    @abc.abstractmethod
    def result(self, sums: PyTree, gathered: PyTree) -> Result:
        """The metric over all batches, on the host; nan where no example has weight.

        Args:
            sums: added over all batches, as NumPy arrays.
            gathered: concatenated over all batches, as NumPy arrays, `[examples, ...]`.
        """


@dataclasses.dataclass(frozen=True, repr=False)
class OfOutput(Metric):
    """A metric of the outputs, or of one of several by its name.

    A subclass is a frozen dataclass with `measure_output` and `result`. It prints as the call that
    built it.

    Args:
        output: the name of the output to measure, where the model returns a dict of several, or its
            index in a tuple; its targets are those of the same name, or all where they are one
            array. None where there is one output.
        ignore: a target that does not count, such as -1. With it every element of the targets is
            an example, as in `losses.ByPosition`: `Mean` and what else takes the mean of an
            example's positions takes that of all positions then.

    Raises:
        ValueError: `ignore` is not a finite number.
    """

    output: Hashable | None = dataclasses.field(default=None, kw_only=True)
    ignore: float | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_ignore(type(self).__name__, self.ignore)

    def __init_subclass__(cls) -> None:
        # A dataclass writes one of its own, unless it finds one.
        if "__repr__" not in cls.__dict__:
            setattr(cls, "__repr__", cls.__repr__)  # noqa: B010 — an assignment is an override to type checkers

    def __repr__(self) -> str:
        return call_repr(self)

    @abc.abstractmethod
    def measure_output(self, outputs: PyTree, targets: PyTree, weights: Weights) -> Measured:
        """Measures a batch of one output, as `measure` does.

        Args:
            outputs: the output, `[batch, ...]`.
            targets: its targets, `[batch, ...]`.
            weights: `[batch]`.
        """

    def measure(
        self,
        outputs: PyTree,
        targets: PyTree,
        weights: PositionWeights,
    ) -> Measured:
        output, target = self.operands(outputs, targets)
        if self.ignore is not None or weights.ndim > 1:
            name = type(self).__name__
            output, target, weights = by_position(name, output, target, weights, self.ignore)
        return self.measure_output(output, target, weights)

    def operands(self, outputs: PyTree, targets: PyTree) -> tuple[PyTree, PyTree]:
        """The output that is measured, and its targets.

        Raises:
            ValueError: there are none of that name.
        """
        if self.output is None:
            return outputs, targets
        name = f"{type(self).__name__}(output={self.output!r})"
        return operands(name, self.output, outputs, targets)


def operands(
    name: str, part: Hashable, outputs: PyTree, targets: PyTree
) -> tuple[PyTree, PyTree]:
    """One of several outputs, and its targets.

    Args:
        name: the metric, for the error.
        part: a key of the outputs, or an index in a tuple.
        outputs: a dict, or a tuple.
        targets: the same, or one array for any of the outputs.

    Raises:
        ValueError: there is no such part.
    """
    output = named_part(name, "outputs", outputs, part)
    if not isinstance(targets, (Mapping, tuple, list)):
        return output, targets
    return output, named_part(name, "targets", targets, part)


@dataclasses.dataclass(frozen=True, repr=False)
class OfFunction(OfOutput):
    """A metric of the values of a per-example function.

    Two `functools.partial` of one function with equal arguments give equal metrics, although Python
    takes them for different.

    Args:
        function: `function(outputs, targets) -> [batch]`, or a `functools.partial` of one with
            hashable arguments.
        output: of several outputs, the name of the one to measure.
        ignore: a target that does not count, as in `OfOutput`; the mean is over positions then.

    Raises:
        TypeError: an argument bound by a partial cannot be hashed.
    """

    function: Callable[..., PyTree]
    arguments: Arguments = dataclasses.field(init=False, default=())
    keywords: Keywords = dataclasses.field(init=False, default=())

    def __post_init__(self) -> None:
        super().__post_init__()
        function, arguments, keywords = unbound(self.function)
        check_bound("metric", function, arguments, keywords)
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "arguments", arguments)
        object.__setattr__(self, "keywords", keywords)

    def values(self, outputs: PyTree, targets: PyTree, weights: Weights) -> AnyArray:
        """The function's value for each example, `[batch]`.

        Raises:
            ValueError: it returned something else.
        """
        values = self.function(*self.arguments, outputs, targets, **dict(self.keywords))
        if not isinstance(values, AnyArray) or values.shape != weights.shape:
            name = function_name(self.function)
            raise ValueError(
                f"metric '{name}' returned {format_shapes(values)} for a batch of {len(weights)} — "
                f"return one value for each example ([batch]), of which the {self.what} over "
                "examples is taken."
            )
        return values

    def __repr__(self) -> str:
        name = function_name(self.function)
        keywords = self.keywords
        for setting in ("output", "ignore"):
            if getattr(self, setting) is not None:
                keywords = (*keywords, (setting, getattr(self, setting)))
        return f"{type(self).__name__}({format_call(name, self.arguments, keywords)})"

    @property
    @abc.abstractmethod
    def what(self) -> str:
        """What is taken of the values, for errors."""


@dataclasses.dataclass(frozen=True, repr=False)
class Mean(OfFunction):
    """The weighted mean of a per-example function, `Σ w f / Σ w`.

    Two `functools.partial` of one function with equal arguments give equal metrics, although Python
    takes them for different.

    Args:
        function: `function(outputs, targets) -> [batch]`, or a `functools.partial` of one with
            hashable arguments.
        output: of several outputs, the name of the one to measure.

    Raises:
        TypeError: an argument bound by a partial cannot be hashed.

    Example:
        >>> import functools
        >>> def error(outputs, targets, scale=1.0):
        ...     return scale * abs(outputs - targets)
        >>> Mean(functools.partial(error, scale=2.0)) == Mean(functools.partial(error, scale=2.0))
        True
        >>> Mean(functools.partial(error, scale=2.0))
        Mean(error, scale=2.0)
    """

    @property
    def what(self) -> str:
        return "weighted mean"

    def measure_output(
        self,
        outputs: PyTree,
        targets: PyTree,
        weights: Weights,
    ) -> Measured:
        values = self.values(outputs, targets, weights)
        return total_and_weight(values, weights), ()

    def result(self, sums: PyTree, gathered: PyTree) -> Result:
        return ratio(sums["total"], sums["weight"])


def as_metric(function_or_metric: object) -> Metric:
    """A metric as it is, or a per-example function lifted to its weighted mean.

    Args:
        function_or_metric: a `Metric`, or a function `(outputs, targets) -> [batch]`, or a
            `functools.partial` of one.

    Raises:
        TypeError: it is neither, or a class in place of an instance, or a batchwise loss.
    """
    if isinstance(function_or_metric, Metric):
        return function_or_metric
    if is_batchwise(function_or_metric):
        raise TypeError(
            f"metric {function_or_metric!r}: a batchwise loss is no metric, which is taken over "
            "all examples of an epoch — write a Metric, whose measure is given the weights, 0 for "
            "rows that only fill up a batch."
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
        "Metric — pass one such as metrics.accuracy or metrics.R2()."
    )


def total_and_weight(values: AnyArray, weights: Weights) -> dict[str, Float[Array, ""]]:
    """The sums of which `ratio` is a weighted mean: "total", Σ w v, and "weight", Σ w."""
    weights = jnp.asarray(as_native("weights", weights))
    ones = jnp.ones_like(weights)
    return {
        "total": weighted_sum(values, weights),
        "weight": weighted_sum(ones, weights),
    }


def ratio(total: SupportsFloat, weight: SupportsFloat) -> float:
    """`total / weight` in float64, nan where the weight is 0."""
    divisor = float(weight)
    if divisor == 0:
        return float("nan")
    return float(total) / divisor
