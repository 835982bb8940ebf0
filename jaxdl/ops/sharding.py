"""Arrays that lie over the explicit axes of a mesh, which JAX keeps in their types.

JAX computes the sharding of most results from those of the operands, and refuses what it cannot;
here stands what is meant then. Arrays on one device, or over automatic axes, are left to the plain
operations.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec, reshard


def spec(x: Any) -> tuple[Any, ...] | None:
    """The axes of the mesh that each axis of x lies over; None where none lies over an explicit
    one.
    """
    axes = tuple(jax.typeof(x).sharding.spec)
    return axes if any(axis is not None for axis in axes) else None


def gathered(x: Array, *axes: int) -> Array:
    """x, with each device holding all of it along some of its axes; along all of them where none is
    named.
    """
    over = spec(x)
    if over is None:
        return x
    whole = {axis % x.ndim for axis in axes or range(x.ndim)}
    kept = [None if axis in whole else name for axis, name in enumerate(over)]
    return x if kept == list(over) else reshard(x, PartitionSpec(*kept))


def taken(x: Array, index: int | Array, axis: int) -> Array:
    """The element of an axis at an index within it, which stays as an axis of length 1, on every
    device.
    """
    over = spec(x)
    if over is None and isinstance(index, int):
        return lax.slice_in_dim(x, index, index + 1, axis=axis)
    kept = None if over is None else PartitionSpec(*over[:axis], None, *over[axis + 1 :])
    places = jnp.asarray(index, jnp.int32)[None]
    return x.at[(slice(None),) * axis + (places,)].get(mode="promise_in_bounds", out_sharding=kept)


def reshape(x: Array, shape: Sequence[int]) -> Array:
    """x.reshape(shape), with the same first axis; it keeps that axis's sharding, and gathers the
    others.
    """
    over = spec(x)
    if over is None:
        return x.reshape(shape)
    return lax.reshape(
        gathered(x, *range(1, x.ndim)), tuple(shape), out_sharding=PartitionSpec(over[0])
    )


def splittable(x: Array, count: int) -> Array:
    """x, with its last axis gathered where it lies over so many devices that they cannot share
    `count` parts of it evenly.
    """
    over = spec(x)
    if over is None or over[-1] is None:
        return x
    names = over[-1] if isinstance(over[-1], tuple) else (over[-1],)
    mesh = jax.typeof(x).sharding.mesh
    devices = 1
    for name in names:
        devices *= mesh.shape[name]
    return gathered(x, -1) if count % devices else x


def alike(arrays: Sequence[Array]) -> list[Array]:
    """Arrays of one rank, with each axis gathered that does not lie over the same devices in all of
    them.
    """
    specs = [spec(x) or (None,) * x.ndim for x in arrays]
    different = [axis for axis, names in enumerate(zip(*specs, strict=True)) if len(set(names)) > 1]
    return [gathered(x, *different) for x in arrays] if different else list(arrays)


def with_rows_of(x: Array, y: Array) -> Array:
    """y, whose first axis lies where that of x does, and whose others are gathered."""
    over, now = spec(x), spec(y)
    return (
        y
        if over is None and now is None
        else reshard(y, PartitionSpec(None if over is None else over[0]))
    )


def of_product(a: Array, b: Array) -> PartitionSpec | None:
    """The sharding of a product over a's last axis and b's first: a's rows and b's columns, and
    sums that are added up.
    """
    rows, columns = spec(a), spec(b)
    if rows is None and columns is None:
        return None
    kept = list(rows[:-1]) if rows is not None else [None] * (a.ndim - 1)
    last = columns[-1] if columns is not None else None
    return PartitionSpec(*kept, None if _names(last) & _names(*kept) else last)


def _names(*entries: Any) -> set[str]:
    """The names of axes of a mesh in entries of a `PartitionSpec`."""
    return {
        name
        for entry in entries
        if entry is not None
        for name in (entry if isinstance(entry, tuple) else (entry,))
    }
