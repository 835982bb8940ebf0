"""What `fit`, `evaluate` and `predict` compute, against plain NumPy, optax and Keras."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, metrics
from jaxdl.core.keys import fold_in_name

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RNG = np.random.default_rng(1)
X = RNG.normal(size=(43, 5)).astype(np.float32)
Y = RNG.integers(0, 3, 43).astype(np.int32)
T = (X @ np.array([1.0, -2.0, 0.5, 0.0, 3.0], np.float32))[:, None]
LINEAR = dl.Dense(1)
CLASSIFIER = dl.Sequential(dl.Dense(8), jax.nn.tanh, dl.Dense(3))
fit = functools.partial(dl.fit, progress=False)


def by_hand(params, steps, gradient, optimizer):
    """The plain loop that training is."""
    state = optimizer.init(params)
    for batch in steps:
        with jax.numpy_dtype_promotion("standard"):  # for optax's own arithmetic
            updates, state = optimizer.update(gradient(params, *batch), state, params)
        params = optax.apply_updates(params, updates)
    return params


def batches(size, *arrays):
    return [tuple(a[i : i + size] for a in arrays) for i in range(0, len(arrays[0]), size)]


def same(a, b, tolerance=1e-5):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b
    )


def mean_loss(params, x, y, w=None):
    logits, _ = CLASSIFIER.apply(params, {}, x)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return each.mean() if w is None else (each * w).sum() / w.sum()


@pytest.mark.sampled
@pytest.mark.parametrize("size", [8, 43, 100])
def test_fit_is_the_plain_loop_with_its_last_smaller_batch(size):
    params, state = CLASSIFIER.init(jax.random.key(3), X)
    run = fit(
        CLASSIFIER,
        (X, Y),
        loss=losses.softmax_cross_entropy,
        optimizer=optax.sgd(0.1),
        batch_size=size,
        shuffle=False,
        initial=(params, state),
        epochs=2,
    )
    expected = by_hand(params, batches(size, X, Y) * 2, jax.grad(mean_loss), optax.sgd(0.1))
    same(run.params, expected)


def test_where_parameters_are_given_none_are_drawn():
    drawn = []

    def noting(key, shape, dtype):
        drawn.append(shape)
        return jax.nn.initializers.lecun_normal()(key, shape, dtype)

    model = dl.Sequential(
        dl.Dense(8, kernel_init=noting), jax.nn.relu, dl.Dense(3, kernel_init=noting)
    )
    initial = model.init(jax.random.key(0), X)
    assert drawn == [(5, 8), (8, 3)]
    options = {"loss": losses.softmax_cross_entropy, "optimizer": optax.sgd(0.1)}
    fit(model, (X, Y), initial=initial, **options)
    assert len(drawn) == 2
    with pytest.raises(
        ValueError, match=r"dense_0\.kernel has shape \(4, 8\) where the model has \(5, 8\)"
    ):
        fit(model, (X, Y), initial=model.init(jax.random.key(0), X[:, :4]), **options)
    same(
        fit(model, (X, Y), **options).params,
        fit(dl.Sequential(dl.Dense(8), jax.nn.relu, dl.Dense(3)), (X, Y), **options).params,
        0,
    )


@pytest.mark.slow
def test_sample_weights_weigh_loss_and_metrics():
    weights = RNG.uniform(0, 2, 43).astype(np.float32)
    params, state = CLASSIFIER.init(jax.random.key(3), X)
    run = fit(
        CLASSIFIER,
        (X, Y, weights),
        loss=losses.softmax_cross_entropy,
        optimizer=optax.sgd(0.1),
        batch_size=10,
        shuffle=False,
        initial=(params, state),
    )
    same(
        run.params,
        by_hand(params, batches(10, X, Y, weights), jax.grad(mean_loss), optax.sgd(0.1)),
    )
    figures = dl.evaluate(
        CLASSIFIER,
        params,
        {},
        (X, Y, weights),
        loss=losses.softmax_cross_entropy,
        metrics={"accuracy": metrics.accuracy},
        batch_size=10,
    )
    right = np.asarray(CLASSIFIER.apply(params, {}, X)[0]).argmax(1) == Y
    np.testing.assert_allclose(
        figures["accuracy"], np.average(right, weights=weights), rtol=1e-6
    )
    np.testing.assert_allclose(figures["loss"], mean_loss(params, X, Y, weights), rtol=1e-5)


def test_class_weights_weigh_the_loss_alone():
    params, state = CLASSIFIER.init(jax.random.key(3), X)
    table = {0: 1.0, 1: 5.0, 2: 0.5}
    options = {
        "loss": losses.softmax_cross_entropy,
        "optimizer": optax.sgd(0.1),
        "shuffle": False,
        "batch_size": 43,
    }
    run = fit(
        CLASSIFIER,
        (X, Y),
        class_weight=table,
        initial=(params, state),
        metrics={"a": metrics.accuracy},
        **options,
    )
    weights = np.array([table[int(label)] for label in Y], np.float32)
    same(run.params, by_hand(params, [(X, Y, weights)], jax.grad(mean_loss), optax.sgd(0.1)))
    plain = fit(
        CLASSIFIER, (X, Y), initial=(params, state), metrics={"a": metrics.accuracy}, **options
    )
    assert run.history["a"] == plain.history["a"]


@pytest.mark.slow
@pytest.mark.parametrize("labels", [np.bool_, np.uint8, np.int64])
@pytest.mark.parametrize("shape", [(43,), (43, 1)])
def test_class_weights_of_two_classes_are_sample_weights(labels, shape):
    y = (Y > 0).astype(labels)
    options = {
        "loss": losses.binary_cross_entropy,
        "optimizer": optax.sgd(0.5),
        "batch_size": 43,
        "shuffle": False,
    }
    run = fit(LINEAR, (X, y.reshape(shape)), class_weight={0: 1.0, 1: 3.0}, **options)
    same(run.params, fit(LINEAR, (X, y, np.where(Y > 0, 3.0, 1.0)), **options).params)


LENGTHS = RNG.integers(1, 5, 9).astype(np.int32)
REAL = np.arange(4) < LENGTHS[:, None]
STEPS = RNG.normal(size=(9, 4, 5)).astype(np.float32)
TAGS = np.where(REAL, RNG.integers(0, 3, (9, 4)), -1).astype(np.int32)


def tagged(params):
    """The mean loss, the accuracy and the gradient by the kernel of a softmax regression of each step, in float64."""
    scores = STEPS.astype(np.float64) @ np.asarray(params["kernel"], np.float64) + np.asarray(
        params["bias"], np.float64
    )
    p = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    wanted = np.eye(3)[TAGS.clip(0)]
    shares = REAL / LENGTHS[:, None] / len(LENGTHS)
    loss = -(shares * np.log((wanted * p).sum(-1))).sum()
    return (
        loss,
        (shares * (p.argmax(-1) == TAGS)).sum(),
        np.einsum("nt,ntf,ntc->fc", shares, STEPS, p - wanted),
    )


@pytest.mark.slow
@pytest.mark.parametrize("padded_targets", [False, True])
def test_padded_sequences_are_trained_on_the_mean_over_the_steps_of_each(padded_targets):
    model, inputs = dl.Dense(3), dl.Padded(STEPS, LENGTHS)
    data = (inputs, dl.Padded(TAGS, LENGTHS) if padded_targets else TAGS)
    params, state = model.init(jax.random.key(0), inputs)
    figures: Any = {"a": metrics.accuracy, "p": metrics.Perplexity(), "f1": metrics.F1("micro")}
    options: Any = {"loss": losses.softmax_cross_entropy, "metrics": figures}
    run = fit(
        model,
        data,
        optimizer=optax.sgd(0.5),
        batch_size=9,
        shuffle=False,
        initial=(params, state),
        validation=data,
        **options,
    )
    loss, accuracy, gradient = tagged(params)
    np.testing.assert_allclose(
        [run.history["loss"][0], run.history["a"][0]], [loss, accuracy], rtol=1e-5
    )
    np.testing.assert_allclose(
        run.params["kernel"], params["kernel"] - 0.5 * gradient, rtol=1e-4, atol=1e-6
    )
    loss, accuracy, _ = tagged(run.params)
    measured = dl.evaluate(model, run.params, run.state, data, batch_size=4, **options)
    for figures, prefix in (
        (measured, ""),
        ({name: value[0] for name, value in run.history.items()}, "validation_"),
    ):
        got = [figures[prefix + name] for name in ("loss", "a", "p")]
        np.testing.assert_allclose(got, [loss, accuracy, np.exp(loss)], rtol=1e-5)
    scores = STEPS @ np.asarray(run.params["kernel"]) + np.asarray(run.params["bias"])
    assert measured["f1"] == pytest.approx(np.mean(scores.argmax(-1)[REAL] == TAGS[REAL]))


@pytest.mark.slow
def test_padded_sequences_of_a_population_and_of_a_stream():
    model, inputs, key = dl.Dense(3), dl.Padded(STEPS, LENGTHS), jax.random.key(0)
    options: Any = {
        "loss": losses.softmax_cross_entropy,
        "optimizer": optax.sgd(0.5),
        "batch_size": 9,
    }
    params, _ = model.init(fold_in_name(key, "init"), inputs)
    many = dl.fit_many(
        model, (inputs, TAGS), seeds=[0, 1], shuffle=False, progress=False, **options
    )
    assert many.history["loss"][0][0] == pytest.approx(tagged(params)[0], rel=1e-5)
    short = LENGTHS <= 2

    def batches():
        for rows, steps in ((~short, 4), (short, 2)):
            yield dl.Padded(STEPS[rows, :steps], LENGTHS[rows]), TAGS[rows, :steps]

    frozen = options | {"optimizer": optax.sgd(0.0)}
    run = fit(
        model,
        batches,
        new_shapes=True,
        metrics={"auc": metrics.ROCAUC()},
        initial=(params, {}),
        **frozen,
    )
    assert run.history["loss"][0] == pytest.approx(tagged(params)[0], rel=1e-5)


@pytest.mark.slow
def test_targets_that_are_nan_behind_the_lengths_change_nothing():
    inputs, numbers = (
        dl.Padded(STEPS, LENGTHS),
        np.where(REAL, STEPS[..., 0], np.nan).astype(np.float32),
    )
    options: Any = {
        "loss": losses.mean_squared_error,
        "optimizer": optax.sgd(0.1),
        "batch_size": 4,
        "epochs": 2,
    }
    run = fit(dl.Dense(1), (inputs, numbers), **options)
    same(run.params, fit(dl.Dense(1), (inputs, np.nan_to_num(numbers)), **options).params)
    assert np.isfinite(run.history["loss"]).all()
    for data in (
        (STEPS, numbers),
        (inputs, numbers + np.where(np.arange(9) == 4, np.nan, 0)[:, None].astype(np.float32)),
    ):
        with pytest.raises(ValueError, match="not finite"):
            fit(dl.Dense(1), data, **options)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["epoch", "step"])
def test_accumulated_batches_make_the_same_update(way):
    options = {
        "loss": losses.softmax_cross_entropy,
        "optimizer": optax.adam(1e-2),
        "batch_size": 12,
        "epochs": 2,
    }
    a = fit(CLASSIFIER, (X, Y), metrics={"a": metrics.accuracy}, compile=way, **options)
    b = fit(
        CLASSIFIER,
        (X, Y),
        metrics={"a": metrics.accuracy},
        compile=way,
        accumulate=4,
        **options,
    )
    same(a.params, b.params)
    np.testing.assert_allclose(a.history["loss"], b.history["loss"], rtol=1e-5)
    assert a.history["a"] == b.history["a"]


@pytest.mark.slow
def test_a_model_that_takes_moments_is_warned_of_in_parts(recwarn):
    """Moments of the parts, and running ones that move once a part: r ← m r + (1 − m) μ of one part after another."""
    model = dl.Sequential(
        dl.Dense(2, use_bias=False),
        a=dl.Sequential(dl.BatchNorm(momentum=0.5)),
        b=dl.BatchNorm(),
    )
    start = model.init(jax.random.key(0), X)
    options = {
        "loss": losses.mean_squared_error,
        "optimizer": optax.sgd(0.1),
        "batch_size": 8,
        "shuffle": False,
    }
    data = (X[:8], X[:8, :2])
    with pytest.warns(
        UserWarning,
        match=r"accumulate=2: the moments of BatchNorm at 'a.batch_norm_0' and 1 more are those of",
    ):
        run = fit(model, data, initial=start, accumulate=2, **options)
    first, second = (
        X[rows] @ start[0]["dense_0"]["kernel"] for rows in (slice(0, 4), slice(4, 8))
    )
    expected = 0.25 * first.mean(0) + 0.5 * second.mean(0)
    np.testing.assert_allclose(
        run.state["a"]["batch_norm_0"]["mean"], expected, rtol=1e-5, atol=1e-6
    )
    fit(model, data, initial=start, **options)
    fit(CLASSIFIER, (X, Y), accumulate=4, **(options | {"loss": losses.softmax_cross_entropy}))
    with pytest.warns(UserWarning, match="BatchNorm at 'batch_norm_0' are those"):
        dl.fit_many(
            dl.Sequential(dl.BatchNorm(), dl.Dense(2)),
            data,
            seeds=2,
            accumulate=2,
            progress=False,
            **options,
        )


@pytest.mark.slow
def test_a_smaller_last_batch_is_dropped():
    params, state = CLASSIFIER.init(jax.random.key(3), X)
    options = {
        "loss": losses.softmax_cross_entropy,
        "optimizer": optax.sgd(0.1),
        "batch_size": 8,
        "epochs": 2,
    }
    run = fit(
        CLASSIFIER,
        (X, Y),
        initial=(params, state),
        shuffle=False,
        drop_last=True,
        validation=(X, Y),
        **options,
    )
    same(
        run.params,
        by_hand(params, batches(8, X[:40], Y[:40]) * 2, jax.grad(mean_loss), optax.sgd(0.1)),
    )
    assert int(run.train_state.step) == 10
    np.testing.assert_allclose(
        run.history["validation_loss"][-1], mean_loss(run.params, X, Y), rtol=1e-5
    )
    rated = options | {"optimizer": optax.sgd, "learning_rate": dl.optim.Linear(0.1)}
    run = fit(
        CLASSIFIER, (X, Y), initial=(params, state), shuffle=False, drop_last=True, **rated
    )
    falling = optax.sgd(optax.linear_schedule(0.1, 0.0, 10))
    same(
        run.params,
        by_hand(params, batches(8, X[:40], Y[:40]) * 2, jax.grad(mean_loss), falling),
    )
    everything = fit(CLASSIFIER, (X[:40], Y[:40]), drop_last=True, **options)
    assert (
        everything.history["loss"]
        == fit(CLASSIFIER, (X[:40], Y[:40]), **options).history["loss"]
    )


@pytest.mark.slow
def test_each_epoch_drops_other_examples():
    """Each example is seen at most once an epoch; a loss of its own weight in a vector of parameters tells which."""
    count, epochs = 11, 40
    data = (np.eye(count, dtype=np.float32), np.zeros(count, np.float32))
    model = dl.Dense(1, use_bias=False, kernel_init=jax.nn.initializers.zeros)
    options = {
        "loss": lambda outputs, targets: outputs[:, 0],
        "optimizer": optax.sgd(4.0),
        "batch_size": 4,
        "drop_last": True,
    }
    once = -np.asarray(fit(model, data, **options).params["kernel"])[:, 0]
    assert sorted(once) == [0] * 3 + [1] * 8
    seen = -np.asarray(fit(model, data, epochs=epochs, **options).params["kernel"])[:, 0]
    assert seen.sum() == 8 * epochs
    assert (seen < epochs).all()
    assert (seen > epochs / 2).all()
    run = fit(model, data, steps=5, **options)
    assert len(run.history["loss"]) == 3


def test_what_is_dropped_cannot_be_everything():
    with pytest.raises(
        ValueError,
        match="drop_last: 43 examples are fewer than a batch of 64, so that nothing remains",
    ):
        fit(
            CLASSIFIER,
            (X, Y),
            loss=losses.softmax_cross_entropy,
            optimizer=optax.sgd(0.1),
            batch_size=64,
            drop_last=True,
        )


def test_clip_norm_bounds_the_update():
    options = {
        "loss": losses.mean_squared_error,
        "optimizer": optax.sgd(1.0),
        "batch_size": 43,
        "shuffle": False,
    }
    start = LINEAR.init(jax.random.key(0), X)
    run = fit(LINEAR, (X, T), initial=start, clip_norm=0.25, **options)
    moved = optax.tree.norm(jax.tree.map(jnp.subtract, run.params, start[0]))
    np.testing.assert_allclose(moved, 0.25, rtol=1e-5)


@pytest.mark.slow
def test_the_moving_average_is_that_of_the_steps():
    params, state = CLASSIFIER.init(jax.random.key(3), X)
    options = {
        "loss": losses.softmax_cross_entropy,
        "optimizer": optax.sgd(0.5),
        "batch_size": 8,
        "shuffle": False,
    }
    run = fit(
        CLASSIFIER, (X, Y), initial=(params, state), average=0.9, validation=(X, Y), **options
    )
    average, current = params, params
    for batch in batches(8, X, Y):
        current = by_hand(current, [batch], jax.grad(mean_loss), optax.sgd(0.5))
        average = jax.tree.map(lambda a, p: 0.9 * a + 0.1 * p, average, current)
    same(run.average, average)
    same(run.params, current)
    np.testing.assert_allclose(
        run.history["validation_loss"][0], mean_loss(average, X, Y), rtol=1e-5
    )


@pytest.mark.slow
def test_augmentation_draws_anew_each_step_and_only_in_training():
    def shifted(key, inputs, targets):
        return inputs + jax.random.normal(key, (inputs.shape[0], 1)), targets

    noise = []

    def spy(x):
        jax.debug.callback(lambda v: noise.append(np.asarray(v)), x)
        return x

    model = dl.Sequential(spy, dl.Dense(1))
    zeros = (np.zeros((8, 1), np.float32), np.zeros((8, 1), np.float32))
    run = fit(
        model,
        zeros,
        loss=losses.mean_squared_error,
        optimizer=optax.sgd(0.0),
        batch_size=4,
        epochs=2,
        augment=shifted,
    )
    values = np.concatenate([v for v in noise if v.shape == (4, 1)]).ravel()
    assert len(set(values.tolist())) == 16
    noise.clear()
    dl.predict(model, run.params, run.state, zeros[0])
    assert all((value == 0).all() for value in noise)


def test_early_stopping_restores_the_best_epoch():
    stopping = dl.EarlyStopping(patience=2, monitor="validation_loss")
    rising = optax.sgd(
        lambda count: jnp.where(count < 6, 0.05, -0.5)
    )  # learns for three epochs, then unlearns
    run = fit(
        LINEAR,
        (X, T),
        loss=losses.mean_squared_error,
        optimizer=rising,
        batch_size=22,
        epochs=50,
        validation=(X, T),
        early_stopping=stopping,
    )
    values = run.history["validation_loss"]
    assert len(values) == int(np.argmin(values)) + 3
    assert run.best is not None
    assert run.best.epoch == int(np.argmin(values))
    assert run.stopped.startswith("early stopping: validation_loss")
    same(run.params, run.best.params, 0)
    figures = dl.evaluate(LINEAR, run.params, run.state, (X, T), loss=losses.mean_squared_error)
    np.testing.assert_allclose(figures["loss"], min(values), rtol=1e-5)


def test_the_best_epoch_is_kept_without_early_stopping():
    rising = optax.sgd(lambda count: jnp.where(count < 6, 0.05, -0.5))
    run = fit(
        LINEAR,
        (X, T),
        loss=losses.mean_squared_error,
        optimizer=rising,
        batch_size=22,
        epochs=5,
        validation=(X, T),
    )
    assert run.best is not None
    assert run.best.value == min(run.history["validation_loss"])
    assert run.stopped == "finished"
    same(run.params, run.train_state.params, 0)


def test_early_stopping_on_a_metric_needs_a_mode():
    with pytest.raises(
        ValueError,
        match="say whether mode='min' or mode='max' is better for 'validation_accuracy'",
    ):
        dl.EarlyStopping(monitor="validation_accuracy")


@pytest.mark.sampled
@pytest.mark.parametrize("true", [True, np.True_, np.array(True), jnp.array(True)])
def test_a_callback_ends_the_run_by_whatever_is_true(true):
    run = fit(
        LINEAR,
        (X, T),
        loss=losses.mean_squared_error,
        optimizer=optax.sgd(0.1),
        epochs=5,
        callbacks=[lambda _: true],
    )
    assert (run.stopped, len(run.history["loss"])) == ("callback", 1)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "other", [None, False, np.False_, 1, "yes", np.ones(2, bool), jnp.array(False)]
)
def test_a_callback_that_returns_anything_else_ends_nothing(other):
    run = fit(
        LINEAR,
        (X, T),
        loss=losses.mean_squared_error,
        optimizer=optax.sgd(0.1),
        epochs=2,
        callbacks=[lambda _: other],
    )
    assert run.stopped == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("patience", [0, 1])
def test_patience_ends_a_run_with_the_first_epoch_that_is_not_better_and_none_that_is(patience):
    rule = dl.EarlyStopping(patience=patience, monitor="loss")
    common = {
        "loss": losses.mean_squared_error,
        "epochs": 6,
        "batch_size": len(X),
        "early_stopping": rule,
    }
    better = fit(LINEAR, (X, T), optimizer=optax.sgd(0.01), **common)
    assert better.stopped == "finished"
    assert better.history["loss"] == sorted(better.history["loss"], reverse=True)
    still = fit(LINEAR, (X, T), optimizer=optax.sgd(0.0), **common)
    assert len(still.history["loss"]) == 2
    many = dl.fit_many(
        LINEAR, (X, T), seeds=2, optimizer=optax.sgd(0.01), progress=False, **common
    )
    assert [len(run.history["loss"]) for run in many] == [6, 6]


def test_weights_that_are_all_0_are_refused():
    common = {"loss": losses.mean_squared_error, "optimizer": optax.sgd(0.1)}
    nothing = np.zeros(len(X))
    with pytest.raises(
        ValueError, match="data: the weights of all examples are 0, so that none counts"
    ):
        fit(LINEAR, (X, T, nothing), **common)
    with pytest.raises(ValueError, match="validation: the weights of all examples are 0"):
        fit(LINEAR, (X, T), validation=(X, T, nothing), **common)
    with pytest.raises(ValueError, match="data: the weights of all examples are 0"):
        dl.train(
            dl.Reconstruction(dl.Dense(X.shape[1]), losses.mean_squared_error, optax.sgd(0.1)),
            (X, T, nothing),
            progress=False,
        )
    labels = np.arange(len(X)) % 2
    classes = dl.Dense(3)
    common["loss"] = losses.softmax_cross_entropy
    with pytest.raises(ValueError, match="of all examples, with those of their classes, are 0"):
        fit(classes, (X, labels), class_weight=[0.0, 0.0, 1.0], **common)
    with pytest.raises(ValueError, match="of all examples, with those of their classes, are 0"):
        fit(classes, (X, labels, labels), class_weight=[1.0, 0.0], **common)
    fit(classes, (X, labels, labels), class_weight=[0.0, 1.0], **common)


def test_a_stream_of_which_nothing_counts_is_told_at_the_end_of_its_epoch():
    batches = [(X[:10], T[:10], np.zeros(10))] * 2
    with pytest.warns(
        RuntimeWarning,
        match="epoch 1: its loss is NaN, since the weights of all its examples are 0",
    ) as told:
        run = fit(
            LINEAR, batches, loss=losses.mean_squared_error, optimizer=optax.sgd(0.1), epochs=2
        )
    assert len(told) == 1
    assert np.isnan(run.history["loss"]).all()


def test_inputs_in_float16_are_computed_in_float32():
    """A slope of 1e-9 vanishes in float16."""
    narrow = X.astype(np.float16)
    options = {
        "loss": lambda y, t: 1e-9 * y[:, 0],
        "optimizer": optax.sgd(1e9),
        "batch_size": len(X),
    }
    start = (
        {"kernel": np.zeros((X.shape[1], 1), np.float32), "bias": np.zeros(1, np.float32)},
        {},
    )
    run = fit(LINEAR, (narrow, T), initial=start, **options)
    expected = -np.mean(narrow.astype(np.float64), 0)
    np.testing.assert_allclose(run.params["kernel"][:, 0], expected, rtol=1e-5, atol=1e-6)
    stream = fit(LINEAR, [(narrow, T)], initial=start, **options)
    np.testing.assert_allclose(stream.params["kernel"][:, 0], expected, rtol=1e-5, atol=1e-6)
    assert dl.predict(LINEAR, run.params, run.state, narrow).dtype == np.float32


@pytest.mark.slow
def test_a_run_that_ends_in_its_first_epoch_has_the_names_of_its_history():
    with pytest.warns(RuntimeWarning, match="not finite"):
        run = fit(
            LINEAR,
            (X, T),
            loss=lambda y, t: y[:, 0] * jnp.nan,
            optimizer=optax.sgd(0.1),
            validation=(X, T),
        )
    assert run.history == {
        "loss": [],
        "validation_loss": [],
        "learning_rate": [],
        "seconds": [],
    }


def test_callbacks_see_each_epoch_and_may_end_the_run():
    seen = []

    def callback(end):
        seen.append((end.epoch, len(end.history["loss"]), int(end.train_state.step)))
        return end.epoch == 2

    run = fit(
        LINEAR,
        (X, T),
        loss=losses.mean_squared_error,
        optimizer=optax.sgd(0.01),
        epochs=10,
        batch_size=10,
        callbacks=[callback],
    )
    assert seen == [(0, 1, 5), (1, 2, 10), (2, 3, 15)]
    assert run.stopped == "callback"


@pytest.mark.sampled
@pytest.mark.parametrize("way", ["epoch", "step"])
def test_steps_bound_the_run(way):
    run = fit(
        LINEAR,
        (X, T),
        loss=losses.mean_squared_error,
        optimizer=optax.sgd(0.01),
        steps=12,
        batch_size=10,
        compile=way,
    )
    assert int(run.train_state.step) == 12
    assert len(run.history["loss"]) == 3


def test_a_share_for_validation_leaves_the_rest_for_training():
    inputs = np.arange(40, dtype=np.float32)[:, None]
    seen = []

    def spy(x):
        jax.debug.callback(lambda v: seen.append(np.asarray(v)), x)
        return x

    model = dl.Sequential(spy, dl.Dense(1))
    fit(
        model,
        (inputs, inputs),
        loss=losses.mean_squared_error,
        optimizer=optax.sgd(0.0),
        batch_size=10,
        validation=0.25,
    )
    examples = [v.ravel() for v in seen if v.shape == (10, 1)]
    assert len({float(v) for batch in examples for v in batch}) == 40
    assert len(examples) == 4


def test_a_second_pass_over_the_same_shapes_is_one_run_of_its_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from jaxdl.training import pace
    from jaxdl.training.program import Program

    pace.known.cache_clear()
    run, steps = Program.run, []

    def counted(program: Program, *arguments: Any) -> Any:
        ran = run(program, *arguments)
        steps.append(ran.steps)
        return ran

    monkeypatch.setattr(Program, "run", counted)
    model = dl.Dense(2)
    params, state = model.init(jax.random.key(0), X)
    first = dl.predict(model, params, state, X, batch_size=5)
    passed = sum(steps)
    assert steps[0] == 1  # how long a step takes was not known
    steps.clear()
    np.testing.assert_array_equal(dl.predict(model, params, state, X, batch_size=5), first)
    assert steps == [passed]


@pytest.mark.slow
def test_evaluate_and_predict_do_not_depend_on_the_batch_size():
    params, state = CLASSIFIER.init(jax.random.key(3), X)
    whole, _ = CLASSIFIER.apply(params, state, X)
    for size in (1, 7, 43, 64):
        np.testing.assert_allclose(
            dl.predict(CLASSIFIER, params, state, X, batch_size=size),
            whole,
            rtol=1e-5,
            atol=1e-6,
        )
        figures = dl.evaluate(
            CLASSIFIER,
            params,
            state,
            (X, Y),
            loss=losses.softmax_cross_entropy,
            metrics={"accuracy": metrics.accuracy},
            batch_size=size,
        )
        np.testing.assert_allclose(figures["loss"], mean_loss(params, X, Y), rtol=1e-5)


@pytest.mark.slow
def test_gathered_metrics_are_exact_over_all_examples():
    from sklearn.metrics import r2_score, roc_auc_score

    params, state = LINEAR.init(jax.random.key(0), X)
    outputs = np.asarray(LINEAR.apply(params, state, X)[0])
    binary = (T[:, 0] > 0).astype(np.int32)
    auc = dl.evaluate(
        LINEAR, params, state, (X, binary), metrics={"auc": metrics.ROCAUC()}, batch_size=10
    )["auc"]
    np.testing.assert_allclose(auc, roc_auc_score(binary, outputs[:, 0]), rtol=1e-6)
    r2 = dl.evaluate(
        LINEAR, params, state, (X, T), metrics={"r2": metrics.R2()}, batch_size=10
    )["r2"]
    np.testing.assert_allclose(r2, r2_score(T, outputs), rtol=1e-5)
    run = fit(
        LINEAR,
        (X, T),
        loss=losses.mean_squared_error,
        optimizer=optax.sgd(0.0),
        epochs=3,
        batch_size=10,
        metrics={"r2": metrics.R2()},
        initial=(params, state),
    )
    np.testing.assert_allclose(run.history["r2"], r2, rtol=1e-5)


def test_trees_of_inputs_are_batched_together():
    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class Two(dl.Composite):
        def wire(self, wiring, x):
            a = wiring.part("a", dl.Dense(1), x["a"])
            b = wiring.part("b", dl.Dense(1), x["b"])
            return wiring.math(lambda u, v: u + v, a, b)

    data = ({"a": X, "b": X[:, :2]}, T)
    run = fit(
        Two(),
        data,
        loss=losses.mean_squared_error,
        optimizer=optax.adam(0.05),
        epochs=30,
        batch_size=10,
    )
    assert run.history["loss"][-1] < run.history["loss"][0] / 2


def test_images_stay_bytes_and_are_scaled_in_the_program():
    images = RNG.integers(0, 256, (20, 6, 6, 1), dtype=np.uint8)
    labels = RNG.integers(0, 2, 20).astype(np.int32)
    model = dl.Sequential(dl.Conv(2, 3), jax.nn.relu, dl.Flatten(), dl.Dense(2))
    options = {
        "loss": losses.softmax_cross_entropy,
        "optimizer": optax.sgd(0.1),
        "batch_size": 8,
    }
    a = fit(model, (images, labels), **options)
    b = fit(model, ((images / 255).astype(np.float32), labels), **options)
    same(a.params, b.params)


@pytest.mark.slow
def test_a_loss_in_bfloat16_is_summed_in_float32():
    coarse = lambda outputs, targets: ((outputs - targets) ** 2)[:, 0].astype(jnp.bfloat16)  # noqa: E731
    run = fit(LINEAR, (X, T), loss=coarse, optimizer=optax.sgd(0.0), batch_size=43)
    outputs = np.asarray(LINEAR.apply(run.params, {}, X)[0])
    exact = np.asarray(((outputs - T) ** 2)[:, 0].astype(jnp.bfloat16), np.float64).mean()
    np.testing.assert_allclose(run.history["loss"], [exact], rtol=1e-5)


def test_float64_and_int64_from_numpy_train_in_jax_dtypes():
    run = fit(
        CLASSIFIER,
        (X.astype(np.float64), Y.astype(np.int64)),
        loss=losses.softmax_cross_entropy,
        optimizer=optax.sgd(0.1),
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(run.params)} == {jnp.dtype(jnp.float32)}


def keras_trained(keras, params, images, labels):
    """The history and the first kernel of the same training in Keras."""
    layers = keras.layers
    peer = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    peer.set_weights(
        [params[part][name] for part in ("conv_0", "dense_0") for name in ("kernel", "bias")]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    peer.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
    history = peer.fit(
        images, labels, epochs=3, batch_size=10, shuffle=False, verbose=0
    ).history
    return history, np.asarray(peer.weights[0].value)


@pytest.mark.slow
def test_fit_trains_as_keras_does(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    images = RNG.uniform(size=(40, 8, 8, 1)).astype(np.float32)
    labels = RNG.integers(0, 3, 40).astype(np.int32)
    model = dl.Sequential(
        dl.Conv(4, 3, padding="VALID"), jax.nn.relu, dl.MaxPool(2), dl.Flatten(), dl.Dense(3)
    )
    params, state = model.init(jax.random.key(0), images)
    run = fit(
        model,
        (images, labels),
        loss=losses.softmax_cross_entropy,
        optimizer=optax.sgd(0.1, momentum=0.9),
        epochs=3,
        batch_size=10,
        shuffle=False,
        initial=(params, state),
        metrics={"accuracy": metrics.accuracy},
    )
    with (
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
    ):  # for Keras's own arithmetic
        history, kernel = keras_trained(keras, params, images, labels)
    np.testing.assert_allclose(run.history["loss"], history["loss"], rtol=1e-4)
    np.testing.assert_allclose(run.history["accuracy"], history["accuracy"], rtol=1e-5)
    np.testing.assert_allclose(run.params["conv_0"]["kernel"], kernel, rtol=1e-3, atol=1e-4)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (optax.adam(3e-3), 3e-3),
        (optax.sgd(0.1, momentum=0.9), 0.1),
        (
            optax.adamw(optax.cosine_decay_schedule(0.1, 100)),
            optax.cosine_decay_schedule(0.1, 100)(4),
        ),
        (optax.chain(optax.clip_by_global_norm(1.0), optax.rmsprop(2e-3)), 2e-3),
        (optax.chain(optax.scale_by_adam(), optax.scale(-0.5), optax.scale(0.1)), 0.05),
        (optax.inject_hyperparams(optax.adam)(learning_rate=7e-3), 7e-3),
        (optax.contrib.prodigy(1.0), np.nan),
    ],
    ids=["adam", "sgd", "adamw-cosine", "chain", "scales", "injected", "prodigy"],
)
def test_the_learning_rate_is_read_from_the_optimizer(optimizer, expected):
    run = fit(
        LINEAR, (X, T), loss=losses.mean_squared_error, optimizer=optimizer, batch_size=10
    )
    if np.isfinite(expected):
        np.testing.assert_allclose(run.history["learning_rate"], [expected], rtol=1e-5)


@pytest.mark.slow
def test_plateau_sees_the_loss():
    optimizer = optax.chain(
        optax.sgd(0.0), optax.contrib.reduce_on_plateau(factor=0.5, patience=2)
    )
    run = fit(
        LINEAR,
        (X, T),
        loss=losses.mean_squared_error,
        optimizer=optimizer,
        batch_size=43,
        epochs=10,
    )
    assert int(run.train_state.step) == 10


@pytest.mark.slow
def test_plot_draws_each_figure_against_validation(tmp_path):
    run = fit(
        LINEAR,
        (X, T),
        loss=losses.mean_squared_error,
        optimizer=optax.sgd(0.01),
        epochs=2,
        validation=(X, T),
        batch_size=10,
    )
    figure = run.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000
    (axis,) = figure.axes
    assert axis.get_xlabel() == "epoch"
    assert [line.get_label() for line in axis.lines] == ["training", "validation"]
