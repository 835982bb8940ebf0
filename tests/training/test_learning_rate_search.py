"""The range test: on a parabola whose limit of stability is known, and on real digits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, metrics
from jaxdl.training.learning_rate_search import _smoothed

pytestmark = pytest.mark.usefixtures("quickly_compiled")

ONE = dl.Dense(1, use_bias=False)
X = np.ones((4, 1), np.float32)
START = ({"kernel": jnp.ones((1, 1))}, {})
find = functools.partial(
    dl.find_learning_rate, loss=losses.mean_squared_error, optimizer=optax.sgd, initial=START
)


@pytest.mark.slow
@pytest.mark.parametrize("curvature", [0.2, 5.0])
def test_gradient_descent_is_stable_below_two_over_the_curvature(curvature):
    """With L(w) = λ w² / 2 a step of rate η multiplies w by 1 − η λ: the loss rises once η > 2 / λ, and not before."""
    inputs = X * np.float32(np.sqrt(curvature / 2))  # the loss is (w x)²
    found = find(
        ONE,
        (inputs, 0 * X),
        batch_size=4,
        lowest=1e-3 / curvature,
        highest=1e4 / curvature,
        steps=150,
    )
    limit = 2 / curvature
    rising = np.flatnonzero(np.diff(found.losses) > 0)
    assert found.rates[rising[0]] > limit
    assert (found.rates[rising[0] - 1] <= limit) or np.allclose(
        found.rates[rising[0] - 1], limit, rtol=0.05
    )
    assert found.diverged
    assert 0.01 * limit < found.suggestion < limit
    run = dl.fit(
        ONE,
        (inputs, 0 * X),
        loss=losses.mean_squared_error,
        optimizer=optax.sgd,
        learning_rate=found.suggestion,
        epochs=60,
        initial=START,
        progress=False,
    )
    assert run.history["loss"][-1] < 0.1 * run.history["loss"][0]


@functools.cache
def digits():
    pytest.importorskip("sklearn")
    return dl.data.digits()


MODEL = dl.Sequential(dl.Flatten(), dl.Dense(32), jax.nn.relu, dl.Dense(10))


@pytest.mark.slow
@pytest.mark.once
def test_the_suggestion_trains_digits_well():
    train, test = digits()
    found = dl.find_learning_rate(MODEL, train, loss=losses.softmax_cross_entropy)
    assert 1e-3 < found.suggestion < 1e-1

    def accuracy(rate):
        run = dl.fit(
            MODEL,
            train,
            loss=losses.softmax_cross_entropy,
            optimizer=optax.adam,
            learning_rate=rate,
            epochs=3,
            validation=test,
            metrics={"accuracy": metrics.accuracy},
            progress=False,
        )
        return run.history["validation_accuracy"][-1]

    here = accuracy(found.suggestion)
    assert here > 0.9
    assert here > accuracy(found.suggestion / 100) + 0.1
    assert here > accuracy(found.suggestion * 100) + 0.1


@pytest.mark.slow
def test_rates_grow_geometrically_and_losses_are_those_of_the_steps():
    train, _ = digits()
    options = {"loss": losses.softmax_cross_entropy, "batch_size": 200}
    found = dl.find_learning_rate(
        MODEL, train, optimizer="sgd", lowest=1e-4, highest=1e-1, steps=20, **options
    )
    np.testing.assert_allclose(found.rates, np.geomspace(1e-4, 1e-1, 20), rtol=1e-6)
    schedule = optax.exponential_decay(1e-4, 19, 1e3)
    run = dl.fit(
        MODEL, train, optimizer=optax.sgd(schedule), steps=20, progress=False, **options
    )
    sizes = [200] * 7 + [37]
    for epoch, first in enumerate((0, 8)):
        mean = np.average(found.losses[first : first + 8], weights=sizes)
        np.testing.assert_allclose(run.history["loss"][epoch], mean, rtol=1e-5)
    np.testing.assert_allclose(run.history["learning_rate"][0], schedule(7), rtol=1e-5)


@pytest.mark.slow
def test_a_test_is_one_program_and_a_second_one_none():
    from jaxdl.training import program

    before = program.epoch_loop._cache_size()
    first = find(ONE, (X, 0 * X), batch_size=2, steps=50)
    assert program.epoch_loop._cache_size() == before + 1
    second = find(ONE, (X, 0 * X), batch_size=2, steps=50)
    assert program.epoch_loop._cache_size() == before + 1
    np.testing.assert_array_equal(first.losses, second.losses)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["step", pytest.param("eager", marks=pytest.mark.once)])
def test_ways_and_streams_find_the_same(way):
    options = {"batch_size": 4, "steps": 30, "lowest": 1e-3, "highest": 30.0}
    reference = find(ONE, (X, 0 * X), **options)
    other = find(ONE, (X, 0 * X), compile=way, **options)
    stream = find(ONE, [(X, 0 * X)] * 7, compile="step", **options)
    assert len(reference.losses) == len(other.losses) == len(stream.losses)
    np.testing.assert_allclose(other.losses, reference.losses, rtol=1e-4)
    np.testing.assert_allclose(stream.losses, reference.losses, rtol=1e-4)
    assert reference.suggestion == other.suggestion == stream.suggestion


def test_smoothing_shifts_nothing():
    places = np.arange(101.0)
    bump = np.exp(-0.5 * ((places - 50) / 8) ** 2)
    smoothed = _smoothed(bump, 3.0)
    assert smoothed.argmax() == 50
    np.testing.assert_allclose(smoothed, smoothed[::-1], atol=1e-12)
    np.testing.assert_allclose(_smoothed(np.full(20, 3.0), 2.0), 3.0)
    wide = 8 / np.hypot(8, 3) * np.exp(-0.5 * ((places - 50) / np.hypot(8, 3)) ** 2)
    np.testing.assert_allclose(smoothed, wide, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"optimizer": optax.sgd(0.1)},
            "it has a learning rate already — give the function alone",
        ),
        ({"lowest": 1.0, "highest": 0.1}, "rates grow from lowest to highest"),
        ({"steps": 3}, "steps is a whole number of at least 20"),
        ({"lowest": 1e3, "highest": 1e4}, "the loss diverged after . steps"),
        ({"lowest": 1e-30, "highest": 1e-29}, "the loss did not fall at any rate between"),
    ],
)
def test_what_cannot_be_tested_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        find(ONE, (X, 0 * X), **options)


@pytest.mark.slow
def test_the_plot_marks_the_suggestion_on_a_logarithmic_axis(tmp_path):
    found = find(ONE, (X, 0 * X), steps=50)
    figure = found.plot(tmp_path / "range.png")
    assert (tmp_path / "range.png").stat().st_size > 5000
    (axis,) = figure.axes
    assert (axis.get_xscale(), axis.get_xlabel(), axis.get_ylabel()) == (
        "log",
        "learning rate",
        "training loss",
    )
    assert [line.get_label() for line in axis.lines][:2] == ["each step", "smoothed"]
    assert axis.lines[2].get_xdata()[0] == found.suggestion
