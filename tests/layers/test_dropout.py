"""Dropout: its rate, its expectation, and what shares a draw."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl.core.error import LayerError
from jaxdl.ops.dropout import dropout

pytestmark = pytest.mark.usefixtures("quickly_compiled")
N = 1 << 20
RATES = [0.5, 0.25, 1 / 256, 255 / 256, 0.1, 0.3, 0.9, 0.001]


def rounded(rate: float) -> float:
    return round(rate * 2**16) / 2**16


@pytest.mark.sampled(3)
@pytest.mark.parametrize("rate", RATES)
def test_the_rate_is_exact_and_the_expectation_is_kept(rate: float) -> None:
    x = jnp.ones(N)
    y = np.asarray(dropout(jax.random.key(1), x, rate), np.float64)
    dropped = np.mean(y == 0)
    deviation = np.sqrt(rate * (1 - rate) / N)
    assert abs(dropped - rounded(rate)) < 4 * deviation
    np.testing.assert_allclose(y[y != 0], 1 / (1 - rounded(rate)), rtol=1e-6)
    assert abs(y.mean() - 1) < 4 * deviation / (1 - rate)


@pytest.mark.parametrize(
    ("rate", "bits"), [(0.5, 8), (0.25, 8), (3 / 256, 8), (0.1, 16), (0.3, 16)]
)
def test_the_coin_has_8_bits_where_they_hold_the_rate(rate: float, bits: int) -> None:
    program = jax.make_jaxpr(lambda key: dropout(key, jnp.ones(8), rate))(jax.random.key(0))
    draws = [
        equation.params["bit_width"]
        for equation in program.eqns
        if equation.primitive.name == "random_bits"
    ]
    assert draws == [bits]


def test_the_least_and_the_greatest_rates() -> None:
    x = jnp.ones(N)
    np.testing.assert_array_equal(dropout(jax.random.key(0), x, 1e-6), x)
    few = dropout(jax.random.key(0), x, 1 - 1e-9)
    assert 0 < (few != 0).sum() < 50
    np.testing.assert_array_equal(few[few != 0], 2.0**16)


def test_elements_are_dropped_apart() -> None:
    """No pattern: neighbours, and masks of different keys, agree as often as chance has it."""
    first, second = (
        np.asarray(dropout(jax.random.key(seed), jnp.ones(N), 0.5)) != 0 for seed in (0, 1)
    )
    for other in (second, np.roll(first, 1), np.roll(first, 4)):
        assert abs((first == other).mean() - 0.5) < 4 * np.sqrt(0.25 / N)


@pytest.mark.parametrize("shape", [(8, 5, 16), (8, 4, 3, 16)])
def test_whole_channels(shape: tuple[int, ...]) -> None:
    layer = dl.Dropout(0.5, channels=True)
    y, _ = layer.apply({}, {}, jnp.ones(shape), dl.Train(jax.random.key(0)))
    kept = np.asarray(y).reshape(shape[0], -1, shape[-1]) != 0
    assert (kept == kept[:, :1]).all()
    assert 0.3 < kept[:, 0].mean() < 0.7
    assert len(np.unique(kept[:, 0], axis=0)) == shape[0], "each example draws its own"


def test_each_part_of_a_model_and_each_step_draws_its_own() -> None:
    model = dl.Sequential(dl.Dropout(0.5), dl.Dropout(0.5))
    x = jnp.ones((4, 64))
    key = jax.random.key(0)
    first, second = (
        model.apply({}, {}, x, dl.Train(jax.random.fold_in(key, step)))[0] != 0
        for step in range(2)
    )
    assert not jnp.array_equal(first, second)
    alone, _ = dl.Sequential(dl.Dropout(0.5)).apply(
        {}, {}, x, dl.Train(jax.random.fold_in(key, 0))
    )
    assert int(first.sum()) < 0.75 * int((alone != 0).sum()), (
        "the second part drops half of what the first has left"
    )


def test_gradients_go_where_values_go() -> None:
    mode = dl.Train(jax.random.key(0))
    y, vjp = jax.vjp(lambda x: dl.Dropout(0.4).apply({}, {}, x, mode)[0], jnp.ones((4, 8)))
    np.testing.assert_array_equal(vjp(jnp.ones_like(y))[0], y)


def test_a_dropped_infinity_leaves_no_trace() -> None:
    y, _ = dl.Dropout(0.5).apply(
        {}, {}, jnp.full((4, 64), jnp.inf), dl.Train(jax.random.key(0))
    )
    assert set(np.unique(np.asarray(y))) == {0, np.inf}


def test_without_a_rate_nothing_happens() -> None:
    x = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(
        dl.Dropout(0).apply({}, {}, x, dl.Train(jax.random.key(0)))[0], x
    )


def test_bytes_are_read_as_intensities() -> None:
    images = np.full((1, 4, 4, 1), 255, np.uint8)
    y, _ = dl.Dropout(0.5).apply({}, {}, images, dl.Train(jax.random.key(0)))
    assert set(np.unique(np.asarray(y))) == {0, 2}


@pytest.mark.parametrize("rate", [1, 1.5, -0.1, float("nan")])
def test_wrong_rates(rate: Any) -> None:
    with pytest.raises(LayerError) as caught:
        dl.Dropout(rate)
    assert str(caught.value) == f"Dropout: rate is a probability in [0, 1), got {rate!r}."
