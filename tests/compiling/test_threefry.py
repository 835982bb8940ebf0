"""Numbers drawn on the host are those of `jax.random`."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.compiling import threefry
from jaxdl.core.keys import fold_in_name

SEEDS = [0, 1, 7, 2**31 - 1, 2**31, 2**32 - 1, -1, -(2**31)]


@pytest.mark.parametrize("seed", SEEDS)
def test_keys_of_seeds_are_those_of_jax(seed):
    ours, theirs = threefry.of_seed(seed), jax.random.key(seed)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(jax.random.key_data(ours), jax.random.key_data(theirs))


def test_folded_keys_are_those_of_jax():
    keys = jax.random.split(jax.random.key(3), 50)
    data = np.random.default_rng(0).integers(0, 2**32, 50, np.uint32)
    expected = jax.random.key_data(jax.vmap(jax.random.fold_in)(keys, jnp.asarray(data)))
    words = threefry.words_of(keys)
    np.testing.assert_array_equal(threefry.folded(words, data), expected)
    np.testing.assert_array_equal(
        jax.random.key_data(threefry.key_of(threefry.folded(words[4], data[4]))), expected[4]
    )


@pytest.mark.sampled
@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_bits_are_those_of_jax(count):
    keys = jax.random.split(jax.random.key(4), 20)
    expected = jax.vmap(lambda key: jax.random.bits(key, (count,)))(keys)
    np.testing.assert_array_equal(threefry.bits(threefry.words_of(keys), count), expected)


def test_other_keys_and_traced_ones_have_no_words_here():
    assert threefry.words_of(jax.random.key(0, impl="rbg")) is None
    assert threefry.words_of(np.zeros(2, np.uint32)) is None
    seen = []
    jax.jit(lambda key: seen.append(threefry.words_of(key)))(jax.random.key(0))
    assert seen == [None]


def test_a_key_that_is_closed_over_has_its_words_while_something_is_traced():
    key = jax.random.key(3)
    traced = jax.jit(lambda x: x + jax.random.uniform(fold_in_name(key, "part")))(0.0)
    assert traced == jax.random.uniform(jax.random.fold_in(key, zlib.crc32(b"part")))


def test_a_seed_follows_the_default_kind_of_key():
    with jax.default_prng_impl("rbg"):
        assert jax.random.key_impl(threefry.of_seed(7)) == "rbg"
