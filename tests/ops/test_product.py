"""Products: `a @ b` and all its derivatives, one by one and many at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.ops.product import product

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
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), ours, plain)


@pytest.mark.slow
def test_second_and_forward_derivatives() -> None:
    a, b = jnp.asarray(A[0]), jnp.asarray(B[0])

    def loss(multiply):
        return lambda a, b: jnp.sum(multiply(a, b) ** 3)

    ours = jax.hessian(loss(product), (0, 1))(a, b)
    plain = jax.hessian(loss(jnp.matmul), (0, 1))(a, b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4), ours, plain)
    _, tangent = jax.jvp(product, (a, b), (a * 2, b))
    np.testing.assert_allclose(tangent, 3 * (a @ b), rtol=1e-5)


def test_populations_of_populations() -> None:
    many = jax.vmap(jax.vmap(product, (0, None)), (None, 0))(A, B)
    np.testing.assert_allclose(many, np.einsum("mik,nkj->nmij", A, B), rtol=1e-5, atol=1e-6)
