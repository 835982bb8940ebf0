"""The loop over steps does without XLA's passes for loops where a step has none of its own, and only there."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses
from jaxdl.compiling.loops import outermost_loops
from jaxdl.training import outcome, program
from jaxdl.training.data_checks import check_arrays
from jaxdl.training.sources import resident
from jaxdl.training.step_form import closed_step

X = np.random.default_rng(0).normal(size=(20, 6, 4)).astype(np.float32)
Y = np.arange(20, dtype=np.int32) % 3


def squared_often(x: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, 2, lambda _, x: x * x, x)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("layers", "loops"),
    [
        ((dl.Flatten(), dl.Dense(3)), False),
        ((dl.Flatten(), dl.Dropout(0.5), dl.Dense(3)), False),
        ((dl.LSTM(4, sequence=False), dl.Dense(3)), True),
        ((dl.Flatten(), squared_often, dl.Dense(3)), True),
    ],
)
def test_passes_for_loops_are_left_out_where_a_step_has_none(
    layers: tuple, loops: bool
) -> None:
    feed = resident(check_arrays("data", (X, Y)), 5, jax.random.key(0), True)
    step = dl.Supervised(dl.Sequential(*layers), losses.softmax_cross_entropy, optax.adam(1e-2))
    state = step.init(jax.random.key(0), feed.example)
    assert outcome.outcome(step, feed.source, state).loops == loops
    options = program.epoch_loop.options(
        closed_step(step), 4, False, "cpu", (), feed.source, None, state
    )
    assert (
        "while-loop-invariant-code-motion" in options.get("xla_disable_hlo_passes", "")
    ) == (not loops)


def test_loops_are_found_in_functions_and_not_inside_each_other() -> None:
    def function(x: jax.Array) -> jax.Array:
        def turn(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return jax.jit(squared_often)(x), None

        x = jax.checkpoint(lambda x: jax.lax.scan(turn, x, None, length=7)[0])(x)
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x + 1, x)

    assert [loop.length for loop in outermost_loops(jax.make_jaxpr(function)(jnp.ones(3)))] == [
        7,
        None,
    ]
    assert not list(outermost_loops(jax.make_jaxpr(jnp.sin)(1.0)))
