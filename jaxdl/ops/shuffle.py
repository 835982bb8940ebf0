"""Random orders."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Int, Key

from jaxdl import threefry

FEW = 128
"""So few places are sorted by random numbers: an order of them is drawn from all there are, with equal chances."""
ROUNDS = 8


def drawn(keys: Key[Array, "..."], count: int) -> Any:
    """What `permuted` makes orders of so many places of, for keys [...]: numbers [..., 8], or the keys where places are few.

    Numbers are drawn on the host where the keys are known there and of JAX's default kind.
    """
    if count <= FEW:
        return keys
    words = threefry.words_of(keys)
    if words is not None:
        return threefry.bits(words, ROUNDS)
    return jax.vmap(lambda key: jax.random.bits(key, (ROUNDS,)))(keys.reshape(-1)).reshape(*keys.shape, ROUNDS)


def permuted(draw: Any, count: int) -> Int[Array, " count"]:
    """A random order of 0 … count − 1, computed place by place, without sorting.

    A Feistel network over pairs (l, r) of numbers below a = ⌈√count⌉, (l, r) ← (r, l + f(r, kᵢ) mod a) in eight rounds, is a
    one-to-one map of a² ≥ count places; a place that falls outside is mapped again until it falls inside. On a CPU it takes a
    fifteenth to a fiftieth of the time of `jax.random.permutation`, which sorts.

    Args:
        draw: what is `drawn` from a key, for as many places; each key gives another order.
        count: how many, at least 1.

    Source: Luby and Rackoff, 1988, for the network; Black and Rogaway, 2002, section 4, for walking until a place falls
    inside; Mitchell et al., 2021, for shuffling by such maps.
    """
    places = jnp.arange(count, dtype=jnp.int32)
    if count <= FEW:
        return jax.random.permutation(draw, places)
    side = math.isqrt(count - 1) + 1

    def mapped(place: Array) -> Array:
        left, right = place // side, place % side
        for k in jnp.asarray(draw):
            moved = left + _below(side, right, k)
            left, right = right, jnp.where(moved >= side, moved - side, moved)
        return left * side + right

    def walk(walked: tuple[Array, Array]) -> tuple[Array, Array]:
        order, outside = walked
        order = jnp.where(outside, mapped(order), order)
        return order, order >= count

    # The first round, for all places, is the loop's: so the map is compiled once.
    return lax.while_loop(lambda walked: jnp.any(walked[1]), walk, (places, jnp.ones(count, jnp.bool_)))[0]


def _below(side: int, x: Array, key: Array) -> Array:
    """A number below `side`, at most 2¹⁶, from x and a key: the finaliser of MurmurHash3 (Appleby, 2011), scaled."""
    h = (x.astype(jnp.uint32) ^ key) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    h = h ^ (h >> 16)
    return (((h >> 16) * jnp.uint32(side)) >> 16).astype(jnp.int32)
