"""Initializers as values: they compare and print as the calls that built them, and pickle by name.

Each is a function `initializer(key, shape, dtype) -> array`, as those of `jax.nn.initializers` are,
which compute it. Any other such function serves a layer too; one that is made by a call, such as
`jax.nn.initializers.normal(0.02)`, is equal to itself alone and cannot be pickled.

>>> import jaxdl as dl
>>> dl.Dense(10, kernel_init=Normal(0.02)) == dl.Dense(10, kernel_init=Normal(0.02))
True
>>> dl.Conv(32, 3, kernel_init=HeNormal())
Conv(32, 3, kernel_init=HeNormal())
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer
from jax.nn import initializers

from jaxdl.core.number import is_number
from jaxdl.core.representation import call_repr

Initializer = Callable[[Array, tuple[int, ...], Any], Array]
"""`initializer(key, shape, dtype) -> array` of that shape and dtype."""
Mode = Literal["fan_in", "fan_out", "fan_avg"]
Distribution = Literal["uniform", "normal", "truncated_normal"]


def _check(initializer: str, name: str, value: Any, at_least: float | None = None) -> None:
    """Refuses what is not a finite number, or is below a bound; one that is being traced is taken
    as it is.
    """
    if isinstance(value, Tracer):
        return
    if not is_number(value) or (at_least is not None and value < at_least):
        bound = "" if at_least is None else f" of at least {at_least:g}"
        raise ValueError(f"{initializer}: {name} is a finite number{bound}, got {value!r}.")


def _check_word(name: str, value: Any, words: tuple[str, ...]) -> None:
    if value not in words:
        raise ValueError(
            f"VarianceScaling: {name} is {' or '.join(map(repr, words))}, got {value!r}."
        )


class Named:
    """What the initializers of this module share: they print as the calls that built them, and say
    whether they draw.
    """

    draws: ClassVar[bool] = True

    def __repr__(self) -> str:
        return call_repr(self)


@dataclasses.dataclass(frozen=True, repr=False)
class Zeros(Named):
    """All zeros."""

    draws: ClassVar[bool] = False

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return initializers.zeros(key, shape, dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class Ones(Named):
    """All ones."""

    draws: ClassVar[bool] = False

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return initializers.ones(key, shape, dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class Constant(Named):
    """One value in every element.

    Args:
        value: a finite number.
    """

    draws: ClassVar[bool] = False
    value: float | Array

    def __post_init__(self) -> None:
        _check("Constant", "value", self.value)

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return initializers.constant(self.value)(key, shape, dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class Normal(Named):
    """N(0, stddev²).

    Args:
        stddev: the standard deviation, at least 0.
    """

    stddev: float | Array

    def __post_init__(self) -> None:
        _check("Normal", "stddev", self.stddev, at_least=0)

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return initializers.normal(self.stddev)(key, shape, dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class TruncatedNormal(Named):
    """N(0, stddev²), cut at two standard deviations and not widened for it.

    Args:
        stddev: the standard deviation before the cut, at least 0.
    """

    stddev: float | Array

    def __post_init__(self) -> None:
        _check("TruncatedNormal", "stddev", self.stddev, at_least=0)

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return initializers.truncated_normal(self.stddev)(key, shape, dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class Uniform(Named):
    """U(−scale, scale), as in Keras and PyTorch; the range of `jax.nn.initializers.uniform` begins
    at 0.

    Args:
        scale: half the width of the range, at least 0.
    """

    scale: float | Array

    def __post_init__(self) -> None:
        _check("Uniform", "scale", self.scale, at_least=0)

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -self.scale, self.scale)


@dataclasses.dataclass(frozen=True, repr=False)
class Orthogonal(Named):
    """A matrix with orthonormal columns or rows, uniformly distributed, times `scale`; axes before
    the last count as one.

    Source: Saxe et al., *Exact solutions to the nonlinear dynamics of learning in deep linear
    neural networks* (2014).

    Args:
        scale: what the matrix is multiplied by.
    """

    scale: float | Array = 1.0

    def __post_init__(self) -> None:
        _check("Orthogonal", "scale", self.scale)

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return initializers.orthogonal(self.scale)(key, shape, dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class VarianceScaling(Named):
    """Zero mean, and the variance scale / fan.

    The fan is the number of inputs of an element of the output, the number of outputs of an element
    of the input, or the mean of the two; axes that are neither inputs nor outputs, such as a
    convolution's window, count in both.

    Args:
        scale: at least 0.
        mode: "fan_in", "fan_out" or "fan_avg", the mean of the two.
        distribution: "normal", "uniform", or "truncated_normal", cut at two standard deviations and
            widened for it.
        in_axis: the axis of the inputs.
        out_axis: the axis of the outputs.
    """

    scale: float | Array
    mode: Mode
    distribution: Distribution
    in_axis: int = -2
    out_axis: int = -1

    def __post_init__(self) -> None:
        _check("VarianceScaling", "scale", self.scale, at_least=0)
        _check_word("mode", self.mode, get_args(Mode))
        _check_word("distribution", self.distribution, get_args(Distribution))

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        scaled = initializers.variance_scaling(
            self.scale, self.mode, self.distribution, self.in_axis, self.out_axis
        )
        return scaled(key, shape, dtype)


class _ByFan(Named):
    """A `VarianceScaling` that has a name of its own."""

    scaling: ClassVar[VarianceScaling]

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return self.scaling(key, shape, dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class GlorotNormal(_ByFan):
    """A truncated normal distribution of variance 2 / (inputs + outputs) (Glorot and Bengio,
    2010).
    """

    scaling: ClassVar[VarianceScaling] = VarianceScaling(1.0, "fan_avg", "truncated_normal")


@dataclasses.dataclass(frozen=True, repr=False)
class GlorotUniform(_ByFan):
    """A uniform distribution of variance 2 / (inputs + outputs) (Glorot and Bengio, 2010, equation
    16).
    """

    scaling: ClassVar[VarianceScaling] = VarianceScaling(1.0, "fan_avg", "uniform")


@dataclasses.dataclass(frozen=True, repr=False)
class HeNormal(_ByFan):
    """A truncated normal distribution of variance 2 / inputs, for relu (He et al., 2015, equation
    10).
    """

    scaling: ClassVar[VarianceScaling] = VarianceScaling(2.0, "fan_in", "truncated_normal")


@dataclasses.dataclass(frozen=True, repr=False)
class HeUniform(_ByFan):
    """A uniform distribution of variance 2 / inputs, for relu (He et al., 2015)."""

    scaling: ClassVar[VarianceScaling] = VarianceScaling(2.0, "fan_in", "uniform")


@dataclasses.dataclass(frozen=True, repr=False)
class LecunNormal(_ByFan):
    """A truncated normal distribution of variance 1 / inputs (LeCun et al., 1998, section 4.6)."""

    scaling: ClassVar[VarianceScaling] = VarianceScaling(1.0, "fan_in", "truncated_normal")


@dataclasses.dataclass(frozen=True, repr=False)
class LecunUniform(_ByFan):
    """A uniform distribution of variance 1 / inputs (LeCun et al., 1998, section 4.6)."""

    scaling: ClassVar[VarianceScaling] = VarianceScaling(1.0, "fan_in", "uniform")
