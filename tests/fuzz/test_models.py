"""Small models of random parts: a sentence that names the place, or outputs of the shape that was told."""

from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import jaxdl as dl
from jaxdl import activations
from jaxdl.core.tree import parameter_count, shapes
from tests.fuzz.outcome import attempt, case, examples
from tests.fuzz.strategies import ARGUMENTS, INPUTS, absurd, arguments

KEY = jax.random.key(0)
FUNCTIONS = st.sampled_from([activations.relu, jnp.tanh, activations.gelu, activations.silu])


class Part:
    """A call that makes a part once it is attempted, so that the whole is written down before anything is refused."""

    def __init__(self, kind: Any, *parts: Any, **options: Any) -> None:
        self.kind, self.parts, self.options = kind, parts, options

    def made(self) -> Any:
        parts = [part.made() if isinstance(part, Part) else part for part in self.parts]
        options = {
            name: part.made() if isinstance(part, Part) else part
            for name, part in self.options.items()
        }
        return attempt(self.kind, *parts, **options)

    def __repr__(self) -> str:
        return f"{self.kind.__name__}({', '.join([*map(repr, self.parts), *(f'{k}={v!r}' for k, v in self.options.items())])})"


@st.composite
def single(draw: Any) -> Any:
    """A layer or a function; seldom something else."""
    if draw(st.integers(0, 4)) == 0:
        return draw(FUNCTIONS | absurd)
    kind = draw(st.sampled_from(list(ARGUMENTS)))
    return Part(kind, **draw(arguments(ARGUMENTS[kind], spoil=draw(st.integers(0, 3)) == 0)))


def wider(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Combinators of parts."""
    several = st.lists(parts, max_size=4)
    how = {
        "combine": st.sampled_from(["concatenate", "add"]),
        "axis": st.sampled_from([-1, 0, 1, 2, 5, -7]),
    }
    return st.one_of(
        several.map(lambda drawn: Part(dl.Sequential, *drawn)),
        parts.map(lambda body: Part(dl.Residual, body)),
        st.tuples(parts, parts).map(lambda both: Part(dl.Residual, *both)),
        st.tuples(several, arguments(how)).map(
            lambda drawn: Part(dl.Parallel, *drawn[0], **drawn[1])
        ),
        st.tuples(parts, st.sampled_from([1, 1, -1, 0, 2, 9]) | absurd).map(
            lambda drawn: Part(dl.Map, *drawn)
        ),
        parts.map(lambda body: Part(dl.Frozen, body)),
        st.tuples(parts, st.sampled_from(["concatenate", "add"]) | absurd).map(
            lambda drawn: Part(dl.Bidirectional, *drawn)
        ),
        st.tuples(parts, st.sampled_from(["bfloat16", "float16"]) | absurd).map(
            lambda drawn: Part(dl.in_precision, *drawn)
        ),
        st.tuples(
            several, parts, st.sampled_from(["a", "b", "dense_0"]), st.none() | parts
        ).map(
            lambda drawn: Part(
                dl.Sequential, *drawn[0], a=drawn[1], again=Part(dl.Tied, drawn[2], drawn[3])
            )
        ),
    )


models = st.recursive(single(), wider, max_leaves=6)
inputs = st.sampled_from(list(INPUTS)).flatmap(INPUTS.__getitem__)


@pytest.mark.slow
@examples(60)
@hypothesis.given(models, inputs, st.booleans())
def test_a_model_of_random_parts(part: Any, x: np.ndarray, train: bool) -> None:
    with case("models"):
        model = part.made() if isinstance(part, Part) else attempt(dl.Sequential, part)
        if not isinstance(model, dl.Layer):
            return
        hash(model)
        mode = dl.Train(KEY) if train else dl.Eval()
        params, state = attempt(jax.eval_shape, model.init, KEY, shapes(x), users=True)
        y, after = attempt(
            jax.eval_shape, model.apply, params, state, shapes(x), mode, users=True
        )
        assert shapes(after) == shapes(state)
        summary = attempt(dl.summary, model, shapes(x))
        assert summary.parameters == parameter_count(params)
        assert str(summary)
        del y
