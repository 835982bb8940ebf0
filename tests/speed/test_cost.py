"""Costs are those that follow from the sizes, loops included."""

import jax
import jax.numpy as jnp
import pytest

import jaxdl as dl
from jaxdl.speed.cost import cost_of


def shape(*sizes: int, dtype: str = "float32") -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


def test_a_matrix_product_costs_two_operations_a_multiplication() -> None:
    cost = cost_of(jnp.dot, shape(128, 64), shape(64, 32))
    assert cost.flops == 2 * 128 * 64 * 32
    assert cost.bytes == 4 * (128 * 64 + 64 * 32 + 128 * 32)
    assert (cost.exact, cost.dtype) == (True, "float32")


@pytest.mark.parametrize("length", [1, 10])
def test_a_scan_counts_as_often_as_it_turns(length: int) -> None:
    def power(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda carry, _: (carry @ x, None), x, None, length=length)[0]

    cost = cost_of(power, shape(64, 64))
    assert cost.flops == pytest.approx(length * 2 * 64**3, rel=1e-3)
    assert cost.exact


def test_scans_inside_scans_and_inside_jit_multiply() -> None:
    def power(x: jax.Array) -> jax.Array:
        inner = jax.jit(lambda c: jax.lax.fori_loop(0, 3, lambda _, c: c @ x, c))
        return jax.lax.scan(lambda carry, _: (inner(carry), None), x, None, length=5)[0]

    assert cost_of(power, shape(64, 64)).flops == pytest.approx(15 * 2 * 64**3, rel=1e-3)


def test_a_loop_of_unknown_length_is_said_to_be_counted_once() -> None:
    cost = cost_of(
        lambda x, n: jax.lax.fori_loop(0, n, lambda _, c: c @ c, x),
        shape(64, 64),
        shape(dtype="int32"),
    )
    assert not cost.exact
    assert cost.flops == pytest.approx(2 * 64**3, rel=1e-2)


def test_the_narrowest_dtype_that_is_multiplied_is_reported() -> None:
    assert (
        cost_of(jnp.dot, shape(8, 8, dtype="bfloat16"), shape(8, 8, dtype="bfloat16")).dtype
        == "bfloat16"
    )
    assert cost_of(jnp.sin, shape(8)).dtype is None


@pytest.mark.slow
def test_the_gradient_of_an_lstm_costs_three_times_its_products() -> None:
    layer, x = dl.LSTM(16), shape(8, 50, 4)
    params, state = layer.init(jax.random.key(0), x)
    cost = cost_of(
        jax.grad(lambda params, x: layer.apply(params, state, x)[0].sum()), params, x
    )
    products = 8 * 50 * 2 * (4 + 16) * 4 * 16
    assert 0.8 * 3 * products < cost.flops < 1.3 * 3 * products
