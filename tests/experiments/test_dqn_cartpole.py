"""The cart-pole's equations, its memory, and the loss of double Q-learning."""

import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl

pytest.importorskip("matplotlib")
dqn = importlib.import_module("experiments.dqn_cartpole")


def accelerations(angle: float, spin: float, force: float) -> np.ndarray:
    """Those of cart and pole from the equations of motion of both bodies, solved as a linear system."""
    cart, pole, half = 1.0, 0.1, 0.5
    matrix = np.array(
        [
            [cart + pole, pole * half * math.cos(angle)],
            [math.cos(angle), 4 / 3 * half],
        ]
    )
    right = np.array([force + pole * half * spin**2 * math.sin(angle), 9.8 * math.sin(angle)])
    return np.linalg.solve(matrix, right)


@pytest.mark.parametrize("action", [0, 1])
def test_a_push_moves_the_cart_by_lagranges_equations(action: int) -> None:
    state = np.random.default_rng(action).uniform(-0.2, 0.2, (5, 4)).astype(np.float32)
    state[:, 3] *= 10
    after = dqn.push(jnp.asarray(state), jnp.full(5, action))
    for before, found in zip(state, np.asarray(after), strict=True):
        pull, turning = accelerations(before[2], before[3], 10.0 if action else -10.0)
        rates = np.array([before[1], pull, before[3], turning])
        np.testing.assert_allclose(found, before + 0.02 * rates, rtol=1e-5, atol=1e-6)


def test_a_game_ends_beyond_the_track_or_the_cone() -> None:
    angle = 12 * math.pi / 180
    states = jnp.array(
        [
            [2.39, 0, angle * 0.99, 0],
            [2.41, 0, 0, 0],
            [-2.41, 0, 0, 0],
            [0, 9, -angle * 1.01, 9],
        ]
    )
    np.testing.assert_array_equal(dqn.fallen(states), [False, True, True, True])


def test_the_loss_is_that_of_double_q_learning_and_the_target_follows() -> None:
    objective = dqn.DoubleQ(dl.Dense(2), discount=0.9, follow=0.25)
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, 6, 4)).astype(np.float32)
    seen = {
        "before": before,
        "after": after,
        "action": np.array([0, 1, 1, 0, 0, 1]),
        "reward": np.ones(6, np.float32),
        "fell": np.array([False, False, True, False, True, False]),
    }
    params = {
        "kernel": rng.normal(size=(4, 2)).astype(np.float32),
        "bias": np.zeros(2, np.float32),
    }
    target = {
        "kernel": rng.normal(size=(4, 2)).astype(np.float32),
        "bias": np.ones(2, np.float32),
    }
    given = jax.tree.map(jnp.asarray, (params, {"target": target}, dl.Batch(seen, ())))
    each, state, _ = objective.loss(*given, dl.Train(jax.random.key(0)))
    for row in range(6):
        best = int(np.argmax(after[row] @ params["kernel"]))
        later = (after[row] @ target["kernel"] + 1)[best]
        wanted = 1 + (0.0 if seen["fell"][row] else 0.9 * later)
        error = (before[row] @ params["kernel"])[seen["action"][row]] - wanted
        assert float(each[row]) == pytest.approx(error**2, rel=1e-5)
    followed = 0.75 * target["kernel"] + 0.25 * params["kernel"]
    np.testing.assert_allclose(state["target"]["kernel"], followed, rtol=1e-6)


def test_transitions_are_written_over_the_oldest() -> None:
    config = dqn.Config(games=2, capacity=5, batch_size=2, exploring=10)
    objective = dqn.DoubleQ(dqn.NETWORK, config.discount, config.follow)
    step, _ = dl.make_step(objective, optimizer="sgd")
    playing = dqn.first_playing(step, config, 0)
    remember = jax.jit(dqn.remembered, static_argnums=2)
    states = []
    for update in range(3):
        states.append(playing.state)
        keys = jax.random.split(jax.random.key(update), 4)
        playing = remember(playing, keys, config)._replace(updates=jnp.int32(update + 1))
    kept = np.concatenate([states[2], states[1]])
    np.testing.assert_array_equal(playing.memory["before"], kept)
    np.testing.assert_array_equal(playing.memory["after"][:2], playing.state)
    assert playing.pushes.tolist() == [3, 3]
