"""Random orders, drawn on the host: a program that draws them takes longer to compile than all of
them to draw.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Int, Key

from jaxdl.compiling import threefry

FEW = 128
"""So few places are sorted by random numbers: an order of them is drawn from all there are, with
equal chances.
"""
ROUNDS = 8
AT_ONCE = 2**16
"""How many places are mapped together, so that they stay in a core's cache."""

Numbers = np.ndarray
"""uint32"""


def drawn(keys: Key[jax.Array, "..."] | Numbers, count: int) -> Numbers:
    """What `permuted` makes orders of so many places of, for keys [...], or for their words.

    Eight numbers [..., 8], or one for each place where they are few; drawn by JAX for keys that are
    not of its default kind.
    """
    words = keys if isinstance(keys, np.ndarray) else threefry.words_of(keys)
    if words is None:
        assert isinstance(keys, jax.Array)
        return np.asarray(_drawn(keys.reshape(-1), count)).reshape(*keys.shape, -1)
    return (
        threefry.bits(threefry.folded(words, 1), count)
        if count <= FEW
        else threefry.bits(words, ROUNDS)
    )


@functools.partial(jax.jit, static_argnums=1)
def _drawn(keys: Any, count: int) -> Any:
    def one(key: Any) -> Any:
        return (
            jax.random.bits(jax.random.split(key)[1], (count,))
            if count <= FEW
            else jax.random.bits(key, (ROUNDS,))
        )

    return jax.lax.map(
        one, keys
    )  # the numbers of some generators depend on which keys `vmap` draws them beside


def permuted(draws: Numbers, count: int) -> Int[np.ndarray, "*orders count"]:
    """Random orders of 0 … count − 1: those of `jax.random.permutation` where places are few, else
    computed place by place.

    A Feistel network over pairs (l, r) of numbers below a = ⌈√count⌉, (l, r) ← (r, l + f(r, kᵢ) mod
    a) in eight rounds, is a one-to-one map of a² ≥ count places; a place that falls outside is
    mapped again until it falls inside. On a CPU it takes a fifteenth of the time of
    `jax.random.permutation`, which sorts.

    Args:
        draws: what is `drawn` from keys, for as many places; each key gives another order.
        count: how many, at least 1.

    Source: Luby and Rackoff, 1988, for the network; Black and Rogaway, 2002, section 4, for walking
    until a place falls inside; Mitchell et al., 2021, for shuffling by such maps.
    """
    if count <= FEW:
        return np.argsort(draws, -1, kind="stable").astype(np.int32)
    keys = draws.reshape(-1, ROUNDS)
    side, orders = np.uint32(math.isqrt(count - 1) + 1), np.empty((len(keys), count), np.uint32)
    places = np.arange(count, dtype=np.uint32)
    left, right = places // side, places % side
    wide, high = min(count, AT_ONCE), max(1, AT_ONCE // count)
    for row in range(0, len(keys), high):
        some = np.moveaxis(keys[row : row + high, :, None], 1, 0)
        for first in range(0, count, wide):
            part = slice(first, first + wide)
            orders[row : row + high, part] = _mapped(left[part], right[part], some, side)
    _walk(orders, keys, side)
    return orders.view(np.int32).reshape(*draws.shape[:-1], count)


def permuted_by_program(draw: Array, count: int) -> Int[Array, " count"]:
    """One of `permuted`'s orders inside a program: for the many of a population, of which each core
    makes its members'.
    """
    places = jnp.arange(count, dtype=jnp.uint32)
    if count <= FEW:
        return jnp.argsort(draw, stable=True).astype(jnp.int32)
    side = np.uint32(math.isqrt(count - 1) + 1)

    def walk(walked: tuple[Array, Array]) -> tuple[Array, Array]:
        order, outside = walked
        order = jnp.where(outside, _mapped(order // side, order % side, draw, side), order)
        return order, order >= count

    # The first round, for all places, is the loop's: so the map is compiled once.
    order, _ = lax.while_loop(
        lambda walked: jnp.any(walked[1]), walk, (places, jnp.ones(count, jnp.bool_))
    )
    return order.astype(jnp.int32)


def _walk(orders: Numbers, keys: Numbers, side: np.uint32) -> None:
    """Maps what lies outside again, until nothing does."""
    rows, places = np.nonzero(orders >= orders.shape[1])
    while len(rows):
        outside = orders[rows, places]
        orders[rows, places] = _mapped(outside // side, outside % side, keys[rows].T, side)
        still = orders[rows, places] >= orders.shape[1]
        rows, places = rows[still], places[still]


def _mapped(left: Any, right: Any, keys: Any, side: np.uint32) -> Any:
    """Places l · a + r after a round with each of eight keys, of NumPy or JAX.

    f is the upper half of MurmurHash3's finaliser (Appleby, 2011), scaled; its last step would
    change the lower half alone.
    """
    for key in keys:
        h = (right ^ key) * np.uint32(0x85EBCA6B)
        h = (h ^ (h >> 13)) * np.uint32(0xC2B2AE35)
        moved = left + (((h >> 16) * side) >> 16)
        moved = (jnp if isinstance(moved, Array) else np).minimum(
            moved, moved - side
        )  # which wraps where it is less
        left, right = right, moved
    return left * side + right
