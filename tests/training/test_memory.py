"""A program holds one train state, and gives it away."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses
from jaxdl.core.tree import byte_count
from jaxdl.training.data_checks import check_arrays
from jaxdl.training.epoch_loop import bounds, epoch_loop
from jaxdl.training.program import Program
from jaxdl.training.sources import resident

WIDTH = 512
MODEL = dl.Sequential(dl.Dense(WIDTH), jax.nn.relu, dl.Dense(WIDTH))
X = np.random.default_rng(0).normal(size=(8, WIDTH)).astype(np.float32)


def test_an_epoch_updates_the_state_in_place() -> None:
    """A copy of what Adam updates would be three times the parameters more."""
    feed = resident(check_arrays("data", (X, X)), 4, jax.random.key(0), True)
    step = dl.Supervised(MODEL, losses.mean_squared_error, optax.adam(1e-3))
    state = step.init(jax.random.key(0), feed.example)
    program = Program("epoch", step, state)
    fixed = program._fixed(feed.source)
    compiled = epoch_loop.lower(
        fixed.form,
        fixed.capacity,
        False,
        "cpu",
        fixed.numbers,
        feed.source,
        None,
        state,
        feed.source.orders(0, 1),
        program.init_carry(feed.source).sums,
        *fixed.room,
        bounds(feed.source, 0, 2),
    ).compile()
    memory = compiled.memory_analysis()
    parameters = byte_count(state.params)
    assert memory.alias_size_in_bytes >= 3 * parameters
    assert memory.temp_size_in_bytes < 2 * parameters


@pytest.mark.parametrize("execution", ["step", "epoch"])
def test_one_state_is_alive_while_a_run_goes_on(execution: Any) -> None:
    held = []

    def callback(end: dl.Stage) -> None:
        del end
        alive = [array for array in jax.live_arrays() if array.shape == (WIDTH, WIDTH)]
        held.append(len(alive))

    before = sum(array.shape == (WIDTH, WIDTH) for array in jax.live_arrays())
    dl.fit(
        MODEL,
        (X, X),
        loss=losses.mean_squared_error,
        optimizer=optax.adam(1e-3),
        epochs=3,
        batch_size=4,
        compile=execution,
        callbacks=[callback],
        progress=False,
    )
    assert set(held) == {before + 2 * 3}  # two kernels, each with Adam's two moments


def test_what_was_given_to_start_from_is_never_donated() -> None:
    params, state = MODEL.init(jax.random.key(0), jnp.ones((1, WIDTH)))
    options: Any = {
        "loss": losses.mean_squared_error,
        "optimizer": optax.adam(1e-3),
        "progress": False,
    }
    run = dl.fit(MODEL, (X, X), initial=(params, state), **options)
    dl.fit(MODEL, (X, X), initial=(run.params, run.state), **options)
    leaves = jax.tree.leaves((params, run.params, run.train_state))
    assert not any(leaf.is_deleted() for leaf in leaves)
