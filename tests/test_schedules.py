"""Schedules by shares of the run: against optax's, in `fit` and by their own formulas."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, schedules

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
T = X[:, :1]
fit = functools.partial(dl.fit, dl.Dense(1), loss=losses.mean_squared_error, batch_size=10, progress=False)


def at(schedule, steps):
    return [float(schedule.over(steps)(step)) for step in range(steps + 1)]


def test_a_cosine_is_its_formula():
    rates = at(schedules.Cosine(2.0, warmup=0.2, end=0.1), 50)
    expected = [2 * k / 10 for k in range(10)]
    expected += [2 * (0.1 + 0.9 * (1 + math.cos(math.pi * k / 40)) / 2) for k in range(41)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    np.testing.assert_allclose(at(schedules.Cosine(2.0), 4), [1 + math.cos(math.pi * k / 4) for k in range(5)], atol=1e-6)


def test_a_line_is_its_formula():
    rates = at(schedules.Linear(2.0, warmup=0.5, end=0.5), 8)
    np.testing.assert_allclose(rates, [0, 0.5, 1, 1.5, 2, 1.75, 1.5, 1.25, 1], rtol=1e-6)
    np.testing.assert_allclose(at(schedules.Linear(2.0, end=1), 3), [2] * 4, rtol=1e-6)


def test_one_cycle_goes_up_and_down():
    rates = at(schedules.OneCycle(1.0, warmup=0.25, start=0.1, end=0.001), 40)
    np.testing.assert_allclose([rates[0], rates[10], rates[40]], [0.1, 1.0, 0.001], rtol=1e-4)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize("kind", [schedules.Cosine, schedules.Linear, schedules.OneCycle])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_runs_have_finite_rates(kind, steps):
    assert all(np.isfinite(at(kind(1.0, warmup=0.3), steps)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: schedules.Cosine(0.0), "peak is a learning rate and has to be larger than 0"),
        (lambda: schedules.Linear(1.0, warmup=1.0), "warmup is a share"),
        (lambda: schedules.Cosine(1.0, end=2.0), "end is a share"),
        (lambda: schedules.OneCycle(1.0, start=0.0), "have to be larger than 0"),
        (lambda: schedules.Plateau(1.0, factor=2.0), "factor lies between 0 and 1"),
        (lambda: schedules.Plateau(1.0, patience=0), "patience is at least 1"),
    ],
)
def test_what_is_none_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_fit_spreads_a_schedule_over_its_steps():
    run = fit((X, T), optimizer=optax.adam, learning_rate=schedules.Linear(0.1), epochs=5)
    np.testing.assert_allclose(run.history["learning_rate"], [0.08, 0.06, 0.04, 0.02, 0.0], atol=1e-7)
    expected = fit((X, T), optimizer=optax.adam(optax.linear_schedule(0.1, 0.0, 20)), epochs=5)
    jax.tree.map(np.testing.assert_array_equal, run.params, expected.params)


def test_steps_and_streams_are_counted_too():
    batches = [(X[:10], T[:10])] * 8
    line = {"optimizer": optax.sgd, "learning_rate": schedules.Linear(0.1)}
    np.testing.assert_allclose(fit((X, T), steps=8, **line).history["learning_rate"], [0.05, 0.0], atol=1e-7)
    np.testing.assert_allclose(fit(batches, steps=8, **line).history["learning_rate"], [0.0], atol=1e-7)
    np.testing.assert_allclose(
        fit(batches, steps_per_epoch=4, epochs=2, **line).history["learning_rate"], [0.05, 0.0], atol=1e-7
    )
    with pytest.raises(ValueError, match=r"needs to know the steps of the run, and a stream does not tell — give steps="):
        fit(batches, **line)
    with pytest.raises(
        ValueError, match=r"needs to know the steps of an epoch, and a stream does not tell — give steps_per_ep"
    ):
        fit(batches, optimizer=optax.sgd, learning_rate=schedules.Plateau(0.1))


def test_equal_schedules_share_a_program():
    from jaxdl.train import program

    fit((X, T), optimizer=optax.adam, learning_rate=schedules.Cosine(0.1), epochs=2)
    before = program._loop._cache_size()
    fit((X, T), optimizer=optax.adam, learning_rate=schedules.Cosine(0.1), epochs=2)
    assert program._loop._cache_size() == before
    fit((X, T), optimizer=optax.adam, learning_rate=schedules.Cosine(0.2), epochs=3)
    assert program._loop._cache_size() == before
    fit((X, T), optimizer=optax.adam, learning_rate=schedules.Linear(0.1), epochs=3)
    assert program._loop._cache_size() == before + 1


def plateau(losses, rate, factor, patience, tolerance):
    """The rate after each epoch, by the rule in plain words."""
    best, count, rates = math.inf, 0, []
    for loss in losses:
        count = 0 if loss < (1 - tolerance) * best else count + 1
        best = loss if loss < (1 - tolerance) * best else best
        if count == patience:
            rate, count = rate * factor, 0
        rates.append(rate)
    return rates


def test_a_plateau_follows_the_mean_loss_of_each_epoch():
    noisy = (X, T + RNG.normal(size=T.shape).astype(np.float32))
    rule = schedules.Plateau(0.3, factor=0.5, patience=2, tolerance=0.01)
    run = fit(noisy, optimizer=optax.sgd, learning_rate=rule, epochs=30)
    expected = plateau(run.history["loss"], 0.3, 0.5, 2, 0.01)
    assert len(set(expected)) > 3
    np.testing.assert_allclose(run.history["learning_rate"], expected, rtol=1e-5)


def test_a_plateau_scales_the_updates_and_ends_where_it_says():
    zeros = (X, np.zeros_like(T))
    still = dl.Sequential(lambda x: jnp.zeros_like(x), dl.Dense(1))  # a loss that cannot fall
    rule = schedules.Plateau(1.0, factor=0.5, patience=1, end=0.25)
    run = dl.fit(
        still,
        zeros,
        loss=losses.mean_squared_error,
        optimizer=optax.sgd,
        learning_rate=rule,
        batch_size=10,
        epochs=5,
        progress=False,
    )
    np.testing.assert_allclose(run.history["learning_rate"], [1.0, 0.5, 0.25, 0.25, 0.25])
    optimizer = optax.chain(optax.sgd(1.0), rule.scaling(1))
    state = optimizer.init({"w": jnp.ones(1)})
    seen = []
    for _ in range(4):
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update({"w": jnp.ones(1)}, state, value=jnp.ones(()))
        seen.append(float(updates["w"][0]))
    assert seen == [-1.0, -0.5, -0.25, -0.25]
