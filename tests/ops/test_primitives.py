"""The product and `batch_last`: values, all derivatives and `vmap`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.ops.primitives import MAX_ELEMENTS, batch_last, product

RANDOM = np.random.default_rng(0)
A, B = (RANDOM.normal(size=shape).astype(np.float32) for shape in ((5, 3, 4), (5, 4, 2)))


@pytest.mark.sampled
@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0), (2, 1)])
def test_it_is_the_product_and_its_gradients_under_vmap(
    axes: tuple[int | None, int | None],
) -> None:
    def placed(matrices: np.ndarray, axis: int | None) -> np.ndarray:
        return matrices[0] if axis is None else np.moveaxis(matrices, 0, axis)

    a, b = placed(A, axes[0]), placed(B, axes[1])

    def value_and_gradients(multiply):
        def loss(a, b):
            return jnp.sum(jnp.sin(multiply(a, b)))

        return jax.jit(jax.vmap(jax.value_and_grad(loss, (0, 1)), axes))(a, b)

    ours, plain = value_and_gradients(product), value_and_gradients(jnp.matmul)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), ours, plain
    )


@pytest.mark.slow
def test_second_and_forward_derivatives() -> None:
    a, b = jnp.asarray(A[0]), jnp.asarray(B[0])

    def loss(multiply):
        return lambda a, b: jnp.sum(multiply(a, b) ** 3)

    ours = jax.hessian(loss(product), (0, 1))(a, b)
    plain = jax.hessian(loss(jnp.matmul), (0, 1))(a, b)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4), ours, plain
    )
    _, tangent = jax.jvp(product, (a, b), (a * 2, b))
    np.testing.assert_allclose(tangent, 3 * (a @ b), rtol=1e-5)


def test_populations_of_populations() -> None:
    many = jax.vmap(jax.vmap(product, (0, None)), (None, 0))(A, B)
    np.testing.assert_allclose(many, np.einsum("mik,nkj->nmij", A, B), rtol=1e-5, atol=1e-6)


def test_values_derivatives_and_mapped_axes_stay() -> None:
    x = jnp.arange(24.0).reshape(4, 3, 2)
    np.testing.assert_array_equal(batch_last(x), x)
    np.testing.assert_array_equal(jax.jit(jax.vmap(batch_last, 1, 0))(x), jnp.moveaxis(x, 1, 0))
    np.testing.assert_array_equal(jax.vmap(jax.vmap(batch_last))(x), x)
    gradient = jax.vmap(jax.grad(lambda v: (batch_last(v) ** 2).sum()))(x)
    np.testing.assert_array_equal(gradient, 2 * x)
    hessian = jax.hessian(lambda v: (batch_last(v) ** 3).sum())(jnp.ones(2))
    np.testing.assert_allclose(hessian, 6 * np.eye(2))
    _, tangent = jax.jvp(batch_last, (x,), (x + 1,))
    np.testing.assert_array_equal(tangent, x + 1)


def test_small_arrays_have_it_last_and_large_ones_are_left() -> None:
    def shapes(count: int) -> list[tuple[int, ...]]:
        program = jax.make_jaxpr(jax.vmap(lambda v: batch_last(v) * 2))(jnp.ones((5, count)))
        return [
            equation.outvars[0].aval.shape
            for equation in program.eqns
            if equation.primitive.name == "mul"
        ]

    assert shapes(3) == [(3, 5)]
    assert shapes(MAX_ELEMENTS + 1) == [(5, MAX_ELEMENTS + 1)]
