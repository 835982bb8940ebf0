"""Penalties that training adds to the loss, against PyTorch's own sums and against Keras."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 6)).astype(np.float32)
Y = RNG.normal(size=(20, 1)).astype(np.float32)
TRAIN = dl.Train(jax.random.key(0))


def fitted(model: dl.Layer, initial: object = None, **options: object) -> dl.Run:
    return dl.fit(
        model,
        (X, Y),
        loss=losses.mean_squared_error,
        optimizer=optax.sgd(0.1),
        batch_size=20,
        progress=False,
        initial=initial,  # type: ignore[arg-type]
        **options,  # type: ignore[arg-type]
    )


def weights(layer: Any) -> dict[str, np.ndarray]:
    return {variable.name: np.array(variable.value) for variable in layer.weights}


@pytest.mark.slow
def test_an_update_is_that_of_keras_regularizers():
    keras = pytest.importorskip("keras")
    layers = [
        keras.layers.Dense(
            4,
            activation="relu",
            kernel_regularizer=keras.regularizers.L1L2(0.01, 0.02),
            activity_regularizer=keras.regularizers.L1L2(0.03, 0.04),
        ),
        keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(0.5)),
    ]
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        peer = keras.Sequential([keras.Input((6,)), *layers])
        peer.compile(keras.optimizers.SGD(0.1), keras.losses.MeanSquaredError())
        first, second = map(weights, layers)
        options = {"batch_size": 20, "epochs": 3, "shuffle": False, "verbose": 0}
        history = peer.fit(X, Y, **options).history["loss"]
    model = dl.Sequential(
        dl.WeightPenalty(dl.Dense(4), l1=0.01, l2=0.02),
        jax.nn.relu,
        dl.ActivityPenalty(0.03, 0.04),
        dl.WeightPenalty(dl.Dense(1), l2=0.5),
    )
    params = {"weight_penalty_0": {"body": first}, "weight_penalty_1": {"body": second}}
    run = fitted(model, (params, {}), epochs=3, shuffle=False)
    np.testing.assert_allclose(run.history["loss"], history, rtol=1e-5)
    for layer, name in zip(layers, params, strict=True):
        for leaf, wanted in weights(layer).items():
            found = run.params[name]["body"][leaf]
            np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=1e-6)
    assert list(run.history)[:3] == ["loss", "activity", "weights"]


@pytest.mark.slow
def test_a_pattern_chooses_parameters_by_their_paths():
    body = dl.Sequential(dl.Dense(2), dl.BatchNorm(), dl.Dense(1))
    for pattern, names in (
        ("*kernel", ("dense_0.kernel", "dense_1.kernel")),
        ("dense_1.*", ("dense_1.kernel", "dense_1.bias")),
    ):
        layer = dl.WeightPenalty(body, l2=1.0, pattern=pattern)
        params, state = layer.init(jax.random.key(1), X)
        params = jax.tree.map(lambda leaf: leaf + 0.5, params)
        _, new = layer.apply(params, state, X, TRAIN)
        chosen = [
            params["body"][part][leaf] for part, leaf in (name.split(".") for name in names)
        ]
        wanted = sum(float(np.square(leaf).sum()) for leaf in chosen)
        np.testing.assert_allclose(new["losses"]["weights"], wanted, rtol=1e-6)
        assert new["body"].keys() == state["body"].keys()
    with pytest.raises(dl.LayerError, match="no parameter matches 'kernels'"):
        dl.WeightPenalty(body, l2=1.0, pattern="kernels").init(jax.random.key(0), X)


@pytest.mark.slow
def test_evaluation_adds_nothing_and_masked_examples_weigh_nothing():
    model = dl.Sequential(dl.Dense(3), dl.ActivityPenalty(l2=1.0), dl.Dense(1))
    run = fitted(model, epochs=1, validation=(X, Y))
    assert "validation_activity" not in run.history
    step, jitted = dl.make_step(model, losses.mean_squared_error, optimizer=optax.sgd(0.0))
    state = step.init(jax.random.key(0), dl.Batch(X, Y))
    small = dl.Batch(X[:5], Y[:5])
    filled = dl.Batch(X[:8].copy(), Y[:8], None, jnp.arange(8) < 5)
    filled.inputs[5:] = 1e3
    reports = [step.report(*jax.jit(step)(state, batch)[1][:2]) for batch in (small, filled)]
    np.testing.assert_allclose(reports[1]["activity"], reports[0]["activity"], rtol=1e-6)
    np.testing.assert_allclose(reports[1]["loss"], reports[0]["loss"], rtol=1e-6)
    del jitted


def test_of_padded_sequences_the_steps_before_the_end_count():
    values = RNG.normal(size=(2, 4, 3)).astype(np.float32)
    values[0, 2:] = np.nan
    x = dl.Padded(jnp.asarray(values), jnp.array([2, 4]))
    _, state = dl.ActivityPenalty(l1=1.0).apply({}, {}, x, TRAIN)
    wanted = [np.abs(values[0, :2]).sum(), np.abs(values[1]).sum()]
    np.testing.assert_allclose(state["losses"]["activity"], wanted, rtol=1e-6)


def test_arguments_are_checked():
    with pytest.raises(dl.LayerError, match="l1 and l2 are 0"):
        dl.ActivityPenalty()
    with pytest.raises(dl.LayerError, match="l2"):
        dl.WeightPenalty(dl.Dense(1), l2=-1.0)


@pytest.mark.slow
def test_strength_is_swept():
    runs = dl.sweep(
        lambda l2: dl.WeightPenalty(dl.Dense(1), l2=l2),
        (X, Y),
        {"l2": [0.01, 1.0]},
        loss=losses.mean_squared_error,
        optimizer=optax.sgd(0.1),
        epochs=20,
        progress=False,
    )
    weak, strong = (float(jnp.square(run.params["body"]["kernel"]).sum()) for run in runs)
    assert strong < 0.5 * weak


@pytest.mark.sampled
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_penalties_are_added_in_any_precision(precision):
    model = dl.Sequential(
        dl.WeightPenalty(dl.Dense(4), l2=0.1),
        dl.BatchNorm(),
        dl.ActivityPenalty(0.1),
        dl.Dense(1),
    )
    run = fitted(model, epochs=2, precision=precision)
    full = fitted(model, epochs=2)
    for name in ("loss", "weights", "activity"):
        np.testing.assert_allclose(run.history[name], full.history[name], rtol=0.05)


def test_a_penalty_has_no_name_of_a_metric():
    model = dl.Sequential(dl.Dense(1), dl.ActivityPenalty(0.1, name="error"))
    with pytest.raises(ValueError, match="losses of layers: 'error' is a name"):
        fitted(model, epochs=1, metrics={"error": losses.mean_absolute_error})
