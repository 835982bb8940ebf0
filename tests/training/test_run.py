"""What a run does with its model: evaluate, predict, classify."""

import functools
import gc
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, metrics

pytestmark = pytest.mark.usefixtures("quickly_compiled")
MODEL = dl.Sequential(dl.Dense(6), dl.BatchNorm(), jax.nn.relu, dl.Dense(3))


def blobs(count: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    x = random.normal(size=(count, 4)) + labels[:, None]
    return x.astype(np.float32), labels.astype(np.int32)


def settings(**more: Any) -> dict[str, Any]:
    return {
        "loss": losses.softmax_cross_entropy,
        "optimizer": optax.adam(1e-2),
        "epochs": 3,
        "batch_size": 20,
        "metrics": {"accuracy": metrics.accuracy},
        "progress": False,
    } | more


def fitted(**more: Any) -> dl.Run:
    return dl.fit(MODEL, blobs(), **settings(**more))


@pytest.mark.slow
def test_a_run_predicts_and_evaluates_as_the_functions_do() -> None:
    run = fitted()
    x, y = blobs(30, 1)
    weights = (run.params, run.state)
    np.testing.assert_array_equal(run.predict(x), dl.predict(MODEL, *weights, x))
    expected = dl.evaluate(
        MODEL,
        *weights,
        (x, y),
        loss=losses.softmax_cross_entropy,
        metrics={"accuracy": metrics.accuracy},
    )
    assert run.evaluate((x, y)) == expected
    assert list(run.evaluate((x, y), metrics={"f": metrics.F1()}, batch_size=7)) == [
        "loss",
        "f",
    ]
    np.testing.assert_array_equal(run.classify(x), np.argmax(run.predict(x), axis=1))
    stepped = run.predict(x, compile="step", batch_size=7)
    np.testing.assert_allclose(stepped, run.predict(x), rtol=1e-5, atol=1e-6)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"average": 0.8},
        {"early_stopping": dl.EarlyStopping(patience=9)},
        {"average": 0.8, "early_stopping": dl.EarlyStopping(patience=9)},
        {"optimizer": "schedule_free_adamw", "learning_rate": 0.01},
    ],
    ids=str,
)
def test_validation_data_give_the_figures_of_the_history(more: dict[str, Any]) -> None:
    held = blobs(40, 1)
    run = fitted(validation=held, **more)
    stopping = "early_stopping" in more
    epoch = run.best.epoch if stopping and run.best is not None else -1
    found = run.evaluate(held, batch_size=20)
    for name in ("loss", "accuracy"):
        assert found[name] == pytest.approx(run.history[f"validation_{name}"][epoch], rel=1e-6)
    moved = run.on(jax.devices()[0])
    np.testing.assert_array_equal(moved.predict(held[0]), run.predict(held[0]))


@pytest.mark.slow
def test_members_predict_as_their_population() -> None:
    runs = dl.fit_many(MODEL, blobs(), seeds=2, **settings(average=0.8))
    x, y = blobs(30, 1)
    together = runs.predict(x).each
    figures = runs.evaluate((x, y), loss=losses.softmax_cross_entropy)
    for i in range(2):
        np.testing.assert_allclose(runs[i].predict(x), together[i], rtol=1e-5, atol=1e-6)
        assert runs[i].evaluate((x, y))["loss"] == pytest.approx(figures["loss"][i], rel=1e-5)
    assert runs.best.settings["seed"] == str(runs.best_member.seed)
    assert runs[1].model == MODEL


def binary_run(loss: Any, features: int) -> dl.Run:
    x, y = blobs()
    targets = np.repeat((y > 0).astype(np.float32)[:, None], features, axis=1)
    more = settings(loss=loss, metrics=None, epochs=1)
    return dl.fit(dl.Dense(features), (x, targets), **more)


@pytest.mark.parametrize(
    ("loss", "features", "threshold"),
    [
        (losses.binary_cross_entropy, 1, 0.0),
        (losses.binary_cross_entropy, 4, 0.0),
        (functools.partial(losses.focal, gamma=1.0), 2, 0.0),
        (losses.mean_squared_error, 1, 0.3),
    ],
)
def test_binary_outputs_are_classified_by_a_threshold(
    loss: Any, features: int, threshold: float
) -> None:
    run = binary_run(loss, features)
    x, _ = blobs(20, 2)
    expected = np.asarray(run.predict(x)) > threshold
    found = run.classify(x, threshold=threshold or None)
    np.testing.assert_array_equal(found, expected[:, 0] if features == 1 else expected)
    assert found.dtype == jnp.int32


def test_what_is_no_classifier_is_refused() -> None:
    model = dl.Sequential(dl.Dense(3), lambda x: {"a": x, "b": x})
    loss = lambda outputs, targets: losses.mean_squared_error(outputs["a"], targets)  # noqa: E731
    x = blobs()[0]
    run = dl.fit(model, (x, x[:, :3]), **settings(loss=loss, metrics=None))
    with pytest.raises(
        ValueError, match=r"run\.classify: expected one floating array of logits"
    ):
        run.classify(x)


def test_steps_without_one_model_say_so() -> None:
    x = blobs()[0]
    players = dl.models.dense_generator(4, shape=4), dl.models.dense_discriminator(4)
    step = dl.Adversarial(*players, 2, optax.sgd(0.1), optax.sgd(0.1))
    run = dl.train(step, x, epochs=1, progress=False)
    for method in (run.predict, run.evaluate, run.classify):
        with pytest.raises(ValueError, match="Adversarial trains no single model"):
            method(x)


def test_a_step_that_measures_by_itself_asks_for_a_loss() -> None:
    x = blobs()[0]
    model = dl.models.dense_autoencoder(2, shape=4)
    step = dl.Reconstruction(model, losses.mean_squared_error, optax.adam(1e-2))
    run = dl.train(step, x, epochs=1, progress=False, if_not_finite="skip")
    assert (run.step, run.model, run.loss) == ("Reconstruction", model, None)
    np.testing.assert_array_equal(run.predict(x), dl.predict(model, run.params, run.state, x))
    with pytest.raises(
        ValueError, match="this run of Reconstruction has no loss and no metrics"
    ):
        run.evaluate((x, x))
    assert run.evaluate((x, x), loss=losses.mean_squared_error)["loss"] > 0


def test_settings_say_what_the_run_was() -> None:
    found = fitted(clip_norm=2.0, seed=3).settings
    assert found["loss"] == "jaxdl.softmax_cross_entropy"
    assert (found["epochs"], found["batch_size"]) == ("3", "20")
    assert found["optimizer"]["parts"]["clip_by_global_norm"]["parts"] == {"max_norm": "2.0"}


def test_a_run_may_be_made_as_before() -> None:
    run = fitted()
    fields = (run.params, run.state, run.history, run.best, run.average, run.train_state)
    plain = dl.Run(*fields, "finished", 0.5)
    assert plain.model is None
    with pytest.raises(ValueError, match="the step of this run trains no single model"):
        plain.predict(blobs()[0])


def test_a_run_keeps_no_data() -> None:
    class Data(np.ndarray):
        """An array that can be referred to weakly."""

    x, y = blobs()
    inputs = x.view(Data)
    reference = weakref.ref(inputs)
    run = dl.fit(MODEL, (inputs, y), **settings(epochs=1))
    del inputs, x
    gc.collect()
    assert reference() is None
    assert run.model == MODEL
