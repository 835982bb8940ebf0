"""Random orders: every place once, each as likely as another."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdl.data.source import epochs_drawn
from jaxdl.ops.shuffle import SORTED_COUNT, drawn, permuted, permuted_by_program

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def permutation(key: jax.Array, count: int) -> np.ndarray:
    return permuted(drawn(key, count), count)


@pytest.mark.parametrize(
    "count", [1, 2, 5, SORTED_COUNT, SORTED_COUNT + 1, 144, 1000, 1024, 60_000]
)
def test_every_place_comes_once(count: int) -> None:
    order = permutation(jax.random.key(3), count)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(count))


@pytest.mark.parametrize("count", [1, 2, 5, SORTED_COUNT])
def test_few_places_are_in_the_order_of_jax(count: int) -> None:
    for key in jax.random.split(jax.random.key(7), 3):
        np.testing.assert_array_equal(
            permutation(key, count), jax.random.permutation(key, count)
        )


@pytest.mark.parametrize("count", [129, 150, 70_000])
def test_orders_are_the_network_s_written_plainly(count: int) -> None:
    """Also across the blocks in which many places, and many orders, are mapped."""
    draws = drawn(jax.random.split(jax.random.key(2), 500 if count < 1000 else 2), count)
    found, side = permuted(draws, count), math.isqrt(count - 1) + 1

    def mapped(place: int, keys: list[int]) -> int:
        left, right = divmod(place, side)
        for key in keys:
            h = (right ^ key) * 0x85EBCA6B & 0xFFFFFFFF
            h = (h ^ h >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
            h = (((h ^ h >> 16) >> 16) * side) >> 16
            left, right = right, (left + h) % side
        place = left * side + right
        return place if place < count else mapped(place, keys)

    for row in (0, 1, len(draws) - 1):
        for place in (0, 1, count // 2, 65_535 % count, 65_536 % count, count - 1):
            assert found[row, place] == mapped(place, draws[row].tolist())


@pytest.mark.parametrize("count", [1, SORTED_COUNT, SORTED_COUNT + 1, 1000, 4096])
def test_a_program_makes_the_same_orders(count: int) -> None:
    draws = drawn(jax.random.split(jax.random.key(2), 3), count)
    found = jax.jit(jax.vmap(lambda draw: permuted_by_program(draw, count)))(draws)
    np.testing.assert_array_equal(found, permuted(draws, count))


def orders(count: int, draws: int) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), draws)
    return permuted(drawn(keys, count), count)


@pytest.mark.sampled
@pytest.mark.parametrize("count", [129, 200, 1000])
def test_each_place_gets_each_example_as_often(count: int) -> None:
    found = orders(count, 4000)
    for place in (0, 1, count // 2, count - 1):
        counts = np.bincount(found[:, place], minlength=count)
        assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.sampled
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


@pytest.mark.slow
def test_fixed_points_and_cycles_are_as_many_as_chance_has_them() -> None:
    found = orders(150, 4000)
    fixed = (found == np.arange(150)).sum(1)
    observed = np.bincount(np.minimum(fixed, 4), minlength=5)
    expected = np.array([math.exp(-1) / math.factorial(k) for k in range(4)])
    expected = np.append(expected, 1 - expected.sum()) * len(found)
    assert stats.chisquare(observed, expected).pvalue > 1e-4


@pytest.mark.slow
def test_orders_of_neighbouring_epochs_do_not_resemble_each_other() -> None:
    keys = jax.vmap(lambda epoch: jax.random.fold_in(jax.random.key(1), epoch))(
        jnp.arange(200, dtype=jnp.int32)
    )
    found = permuted(drawn(keys, 500), 500)
    correlations = [stats.spearmanr(a, b).statistic for a, b in itertools.pairwise(found)]
    assert abs(np.mean(correlations)) < 4 / math.sqrt(500 * 199)
    assert max(map(abs, correlations)) < 5 / math.sqrt(500)


def test_the_key_decides() -> None:
    first, second = permutation(jax.random.key(0), 500), permutation(jax.random.key(0), 500)
    other = permutation(jax.random.key(1), 500)
    assert (first == second).all()
    assert (first == other).sum() < 10


@pytest.mark.parametrize("count", [SORTED_COUNT, SORTED_COUNT + 1])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_an_epoch_draws_from_its_own_key(count: int, shape: tuple[int, ...]) -> None:
    keys = jax.random.key(5) if shape == () else jax.random.split(jax.random.key(5), shape)
    found = epochs_drawn(keys, 64, 10, count)
    assert found.shape == (10, *shape, count)
    for epoch in (0, 9):
        each = jax.vmap(lambda key, epoch=64 + epoch: jax.random.fold_in(key, epoch))(
            keys.reshape(-1)
        ).reshape(shape)
        np.testing.assert_array_equal(found[epoch], permuted(drawn(each, count), count))


@pytest.mark.parametrize("count", [SORTED_COUNT, SORTED_COUNT + 1])
def test_other_kinds_of_keys_order_too(count: int) -> None:
    found = epochs_drawn(jax.random.key(5, impl="rbg"), 0, 3, count)
    assert (np.sort(found) == np.arange(count)).all()
    assert (found[0] != found[1]).any()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("count", [SORTED_COUNT, SORTED_COUNT + 1])
def test_an_epoch_has_one_order_however_many_are_drawn_with_it(count: int, impl: str) -> None:
    """The numbers of some generators depend on which keys `vmap` draws them beside."""
    for keys in (
        jax.random.key(1, impl=impl),
        jax.random.split(jax.random.key(1, impl=impl), 3),
    ):
        together = epochs_drawn(keys, 0, 4, count)
        for first, some in ((1, 1), (2, 2), (3, 1)):
            np.testing.assert_array_equal(
                together[first : first + some], epochs_drawn(keys, first, some, count)
            )


@pytest.mark.parametrize("count", [SORTED_COUNT, SORTED_COUNT + 1])
def test_numbers_drawn_here_are_those_of_jax(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jaxdl.compiling import threefry

    keys = jax.random.split(jax.random.key(5), (2, 3))
    here = drawn(keys, count)
    monkeypatch.setattr(threefry, "words_of", lambda _: None)
    np.testing.assert_array_equal(here, drawn(keys, count))
