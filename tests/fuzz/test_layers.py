"""Every layer with any arguments on any input: outputs that are right, or a sentence."""

from typing import Any

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

import jaxdl as dl
from jaxdl.core.tree import parameter_count, shapes
from tests.fuzz.outcome import attempt, case, examples
from tests.fuzz.strategies import ARGUMENTS, arguments, inputs_of

KEY = jax.random.key(0)
EVAL, TRAIN = dl.Eval(), dl.Train(jax.random.key(1))


@st.composite
def layers_and_inputs(draw: Any) -> tuple[type, dict[str, Any], np.ndarray, np.ndarray]:
    """A kind of layer, its arguments, what it is begun with, and what it is given then."""
    kind = draw(st.sampled_from(list(ARGUMENTS)))
    first = draw(inputs_of(kind))
    return (
        kind,
        draw(arguments(ARGUMENTS[kind])),
        first,
        draw(inputs_of(kind)) if draw(st.integers(0, 3)) == 0 else first,
    )


def shape_of(layer: Any, x: Any, then: Any, mode: Any) -> tuple[Any, Any]:
    """The parameters' shapes, and those of the outputs; nothing is computed."""
    params, state = attempt(jax.eval_shape, layer.init, KEY, shapes(x))
    return (params, state), attempt(
        jax.eval_shape, layer.apply, params, state, shapes(then), mode
    )[0]


@pytest.mark.slow
@examples(150)
@hypothesis.given(layers_and_inputs(), st.booleans())
def test_shapes_are_those_that_are_meant_or_refused(drawn: Any, train: bool) -> None:
    kind, given, first, then = drawn
    with case("layers, by shapes"):
        layer = attempt(kind, **given)
        hash(layer)
        y = shape_of(layer, first, then, TRAIN if train else EVAL)[1]
        for leaf in jax.tree.leaves(y):
            assert leaf.shape[:1] == then.shape[:1], (
                f"{layer} gives {leaf.shape} of {then.shape}"
            )


@pytest.mark.slow
@examples(20)
@hypothesis.given(layers_and_inputs())
def test_each_example_gives_what_it_gives_alone(drawn: Any) -> None:
    kind, given, first, then = drawn
    with case("layers, by numbers"):
        layer = attempt(kind, **given)
        (params, state), expected = shape_of(layer, first, then, EVAL)
        hypothesis.assume(parameter_count((params, state, expected)) < 10_000)
        before = then.copy()
        params, state = attempt(layer.init, KEY, first)
        y, after = attempt(layer.apply, params, state, then)
        assert shapes(y) == shapes(expected)
        np.testing.assert_array_equal(then, before)
        same(after, state)
        for row in range(min(len(then), 2) if then.ndim else 0):
            alone, _ = attempt(layer.apply, params, state, then[row : row + 1])
            jax.tree.map(lambda a, b, row=row: close(a, b[row : row + 1]), alone, y)
        attempt(layer.apply, params, state, then, TRAIN)


def close(a: Any, b: Any) -> None:
    tolerance = 1e-5 if a.dtype == np.float32 else 0.05
    np.testing.assert_allclose(
        np.asarray(a, np.float32), np.asarray(b, np.float32), rtol=tolerance, atol=tolerance
    )


def same(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)
