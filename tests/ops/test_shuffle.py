"""Random orders: every place once, each as likely as another."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdl.data.source import _epochs_drawn, epochs_drawn
from jaxdl.ops.shuffle import FEW, drawn, permuted

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def permutation(key: jax.Array, count: int) -> jax.Array:
    return permuted(drawn(key, count), count)


@pytest.mark.parametrize("count", [1, 2, 5, FEW, FEW + 1, 144, 1000, 1024, 60_000])
def test_every_place_comes_once(count: int) -> None:
    order = np.asarray(jax.jit(permutation, static_argnums=1)(jax.random.key(3), count))
    np.testing.assert_array_equal(np.sort(order), np.arange(count))


def orders(count: int, draws: int) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), draws)
    return np.asarray(jax.jit(jax.vmap(lambda key: permutation(key, count)))(keys))


@pytest.mark.parametrize("count", [129, 200, 1000])
def test_each_place_gets_each_example_as_often(count: int) -> None:
    found = orders(count, 4000)
    for place in (0, 1, count // 2, count - 1):
        counts = np.bincount(found[:, place], minlength=count)
        assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("count", [129, 1000])
def test_neighbours_come_in_no_order(count: int) -> None:
    """The order of three neighbours is each of the six as often, and a step to the next is as long as chance has it."""
    found = orders(count, 2000)
    triples = np.argsort(found[:, : count // 3 * 3].reshape(-1, 3), axis=1)
    kinds = {order: i for i, order in enumerate(itertools.permutations(range(3)))}
    counts = np.bincount([kinds[tuple(triple)] for triple in triples.tolist()], minlength=6)
    assert stats.chisquare(counts).pvalue > 1e-4
    steps = (found[:, 1:] - found[:, :-1]) % count
    observed = np.bincount(steps.ravel(), minlength=count)[1:]
    assert stats.chisquare(observed).pvalue > 1e-4


def test_fixed_points_and_cycles_are_as_many_as_chance_has_them() -> None:
    found = orders(150, 4000)
    fixed = (found == np.arange(150)).sum(1)
    observed = np.bincount(np.minimum(fixed, 4), minlength=5)
    expected = np.array([math.exp(-1) / math.factorial(k) for k in range(4)])
    expected = np.append(expected, 1 - expected.sum()) * len(found)
    assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_orders_of_neighbouring_epochs_do_not_resemble_each_other() -> None:
    keys = jax.vmap(lambda epoch: jax.random.fold_in(jax.random.key(1), epoch))(jnp.arange(200, dtype=jnp.int32))
    found = np.asarray(jax.vmap(lambda key: permutation(key, 500))(keys))
    correlations = [stats.spearmanr(a, b).statistic for a, b in itertools.pairwise(found)]
    assert abs(np.mean(correlations)) < 4 / math.sqrt(500 * 199)
    assert max(map(abs, correlations)) < 5 / math.sqrt(500)


def test_the_key_decides() -> None:
    first, second = permutation(jax.random.key(0), 500), permutation(jax.random.key(0), 500)
    other = permutation(jax.random.key(1), 500)
    assert (first == second).all()
    assert (first == other).sum() < 10


@pytest.mark.parametrize("count", [FEW, FEW + 1])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_epochs_are_drawn_on_the_host_as_by_a_program(count: int, shape: tuple[int, ...]) -> None:
    keys = jax.random.key(5) if shape == () else jax.random.split(jax.random.key(5), shape)
    here = epochs_drawn(keys, 64, 10, count)
    there = _epochs_drawn(keys, np.arange(64, 74, dtype=np.int32), count)
    if count <= FEW:
        here, there = jax.random.key_data(here), jax.random.key_data(there)
    np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize("count", [FEW, FEW + 1])
def test_other_kinds_of_keys_order_too(count: int) -> None:
    draws = epochs_drawn(jax.random.key(5, impl="rbg"), 0, 3, count)
    found = np.stack([permuted(draw, count) for draw in draws])
    assert (np.sort(found) == np.arange(count)).all()
    assert (found[0] != found[1]).any()
