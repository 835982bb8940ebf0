"""The convolution of XLA's CPU library with its gradients, against `lax.conv_general_dilated` and its gradients; and where it is used."""

import re
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax import lax
from jax.extend.core import jaxpr_as_fun

from jaxdl.compiling.target import compiling_for
from jaxdl.ops import conv, conv_algorithm, primitives
from jaxdl.ops.window import layout

CASES = 15
pytestmark = pytest.mark.usefixtures("quickly_compiled")


def close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-11)


def array(*shape: int, seed: int = 0, dtype: str = "float64") -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, shape), dtype)


def by_xla(x: Any, kernel: Any, pads: Any) -> Any:
    ones = (1,) * len(pads)
    return lax.conv_general_dilated(x, kernel, ones, pads, dimension_numbers=layout(len(pads)))


@st.composite
def convolutions(draw: Any) -> dict[str, Any]:
    dimensions = draw(st.integers(1, 2))
    window = draw(st.tuples(*[st.integers(1, 4)] * dimensions))
    pads = tuple((draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in window)
    space = tuple(
        max(1, k - sum(pad)) + draw(st.integers(0, 4))
        for k, pad in zip(window, pads, strict=True)
    )
    inputs, outputs, examples = (draw(st.integers(1, 3)) for _ in range(3))
    return {"x": (examples, *space, inputs), "kernel": (*window, inputs, outputs), "pads": pads}


@pytest.mark.slow
@settings(max_examples=CASES)
@given(convolutions())
def test_it_and_its_derivatives_of_two_orders_are_those_of_xla(case: dict[str, Any]) -> None:
    with jax.enable_x64(True):
        arrays = array(*case["x"]), array(*case["kernel"], seed=1)
        tangents = array(*case["x"], seed=2), array(*case["kernel"], seed=3)

        def measured(way: Any) -> Any:
            def loss(x: Any, kernel: Any) -> Any:
                y = way(x, kernel, case["pads"])
                return (jnp.cos(y) * array(*y.shape, seed=4)).sum()

            gradients = jax.grad(loss, (0, 1))
            return jax.jit(lambda a, t: (way(*a, case["pads"]), jax.jvp(gradients, a, t)))(
                arrays, tangents
            )

        jax.tree.map(close, measured(primitives.native_conv), measured(by_xla))


@pytest.mark.parametrize("form", ["_conv", "_conv_input", "_conv_kernel"])
@pytest.mark.parametrize(
    "axes", [(0, None), (None, 0), (0, 0), (1, None), (1, 2), (None, 1), (-1, -1)]
)
def test_many_are_each_of_them(form: str, axes: Any) -> None:
    pads = ((1, 0), (0, 2))
    with jax.enable_x64(True):
        x, kernel, y = array(2, 6, 5, 3), array(3, 4, 3, 2), array(2, 5, 4, 2)
        one = {"_conv": (x, kernel), "_conv_input": (y, kernel), "_conv_kernel": (x, y)}[form]
        apply = lambda a, b: getattr(primitives, form).bind(a, b, pads=pads)  # noqa: E731
        many = [
            array(4, *a.shape, seed=i + 5) if axis is not None else a
            for i, (a, axis) in enumerate(zip(one, axes, strict=True))
        ]
        laid = [
            a if axis is None else jnp.moveaxis(a, 0, axis)
            for a, axis in zip(many, axes, strict=True)
        ]
        ours = jax.jit(jax.vmap(apply, axes))(*laid)
        for k in range(4):
            close(
                ours[k],
                apply(
                    *(a if axis is None else a[k] for a, axis in zip(many, axes, strict=True))
                ),
            )


def test_gradients_of_examples_one_by_one_add_up() -> None:
    x, kernel = array(8, 9, 9, 8, dtype="float32"), array(3, 3, 8, 4, seed=1, dtype="float32")

    def loss(kernel: Any, x: Any) -> Any:
        return jnp.sin(primitives.native_conv(x, kernel, ((1, 1), (1, 1)))).sum()

    each = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(kernel, x[:, None])
    np.testing.assert_allclose(
        each.sum(0), jax.jit(jax.grad(loss))(kernel, x), rtol=1e-4, atol=1e-4
    )


def convolution_lines(examples: int, **case: Any) -> list[str]:
    """The convolutions of a step's program for a CPU, where they are fast."""

    def loss(x: Any, kernel: Any) -> Any:
        return conv.conv(
            x, kernel, **{"stride": (1, 1), "padding": "SAME", "dilation": (1, 1), **case}
        ).sum()

    def step(x: Any, kernel: Any) -> Any:
        with compiling_for(None):
            return jax.value_and_grad(loss, (0, 1))(x, kernel)

    groups = case.get("groups", 1)
    shapes = (
        jax.ShapeDtypeStruct((examples, 12, 12, 8), "float32"),
        jax.ShapeDtypeStruct((3, 3, 8 // groups, 8), "float32"),
    )
    text = jax.jit(step).trace(*shapes).lower(lowering_platforms=("cpu",)).as_text()
    return [line for line in text.splitlines() if "stablehlo.convolution" in line]


def test_all_three_are_convolutions_that_the_library_supports() -> None:
    lines = convolution_lines(16)
    assert len(lines) == 3
    for line in lines:
        assert "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in line
        assert not re.search(r"reverse = \[true|(stride|dilate) = \[(?!1, 1\])", line)


def test_the_gradient_of_few_positions_is_a_product() -> None:
    assert len(convolution_lines(16, padding="VALID")) == 3  # 144 places of 100
    kernel = jax.ShapeDtypeStruct((3, 3, 8, 8), "float32")
    program = jax.jit(
        lambda y, kernel: primitives._conv_input.bind(y, kernel, pads=((0, 0), (0, 0)))
    )
    assert (
        "stablehlo.convolution"
        not in program.lower(jax.ShapeDtypeStruct((16, 4, 4, 8), "float32"), kernel).as_text()
    )


@pytest.mark.parametrize(
    "other",
    [
        {"examples": 4},
        {"stride": (2, 1)},
        {"dilation": (1, 2)},
        {"groups": 2},
        {"padding": ((3, 0), (0, 0))},
    ],
)
def test_other_cases_are_a_product_of_patches(other: dict[str, Any]) -> None:
    assert not convolution_lines(**{"examples": 16, **other})


def test_other_dtypes_channels_windows_and_dimensions_are_not_supported() -> None:
    def is_used(*shape: int, window: Any = (3, 3), dtype: str = "float32") -> bool:
        ones, pads = (1,) * len(window), ((0, 0),) * len(window)
        x, kernel = jnp.zeros(shape, dtype), jnp.zeros((*window, shape[-1], 8), dtype)
        return conv_algorithm.use_native_conv(
            x, kernel, stride=ones, pads=pads, dilation=ones, groups=1
        )

    assert is_used(8, 6, 6, 8)
    assert is_used(8, 6, 8, window=(3,))
    assert is_used(8, 6, 6, 8, window=(1, 2))
    assert not is_used(8, 6, 6, 8, dtype="bfloat16")
    assert not is_used(8, 6, 6, 3)
    assert not is_used(8, 6, 6, 8, window=(1, 1))
    assert not is_used(8, 6, 6, 6, 8, window=(3, 3, 3))


def in_program(x: Any, kernel: Any) -> Any:
    with compiling_for(None):
        return conv.conv(x, kernel, stride=(1, 1), padding="VALID", dilation=(1, 1))


def test_a_batch_of_unknown_size_is_exported() -> None:
    kernel = array(3, 3, 8, 4, dtype="float32")
    [shape] = [jax.ShapeDtypeStruct(jax.export.symbolic_shape("b,6,6,8"), "float32")]
    exported = jax.export.export(jax.jit(lambda x: in_program(x, kernel)))(shape)
    x = array(5, 6, 6, 8, seed=1, dtype="float32")
    np.testing.assert_allclose(
        exported.call(x), by_xla(x, kernel, ((0, 0), (0, 0))), rtol=1e-4, atol=1e-5
    )


def test_a_window_that_fits_nowhere_has_a_gradient_of_zero() -> None:
    gradient = jax.jit(
        jax.grad(lambda kernel: in_program(jnp.ones((16, 2, 2, 8)), kernel).sum())
    )(jnp.ones((3, 3, 8, 4)))
    np.testing.assert_array_equal(gradient, 0)


def test_a_program_without_the_options_has_patches_where_it_needs_options() -> None:
    shapes = (
        jax.ShapeDtypeStruct((16, 12, 12, 8), "float32"),
        jax.ShapeDtypeStruct((3, 3, 8, 8), "float32"),
    )

    def ours(x: Any, kernel: Any) -> Any:
        return conv.conv(x, kernel, stride=(1, 1), padding="SAME", dilation=(1, 1))

    text = jax.jit(ours).trace(*shapes).lower(lowering_platforms=("cpu",)).as_text()
    assert ("stablehlo.convolution" in text) == (not conv_algorithm._YNNPACK_IS_SLOW)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the routine is the CPU's")
def test_xla_knows_the_options_and_calls_its_own_routine() -> None:
    x, kernel = array(16, 12, 12, 32, dtype="float32"), array(3, 3, 32, 32, dtype="float32")
    program = jax.jit(
        lambda x, kernel: primitives.native_conv(x, kernel, ((0, 0), (0, 0)))
    ).lower(x, kernel)
    text = program.compile(compiler_options=conv_algorithm.CPU_OPTIONS or None).as_text()
    assert "convolution(" in text
    assert (
        "ynn" not in text or not conv_algorithm.CPU_OPTIONS
    )  # XLA of JAX 0.12 has YNNPACK, by now as fast


def test_the_traced_form_runs_again() -> None:
    traced = jax.make_jaxpr(lambda x, kernel: primitives.native_conv(x, kernel, ((1, 1),)))
    x, kernel = array(2, 5, 3, dtype="float32"), array(3, 3, 2, dtype="float32")
    [again] = jaxpr_as_fun(traced(x, kernel))(x, kernel)
    np.testing.assert_array_equal(again, primitives.native_conv(x, kernel, ((1, 1),)))
