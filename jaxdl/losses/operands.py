"""Outputs and targets as the operands of a loss or metric, while it is traced.

`pair` and `vectors` return both in one shape and dtype. Where either is `Padded`,
`without_padding` returns plain arrays and the mask of the steps within the lengths, and
`over_examples` takes the mean over those.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from jaxdl.core.arrays import host_array
from jaxdl.core.number import is_number
from jaxdl.core.padded import Padded
from jaxdl.losses.shapes import (
    Struct,
    check_array,
    check_floating,
    check_numeric,
    check_shapes,
    check_steps,
    check_vector_shapes,
)

AnyArray = Array | np.ndarray
Sequences = AnyArray | Padded
Steps = Bool[Array, "batch time"] | None
"""Which steps of each example count, or None where neither operand is `Padded`."""

Weights = Float[AnyArray, " batch"]
"""The weight of each example of a batch."""

PositionWeights = Float[AnyArray, "batch ..."]
"""The weight of each example of a batch, or `[batch, time]` of each of its positions."""

Setting = float | Array
"""A hyperparameter of a loss; traced in a sweep."""


def check_setting(
    name: str,
    setting: str,
    value: object,
    least: float = -math.inf,
    most: float = math.inf,
) -> Setting:
    """Checks a setting of a loss or metric.

    Args:
        name: the loss or metric, for the error.
        setting: the argument's name, for the error.
        value: a finite number, or an array, which may be traced and is returned unchecked.
        least: the lower bound, inclusive.
        most: the upper bound, inclusive.

    Returns:
        The number as a float, or the array.

    Raises:
        ValueError: the value is not a finite number within the bounds.
    """
    if isinstance(value, Array):
        return value
    if is_number(value):
        number = float(value)  # pyright: ignore[reportArgumentType]
        if least <= number <= most:
            return number
    bounds = ""
    if most < math.inf:
        bounds = f" from {least:g} to {most:g}"
    elif least > -math.inf:
        bounds = f" of at least {least:g}"
    raise ValueError(f"{name}: {setting} is a finite number{bounds}, got {value!r}.")


def as_native(name: str, value: Sequences) -> Sequences:
    """A NumPy array of foreign byte order in the machine's own, which JAX needs; else unchanged.

    Raises:
        ValueError: the elements are not numbers, or do not fit the dtype that JAX has enabled.
    """
    if isinstance(value, Padded):
        return Padded(
            _native(name, value.values),
            _native(name, value.lengths),
        )
    return _native(name, value)


def _native(name: str, value: AnyArray) -> AnyArray:
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.isnative:
        return value
    return host_array(value, name)


def floating(name: str, outputs: AnyArray) -> Float[Array, "..."]:
    """Outputs in at least float32: a loss in bfloat16 rounds away what one update gains.

    Raises:
        ValueError: the outputs are not floating, as when outputs and targets are swapped.
    """
    check_floating(name, outputs)
    outputs = jnp.asarray(outputs)
    if jnp.finfo(outputs.dtype).bits >= 32:
        return outputs
    return outputs.astype(jnp.float32)


def without_padding(
    name: str, outputs: Sequences, targets: Sequences
) -> tuple[AnyArray, AnyArray, Steps]:
    """Outputs and targets as plain arrays, and which steps count.

    Where either is `Padded`, the steps that count are those within the lengths of both. All other
    steps are set to zero, so that NaN or an infinity there reaches neither value nor gradient, and
    outputs `[batch, time]` get a last axis of length 1.

    Raises:
        ValueError: either is not an array, or they differ in their examples or steps.
    """
    check_array(name, "outputs", outputs)
    check_array(name, "targets", targets)
    outputs = as_native(name, outputs)
    targets = as_native(name, targets)
    masks = [x.mask for x in (outputs, targets) if isinstance(x, Padded)]
    x = _values(outputs)
    y = _values(targets)
    if not masks:
        return x, y, None
    check_steps(name, x.shape, y.shape)
    valid = functools.reduce(jnp.logical_and, masks)
    x = _zero_behind(x, valid)
    y = _zero_behind(y, valid)
    if x.ndim == 2:
        x = x[..., None]
    return x, y, valid


def _values(sequences: Sequences) -> AnyArray:
    if isinstance(sequences, Padded):
        return sequences.values
    return sequences


def _zero_behind(values: AnyArray, valid: Bool[Array, "batch time"]) -> Array:
    """The values, with zeros at the steps that do not count."""
    values = jnp.asarray(values)
    extra = [1] * (values.ndim - 2)
    mask = valid.reshape(*valid.shape, *extra)
    zero = jnp.zeros((), values.dtype)
    return jnp.where(mask, values, zero)


def pair(
    name: str, outputs: Sequences, targets: Sequences
) -> tuple[
    Float[Array, "batch ..."],
    Float[Array, "batch ..."],
    Steps,
]:
    """Outputs and targets in one shape and dtype, and which steps count. Nothing is broadcast.

    Raises:
        ValueError: shapes or dtypes do not fit.
    """
    outputs, targets, valid = without_padding(name, outputs, targets)
    outputs = floating(name, outputs)
    check_shapes(name, outputs.shape, targets.shape)
    check_numeric(name, targets)
    shape = max(outputs.shape, targets.shape, key=len)
    targets = jnp.asarray(targets)
    targets = targets.astype(outputs.dtype)
    return (
        outputs.reshape(shape),
        targets.reshape(shape),
        valid,
    )


def vectors(
    name: str, outputs: Sequences, targets: Sequences
) -> tuple[
    Float[Array, "batch ..."],
    Float[Array, "batch ..."],
    Steps,
]:
    """As `pair`, for vectors along a last axis that both must have.

    Raises:
        ValueError: shapes or dtypes do not fit.
    """
    outputs, targets, valid = without_padding(name, outputs, targets)
    outputs = floating(name, outputs)
    check_vector_shapes(name, outputs.shape, targets.shape)
    check_numeric(name, targets)
    targets = jnp.asarray(targets)
    return outputs, targets.astype(outputs.dtype), valid


def class_numbers(outputs: Struct, targets: AnyArray) -> Int[Array, "batch ..."]:
    """Class numbers as int32, of the outputs' shape without the class axis."""
    targets = jnp.asarray(targets).astype(jnp.int32)
    return targets.reshape(outputs.shape[:-1])


def over_examples(values: Num[Array, "batch ..."], valid: Steps = None) -> Num[Array, " batch"]:
    """The mean over every axis but the first.

    With `valid` it is taken over the steps that count; of an example that has none it is 0.
    """
    if valid is None:
        axes = tuple(range(1, values.ndim))
        return values.mean(axis=axes)
    axes = tuple(range(2, values.ndim))
    each = values.mean(axis=axes)
    total = jnp.where(valid, each, 0).sum(axis=1)
    steps = valid.sum(axis=1, dtype=jnp.int32)
    return total / jnp.maximum(steps, 1).astype(each.dtype)
