"""The two ways in which each convolution is computed, against each other in float64."""

from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from jaxdl.ops import conv as conv_module
from jaxdl.ops import conv_transpose as transposed
from jaxdl.ops.conv import conv, conv_by_patches

CASES = 15
pytestmark = pytest.mark.usefixtures("quickly_compiled")


def close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def array(shape: tuple[int, ...], seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, shape))


def with_gradients(function: Any, x: jax.Array, kernel: jax.Array) -> Any:
    """The outputs and both gradients, of a program such as a step is."""

    @jax.jit
    def measure(x: Any, kernel: Any) -> Any:
        y, vjp = jax.vjp(function, x, kernel)
        return y, *vjp(array(y.shape, 9).astype(y.dtype))

    return measure(x, kernel)


@st.composite
def convolutions(draw: Any) -> dict[str, Any]:
    dimensions = draw(st.integers(1, 2))
    many = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * dimensions))  # noqa: E731
    groups, inputs, outputs = (draw(st.integers(1, 3)) for _ in range(3))
    window, dilation = many(1, 3), many(1, 2)
    space = tuple(
        (k - 1) * d + draw(st.integers(1, 4)) for k, d in zip(window, dilation, strict=True)
    )
    return {
        "x": (draw(st.integers(1, 2)), *space, groups * inputs),
        "kernel": (*window, inputs, groups * outputs),
        "stride": many(1, 3),
        "pads": tuple(zip(many(0, 2), many(0, 2), strict=True)),
        "dilation": dilation,
        "groups": groups,
    }


@pytest.mark.slow
@pytest.mark.once
@settings(max_examples=CASES)
@given(convolutions())
def test_patches_compute_what_xla_does(case: dict[str, Any]) -> None:
    with jax.enable_x64(True):
        x, kernel = array(case.pop("x")), array(case.pop("kernel"), 1)
        ours = with_gradients(lambda x, w: conv_by_patches(x, w, **case), x, kernel)
        theirs = with_gradients(lambda x, w: conv_module._conv_by_xla(x, w, **case), x, kernel)
        jax.tree.map(close, ours, theirs)


@pytest.mark.slow
@pytest.mark.once
@settings(max_examples=CASES)
@given(convolutions())
def test_phases_and_overlapping_parts_compute_what_xla_does(case: dict[str, Any]) -> None:
    with jax.enable_x64(True):
        x, kernel = array((*case.pop("x")[:-1], 2)), array((*case.pop("kernel")[:-2], 2, 3), 1)
        del case["groups"]
        extents = [
            (k - 1) * d + 1 for k, d in zip(kernel.shape[:-2], case["dilation"], strict=True)
        ]
        case["pads"] = tuple(
            (low + e - 1, high + e - 1)
            for (low, high), e in zip(case["pads"], extents, strict=True)
        )
        theirs = with_gradients(lambda x, w: transposed._by_xla(x, w, **case), x, kernel)
        for way in (transposed._by_phases, transposed._by_overlaps):
            jax.tree.map(
                close,
                with_gradients(lambda x, w, way=way: way(x, w, **case), x, kernel),
                theirs,
            )


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("stride", "window"), [((1, 2), (3, 3)), ((3, 2), (2, 4)), ((2, 2), (1, 5))]
)
def test_paddings_in_words_are_those_of_lax(padding: str, stride: Any, window: Any) -> None:
    with jax.enable_x64(True):
        x, kernel = array((2, 6, 7, 2)), array((*window, 2, 3), 1)
        layout = ("NHWC", "HWIO", "NHWC")
        ours = conv(x, kernel, stride=stride, padding=padding, dilation=(1, 1))
        close(
            ours,
            jax.lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=layout),
        )
        ours = transposed.conv_transpose(
            x, kernel, stride=stride, padding=padding, dilation=(2, 1)
        )
        close(
            ours,
            jax.lax.conv_transpose(
                x, kernel, stride, padding, (2, 1), dimension_numbers=layout
            ),
        )


@pytest.mark.parametrize("function", [conv, transposed.conv_transpose])
def test_the_kernel_is_computed_with_in_the_dtype_of_the_input(function: Any) -> None:
    y = function(
        jnp.ones((1, 4, 2), jnp.bfloat16),
        jnp.ones((3, 2, 2)),
        stride=(1,),
        padding="SAME",
        dilation=(1,),
    )
    assert y.dtype == jnp.bfloat16


def lowered(platform: str, groups: int = 1) -> str:
    def loss(x: Any, kernel: Any) -> Any:
        return conv(
            x, kernel, stride=(1, 1), padding="SAME", dilation=(1, 1), groups=groups
        ).sum()

    shapes = (
        jax.ShapeDtypeStruct((2, 6, 6, 4), "float32"),
        jax.ShapeDtypeStruct((3, 3, 4 // groups, 4), "float32"),
    )
    return jax.export.export(jax.jit(jax.grad(loss, (0, 1))), platforms=[platform])(
        *shapes
    ).mlir_module()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_each_platform_gets_its_own(groups: int) -> None:
    assert "stablehlo.convolution" not in lowered("cpu", groups)
    assert all(
        "stablehlo.convolution" in lowered(platform, groups) for platform in ("cuda", "tpu")
    )


def test_a_product_of_patches_is_one_product() -> None:
    """The gradient of the kernel is one matrix product too: what makes it fast on a CPU."""
    assert lowered("cpu").count("stablehlo.dot_general") == 2
