"""Metrics against scikit-learn and optax, under weights and masks, and merged from unequal batches."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdl import metrics
from jaxdl.metrics import as_metric

pytestmark = pytest.mark.usefixtures("quickly_compiled")

CLASSES = 4
AVERAGES = ["macro", "micro", "weighted", None]


@functools.partial(jax.jit, static_argnums=0)
def measured(metric, outputs, targets, weights):
    return metric.measure(outputs, targets, weights)


def evaluated(metric, outputs, targets, weights=None, batches=1):
    """The metric as a loop takes it: padded batches of one size, sums added in float64, the gathered joined."""
    metric = as_metric(metric)
    weights = np.ones(len(targets), np.float32) if weights is None else np.asarray(weights, np.float32)
    size = -(-len(targets) // batches)
    pieces = []
    for start in range(0, len(targets), size):
        rows = [values[start : start + size] for values in (outputs, targets, weights)]
        padding = [(0, size - len(rows[0]))]
        rows = [np.pad(values, padding + [(0, 0)] * (values.ndim - 1)) for values in rows]
        pieces.append(jax.device_get(measured(metric, *rows)))
    sums = jax.tree.map(lambda *leaves: np.sum(np.stack(leaves).astype(np.float64), axis=0), *[s for s, _ in pieces])
    gathered = jax.tree.map(lambda *leaves: np.concatenate(leaves), *[g for _, g in pieces])
    return metric.result(sums, gathered)


def multiclass(seed, n=37, classes=CLASSES):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    logits = generator.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    weights = generator.uniform(0.1, 2, n) * (generator.uniform(size=n) > 0.3)
    return logits.astype(np.float32), labels.astype(np.int32), weights.astype(np.float32)


def binary(seed, n=37):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, n)
    logits = np.round(generator.normal(size=n) + labels, 1)  # rounded, so that many are tied
    weights = generator.uniform(0.1, 2, n) * (generator.uniform(size=n) > 0.3)
    return logits.astype(np.float32), labels.astype(np.int32), weights.astype(np.float32)


def regression(seed, n=37, columns=1):
    generator = np.random.default_rng(seed)
    targets = 5 + generator.normal(size=(n, columns))
    weights = generator.uniform(0.1, 2, n) * (generator.uniform(size=n) > 0.3)
    outputs = targets + 0.5 * generator.normal(size=(n, columns))
    return outputs.astype(np.float32), targets.astype(np.float32), weights.astype(np.float32)


EVERY = {
    "accuracy": (metrics.accuracy, multiclass),
    "accuracy, binary": (metrics.accuracy, binary),
    "top k": (functools.partial(metrics.top_k_accuracy, k=2), multiclass),
    "squared error": (metrics.squared_error, regression),
    "absolute error": (metrics.absolute_error, regression),
    "precision": (metrics.Precision(), multiclass),
    "precision, binary": (metrics.Precision(), binary),
    "recall": (metrics.Recall("weighted"), multiclass),
    "f1": (metrics.F1(None), multiclass),
    "f1, micro": (metrics.F1("micro"), multiclass),
    "confusion": (metrics.ConfusionMatrix(CLASSES), multiclass),
    "confusion, binary": (metrics.ConfusionMatrix(2), binary),
    "roc auc": (metrics.ROCAUC(), multiclass),
    "roc auc, binary": (metrics.ROCAUC(), binary),
    "r2": (metrics.R2(), regression),
    "perplexity": (metrics.Perplexity(), multiclass),
}
every = pytest.mark.parametrize("name", EVERY)
CAPITALS = [metrics.Precision(), metrics.Recall(), metrics.F1(), metrics.ConfusionMatrix(3), metrics.ROCAUC()]
CAPITALS += [metrics.R2(), metrics.Perplexity(), metrics.Mean(metrics.accuracy)]


@every
@pytest.mark.parametrize("batches", [2, 5])
def test_padded_batches_merge_to_what_one_whole_batch_gives(name, batches):
    metric, data = EVERY[name]
    outputs, targets, weights = data(0)
    np.testing.assert_allclose(
        evaluated(metric, outputs, targets, weights, batches), evaluated(metric, outputs, targets, weights), rtol=1e-5
    )


@every
def test_rows_of_weight_zero_do_not_count_even_where_they_are_nan(name):
    metric, data = EVERY[name]
    outputs, targets, weights = data(1)
    kept = weights != 0
    broken = np.where(kept.reshape(-1, *[1] * (outputs.ndim - 1)), outputs, np.float32(np.nan))
    np.testing.assert_allclose(
        evaluated(metric, broken, targets, weights),
        evaluated(metric, outputs[kept], targets[kept], weights[kept]),
        rtol=1e-5,
    )


@every
def test_an_example_of_weight_two_counts_as_two_examples(name):
    metric, data = EVERY[name]
    outputs, targets, _ = data(2)
    whole = np.random.default_rng(0).integers(0, 3, len(targets))
    repeated = evaluated(metric, np.repeat(outputs, whole, 0), np.repeat(targets, whole, 0))
    np.testing.assert_allclose(evaluated(metric, outputs, targets, whole), repeated, rtol=1e-5)


@every
def test_no_weight_at_all_gives_nan(name):
    metric, data = EVERY[name]
    outputs, targets, weights = data(3)
    result = evaluated(metric, outputs, targets, 0 * weights)
    if isinstance(metric, metrics.ConfusionMatrix):
        np.testing.assert_array_equal(result, np.zeros((metric.classes, metric.classes)))
    else:
        assert np.isnan(result).all()


@every
def test_jit_equals_eager_and_vmap_equals_a_loop(name):
    metric, data = EVERY[name]
    outputs, targets, weights = data(4)
    metric = as_metric(metric)
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(near, measured(metric, outputs, targets, weights), metric.measure(outputs, targets, weights))
    models = np.stack([outputs, -outputs])
    together = jax.jit(jax.vmap(metric.measure, in_axes=(0, None, None)))(models, targets, weights)
    one_by_one = [measured(metric, model, targets, weights) for model in models]
    jax.tree.map(near, together, jax.tree.map(lambda *leaves: np.stack(leaves), *one_by_one))


@every
def test_sums_are_float32_and_the_gathered_have_the_batch_in_front(name):
    metric, data = EVERY[name]
    outputs, targets, weights = data(5)
    for dtype in (jnp.float32, jnp.bfloat16):
        sums, gathered = jax.eval_shape(as_metric(metric).measure, outputs.astype(dtype), targets, weights)
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(sums))
        assert all(leaf.shape[0] == len(targets) for leaf in jax.tree.leaves(gathered))
        assert jax.tree.leaves((sums, gathered))


@pytest.mark.parametrize("metric", CAPITALS, ids=lambda metric: type(metric).__name__)
def test_a_metric_is_a_frozen_value(metric):
    same = dataclasses.replace(metric)
    assert metric == same
    assert hash(metric) == hash(same)
    assert as_metric(metric) is metric
    assert isinstance(metric, metrics.Metric)
    assert sum(other == metric for other in CAPITALS) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        metric.__setattr__("average", "micro")


# --- per-example functions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_equals_scikit_learn(seed):
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, labels, weights = multiclass(seed)
    expected = sklearn.accuracy_score(labels, logits.argmax(1), sample_weight=weights)
    np.testing.assert_allclose(evaluated(metrics.accuracy, logits, labels, weights), expected, rtol=1e-6)
    one_hot = np.eye(CLASSES, dtype=np.float32)[labels]
    np.testing.assert_allclose(evaluated(metrics.accuracy, logits, one_hot, weights), expected, rtol=1e-6)
    logits, labels, weights = binary(seed)
    expected = sklearn.accuracy_score(labels, logits > 0, sample_weight=weights)
    np.testing.assert_allclose(evaluated(metrics.accuracy, logits, labels, weights), expected, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 2, CLASSES - 1])
def test_top_k_accuracy_equals_scikit_learn(k):
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, labels, weights = multiclass(7)
    expected = sklearn.top_k_accuracy_score(labels, logits, k=k, sample_weight=weights, labels=range(CLASSES))
    metric = functools.partial(metrics.top_k_accuracy, k=k)
    np.testing.assert_allclose(evaluated(metric, logits, labels, weights), expected, rtol=1e-6)


def test_top_1_is_accuracy_under_ties_too():
    logits, labels = np.zeros((3, 4), np.float32), np.array([0, 1, 3])
    one = metrics.top_k_accuracy(logits, labels, k=1)
    np.testing.assert_array_equal(one, metrics.accuracy(logits, labels))
    np.testing.assert_array_equal(one, [1, 0, 0])


@pytest.mark.parametrize("outputs", [(6,), (6, 1)])
@pytest.mark.parametrize("targets", [(6,), (6, 1)])
@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int32])
def test_binary_accuracy_takes_one_column_in_any_form(outputs, targets, dtype):
    logits = np.array([-2, -0.1, 0.1, 2, 0.3, 0.7], np.float32)
    labels = np.array([0, 1, 1, 0, 0, 1]).astype(dtype)
    got = metrics.accuracy(logits.reshape(outputs), labels.reshape(targets))
    np.testing.assert_array_equal(got, [1, 0, 1, 0, 0, 1])
    half = metrics.accuracy(logits.reshape(outputs), labels.reshape(targets), threshold=0.5)
    np.testing.assert_array_equal(half, [1, 0, 0, 0, 1, 1])


def test_labels_of_minus_and_plus_one_are_read_as_hinge_has_them():
    logits, labels = np.array([-2.0, 2.0, 2.0], np.float32), np.array([-1, 1, -1])
    np.testing.assert_array_equal(metrics.accuracy(logits, labels), [1, 1, 0])


def test_the_axes_after_the_batch_are_averaged():
    logits = np.eye(3, dtype=np.float32)[[[0, 1], [2, 2]]]
    labels = np.array([[0, 2], [2, 2]])
    for targets in (labels, labels[..., None], np.eye(3, dtype=np.int32)[labels]):
        np.testing.assert_array_equal(metrics.accuracy(logits, targets), [0.5, 1.0])
        np.testing.assert_array_equal(metrics.top_k_accuracy(logits, targets, k=1), [0.5, 1.0])
    columns = np.array([[[1.0], [-1.0]], [[1.0], [1.0]]], np.float32)
    np.testing.assert_array_equal(metrics.accuracy(columns, np.array([[1, 1], [1, 1]])), [0.5, 1.0])
    np.testing.assert_array_equal(metrics.squared_error(columns, np.array([[1, 1], [1, 4]])), [2.0, 4.5])
    np.testing.assert_array_equal(metrics.absolute_error(columns, np.array([[1, 1], [1, 4]])), [1.0, 1.5])


@pytest.mark.parametrize("columns", [1, 3])
def test_errors_equal_scikit_learn(columns):
    sklearn = pytest.importorskip("sklearn.metrics")
    outputs, targets, weights = regression(0, columns=columns)
    for metric, oracle in (
        (metrics.squared_error, sklearn.mean_squared_error),
        (metrics.absolute_error, sklearn.mean_absolute_error),
    ):
        expected = oracle(targets, outputs, sample_weight=weights)
        np.testing.assert_allclose(evaluated(metric, outputs, targets, weights, batches=4), expected, rtol=1e-5)


SCORES = [(metrics.Precision, "precision_score"), (metrics.Recall, "recall_score"), (metrics.F1, "f1_score")]


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize(("metric", "oracle"), SCORES)
@pytest.mark.parametrize("absent", [False, True])
def test_precision_recall_and_f1_equal_scikit_learn(metric, oracle, average, absent):
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, labels, weights = multiclass(11)
    if absent:  # one class is neither label nor prediction, one is predicted and never right
        logits[:, 1] = -100
        labels = np.where(labels < 2, 0, labels)
        labels = np.where(labels == 3, 2, labels)
    kept = weights > 0
    arguments = {"average": average, "sample_weight": weights[kept], "zero_division": 0}
    if average is None:
        arguments["labels"] = range(CLASSES)
    expected = getattr(sklearn, oracle)(labels[kept], logits[kept].argmax(1), **arguments)
    got = evaluated(metric(average), logits, labels, weights, batches=3)
    assert isinstance(got, np.ndarray if average is None else float)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    one_hot = np.eye(CLASSES, dtype=np.float32)[labels]
    np.testing.assert_allclose(evaluated(metric(average), logits, one_hot, weights), got, rtol=1e-5)


@pytest.mark.parametrize(("metric", "oracle"), SCORES)
@pytest.mark.parametrize("threshold", [0.0, 0.5, 100.0])
def test_with_one_column_they_are_those_of_the_positive_class(metric, oracle, threshold):
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, labels, weights = binary(12)
    expected = getattr(sklearn, oracle)(labels, logits > threshold, sample_weight=weights, zero_division=0)
    for average in AVERAGES:
        got = evaluated(metric(average, threshold), logits[:, None], labels, weights, batches=3)
        assert isinstance(got, float)
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_confusion_matrix_equals_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, labels, weights = multiclass(13)
    expected = sklearn.confusion_matrix(labels, logits.argmax(1), sample_weight=weights, labels=range(CLASSES))
    got = evaluated(metrics.ConfusionMatrix(CLASSES), logits, labels, weights, batches=4)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    logits, labels, weights = binary(13)
    expected = sklearn.confusion_matrix(labels, logits > 0.3, sample_weight=weights)
    got = evaluated(metrics.ConfusionMatrix(2, threshold=0.3), logits, labels, weights)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_counts_of_whole_examples_are_exact():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 50_000)
    got = evaluated(metrics.ConfusionMatrix(3), np.eye(3, dtype=np.float32)[labels], labels)
    np.testing.assert_array_equal(got, np.diag(np.bincount(labels)))


def test_every_position_of_a_sequence_counts_with_its_sequences_weight():
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, labels, _ = multiclass(14, n=40)
    weights = np.random.default_rng(0).uniform(0, 2, 8).astype(np.float32)
    sequences, sequence_labels, each = logits.reshape(8, 5, CLASSES), labels.reshape(8, 5), np.repeat(weights, 5)
    got = evaluated(metrics.F1(), sequences, sequence_labels, weights, batches=3)
    expected = sklearn.f1_score(labels, logits.argmax(1), average="macro", sample_weight=each)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    flat = evaluated(metrics.ConfusionMatrix(CLASSES), logits, labels, each)
    matrix = evaluated(metrics.ConfusionMatrix(CLASSES), sequences, sequence_labels, weights, batches=3)
    np.testing.assert_allclose(matrix, flat, rtol=1e-5)
    whole = evaluated(metrics.ROCAUC(), sequences, sequence_labels, weights, batches=3)
    np.testing.assert_allclose(whole, evaluated(metrics.ROCAUC(), logits, labels, each), rtol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_roc_auc_with_ties_and_weights_equals_scikit_learn(seed):
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, labels, weights = binary(seed, n=101)
    assert len(np.unique(scores)) < 60
    expected = sklearn.roc_auc_score(labels, scores, sample_weight=weights)
    np.testing.assert_allclose(evaluated(metrics.ROCAUC(), scores[:, None], labels, weights, batches=4), expected, rtol=1e-12)


@pytest.mark.parametrize("average", AVERAGES)
def test_roc_auc_of_several_classes_is_one_against_the_rest_as_in_scikit_learn(average):
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, labels, weights = multiclass(21, n=101)
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum(1, keepdims=True)
    expected = sklearn.roc_auc_score(labels, probabilities, multi_class="ovr", average=average, sample_weight=weights)
    got = evaluated(metrics.ROCAUC(average), logits, labels, weights, batches=4)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_roc_auc_of_two_columns_is_that_of_their_difference():
    logits, labels, weights = multiclass(22, classes=2)
    one = evaluated(metrics.ROCAUC(), (logits[:, 1].astype(float) - logits[:, 0]).astype(np.float32), labels, weights)
    np.testing.assert_allclose(evaluated(metrics.ROCAUC(), logits, labels, weights), one, rtol=1e-9)


def test_roc_auc_of_one_class_is_nan():
    scores, _, weights = binary(23)
    assert np.isnan(evaluated(metrics.ROCAUC(), scores, np.ones(len(scores), int), weights))
    assert np.isnan(evaluated(metrics.ROCAUC(), scores, np.zeros(len(scores), int), weights))
    assert np.isnan(evaluated(metrics.ROCAUC(), np.full(len(scores), np.nan, np.float32), np.arange(len(scores)) % 2))
    logits, labels, _ = multiclass(23)
    areas = evaluated(metrics.ROCAUC(None), logits, np.minimum(labels, CLASSES - 2))
    np.testing.assert_array_equal(np.isnan(areas), [False, False, False, True])


@pytest.mark.parametrize("columns", [1, 3])
def test_r2_equals_scikit_learn(columns):
    sklearn = pytest.importorskip("sklearn.metrics")
    outputs, targets, weights = regression(31, columns=columns)
    expected = sklearn.r2_score(targets.astype(float), outputs.astype(float), sample_weight=weights.astype(float))
    np.testing.assert_allclose(evaluated(metrics.R2(), outputs, targets, weights, batches=5), expected, rtol=1e-12)
    if columns == 1:
        np.testing.assert_allclose(evaluated(metrics.R2(), outputs, targets[:, 0], weights), expected, rtol=1e-12)


def test_r2_of_targets_far_from_zero_keeps_its_digits():
    sklearn = pytest.importorskip("sklearn.metrics")
    targets = np.float32(1e5) + np.random.default_rng(0).integers(0, 8, 200).astype(np.float32)
    outputs = targets + 1
    expected = sklearn.r2_score(targets.astype(np.float64), outputs.astype(np.float64))
    np.testing.assert_allclose(evaluated(metrics.R2(), outputs, targets, batches=7), expected, rtol=1e-12)


def test_r2_of_constant_targets_and_of_one_example():
    ones = np.ones(4, np.float32)
    assert evaluated(metrics.R2(), ones, ones) == 1
    assert evaluated(metrics.R2(), 2 * ones, ones) == 0
    assert np.isnan(evaluated(metrics.R2(), ones[:1], ones[:1]))


def test_perplexity_is_the_exponential_of_the_mean_cross_entropy():
    logits, labels, weights = multiclass(41)
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    expected = np.exp(np.average(entropy, weights=weights))
    one_hot = np.eye(CLASSES, dtype=np.float32)[labels]
    for targets in (labels, one_hot):
        got = evaluated(metrics.Perplexity(), logits, targets, weights, batches=4)
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    uniform = evaluated(metrics.Perplexity(), np.zeros((2, 3, CLASSES), np.float32), labels[:6].reshape(2, 3))
    np.testing.assert_allclose(uniform, CLASSES, rtol=1e-6)
    assert evaluated(metrics.Perplexity(), np.array([[0, 1e4]], np.float32), np.array([0])) == np.inf


def test_settings_that_cannot_be_are_told():
    for metric in (metrics.Precision, metrics.Recall, metrics.F1, metrics.ROCAUC):
        sentence = f"{metric.__name__}: average is 'binary', expected 'macro', 'micro', 'weighted' or None."
        value = metric()
        object.__setattr__(value, "average", "binary")  # past the type checker that watches over the tests
        with pytest.raises(ValueError, match=re.escape(sentence)):
            value.__post_init__()
    logits, labels, weights = multiclass(0)
    with pytest.raises(ValueError, match=re.escape("ConfusionMatrix(3): outputs of shape (37, 4) have 4 classes — write")):
        metrics.ConfusionMatrix(3).measure(logits, labels, weights)
    for k in (0, 5):
        with pytest.raises(ValueError, match=f"top_k_accuracy: k is {k}, expected 1 to 4, the number of classes"):
            metrics.top_k_accuracy(logits, labels, k=k)
