"""`precision=…`: what it leaves in float32, what it costs, and the scale of the loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, metrics
from jaxdl.training.scaling import LossScaling

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4)).astype(np.float32)
Y = (X[:, 0] > X[:, 1]).astype(np.int32)
MODEL = dl.Sequential(dl.Dense(8), dl.BatchNorm(), jax.nn.relu, dl.Dense(2))
OPTIMIZER = optax.adam(1e-2)
fit = functools.partial(
    dl.fit,
    loss=losses.softmax_cross_entropy,
    optimizer=OPTIMIZER,
    batch_size=10,
    progress=False,
)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_all_that_is_kept_is_float32(precision):
    run = fit(
        MODEL,
        (X, Y),
        precision=precision,
        epochs=3,
        validation=(X, Y),
        metrics={"accuracy": metrics.accuracy},
    )
    kept = (run.params, run.state, run.train_state.params, run.train_state.optimizer_state)
    floating = {
        leaf.dtype for leaf in jax.tree.leaves(kept) if jnp.issubdtype(leaf.dtype, jnp.floating)
    }
    assert floating == {jnp.dtype("float32")}
    wide = fit(
        MODEL, (X, Y), epochs=3, validation=(X, Y), metrics={"accuracy": metrics.accuracy}
    )
    for name in ("loss", "validation_loss", "accuracy"):
        np.testing.assert_allclose(run.history[name], wide.history[name], atol=0.06)
    assert run.history["loss"] != wide.history["loss"]
    extra = {"loss_scale", "skipped_steps"} if precision == "float16" else set()
    assert set(run.history) == set(wide.history) | extra
    figures = dl.evaluate(
        MODEL,
        run.params,
        run.state,
        (X, Y),
        loss=losses.softmax_cross_entropy,
        precision=precision,
    )
    np.testing.assert_allclose(figures["loss"], run.history["validation_loss"][-1], rtol=1e-5)
    outputs = dl.predict(MODEL, run.params, run.state, X, precision=precision)
    assert outputs.dtype == jnp.float32
    full = dl.predict(MODEL, run.params, run.state, X)
    assert 0 < float(jnp.abs(outputs - full).max()) < 0.1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:accumulate=2. the moments of BatchNorm")
@pytest.mark.parametrize("way", ["step", pytest.param("eager", marks=pytest.mark.once)])
def test_all_ways_scale_alike(way):
    a, b = (
        fit(
            MODEL, (X, Y), precision="float16", epochs=2, compile=c, clip_norm=1.0, accumulate=2
        )
        for c in ("epoch", way)
    )
    np.testing.assert_allclose(a.history["loss"], b.history["loss"], rtol=5e-3)
    assert a.history["loss_scale"] == b.history["loss_scale"]
    assert len(a.history["learning_rate"]) == 2
    np.testing.assert_allclose(a.history["learning_rate"], 1e-2, rtol=1e-6)


@pytest.mark.slow
def test_a_gradient_too_small_for_float16_arrives():
    """Each is near 1e-8, below the least number of float16; scaled by 2^15 it is not."""

    def tiny(outputs, targets):
        return 1e-8 * losses.mean_squared_error(outputs, targets)

    model = dl.Dense(1, use_bias=False)
    options = {
        "loss": tiny,
        "optimizer": optax.sgd(1e7),
        "shuffle": False,
        "initial": model.init(jax.random.key(0), X),
    }
    wide, scaled = (
        fit(model, (X, X[:, :1]), **options, precision=precision)
        for precision in (None, "float16")
    )
    np.testing.assert_allclose(
        scaled.params["kernel"], wide.params["kernel"], rtol=0.01, atol=0.01
    )
    plain = fit(dl.in_precision(model, "float16"), (X, X[:, :1]), **options)
    first = options["initial"][0]["kernel"]
    assert float(jnp.abs(plain.params["kernel"] - first).max()) < 0.1 * float(
        jnp.abs(wide.params["kernel"] - first).max()
    )


def test_an_overflow_skips_the_update_and_halves_the_scale():
    """A loss of 10 (x w)²: its gradient, times 2^15, is larger than float16 holds, until the scale has been halved enough."""

    def large(outputs, targets):
        return 10 * losses.mean_squared_error(outputs, targets)

    model = dl.Dense(1, use_bias=False)
    start = ({"kernel": jnp.full((4, 1), 2.0)}, {})
    run = fit(
        model,
        (3 * X, 0 * X[:, :1]),
        loss=large,
        optimizer=optax.adam(1e-3),
        initial=start,
        precision="float16",
        epochs=4,
    )
    skipped, scale = run.history["skipped_steps"], run.history["loss_scale"]
    assert skipped == sorted(skipped)
    assert 1 <= skipped[-1] < 16
    assert scale[-1] == 2.0 ** (15 - skipped[-1])
    assert int(run.train_state.step) == 16
    counts = [
        leaf
        for leaf in jax.tree.leaves(run.train_state.optimizer_state.optimizer_state)
        if leaf.dtype == jnp.int32
    ]
    assert all(int(count) == 16 - skipped[-1] for count in counts)
    assert run.history["loss"][-1] < run.history["loss"][0]


def test_the_rule_of_the_scale():
    scaling = LossScaling(first=8.0, patience=3)
    optimizer = optax.sgd(1.0, momentum=0.9)
    params = {"w": jnp.zeros(2)}
    state = scaling.init(optimizer.init(params))

    def update(gradients, inner):
        updates, inner = optimizer.update(gradients, inner, params)
        return optax.apply_updates(params, updates), inner

    scales, skipped = [], []
    for wrong in (False, False, False, True, False, True, True):
        gradients = {"w": state.scale * jnp.asarray([1.0, jnp.inf if wrong else 2.0])}
        before = params, state.optimizer_state
        params, state = scaling.updated(update, gradients, state, params)
        if wrong:
            jax.tree.map(np.testing.assert_array_equal, (params, state.optimizer_state), before)
        else:
            assert float(params["w"][0]) < float(before[0]["w"][0])
        scales.append(float(state.scale))
        skipped.append(int(state.skipped))
    assert scales == [8, 8, 16, 8, 8, 4, 2]
    assert skipped == [0, 0, 0, 1, 1, 2, 3]
    np.testing.assert_allclose(
        params["w"], [-(1 + 1.9 + 2.71 + 3.439), -2 * (1 + 1.9 + 2.71 + 3.439)], rtol=1e-5
    )


@pytest.mark.slow
def test_other_steps_take_a_model_in_precision():
    model = dl.Sequential(dl.Dense(2), dl.Dense(4))
    options = {"epochs": 2, "progress": False, "batch_size": 10}
    narrow, wide = (
        dl.train(dl.Reconstruction(m, losses.mean_squared_error, OPTIMIZER), X, **options)
        for m in (dl.in_precision(model, "bfloat16"), model)
    )
    np.testing.assert_allclose(narrow.history["loss"], wide.history["loss"], rtol=0.02)
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow.params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("precision", ["float32", "half", 16])
def test_a_precision_that_is_none_is_refused(precision, unchecked):
    for call in (
        lambda: fit(MODEL, (X, Y), precision=precision),
        lambda: dl.predict(MODEL, {}, {}, X, precision=precision),
    ):
        with pytest.raises(ValueError, match="precision is 'bfloat16', 'float16' or None, got"):
            call()
