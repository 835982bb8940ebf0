"""Means over positions: against PyTorch's and by hand in float64, alone and in training."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, metrics
from jaxdl.losses.by_position import loss_sum, loss_weights

LOSS = losses.ByPosition(losses.softmax_cross_entropy, ignore=-1)
BATCH, TIME, CLASSES = 7, 5, 4
QUIET = {"progress": False, "batch_size": 3, "optimizer": optax.sgd(0.3), "shuffle": False}


def data(seed=0):
    """Inputs, labels of which each example ignores another number, and weights of positions."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(BATCH, TIME, 3)).astype(np.float32)
    labels = random.integers(0, CLASSES, (BATCH, TIME)).astype(np.int32)
    counted = random.integers(0, TIME + 1, BATCH)
    labels[np.arange(TIME) >= counted[:, None]] = -1
    labels[0, 0] = 2
    weights = random.uniform(0.2, 2, (BATCH, TIME)).astype(np.float32)
    return x, labels, weights


def entropies(logits, labels):
    """In float64 by NumPy; of an ignored label nonsense."""
    logits = np.asarray(logits, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -np.take_along_axis(log_p, np.maximum(labels, 0)[..., None], -1)[..., 0]


def mean(values, weights):
    return float((values * weights).sum() / weights.sum())


MODEL = dl.Sequential(dl.Dense(CLASSES))


def fitted(loss, given, **more):
    return dl.fit(MODEL, given, loss=loss, **{**QUIET, "epochs": 1, **more})


def logits_of(run, x):
    return np.asarray(dl.predict(MODEL, run.params, run.state, x))


@pytest.mark.slow
def test_the_loss_and_its_gradient_are_torchs():
    torch = pytest.importorskip("torch")
    x, labels, _ = data()
    kernel = np.random.default_rng(1).normal(size=(3, CLASSES)).astype(np.float32)

    def total(kernel):
        logits = x @ kernel
        weights = jnp.ones(BATCH)
        each = loss_weights(LOSS, lambda: logits, labels, weights)
        return loss_sum(LOSS, logits, labels, each / each.sum())

    value, gradient = jax.value_and_grad(total)(kernel)
    theirs = torch.tensor(kernel, dtype=torch.float64, requires_grad=True)
    logits = torch.tensor(x, dtype=torch.float64) @ theirs
    expected = torch.nn.functional.cross_entropy(
        logits.reshape(-1, CLASSES),
        torch.tensor(labels, dtype=torch.int64).ravel(),
        ignore_index=-1,
    )
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-5, atol=1e-7)


def test_alone_it_is_the_mean_of_each_example():
    x, labels, _ = data()
    logits = x @ np.ones((3, CLASSES), np.float32)
    each = entropies(logits, labels)
    counted = labels != -1
    expected = (each * counted).sum(1) / np.maximum(counted.sum(1), 1)
    np.testing.assert_allclose(LOSS(jnp.asarray(logits), labels), expected, rtol=1e-5)


@pytest.mark.sampled
@pytest.mark.parametrize("how", ["epoch", "step", "eager", "accumulate"])
def test_training_takes_the_mean_over_tokens(how):
    x, labels, _ = data()
    first = MODEL.init(jax.random.key(0), x)
    options = {"accumulate": 3} if how == "accumulate" else {"compile": how}
    run = fitted(LOSS, (x, labels), initial=first, validation=(x, labels), **options)
    kernel, bias = (
        np.asarray(first[0]["dense_0"][name], np.float64) for name in ("kernel", "bias")
    )
    total = count = 0.0
    for start in range(0, BATCH, 3):
        xs = x[start : start + 3].astype(np.float64)
        ys = labels[start : start + 3]
        counted = ys != -1
        logits = xs @ kernel + bias
        total += (entropies(logits, ys) * counted).sum()
        count += counted.sum()
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        slopes = (p - np.eye(CLASSES)[ys]) * counted[..., None] / max(counted.sum(), 1)
        kernel = kernel - 0.3 * np.einsum("bti,btc->ic", xs, slopes)
        bias = bias - 0.3 * slopes.sum((0, 1))
    np.testing.assert_allclose(run.history["loss"], total / count, rtol=1e-5)
    np.testing.assert_allclose(run.params["dense_0"]["kernel"], kernel, rtol=1e-4, atol=1e-6)
    expected = mean(entropies(logits_of(run, x), labels), labels != -1)
    np.testing.assert_allclose(run.history["validation_loss"], expected, rtol=1e-5)


@pytest.mark.slow
def test_metrics_ignore_the_same_targets():
    x, labels, _ = data()
    figures = {
        "accuracy": metrics.Mean(metrics.accuracy, ignore=-1),
        "top 2": metrics.Mean(functools.partial(metrics.top_k_accuracy, k=2), ignore=-1),
        "perplexity": metrics.Perplexity(ignore=-1),
        "f1": metrics.F1("micro", ignore=-1),
        "matrix": metrics.ConfusionMatrix(CLASSES, ignore=-1),
    }
    run = fitted(LOSS, (x, labels), metrics=figures)
    logits = logits_of(run, x)
    found = dl.evaluate(
        MODEL, run.params, run.state, (x, labels), loss=LOSS, metrics=figures, batch_size=3
    )
    counted = labels != -1
    right = logits.argmax(-1) == labels
    ranks = (logits > np.take_along_axis(logits, np.maximum(labels, 0)[..., None], -1)).sum(-1)
    assert found["accuracy"] == pytest.approx(mean(right, counted))
    assert found["f1"] == pytest.approx(mean(right, counted))
    assert found["top 2"] == pytest.approx(mean(ranks < 2, counted))
    assert found["perplexity"] == pytest.approx(np.exp(found["loss"]), rel=1e-5)
    assert found["matrix"].sum() == counted.sum()
    assert repr(figures["accuracy"]) == "Mean(accuracy, ignore=-1)"


@pytest.mark.sampled
@pytest.mark.parametrize("accumulate", [1, 3])
def test_weights_by_position_weigh_positions(accumulate):
    x, labels, weights = data()
    labels = np.maximum(labels, 0)
    figures = {
        "accuracy": metrics.accuracy,
        "f1": metrics.F1("micro"),
        "perplexity": metrics.Perplexity(),
    }
    run = fitted(
        losses.softmax_cross_entropy, (x, labels, weights), metrics=figures,
        validation=(x, labels, weights), accumulate=accumulate, seed=3,
    )  # fmt: skip
    logits = logits_of(run, x)
    history = {name: values[-1] for name, values in run.history.items()}
    expected = mean(entropies(logits, labels), weights)
    accuracy = mean(logits.argmax(-1) == labels, weights)
    assert history["validation_loss"] == pytest.approx(expected, rel=1e-5)
    assert history["validation_accuracy"] == pytest.approx(accuracy, rel=1e-5)
    assert history["validation_f1"] == pytest.approx(accuracy, rel=1e-5)
    assert history["validation_perplexity"] == pytest.approx(np.exp(expected), rel=1e-5)


def test_weights_of_0_and_1_are_targets_ignored_or_not():
    x, labels, _ = data()
    given = (x, np.maximum(labels, 0), (labels != -1).astype(np.float32))
    by_weight = fitted(losses.softmax_cross_entropy, given, epochs=2)
    ignoring = fitted(LOSS, (x, labels), epochs=2)
    np.testing.assert_allclose(by_weight.history["loss"], ignoring.history["loss"], rtol=1e-6)
    kernels = [run.params["dense_0"]["kernel"] for run in (by_weight, ignoring)]
    np.testing.assert_allclose(*kernels, rtol=1e-5, atol=1e-6)


def padded(seed=0):
    """Padded inputs, plain labels, weights of positions, and which steps are within the lengths;
    behind lie NaN, and labels that no class has."""
    x, labels, weights = data(seed)
    labels = np.maximum(labels, 0)
    lengths = np.array([5, 1, 0, 3, 2, 4, 5], np.int32)
    valid = np.arange(TIME) < lengths[:, None]
    x = np.where(valid[..., None], x, np.nan)
    return dl.Padded(x, lengths), np.where(valid, labels, 99), weights, valid


@pytest.mark.sampled
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("as_padded_targets", [False, True])
def test_of_padded_sequences_positions_within_the_lengths_count(accumulate, as_padded_targets):
    x, labels, weights, valid = padded()
    targets = dl.Padded(labels, x.lengths) if as_padded_targets else labels
    figures = {
        "accuracy": metrics.accuracy,
        "auc": metrics.ROCAUC(),
        "most": metrics.Maximum(first),
    }
    given = (x, targets, weights)
    run = fitted(
        losses.softmax_cross_entropy, given, metrics=figures, validation=given,
        accumulate=accumulate,
    )  # fmt: skip
    values = np.nan_to_num(x.values)
    logits = logits_of(run, values)
    history = {name: values[-1] for name, values in run.history.items()}
    known = np.where(valid, labels, 0)
    weights = weights * valid
    assert history["validation_loss"] == pytest.approx(
        mean(entropies(logits, known), weights), rel=1e-5
    )
    assert history["validation_accuracy"] == pytest.approx(
        mean(logits.argmax(-1) == known, weights), rel=1e-5
    )
    assert history["validation_most"] == pytest.approx(logits[..., 0][valid].max(), rel=1e-5)
    assert np.isfinite(history["validation_auc"])
    assert np.isfinite(run.params["dense_0"]["kernel"]).all()


def first(outputs, targets):
    del targets
    if isinstance(outputs, dl.Padded):
        return outputs.with_zero_padding().values[:, 0, 0]
    return outputs[..., 0]


@pytest.mark.sampled
@pytest.mark.parametrize("ignore", [None, -1])
def test_padded_sequences_by_position_take_the_mean_over_steps(ignore):
    x, labels, _, valid = padded()
    if ignore is not None:
        labels = np.where(labels == 2, ignore, labels)
    loss = losses.ByPosition(losses.softmax_cross_entropy, ignore=ignore)
    run = fitted(loss, (x, labels), validation=(x, labels), accumulate=3)
    counted = valid & (labels != -1)
    logits = logits_of(run, np.nan_to_num(x.values))
    expected = mean(entropies(logits, np.where(counted, labels, 0)), counted)
    assert run.history["validation_loss"][-1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        losses.mean_squared_error,
        losses.huber,
        losses.log_cosh,
        losses.mean_absolute_percentage_error,
    ],
    ids=lambda loss: loss.__name__,
)
def test_regressions_take_weights_by_position(loss):
    x, _, weights = data()
    targets = x[..., :2] * 3 + 5
    model = dl.Sequential(dl.Dense(2))
    run = dl.fit(model, (x, targets, weights), loss=loss, epochs=1, **QUIET)
    outputs = np.asarray(dl.predict(model, run.params, run.state, x))
    each = np.asarray(loss(outputs.reshape(-1, 2), targets.reshape(-1, 2))).reshape(BATCH, TIME)
    given = (x, targets, weights)
    found = dl.evaluate(model, run.params, run.state, given, loss=loss, batch_size=3)
    assert found["loss"] == pytest.approx(mean(each, weights), rel=1e-5)


@pytest.mark.slow
def test_populations_and_streams_take_both():
    x, labels, weights = data()
    many = dl.fit_many(MODEL, (x, labels), seeds=2, loss=LOSS, **{**QUIET, "epochs": 1})
    single = fitted(LOSS, (x, labels), seed=1)
    np.testing.assert_allclose(many.history["loss"][0, 1], single.history["loss"][0], rtol=1e-5)
    swept = dl.sweep(
        MODEL, (x, labels), {"label_smoothing": [0.0, 0.2]}, loss=LOSS, **{**QUIET, "epochs": 1}
    )
    smooth = losses.ByPosition(
        functools.partial(losses.softmax_cross_entropy, label_smoothing=0.2), ignore=-1
    )
    np.testing.assert_allclose(
        swept.history["loss"][0, 1], fitted(smooth, (x, labels)).history["loss"][0], rtol=1e-5
    )
    known = np.maximum(labels, 0)
    parts = [slice(0, 3), slice(3, 6), slice(6, 7)]
    stream = [(x[part], known[part], weights[part]) for part in parts]
    streamed = fitted(losses.softmax_cross_entropy, stream)
    held = fitted(losses.softmax_cross_entropy, (x, known, weights))
    np.testing.assert_allclose(streamed.history["loss"], held.history["loss"], rtol=1e-6)
    many = dl.fit_many(
        MODEL, (x, known, weights), seeds=2, loss=losses.softmax_cross_entropy,
        **{**QUIET, "epochs": 1},
    )  # fmt: skip
    np.testing.assert_allclose(many.history["loss"][0, 0], held.history["loss"][0], rtol=1e-5)


def test_it_is_a_value_and_a_term():
    again = losses.ByPosition(losses.softmax_cross_entropy, ignore=-1)
    assert again == LOSS
    assert hash(again) == hash(LOSS)
    assert pickle.loads(pickle.dumps(LOSS)) == LOSS
    assert repr(LOSS) == "ByPosition(softmax_cross_entropy, ignore=-1)"
    x, labels, _ = data()
    model = dl.Sequential(dl.Dense(CLASSES), lambda x: {"tag": x})
    run = dl.fit(
        model, (x, {"tag": labels}), loss={"tag": LOSS}, metrics={"f1": metrics.F1(output="tag", ignore=-1)},
        **{**QUIET, "epochs": 1},
    )  # fmt: skip
    assert run.history["tag_loss"] == pytest.approx(run.history["loss"])


def test_maps_ignore_pixels():
    random = np.random.default_rng(0)
    logits = random.normal(size=(2, 3, 4, CLASSES)).astype(np.float32)
    labels = random.integers(0, CLASSES, (2, 3, 4)).astype(np.uint8)
    labels[0, 0] = 255
    metric = metrics.Mean(metrics.accuracy, ignore=255)
    found = metric.result(*metric.measure(logits, labels, np.ones(2, np.float32)))
    assert found == pytest.approx(mean(logits.argmax(-1) == labels, labels != 255))
    column = metric.measure(logits, labels[..., None], np.ones(2, np.float32))
    assert metric.result(*column) == pytest.approx(found)


def test_what_has_no_positions_is_refused():
    x, labels, weights = data()
    known = np.maximum(labels, 0)
    cross_entropy = losses.softmax_cross_entropy
    with pytest.raises(
        ValueError, match=r"labels lie outside 0…3, the first is -2 at index \(0, 1"
    ):
        fitted(LOSS, (x, np.where(np.arange(TIME) == 1, -2, labels).astype(np.int32)))
    with pytest.raises(ValueError, match="do not fit"):
        fitted(cross_entropy, (x, known, weights[:, :2]))
    with pytest.raises(ValueError, match="do not fit"):
        dl.fit(
            dl.Sequential(dl.GlobalAvgPool(), dl.Dense(CLASSES)), (x, known[:, 0], weights),
            loss=cross_entropy, epochs=1, **QUIET,
        )  # fmt: skip
    with pytest.raises(ValueError, match="dice: it is of an example as a whole"):
        fitted(losses.dice, (x, known, weights))
    with pytest.raises(ValueError, match="ctc: it is of an example as a whole"):
        losses.ByPosition(functools.partial(losses.ctc, blank=1))
    with pytest.raises(TypeError, match="is batchwise, and has no value at a position"):
        losses.ByPosition(losses.nt_xent)
    with pytest.raises(ValueError, match="is batchwise, and weights of shape"):
        fitted(losses.batchwise(whole), (x, known, weights))
    with pytest.raises(ValueError, match="ignore is -1, which targets of uint8 cannot be"):
        fitted(LOSS, (x, known.astype(np.uint8)))
    with pytest.raises(ValueError, match="ignore is the target that does not count, got nan"):
        losses.ByPosition(cross_entropy, ignore=float("nan"))
    with pytest.raises(ValueError, match="ignore is the target that does not count"):
        metrics.F1(ignore=float("inf"))
    with pytest.raises(ValueError, match="finite number of at least 0"):
        fitted(cross_entropy, (x, known, -weights))
    with pytest.raises(ValueError, match="weights of all examples are 0"):
        fitted(cross_entropy, (x, known, 0 * weights))


def whole(outputs, targets, *, mask):
    return jnp.mean(outputs, where=mask[:, None, None])
