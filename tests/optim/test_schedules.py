"""Schedules by shares of the run: against optax's, in `fit` and by their own formulas."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, optim

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
T = X[:, :1]
fit = functools.partial(
    dl.fit, dl.Dense(1), loss=losses.mean_squared_error, batch_size=10, progress=False
)


def at(schedule, steps):
    return [float(schedule.over(steps)(step)) for step in range(steps + 1)]


def test_a_cosine_is_its_formula():
    rates = at(optim.Cosine(2.0, warmup=0.2, end=0.1), 50)
    expected = [2 * k / 10 for k in range(10)]
    expected += [2 * (0.1 + 0.9 * (1 + math.cos(math.pi * k / 40)) / 2) for k in range(41)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    np.testing.assert_allclose(
        at(optim.Cosine(2.0), 4), [1 + math.cos(math.pi * k / 4) for k in range(5)], atol=1e-6
    )


def test_a_line_is_its_formula():
    rates = at(optim.Linear(2.0, warmup=0.5, end=0.5), 8)
    np.testing.assert_allclose(rates, [0, 0.5, 1, 1.5, 2, 1.75, 1.5, 1.25, 1], rtol=1e-6)
    np.testing.assert_allclose(at(optim.Linear(2.0, end=1), 3), [2] * 4, rtol=1e-6)


LONGEST = 3_000


def by_formula(schedule, steps):
    """The rate at each of the steps 0 … LONGEST of a run of so many, in float64; behind its end the last rate stays."""
    rise = min(max(round(schedule.warmup * steps), 1), steps - 1) if schedule.warmup else 0
    count = np.minimum(np.arange(LONGEST + 1, dtype=np.float64), steps)
    up, down = np.minimum(count / max(rise, 1), 1), np.maximum(count - rise, 0) / (steps - rise)
    start = getattr(schedule, "start", 0)
    if isinstance(schedule, optim.Linear):
        fall = schedule.end + (1 - schedule.end) * (1 - down)
    else:
        fall = schedule.end + (1 - schedule.end) * (1 + np.cos(np.pi * down)) / 2
    rising = (1 - np.cos(np.pi * up)) / 2 if isinstance(schedule, optim.OneCycle) else up
    return schedule.peak * np.where(count < rise, start + (1 - start) * rising, fall)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize(
    "schedule",
    [
        optim.Cosine(0.5, warmup=0.3, end=0.1),
        optim.Linear(0.5, warmup=0.999, end=0.2),
        optim.OneCycle(0.5, warmup=0.02),
    ],
    ids=repr,
)
def test_runs_of_every_length_have_the_rates_of_the_formula(schedule):
    counts = jnp.arange(LONGEST + 1, dtype=jnp.float32)
    for steps in range(1, LONGEST + 1):
        rates = np.asarray(schedule.over(steps)(counts))
        wrong = np.abs(rates - by_formula(schedule, steps)) > 1e-6
        assert not wrong.any(), (
            f"{steps} steps: step {np.argmax(wrong)} has {rates[np.argmax(wrong)]}"
        )


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", [optim.Cosine, optim.Linear, optim.OneCycle])
@pytest.mark.parametrize("warmup", [0.0, 0.02, 0.3, 0.999])
def test_short_runs_have_the_rates_of_the_formula_whatever_their_warmup(kind, warmup):
    schedule = kind(0.5, warmup=warmup, end=0.0)
    for steps in [*range(1, 20), 49, 98, 103, 107]:
        rates = schedule.over(steps)(jnp.arange(LONGEST + 1, dtype=jnp.float32))
        np.testing.assert_allclose(rates, by_formula(schedule, steps), atol=1e-6)


@pytest.mark.parametrize("kind", [optim.Cosine, optim.Linear, optim.OneCycle])
def test_the_peak_may_be_traced(kind):
    rates = jax.jit(lambda peak: kind(peak, warmup=0.1, end=0.5).over(50)(jnp.arange(51.0)))(
        jnp.float32(0.5)
    )
    expected = [float(kind(0.5, warmup=0.1, end=0.5).over(50)(step)) for step in range(51)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", [optim.Cosine, optim.Linear, optim.OneCycle])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_runs_have_finite_rates(kind, steps):
    assert all(np.isfinite(at(kind(1.0, warmup=0.3), steps)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: optim.Cosine(0.0), "peak is a learning rate and has to be larger than 0"),
        (lambda: optim.Linear(1.0, warmup=1.0), "warmup is a fraction"),
        (lambda: optim.Cosine(1.0, end=2.0), "end is a fraction"),
        (lambda: optim.OneCycle(1.0, start=-0.1), "start is a fraction"),
        (lambda: optim.Plateau(1.0, factor=2.0), "factor lies between 0 and 1"),
        (lambda: optim.Plateau(1.0, patience=0), "patience is at least 1"),
    ],
)
def test_what_is_none_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_fit_spreads_a_schedule_over_its_steps():
    run = fit((X, T), optimizer=optax.adam, learning_rate=optim.Linear(0.1), epochs=5)
    np.testing.assert_allclose(
        run.history["learning_rate"], [0.085, 0.065, 0.045, 0.025, 0.005], atol=1e-7
    )
    expected = fit((X, T), optimizer=optax.adam(optax.linear_schedule(0.1, 0.0, 20)), epochs=5)
    jax.tree.map(np.testing.assert_array_equal, run.params, expected.params)


def gradient_one(outputs, targets):
    """A loss whose gradient is the input, 1: an update of SGD is the rate."""
    del targets
    return outputs[:, 0]


def lengths(kernels):
    """Of the updates between them."""
    return [float(before - after) for before, after in itertools.pairwise(kernels)]


@pytest.mark.slow
def test_the_history_has_the_rate_of_the_last_update():
    """With one step an epoch, each entry is the length of that epoch's update."""
    ones, kernels = np.ones((4, 1), np.float32), [0.0]
    single = functools.partial(
        dl.fit,
        dl.Dense(1, use_bias=False),
        (ones, ones),
        loss=gradient_one,
        batch_size=4,
        progress=False,
    )
    run = single(
        initial=({"kernel": np.zeros((1, 1), np.float32)}, {}),
        optimizer=optax.sgd,
        learning_rate=optim.Linear(1.0),
        epochs=4,
        callbacks=[lambda end: kernels.append(end.train_state.params["kernel"][0, 0])],
    )
    np.testing.assert_allclose(run.history["learning_rate"], lengths(kernels), rtol=1e-6)
    np.testing.assert_allclose(
        run.history["learning_rate"], [1, 3 / 4, 2 / 4, 1 / 4], rtol=1e-6
    )
    for per_epoch, optimizer in ((1, optax.inject_hyperparams(optax.sgd)), (2, optax.sgd)):
        run = single(
            optimizer=optimizer(optax.linear_schedule(1.0, 0.0, 8)),
            epochs=3,
            batch_size=4 // per_epoch,
        )
        np.testing.assert_allclose(
            run.history["learning_rate"],
            [1 - (k * per_epoch - 1) / 8 for k in (1, 2, 3)],
            rtol=1e-6,
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prodigy", "dadapt_adamw"])
def test_the_history_has_the_estimate_of_the_last_update(name):
    """By the optimizer's own updates, step by step: the factor is that in the state before each."""
    schedule = optax.linear_schedule(2.0, 0.0, 40)
    optimizer = optax.with_extra_args_support(getattr(optax.contrib, name)(schedule))
    params = {"kernel": jnp.zeros((3, 1))}
    run = dl.fit(
        dl.Dense(1, use_bias=False), (X, T), loss=losses.mean_squared_error, optimizer=optimizer, epochs=20,
        batch_size=40, shuffle=False, progress=False, initial=(params, {}),
    )  # fmt: skip
    gradient = jax.grad(lambda params: jnp.mean(jnp.square(X @ params["kernel"] - T)))
    state, expected = optimizer.init(params), []
    with jax.numpy_dtype_promotion("standard"):
        for step in range(20):
            expected.append(float(state.estim_lr * schedule(step)))
            updates, state = optimizer.update(gradient(params), state, params)
            params = optax.apply_updates(params, updates)
    assert expected[5] > 1.5 * expected[0]  # it grows
    np.testing.assert_allclose(run.history["learning_rate"], expected, rtol=1e-3)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (optax.partition({"a": optax.adam(3e-3), "b": optax.set_to_zero()}, {"kernel": "a", "bias": "b"}), 3e-3),
        (optax.partition({"a": optax.adam(optax.linear_schedule(1.0, 0.0, 8)), "b": optax.sgd(0.1)}, {"kernel": "a", "bias": "b"}), 5 / 8),
        (optax.chain(optax.masked(optax.set_to_zero(), {"kernel": True, "bias": False}), optax.sgd(0.1)), 0.1),
        (optax.masked(optax.sgd(optax.linear_schedule(1.0, 0.0, 8)), {"kernel": True, "bias": False}), 5 / 8),
        (optax.MultiSteps(optax.sgd(optax.linear_schedule(1.0, 0.0, 8)), 2).gradient_transformation(), 7 / 8),
    ],
    ids=["frozen", "two", "masked", "schedule", "several steps"],
)  # fmt: skip
def test_the_rate_of_parts_of_the_parameters_is_found(optimizer, expected):
    history = fit((X, T), optimizer=optimizer).history  # 4 steps: the last with count 3
    np.testing.assert_allclose(history["learning_rate"], [expected], rtol=1e-6)


@pytest.mark.slow
def test_steps_and_streams_are_counted_too():
    batches = [(X[:10], T[:10])] * 8
    line = {"optimizer": optax.sgd, "learning_rate": optim.Linear(0.1)}
    np.testing.assert_allclose(
        fit((X, T), steps=8, **line).history["learning_rate"], [0.0625, 0.0125], atol=1e-7
    )
    np.testing.assert_allclose(
        fit(batches, steps=8, **line).history["learning_rate"], [0.0125], atol=1e-7
    )
    np.testing.assert_allclose(
        fit(batches, steps_per_epoch=4, epochs=2, **line).history["learning_rate"],
        [0.0625, 0.0125],
        atol=1e-7,
    )
    with pytest.raises(
        ValueError,
        match=r"needs to know the steps of the run, and a stream does not say — give steps=",
    ):
        fit(batches, **line)
    with pytest.raises(
        ValueError,
        match=r"needs to know the steps of an epoch, and a stream does not say — give steps_per_ep",
    ):
        fit(batches, optimizer=optax.sgd, learning_rate=optim.Plateau(0.1))


def test_equal_schedules_share_a_program():
    from jaxdl.training import program

    fit((X, T), optimizer=optax.adam, learning_rate=optim.Cosine(0.1), epochs=2)
    before = program.epoch_loop._cache_size()
    fit((X, T), optimizer=optax.adam, learning_rate=optim.Cosine(0.1), epochs=2)
    assert program.epoch_loop._cache_size() == before
    fit((X, T), optimizer=optax.adam, learning_rate=optim.Cosine(0.2), epochs=3)
    assert program.epoch_loop._cache_size() == before
    fit(
        (X[:23], T[:23]), optimizer=optax.adam, learning_rate=optim.Cosine(0.1)
    )  # data of a shape that no other test has
    fit((X[:23], T[:23]), optimizer=optax.adam, learning_rate=optim.Linear(0.1))
    assert program.epoch_loop._cache_size() == before + 2


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
    rule = optim.Plateau(0.3, factor=0.5, patience=2, tolerance=0.01)
    run = fit(noisy, optimizer=optax.sgd, learning_rate=rule, epochs=30)
    expected = plateau(run.history["loss"], 0.3, 0.5, 2, 0.01)
    assert len(set(expected)) > 3
    np.testing.assert_allclose(run.history["learning_rate"], expected, rtol=1e-5)


def test_a_plateau_scales_the_updates_and_ends_where_it_says():
    zeros = (X, np.zeros_like(T))
    still = dl.Sequential(lambda x: jnp.zeros_like(x), dl.Dense(1))  # a loss that cannot fall
    rule = optim.Plateau(1.0, factor=0.5, patience=1, end=0.25)
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
