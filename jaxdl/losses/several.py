"""Losses of several outputs: their parts, by name, by place, or along an axis."""

import functools
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.padded import Padded, is_padded
from jaxdl.losses.operands import AnyArray, floating
from jaxdl.losses.per_example import format_shapes

PAIR = ("first", "second")
"""The parts of a loss of two outputs of one kind."""


def parts_of(name: str, outputs: PyTree, names: tuple[str, ...]) -> tuple[PyTree, ...]:
    """The parts of outputs, in the order of their names.

    Args:
        name: the loss, for the error.
        outputs: a dict with these names as keys; a tuple or list in their order; or one array
            `[batch, parts, ...]`, as of `Map`.
        names: of the parts.

    Raises:
        ValueError: the outputs are none of these.
    """
    count = len(names)
    if isinstance(outputs, Mapping) and all(key in outputs for key in names):
        return tuple(outputs[key] for key in names)
    if isinstance(outputs, (tuple, list)) and len(outputs) == count:
        return tuple(outputs)
    if isinstance(outputs, AnyArray) and outputs.ndim >= 2 and outputs.shape[1] == count:
        return tuple(outputs[:, index] for index in range(count))
    keys = ", ".join(map(repr, names))
    raise ValueError(
        f"{name}: expected outputs of {count} parts — a dict with the keys {keys}, a tuple of them "
        f"in this order, or one array [batch, {count}, ...] — got {format_shapes(outputs)}."
    )


def sequences_of(
    name: str, outputs: PyTree, names: tuple[str, ...]
) -> tuple[tuple[Float[Array, "batch ... features"], ...], Int[Array, " batch"] | None]:
    """As `vectors_of`, for parts that may be `Padded` too, with zeros behind the ends of all.

    Returns:
        The vectors; and the lengths, the shortest of all parts, or None where none is `Padded`.
    """
    parts = parts_of(name, outputs, names)
    lengths = [jnp.asarray(part.lengths, jnp.int32) for part in parts if is_padded(part)]
    if not lengths:
        return vectors_of(name, outputs, names), None
    shortest = functools.reduce(jnp.minimum, lengths)
    values = [part.values if is_padded(part) else part for part in parts]
    if any(part.ndim < 3 for part in values):
        raise ValueError(
            f"{name}: the parts of the outputs are {format_shapes(parts)} — give Padded sequences "
            "of vectors, [batch, time, ..., features]."
        )
    cut = [Padded(part, shortest).with_zero_padding().values for part in values]
    return vectors_of(name, tuple(cut), names), shortest


def vectors_of(
    name: str, outputs: PyTree, names: tuple[str, ...]
) -> tuple[Float[Array, "batch ... features"], ...]:
    """The parts of outputs as vectors of one shape, in at least float32.

    Args:
        name: the loss, for errors.
        outputs: as in `parts_of`, each part `[batch, ..., features]`.
        names: of the parts.

    Raises:
        ValueError: the outputs have no such parts, or these differ in shape, are `Padded` or not
            floating.
    """
    parts = parts_of(name, outputs, names)
    shapes = [tuple(getattr(part, "shape", ())) for part in parts]
    if len(set(shapes)) > 1 or len(shapes[0]) < 2 or any(map(is_padded, parts)):
        raise ValueError(
            f"{name}: the parts of the outputs are {format_shapes(parts)} — give all one shape, "
            "[batch, ..., features], as plain arrays; of Padded sequences pool the steps first, as "
            "GlobalAvgPool() does."
        )
    return tuple(floating(name, part) for part in parts)
