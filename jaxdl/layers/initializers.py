"""Initializers as values: they compare and print as the calls that built them, and are pickled.

Each is a function `initializer(key, shape, dtype) -> array`, as those of `jax.nn.initializers` are,
which compute it. Layers take any such function; one that is made by a call, such as
`jax.nn.initializers.normal(0.02)`, equals only itself, and cannot be pickled.

>>> import jaxdl as dl
>>> dl.Dense(10, kernel_init=Normal(0.02)) == dl.Dense(10, kernel_init=Normal(0.02))
True
>>> dl.Conv(32, 3, kernel_init=HeNormal())
Conv(32, 3, kernel_init=HeNormal())
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer
from jax.nn import initializers

from jaxdl.core.number import is_number
from jaxdl.core.representation import call_repr
from jaxdl.ops.floating import DType

Shape = tuple[int, ...]
Initializer = Callable[[Array, Shape, Any], Array]
"""`initializer(key, shape, dtype) -> array` of that shape and dtype."""
Mode = Literal["fan_in", "fan_out", "fan_avg"]
Distribution = Literal["uniform", "normal", "truncated_normal"]


def _check_number(
    initializer: str, name: str, value: object, minimum: float | None = None
) -> None:
    """Checks that a value is a finite number of at least a minimum, or a tracer."""
    if isinstance(value, Tracer):
        return
    if not is_number(value) or (minimum is not None and value < minimum):
        bound = "" if minimum is None else f" of at least {minimum:g}"
        raise ValueError(f"{initializer}: {name} is a finite number{bound}, got {value!r}.")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(
            f"VarianceScaling: {name} is {' or '.join(map(repr, choices))}, got {value!r}."
        )


class Named(abc.ABC):
    """An initializer of this module: it prints as the call that built it, and says whether it
    draws.
    """

    draws: ClassVar[bool] = True
    """Whether it draws with the key."""

    @property
    @abc.abstractmethod
    def function(self) -> Initializer:
        """The function that computes it."""

    def __call__(self, key: Array, shape: Shape, dtype: DType = jnp.float32) -> Array:
        """Draws an array.

        Args:
            key: a typed key.
            shape: of the array.
            dtype: of the array.
        """
        return self.function(key, shape, dtype)

    def __repr__(self) -> str:
        return call_repr(self)


@dataclasses.dataclass(frozen=True, repr=False)
class Zeros(Named):
    """All zeros."""

    draws: ClassVar[bool] = False

    @property
    def function(self) -> Initializer:
        return initializers.zeros


@dataclasses.dataclass(frozen=True, repr=False)
class Ones(Named):
    """All ones."""

    draws: ClassVar[bool] = False

    @property
    def function(self) -> Initializer:
        return initializers.ones


@dataclasses.dataclass(frozen=True, repr=False)
class Constant(Named):
    """One value in every element.

    Args:
        value: a finite number.

    Raises:
        ValueError: it is none.
    """

    draws: ClassVar[bool] = False
    value: float | Array

    def __post_init__(self) -> None:
        _check_number("Constant", "value", self.value)

    @property
    def function(self) -> Initializer:
        return initializers.constant(self.value)


@dataclasses.dataclass(frozen=True, repr=False)
class Normal(Named):
    """N(0, stddev²).

    Args:
        stddev: the standard deviation, at least 0.

    Raises:
        ValueError: the standard deviation is negative, or not a finite number.
    """

    stddev: float | Array

    def __post_init__(self) -> None:
        _check_number("Normal", "stddev", self.stddev, minimum=0)

    @property
    def function(self) -> Initializer:
        return initializers.normal(self.stddev)


@dataclasses.dataclass(frozen=True, repr=False)
class TruncatedNormal(Named):
    """N(0, stddev²), truncated at two standard deviations and not rescaled.

    Args:
        stddev: the standard deviation before the truncation, at least 0.

    Raises:
        ValueError: as in `Normal`.
    """

    stddev: float | Array

    def __post_init__(self) -> None:
        _check_number("TruncatedNormal", "stddev", self.stddev, minimum=0)

    @property
    def function(self) -> Initializer:
        return initializers.truncated_normal(self.stddev)


@dataclasses.dataclass(frozen=True, repr=False)
class Uniform(Named):
    """U(−scale, scale), as in Keras and PyTorch; the range of `jax.nn.initializers.uniform` begins
    at 0.

    Args:
        scale: half the width of the range, at least 0.

    Raises:
        ValueError: the scale is negative, or not a finite number.
    """

    scale: float | Array

    def __post_init__(self) -> None:
        _check_number("Uniform", "scale", self.scale, minimum=0)

    @property
    def function(self) -> Initializer:
        return functools.partial(jax.random.uniform, minval=-self.scale, maxval=self.scale)


@dataclasses.dataclass(frozen=True, repr=False)
class Orthogonal(Named):
    """A matrix with orthonormal columns or rows, uniformly distributed, times `scale`; axes before
    the last are merged.

    Source: Saxe et al., *Exact solutions to the nonlinear dynamics of learning in deep linear
    neural networks* (2014).

    Args:
        scale: the factor.

    Raises:
        ValueError: the scale is not a finite number.
    """

    scale: float | Array = 1.0

    def __post_init__(self) -> None:
        _check_number("Orthogonal", "scale", self.scale)

    @property
    def function(self) -> Initializer:
        return initializers.orthogonal(self.scale)


@dataclasses.dataclass(frozen=True, repr=False)
class VarianceScaling(Named):
    """Zero mean, and the variance scale / fan.

    The fan is the number of inputs of an element of the output, the number of outputs of an element
    of the input, or the mean of the two; axes that are neither inputs nor outputs, such as the
    window of a convolution, count in both.

    Args:
        scale: at least 0.
        mode: "fan_in", "fan_out" or "fan_avg", the mean of the two.
        distribution: "normal", "uniform", or "truncated_normal", truncated at two standard
            deviations and rescaled.
        in_axis: the axis of the inputs.
        out_axis: the axis of the outputs.

    Raises:
        ValueError: the scale is negative or not a finite number, or a string is none of these.
    """

    scale: float | Array
    mode: Mode
    distribution: Distribution
    in_axis: int = -2
    out_axis: int = -1

    def __post_init__(self) -> None:
        _check_number("VarianceScaling", "scale", self.scale, minimum=0)
        _check_choice("mode", self.mode, get_args(Mode))
        _check_choice("distribution", self.distribution, get_args(Distribution))

    @property
    def function(self) -> Initializer:
        return initializers.variance_scaling(
            self.scale, self.mode, self.distribution, self.in_axis, self.out_axis
        )


class _Preset(Named):
    """A `VarianceScaling` with a name of its own."""

    scaling: ClassVar[VarianceScaling]

    @property
    def function(self) -> Initializer:
        return self.scaling.function


@dataclasses.dataclass(frozen=True, repr=False)
class GlorotNormal(_Preset):
    """A truncated normal distribution of variance 2 / (inputs + outputs) (Glorot and Bengio,
    2010).
    """

    scaling: ClassVar[VarianceScaling] = VarianceScaling(1.0, "fan_avg", "truncated_normal")


@dataclasses.dataclass(frozen=True, repr=False)
class GlorotUniform(_Preset):
    """A uniform distribution of variance 2 / (inputs + outputs) (Glorot and Bengio, 2010, equation
    16).
    """

    scaling: ClassVar[VarianceScaling] = VarianceScaling(1.0, "fan_avg", "uniform")


@dataclasses.dataclass(frozen=True, repr=False)
class HeNormal(_Preset):
    """A truncated normal distribution of variance 2 / inputs, for relu (He et al., 2015, equation
    10).
    """

    scaling: ClassVar[VarianceScaling] = VarianceScaling(2.0, "fan_in", "truncated_normal")


@dataclasses.dataclass(frozen=True, repr=False)
class HeUniform(_Preset):
    """A uniform distribution of variance 2 / inputs, for relu (He et al., 2015)."""

    scaling: ClassVar[VarianceScaling] = VarianceScaling(2.0, "fan_in", "uniform")


@dataclasses.dataclass(frozen=True, repr=False)
class LecunNormal(_Preset):
    """A truncated normal distribution of variance 1 / inputs (LeCun et al., 1998, section 4.6)."""

    scaling: ClassVar[VarianceScaling] = VarianceScaling(1.0, "fan_in", "truncated_normal")


@dataclasses.dataclass(frozen=True, repr=False)
class LecunUniform(_Preset):
    """A uniform distribution of variance 1 / inputs (LeCun et al., 1998, section 4.6)."""

    scaling: ClassVar[VarianceScaling] = VarianceScaling(1.0, "fan_in", "uniform")
