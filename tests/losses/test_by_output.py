"""Losses of several outputs: the sum and its terms, in every way to train, and what is refused."""

import copy
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, metrics

QUIET = {"progress": False, "batch_size": 4}
N = 11


def split(x):
    return {"rating": x[:, :1], "click": x[:, 1]}


MODEL = dl.Sequential(dl.Dense(2), split)
LOSSES = {
    "rating": functools.partial(losses.huber, delta=0.5),
    "click": losses.binary_cross_entropy,
}
LOSS = losses.ByOutput(LOSSES, weights={"rating": 0.25})


def data(n=N, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 3)).astype(np.float32)
    targets = {
        "rating": x[:, :1] * 2,
        "click": (x[:, 1] > 0).astype(np.int32),
    }
    weights = random.uniform(0.2, 2, n).astype(np.float32)
    return x, targets, weights


def by_hand(outputs, targets):
    """In float64 by NumPy."""
    e = np.asarray(outputs["rating"], np.float64)[:, 0] - targets["rating"][:, 0]
    size = np.abs(e)
    huber = np.where(size <= 0.5, e**2 / 2, 0.5 * (size - 0.25))
    z = np.asarray(outputs["click"], np.float64)
    entropy = np.logaddexp(0, z) - targets["click"] * z
    return huber, entropy


def settings(**more):
    return {"loss": LOSS, "optimizer": optax.sgd(0.1), **QUIET, **more}


def test_the_sum_is_that_of_the_terms():
    x, targets, _ = data()
    outputs, _ = MODEL.apply(*MODEL.init(jax.random.key(0), x), x)
    rating, click = by_hand(outputs, targets)
    np.testing.assert_allclose(LOSS(outputs, targets), 0.25 * rating + click, rtol=1e-5)


def test_it_is_a_value():
    again = losses.ByOutput(
        {"rating": functools.partial(losses.huber, delta=0.5), "click": LOSSES["click"]},
        weights={"rating": 0.25},
    )
    assert again == LOSS
    assert hash(again) == hash(LOSS)
    assert again != losses.ByOutput(LOSSES)
    assert pickle.loads(pickle.dumps(LOSS)) == LOSS
    assert copy.deepcopy(LOSS) == LOSS
    assert repr(LOSS) == (
        "ByOutput({'rating': functools.partial(huber, delta=0.5), 'click': binary_cross_entropy}, "
        "weights={'rating': 0.25})"
    )
    assert repr(losses.ByOutput({"a": losses.huber})) == "ByOutput({'a': huber})"


@pytest.mark.sampled
@pytest.mark.parametrize("compile", ["epoch", "step", "eager"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_history_has_every_term_exactly(compile, accumulate):
    x, targets, weights = data()
    given = settings(compile=compile, accumulate=accumulate, epochs=2)
    run = dl.fit(MODEL, (x, targets, weights), validation=(x, targets, weights), **given)
    outputs = dl.predict(MODEL, run.params, run.state, x)
    rating, click = by_hand(outputs, targets)
    shares = weights / weights.sum(dtype=np.float64)
    expected = {
        "validation_rating_loss": (shares * rating).sum(),
        "validation_click_loss": (shares * click).sum(),
        "validation_loss": (shares * (0.25 * rating + click)).sum(),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(run.history[name][-1], value, rtol=1e-5)
    total = 0.25 * np.array(run.history["rating_loss"]) + run.history["click_loss"]
    np.testing.assert_allclose(run.history["loss"], total, rtol=1e-5)
    found = dl.evaluate(MODEL, run.params, run.state, (x, targets, weights), loss=LOSS)
    assert found == pytest.approx(
        {name.removeprefix("validation_"): value for name, value in expected.items()}, rel=1e-5
    )


def test_a_dict_is_the_loss_with_weights_of_1_and_updates_as_one_function():
    x, targets, _ = data()

    def both(outputs, targets):
        return sum(LOSSES[name](outputs[name], targets[name]) for name in LOSSES)

    by_name = dl.fit(MODEL, (x, targets), **settings(loss=LOSSES, epochs=2))
    as_one = dl.fit(MODEL, (x, targets), **settings(loss=both, epochs=2))
    for one, other in zip(*map(jax.tree.leaves, (by_name.params, as_one.params)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)
    assert list(by_name.history)[:3] == ["loss", "rating_loss", "click_loss"]


@pytest.mark.slow
def test_populations_take_it():
    x, targets, _ = data()
    given = settings(loss=LOSSES, epochs=2, validation=(x, targets))
    runs = dl.fit_many(MODEL, (x, targets), seeds=2, **given)
    single = dl.fit(MODEL, (x, targets), seed=1, **given)
    for name in ("rating_loss", "validation_click_loss", "validation_loss"):
        np.testing.assert_allclose(
            np.asarray(runs.history[name])[:, 1], single.history[name], rtol=1e-5
        )
    found = runs.evaluate((x, targets), loss=LOSSES)
    np.testing.assert_allclose(
        found["click_loss"][1], single.history["validation_click_loss"][-1], rtol=1e-5
    )
    given["optimizer"] = optax.sgd
    swept = dl.sweep(
        MODEL,
        (x, targets),
        {"learning_rate": [0.01, 0.1]},
        monitor="validation_click_loss",
        **given,
    )
    assert np.asarray(swept.history["click_loss"]).shape == (2, 2)


@pytest.mark.slow
def test_it_goes_with_low_precision_and_comparisons():
    x, targets, _ = data()
    run = dl.fit(MODEL, (x, targets), **settings(epochs=1, precision="bfloat16"))
    assert np.isfinite(run.history["click_loss"]).all()
    run = dl.fit(MODEL, (x, targets), **settings(epochs=1, precision="float16"))
    assert np.isfinite(run.history["click_loss"]).all()
    report = dl.compare(
        MODEL, (x, targets), loss=LOSSES, optimizer=optax.sgd(0.1), batch_size=4, rounds=3,
        seconds=0.01, executions=("step",), steps=2, widest_spread=1e9,
    )  # fmt: skip
    assert "step" in str(report)


def fitted(loss, targets, **more):
    x, _, _ = data()
    return dl.fit(MODEL, (x, targets), **settings(loss=loss, epochs=1, **more))


def test_what_does_not_fit_is_refused_in_a_sentence():
    _, targets, _ = data()
    with pytest.raises(
        ValueError, match="no 'ratng' among the outputs, which are 'click' and 'rating'"
    ):
        fitted({"ratng": losses.huber}, targets)
    with pytest.raises(ValueError, match="no 'click' among the targets, which are 'rating'"):
        fitted(LOSSES, {"rating": targets["rating"]})
    with pytest.raises(
        ValueError, match="there are targets 'user', and the outputs are 'click'"
    ):
        fitted(LOSSES, {**targets, "user": targets["click"]})
    with pytest.raises(
        ValueError, match=r"output 'click': binary_cross_entropy: .* outside 0…1"
    ):
        fitted(LOSSES, {**targets, "click": targets["click"] + 1})
    with pytest.raises(ValueError, match="output 'rating': huber: outputs of shape"):
        fitted(LOSSES, {**targets, "rating": np.zeros((N, 2), np.float32)})
    with pytest.raises(ValueError, match="output 'click': loss '<lambda>' returned shape"):
        fitted({"click": lambda x, y: x.mean()}, targets)
    with pytest.raises(
        ValueError, match="class_weight: targets are several, 'click' and 'rating'"
    ):
        fitted(LOSSES, targets, class_weight={0: 1.0, 1: 2.0})
    with pytest.raises(
        ValueError, match="'click_loss' is what the loss of an output is called"
    ):
        fitted(LOSSES, targets, metrics={"click_loss": metrics.F1(output="click")})
    with pytest.raises(ValueError, match="of output 'click' mixes the examples of a batch"):
        fitted({"click": lambda x, y: x - x.mean()}, targets)
    decides = {"f1": metrics.F1(output="click")}
    probability = {"click": losses.binary_cross_entropy_from_probabilities}
    with pytest.raises(ValueError, match="metric 'f1' decides at 0"):
        fitted(probability, targets, metrics=decides)
    with pytest.raises(ValueError, match="no 'rating' among the outputs, which are not named"):
        dl.fit(dl.Dense(1), data()[:2], **settings(epochs=1))


def test_a_target_without_a_loss_is_for_metrics():
    _, targets, _ = data()
    run = fitted(
        {"rating": losses.huber}, targets, metrics={"auc": metrics.ROCAUC(output="click")}
    )
    assert 0 <= run.history["auc"][0] <= 1


def test_losses_that_are_none_are_refused():
    with pytest.raises(ValueError, match="there are no losses"):
        losses.ByOutput({})
    with pytest.raises(TypeError, match="losses"):
        losses.ByOutput([losses.huber])
    with pytest.raises(TypeError, match="losses"):
        losses.ByOutput({0: losses.huber})
    with pytest.raises(TypeError, match="loss"):
        losses.ByOutput({"a": 3})
    with pytest.raises(TypeError, match="the loss of 'a' is batchwise"):
        losses.ByOutput({"a": losses.nt_xent})
    with pytest.raises(TypeError, match="loss of 'a' 'huber' binds"):
        losses.ByOutput({"a": functools.partial(losses.huber, delta=[1])})
    with pytest.raises(ValueError, match="a weight of 'b' and no loss"):
        losses.ByOutput({"a": losses.huber}, weights={"b": 1})
    with pytest.raises(ValueError, match="the weight of 'a' is a finite number, got nan"):
        losses.ByOutput({"a": losses.huber}, weights={"a": float("nan")})


@pytest.mark.slow
def test_own_losses_of_several_inputs_in_low_precision_are_summed_in_float32():
    def low(x, y):
        return jnp.abs(x - y).astype(jnp.bfloat16)

    loss = losses.ByOutput({"a": low, "b": low})
    x = {"a": jnp.ones(3), "b": jnp.ones(3)}
    assert loss(x, jax.tree.map(jnp.zeros_like, x)).dtype == jnp.float32
