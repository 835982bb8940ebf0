"""JAX's default random numbers, drawn on the host.

What a run draws once — the key of a seed, the keys of its parts, what the orders of its epochs are
made of — then needs no program, which takes longer to compile than all of the numbers to draw. They
are those of `jax.random`, to the bit.

Source: Salmon et al., 2011, section 3.3, for Threefry-2x32 with 20 rounds.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

Words = np.ndarray | np.uint32
NAME = "threefry2x32"
ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
PARITY = np.uint32(0x1BD11BDA)


def words_of(key: Any) -> np.ndarray | None:
    """The words of a key, or of an array of keys: uint32 [..., 2]; None where they are traced, or
    not of this generator.
    """
    known = (
        isinstance(key, Array)
        and not isinstance(key, Tracer)
        and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    )
    if (
        not known
        or str(jax.random.key_impl(key)) != NAME
        or not _setting("jax_threefry_partitionable")
    ):
        return None
    with jax.ensure_compile_time_eval():  # a key that is closed over by what is traced just now
        return np.asarray(jax.random.key_data(key))


def key_of(words: Any) -> Array:
    """The key, or keys, of those words."""
    return jax.random.wrap_key_data(words, impl=NAME)


def of_seed(seed: int) -> Array:
    """`jax.random.key(seed)`."""
    if _setting("jax_default_prng_impl") != NAME or seed < 0:
        return jax.random.key(seed)
    return key_of(np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32))


def _setting(name: str) -> Any:
    settings: Any = jax.config
    return getattr(settings, name)


def folded(words: np.ndarray, data: Any) -> np.ndarray:
    """The words of `jax.random.fold_in(key, data)`: [..., 2], from [..., 2] and numbers below 2³²
    that fit [...].
    """
    low = np.asarray(data).astype(np.uint32)
    return np.stack(_threefry(words, np.zeros_like(low), low), -1)


def bits(words: np.ndarray, count: int) -> Any:
    """`jax.random.bits(key, (count,))`: uint32 [..., count], from [..., 2]."""
    low = np.arange(count, dtype=np.uint32)
    first, second = _threefry(words[..., None, :], np.zeros_like(low), low)
    return first ^ second


def _threefry(words: np.ndarray, high: Words, low: Words) -> tuple[Words, Words]:
    """The block cipher: two words of each key, [..., 2], and of each block."""
    keys = words[..., 0], words[..., 1], words[..., 0] ^ words[..., 1] ^ PARITY
    with np.errstate(over="ignore"):  # sums are modulo 2³²
        high, low = high + keys[0], low + keys[1]
        for turn in range(5):
            for rotation in ROTATIONS[turn % 2]:
                high = high + low
                low = ((low << np.uint32(rotation)) | (low >> np.uint32(32 - rotation))) ^ high
            high, low = (
                high + keys[(turn + 1) % 3],
                low + keys[(turn + 2) % 3] + np.uint32(turn + 1),
            )
    return high, low
