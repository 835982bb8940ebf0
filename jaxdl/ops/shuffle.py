"""Random permutations, drawn on the host: a program that draws them takes longer to compile than
all of them to draw.
"""

import functools
import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Int, Key

from jaxdl.compiling import threefry

SORTED_COUNT = 128
"""Up to this number, elements are sorted by random bits, so that all permutations have the same
probability.
"""
ROUNDS = 8
CHUNK = 2**16
"""The number of indices that are mapped together, so that they stay in a core's cache."""

Bits = np.ndarray
"""uint32"""
A = TypeVar("A", np.ndarray, Array)


def drawn(keys: Key[jax.Array, "..."] | Bits, count: int) -> Bits:
    """The random bits that `permuted` makes permutations of.

    They are drawn by JAX for keys of another generator than the default one.

    Args:
        keys: typed keys [...], or their data [..., 2].
        count: the number of elements.

    Returns:
        [..., 8] uint32, or [..., count] for a small count.
    """
    key_data = keys if isinstance(keys, np.ndarray) else threefry.words_of(keys)
    if key_data is None:
        assert isinstance(keys, jax.Array)
        return np.asarray(_drawn(keys.reshape(-1), count)).reshape(*keys.shape, -1)
    if count <= SORTED_COUNT:
        return threefry.bits(threefry.folded(key_data, 1), count)
    return threefry.bits(key_data, ROUNDS)


@functools.partial(jax.jit, static_argnums=1)
def _drawn(keys: Array, count: int) -> Array:
    def draw(key: Array) -> Array:
        if count <= SORTED_COUNT:
            return jax.random.bits(jax.random.split(key)[1], (count,))
        return jax.random.bits(key, (ROUNDS,))

    # With some generators the bits depend on the other keys that `vmap` draws with.
    return jax.lax.map(draw, keys)


def permuted(draws: Bits, count: int) -> Int[np.ndarray, "*orders count"]:
    """Random permutations of 0 … count − 1: those of `jax.random.permutation` for a small count,
    else computed element by element.

    A Feistel network over pairs (l, r) of integers below a = ⌈√count⌉, (l, r) ← (r, l + f(r, kᵢ)
    mod a) in eight rounds, is a bijection of a² ≥ count indices; an index that is mapped to count
    or above is mapped again until it is below. On a CPU it takes a fifteenth of the time of
    `jax.random.permutation`, which sorts.

    Source: Luby and Rackoff, 1988, for the network; Black and Rogaway, 2002, section 4, for cycle
    walking; Mitchell et al., 2021, for shuffling by such maps.

    Args:
        draws: [..., 8] or [..., count], as `drawn` returns them for this count.
        count: the number of elements, at least 1.

    Returns:
        [..., count] int32, a permutation for each key.
    """
    if count <= SORTED_COUNT:
        return np.argsort(draws, -1, kind="stable").astype(np.int32)
    keys = draws.reshape(-1, ROUNDS)
    side = np.uint32(math.isqrt(count - 1) + 1)
    orders = np.empty((len(keys), count), np.uint32)
    indices = np.arange(count, dtype=np.uint32)
    left = indices // side
    right = indices % side
    columns = min(count, CHUNK)
    rows = max(1, CHUNK // count)
    for row in range(0, len(keys), rows):
        some = np.moveaxis(keys[row : row + rows, :, None], 1, 0)
        for first in range(0, count, columns):
            part = slice(first, first + columns)
            orders[row : row + rows, part] = _feistel(left[part], right[part], some, side)
    _walk_cycles(orders, keys, side)
    return orders.view(np.int32).reshape(*draws.shape[:-1], count)


def permuted_by_program(draw: Array, count: int) -> Int[Array, " count"]:
    """One permutation of `permuted`, computed inside of a program: for populations, whose members
    are permuted in parallel.

    Args:
        draw: [8] or [count] uint32, as `drawn` returns it for this count.
        count: the number of elements, at least 1.
    """
    indices = jnp.arange(count, dtype=jnp.uint32)
    if count <= SORTED_COUNT:
        return jnp.argsort(draw, stable=True).astype(jnp.int32)
    side = np.uint32(math.isqrt(count - 1) + 1)

    def is_unfinished(carry: tuple[Array, Array]) -> Array:
        return jnp.any(carry[1])

    def walk(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        order, is_outside = carry
        mapped = _feistel(order // side, order % side, draw, side)
        order = jnp.where(is_outside, mapped, order)
        return order, order >= count

    # The loop maps all indices in its first iteration, so that the map is compiled once.
    order, _ = lax.while_loop(is_unfinished, walk, (indices, jnp.ones(count, jnp.bool_)))
    return order.astype(jnp.int32)


def _walk_cycles(orders: Bits, keys: Bits, side: np.uint32) -> None:
    """Maps the indices that are count or above again, until none is; in place."""
    rows, columns = np.nonzero(orders >= orders.shape[1])
    while len(rows):
        outside = orders[rows, columns]
        orders[rows, columns] = _feistel(outside // side, outside % side, keys[rows].T, side)
        is_outside = orders[rows, columns] >= orders.shape[1]
        rows = rows[is_outside]
        columns = columns[is_outside]


def _feistel(left: A, right: A, keys: A, side: np.uint32) -> A:
    """Indices l · a + r after a round with each of eight keys, of NumPy or JAX.

    f is the upper half of the finalizer of MurmurHash3 (Appleby, 2011), scaled; its last step
    changes only the lower half.
    """
    minimum: Any = jnp.minimum if isinstance(left, Array) else np.minimum
    for key in keys:
        h = (right ^ key) * np.uint32(0x85EBCA6B)
        h = (h ^ (h >> 13)) * np.uint32(0xC2B2AE35)
        total = left + (((h >> 16) * side) >> 16)
        # Modulo `side`: the difference wraps around if it is negative.
        left = right
        right = minimum(total, total - side)
    return left * side + right
