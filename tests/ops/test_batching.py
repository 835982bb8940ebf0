"""The mapped axis of small arrays lies last; nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.ops.batching import SMALL, small_last


def test_values_derivatives_and_mapped_axes_stay() -> None:
    x = jnp.arange(24.0).reshape(4, 3, 2)
    np.testing.assert_array_equal(small_last(x), x)
    np.testing.assert_array_equal(jax.jit(jax.vmap(small_last, 1, 0))(x), jnp.moveaxis(x, 1, 0))
    np.testing.assert_array_equal(jax.vmap(jax.vmap(small_last))(x), x)
    gradient = jax.vmap(jax.grad(lambda v: (small_last(v) ** 2).sum()))(x)
    np.testing.assert_array_equal(gradient, 2 * x)
    hessian = jax.hessian(lambda v: (small_last(v) ** 3).sum())(jnp.ones(2))
    np.testing.assert_allclose(hessian, 6 * np.eye(2))
    _, tangent = jax.jvp(small_last, (x,), (x + 1,))
    np.testing.assert_array_equal(tangent, x + 1)


def test_small_arrays_have_it_last_and_large_ones_are_left() -> None:
    def shapes(count: int) -> list[tuple[int, ...]]:
        program = jax.make_jaxpr(jax.vmap(lambda v: small_last(v) * 2))(jnp.ones((5, count)))
        return [
            equation.outvars[0].aval.shape
            for equation in program.eqns
            if equation.primitive.name == "mul"
        ]

    assert shapes(3) == [(3, 5)]
    assert shapes(SMALL + 1) == [(5, SMALL + 1)]
