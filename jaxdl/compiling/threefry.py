"""JAX's default random numbers, computed on the host.

What a run draws once — the key of a seed, the keys of its parts, the permutations of its epochs —
then needs no program. They are the numbers of `jax.random`, bit for bit. It buys, of the
first `fit` on a CPU in seconds of processor time, 1.5 of the 2.4 of the 10-10-10-1 network and 4.8
of the 8.1 of a GPT of four blocks. It could go if JAX folded concrete keys without compiling.

Source: Salmon et al., 2011, section 3.3, for Threefry-2x32 with 20 rounds.
"""

from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import UInt32

Words = np.ndarray | np.uint32

NAME = "threefry2x32"
ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
PARITY = np.uint32(0x1BD11BDA)


def words_of(key: object) -> UInt32[np.ndarray, "*keys 2"] | None:
    """The words of a key, or of an array of keys; None where they are traced, or not of this
    generator.
    """
    if not _is_concrete_key(key) or str(jax.random.key_impl(key)) != NAME:
        return None
    if not _setting("jax_threefry_partitionable"):
        return None
    with jax.ensure_compile_time_eval():  # a key that is closed over by what is being traced
        return np.asarray(jax.random.key_data(key))


def key_of(words: Any) -> Array:
    """The key, or keys, of those words."""
    return jax.random.wrap_key_data(words, impl=NAME)


def of_seed(seed: int) -> Array:
    """`jax.random.key(seed)`."""
    if _setting("jax_default_prng_impl") != NAME or seed < 0:
        return jax.random.key(seed)
    return key_of(np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32))


def folded(words: np.ndarray, data: ArrayLike) -> UInt32[np.ndarray, "*keys 2"]:
    """The words of `jax.random.fold_in(key, data)`.

    Args:
        words: [..., 2] uint32, of the key.
        data: numbers below 2³², of a shape that broadcasts with [...].
    """
    low = np.asarray(data).astype(np.uint32)
    return np.stack(_threefry(words, np.zeros_like(low), low), -1)


def bits(words: np.ndarray, count: int) -> UInt32[np.ndarray, "*keys count"]:
    """`jax.random.bits(key, (count,))`.

    Args:
        words: [..., 2] uint32, of the key.
        count: how many.
    """
    low = np.arange(count, dtype=np.uint32)
    first, second = _threefry(words[..., None, :], np.zeros_like(low), low)
    return np.asarray(first ^ second)


def _setting(name: str) -> object:
    return getattr(jax.config, name)


def _is_concrete_key(key: object) -> TypeGuard[Array]:
    if not isinstance(key, Array) or isinstance(key, Tracer):
        return False
    return jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def _threefry(words: np.ndarray, high: Words, low: Words) -> tuple[Words, Words]:
    """The block cipher: two words of each key, [..., 2], and of each block."""
    first = words[..., 0]
    second = words[..., 1]
    keys = (first, second, first ^ second ^ PARITY)
    with np.errstate(over="ignore"):  # sums are modulo 2³²
        high = high + keys[0]
        low = low + keys[1]
        for group in range(5):
            for rotation in ROTATIONS[group % 2]:
                high = high + low
                low = _rotated(low, rotation) ^ high
            high = high + keys[(group + 1) % 3]
            low = low + keys[(group + 2) % 3] + np.uint32(group + 1)
    return high, low


def _rotated(word: Words, by: int) -> Words:
    return (word << np.uint32(by)) | (word >> np.uint32(32 - by))
