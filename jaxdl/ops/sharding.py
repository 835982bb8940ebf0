"""Arrays that are sharded over the explicit axes of a mesh, which JAX keeps in their types.

JAX infers the sharding of most results from that of the operands, and refuses ambiguous cases,
which are resolved here. Arrays on one device, or sharded over automatic axes, take the plain
operations.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec, reshard
from jax.typing import ArrayLike

Axis = str | tuple[str, ...] | None
"""The axes of a mesh that one axis of an array is sharded over."""
Spec = tuple[Axis, ...]


def explicit_spec(x: ArrayLike) -> Spec | None:
    """The axes of the mesh that each axis of x is sharded over; None if none is explicit."""
    axes = tuple(jax.typeof(x).sharding.spec)
    return axes if any(axis is not None for axis in axes) else None


def gathered(x: Array, *axes: int) -> Array:
    """x with some of its axes, or with all if none is named, replicated on each device."""
    spec = explicit_spec(x)
    if spec is None:
        return x
    replicated = {axis % x.ndim for axis in axes or range(x.ndim)}
    kept = [None if axis in replicated else name for axis, name in enumerate(spec)]
    return x if kept == list(spec) else reshard(x, PartitionSpec(*kept))


def take_one(x: Array, index: int | Array, axis: int) -> Array:
    """The element at an index of an axis, which is kept with size 1, replicated along it."""
    spec = explicit_spec(x)
    if spec is None and isinstance(index, int):
        return lax.slice_in_dim(x, index, index + 1, axis=axis)
    out = None if spec is None else PartitionSpec(*spec[:axis], None, *spec[axis + 1 :])
    indices = (slice(None),) * axis + (jnp.asarray(index, jnp.int32)[None],)
    return x.at[indices].get(mode="promise_in_bounds", out_sharding=out)


def reshape(x: Array, shape: Sequence[int]) -> Array:
    """x.reshape(shape) with the same first axis, whose sharding is kept; the others are
    replicated.
    """
    spec = explicit_spec(x)
    if spec is None:
        return x.reshape(shape)
    x = gathered(x, *range(1, x.ndim))
    return lax.reshape(x, tuple(shape), out_sharding=PartitionSpec(spec[0]))


def gather_unless_divisible(x: Array, count: int) -> Array:
    """x, with its last axis replicated if it is sharded over a number of devices that does not
    divide `count`.
    """
    spec = explicit_spec(x)
    if spec is None or spec[-1] is None:
        return x
    mesh = jax.typeof(x).sharding.mesh
    devices = math.prod(mesh.shape[name] for name in _names(spec[-1]))
    return gathered(x, -1) if count % devices else x


def match_shardings(arrays: Sequence[Array]) -> list[Array]:
    """Arrays of one rank, with each axis replicated that is not sharded alike in all of them."""
    specs = [explicit_spec(x) or (None,) * x.ndim for x in arrays]
    different = [
        axis for axis, names in enumerate(zip(*specs, strict=True)) if len(set(names)) > 1
    ]
    return [gathered(x, *different) for x in arrays] if different else list(arrays)


def shard_batch_like(x: Array, y: Array) -> Array:
    """y with its first axis sharded as that of x, and its others replicated."""
    spec = explicit_spec(x)
    if spec is None and explicit_spec(y) is None:
        return y
    return reshard(y, PartitionSpec(None if spec is None else spec[0]))


def product_sharding(a: Array, b: Array) -> PartitionSpec | None:
    """The sharding of a product over a's last axis and b's first: that of a's rows and b's columns,
    with the sums reduced.
    """
    rows = explicit_spec(a)
    columns = explicit_spec(b)
    if rows is None and columns is None:
        return None
    kept = list(rows[:-1]) if rows is not None else [None] * (a.ndim - 1)
    last = columns[-1] if columns is not None else None
    is_used = _names(last) & _names(*kept)
    return PartitionSpec(*kept, None if is_used else last)


def _names(*axes: Axis) -> set[str]:
    """The names of axes of a mesh."""
    names: set[str] = set()
    for axis in axes:
        if isinstance(axis, tuple):
            names.update(axis)
        elif axis is not None:
            names.add(axis)
    return names
