"""The two ways in which windows are reduced, against each other in float64, and where the gradient of a maximum goes."""

from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from jaxdl.ops import pool as ops

CASES = 15
pytestmark = pytest.mark.usefixtures("quickly_compiled")


def with_gradient(function: Any, x: jax.Array) -> Any:
    @jax.jit
    def measure(x: Any) -> Any:
        y, vjp = jax.vjp(function, x)
        return y, *vjp(jnp.asarray(np.random.default_rng(9).normal(size=y.shape), y.dtype))

    return measure(x)


@st.composite
def windows(draw: Any) -> dict[str, Any]:
    dimensions = draw(st.integers(1, 2))
    window, stride, extra = (
        draw(st.tuples(*[st.integers(1, 3)] * dimensions)) for _ in range(3)
    )
    stride = (
        window if draw(st.booleans()) else stride
    )  # side by side, windows go a way of their own
    pads = tuple((draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in window)
    return {
        "x": (draw(st.integers(1, 2)), *(k + n for k, n in zip(window, extra, strict=True)), 2),
        "windows": ops._Windows(window, stride, pads, (1,) * dimensions),
    }


@pytest.mark.slow
@pytest.mark.once
@settings(max_examples=CASES)
@given(windows(), st.booleans())
def test_a_maximum_by_slices_is_that_of_xla(case: dict[str, Any], ties: bool) -> None:
    """With its gradient, which goes to the first of equal elements."""
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=case.pop("x")))
        x = jnp.round(x) if ties else x
        ours = with_gradient(lambda x: ops._max_by_slices(x, **case, lowest=-np.inf), x)
        theirs = with_gradient(lambda x: ops._max_by_xla(x, **case, lowest=-np.inf), x)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), ours, theirs
        )


@pytest.mark.slow
@settings(max_examples=CASES)
@given(windows())
def test_a_sum_by_slices_is_that_of_xla(case: dict[str, Any]) -> None:
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=case.pop("x")))
        ours = with_gradient(lambda x: ops._sum_by_slices(x, **case), x)
        theirs = with_gradient(lambda x: ops._sum_by_xla(x, **case), x)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), ours, theirs
        )


@pytest.mark.sampled
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("dilation", [(2, 1), (3, 2)])
def test_a_dilated_sum_by_slices_is_that_of_xla(stride: Any, dilation: Any) -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 8, 2)), jnp.float32)
    windows = ops._Windows((2, 3), stride, ((1, 0), (2, 2)), dilation)
    ours = with_gradient(lambda x: ops._sum_by_slices(x, windows=windows), x)
    theirs = with_gradient(lambda x: ops._sum_by_xla(x, windows=windows), x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs
    )


def test_the_gradient_of_equal_elements_goes_to_the_first() -> None:
    gradient = jax.grad(
        lambda x: ops.max_pool(x, window=(2, 2), stride=(2, 2), padding="VALID").sum()
    )
    np.testing.assert_array_equal(
        gradient(jnp.zeros((1, 2, 2, 1)))[0, ..., 0], [[1, 0], [0, 0]]
    )
    np.testing.assert_array_equal(
        gradient(jnp.array([[[[0.0], [1]], [[1], [1]]]]))[0, ..., 0], [[0, 1], [0, 0]]
    )
    np.testing.assert_array_equal(
        jax.grad(ops.first_maximum, (0, 1))(jnp.ones(()), jnp.full((), 1.0)), [1, 0]
    )
    np.testing.assert_array_equal(
        jax.grad(ops.first_maximum, (0, 1))(jnp.ones(()), jnp.full((), 2.0)), [0, 1]
    )


@pytest.mark.sampled(2)
@pytest.mark.parametrize("window", [(3, 2), (2, 3), (2, 2)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (2, 2)])
def test_the_first_of_many_equal_elements_is_that_of_xla(window: Any, stride: Any) -> None:
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, (2, 7, 7, 2)), jnp.float32)
    windows = ops._Windows(window, stride, ((1, 0), (0, 1)), (1, 1))
    arguments: Any = {"windows": windows, "lowest": -np.inf}
    ours = with_gradient(lambda x: ops._max_by_slices(x, **arguments), x)
    theirs = with_gradient(lambda x: ops._max_by_xla(x, **arguments), x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs
    )


def test_a_window_of_more_places_than_a_byte_counts() -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2 * 258, 1)), jnp.float32)
    windows = ops._Windows((258,), (258,), ((0, 0),), (1,))
    arguments: Any = {"windows": windows, "lowest": -np.inf}
    ours = with_gradient(lambda x: ops._max_by_slices(x, **arguments), x.at[0, 257].set(9))
    theirs = with_gradient(lambda x: ops._max_by_xla(x, **arguments), x.at[0, 257].set(9))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert ours[1][0, 257, 0] != 0


@pytest.mark.parametrize("branch", [ops._max_by_slices, ops._max_by_xla])
def test_nan_wins(branch: Any) -> None:
    x = jnp.zeros((1, 4, 1)).at[0, 1, 0].set(jnp.nan)
    y = branch(x, windows=ops._Windows((2,), (1,), ((0, 0),), (1,)), lowest=-np.inf)
    np.testing.assert_array_equal(jnp.isnan(y[0, :, 0]), [True, True, False])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "bfloat16"])
def test_maxima_of_every_dtype(dtype: str) -> None:
    x = jnp.asarray(np.random.default_rng(0).integers(0, 100, (2, 5, 4, 2))).astype(dtype)
    y = ops.max_pool(x, window=(3, 2), stride=(1, 1), padding="SAME")
    assert y.dtype == dtype
    wide = ops.max_pool(x.astype(jnp.float32), window=(3, 2), stride=(1, 1), padding="SAME")
    np.testing.assert_array_equal(y.astype(jnp.float32), wide)


def test_each_platform_gets_its_own() -> None:
    def lowered(platform: str) -> str:
        loss = lambda x: ops.max_pool(x, window=(3, 3), stride=(2, 2), padding="SAME").sum()  # noqa: E731
        shape = jax.ShapeDtypeStruct((2, 6, 6, 4), "float32")
        return jax.export.export(jax.jit(jax.grad(loss)), platforms=[platform])(
            shape
        ).mlir_module()

    assert "select_and_scatter" not in lowered("cpu")
    assert all("select_and_scatter" in lowered(platform) for platform in ("cuda", "tpu"))
