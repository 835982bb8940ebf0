"""What a function gives without computing, against what its program gives."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl.constants import Computes, constants_of, filled
from jaxdl.tree import shapes

PARAMS = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2, jnp.bfloat16)}


@pytest.mark.parametrize(
    "function",
    [
        optax.adam(1e-3).init,
        optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(optax.cosine_decay_schedule(0.1, 5), momentum=0.9)).init,
        optax.adabelief(1e-3, nesterov=True).init,
        optax.adagrad(1e-2, initial_accumulator_value=0.1).init,
        lambda params: (
            params,
            jnp.full((2, 2), -0.0, "float32"),
            jnp.ones(3, bool),
            jnp.asarray(7, jnp.int32),
            params["bias"],
        ),
        jax.jit(lambda params: jax.tree.map(jnp.zeros_like, params)),
    ],
    ids=["adam", "chain", "adabelief", "adagrad", "constants", "jit"],
)
def test_arguments_and_constants_are_those_of_the_program(function: Any) -> None:
    made = filled(constants_of(function, shapes(PARAMS)), PARAMS)
    expected = jax.jit(function)(PARAMS)
    assert jax.tree.structure(made) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(made), jax.tree.leaves(expected), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


@pytest.mark.parametrize(
    "function",
    [
        lambda params: params["kernel"] * 2,
        lambda params: jnp.arange(3),
        lambda params: jnp.broadcast_to(params["bias"], (3, 2)),
        lambda params: jnp.zeros(()) + 1,
        jax.jit(lambda params: jax.random.normal(jax.random.key(0))),
        lambda params: halved().init(params),
        lambda params: (params["kernel"], 1.5),  # of weak type, which an array on the host has not
    ],
    ids=["product", "arange", "broadcast", "sum", "random", "halves", "weak"],
)
def test_what_computes_says_so(function: Any) -> None:
    with pytest.raises(Computes):
        constants_of(function, shapes(PARAMS))


def test_a_run_from_given_parameters_compiles_no_program_for_its_first_state(caplog: pytest.LogCaptureFixture) -> None:
    model, x = dl.Dense(1), jnp.ones((8, 3))
    settings: dict[str, Any] = {"loss": dl.losses.mean_squared_error, "epochs": 1, "progress": False}
    initial = model.init(jax.random.key(0), x)
    for optimizer, programs in ((optax.adam(1e-3), 0), (optax.chain(optax.adam(1e-3), halved()), 1)):
        caplog.clear()
        with jax.log_compiles():
            dl.fit(model, (x, x[:, :1]), optimizer=optimizer, initial=initial, **settings)
        assert sum("Compiling jit(_restart)" in record.getMessage() for record in caplog.records) == programs


def halved() -> optax.GradientTransformation:
    """Its first state is computed of the parameters."""
    return optax.GradientTransformation(lambda params: jax.tree.map(lambda leaf: leaf / 2, params), lambda u, s, p=None: (u, s))
