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
from jaxdl.core.padded import Padded
from jaxdl.metrics import as_metric, curves
from tests.metrics.batches import (
    CLASSES,
    binary,
    evaluated,
    float32,
    measured,
    multiclass,
    regression,
)

pytestmark = pytest.mark.usefixtures("quickly_compiled")

AVERAGES = ["macro", "micro", "weighted", None]


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
CAPITALS = [
    metrics.Precision(),
    metrics.Recall(),
    metrics.F1(),
    metrics.ConfusionMatrix(3),
    metrics.ROCAUC(),
]
CAPITALS += [metrics.R2(), metrics.Perplexity(), metrics.Mean(metrics.accuracy)]


@pytest.mark.sampled(6)
@every
@pytest.mark.parametrize("batches", [2, 5])
def test_padded_batches_merge_to_what_one_whole_batch_gives(name, batches):
    metric, data = EVERY[name]
    outputs, targets, weights = data(0)
    np.testing.assert_allclose(
        evaluated(metric, outputs, targets, weights, batches),
        evaluated(metric, outputs, targets, weights),
        rtol=1e-5,
    )


@pytest.mark.sampled(4)
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


@pytest.mark.sampled(4)
@every
def test_an_example_of_weight_two_counts_as_two_examples(name):
    metric, data = EVERY[name]
    outputs, targets, _ = data(2)
    whole = np.random.default_rng(0).integers(0, 3, len(targets))
    repeated = evaluated(metric, np.repeat(outputs, whole, 0), np.repeat(targets, whole, 0))
    np.testing.assert_allclose(evaluated(metric, outputs, targets, whole), repeated, rtol=1e-5)


@pytest.mark.sampled(4)
@every
def test_no_weight_at_all_gives_nan(name):
    metric, data = EVERY[name]
    outputs, targets, weights = data(3)
    result = evaluated(metric, outputs, targets, 0 * weights)
    if isinstance(metric, metrics.ConfusionMatrix):
        np.testing.assert_array_equal(result, np.zeros((metric.classes, metric.classes)))
    else:
        assert np.isnan(result).all()


@pytest.mark.sampled(4)
@every
def test_jit_equals_eager_and_vmap_equals_a_loop(name):
    metric, data = EVERY[name]
    outputs, targets, weights = data(4)
    metric = as_metric(metric)
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(
        near,
        measured(metric, outputs, targets, weights),
        metric.measure(outputs, targets, weights),
    )
    models = np.stack([outputs, -outputs])
    together = jax.jit(jax.vmap(metric.measure, in_axes=(0, None, None)))(
        models, targets, weights
    )
    one_by_one = [measured(metric, model, targets, weights) for model in models]
    jax.tree.map(near, together, jax.tree.map(lambda *leaves: np.stack(leaves), *one_by_one))


@pytest.mark.sampled(4)
@every
def test_sums_are_float32_and_the_gathered_have_the_batch_in_front(name):
    metric, data = EVERY[name]
    outputs, targets, weights = data(5)
    for dtype in (jnp.float32, jnp.bfloat16):
        sums, gathered = jax.eval_shape(
            as_metric(metric).measure, outputs.astype(dtype), targets, weights
        )
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


@pytest.mark.sampled
@pytest.mark.parametrize("seed", range(3))
def test_accuracy_equals_scikit_learn(seed):
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, labels, weights = multiclass(seed)
    expected = sklearn.accuracy_score(labels, logits.argmax(1), sample_weight=weights)
    np.testing.assert_allclose(
        evaluated(metrics.accuracy, logits, labels, weights), expected, rtol=1e-6
    )
    one_hot = np.eye(CLASSES, dtype=np.float32)[labels]
    np.testing.assert_allclose(
        evaluated(metrics.accuracy, logits, one_hot, weights), expected, rtol=1e-6
    )
    logits, labels, weights = binary(seed)
    expected = sklearn.accuracy_score(labels, logits > 0, sample_weight=weights)
    np.testing.assert_allclose(
        evaluated(metrics.accuracy, logits, labels, weights), expected, rtol=1e-6
    )


@pytest.mark.parametrize("k", [1, 2, CLASSES - 1])
def test_top_k_accuracy_equals_scikit_learn(k):
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, labels, weights = multiclass(7)
    expected = sklearn.top_k_accuracy_score(
        labels, logits, k=k, sample_weight=weights, labels=range(CLASSES)
    )
    metric = functools.partial(metrics.top_k_accuracy, k=k)
    np.testing.assert_allclose(evaluated(metric, logits, labels, weights), expected, rtol=1e-6)


def test_top_1_is_accuracy_under_ties_too():
    logits, labels = np.zeros((3, 4), np.float32), np.array([0, 1, 3])
    one = metrics.top_k_accuracy(logits, labels, k=1)
    np.testing.assert_array_equal(one, metrics.accuracy(logits, labels))
    np.testing.assert_array_equal(one, [1, 0, 0])


@pytest.mark.sampled(4)
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


@pytest.mark.slow
def test_the_axes_after_the_batch_are_averaged():
    logits = np.eye(3, dtype=np.float32)[[[0, 1], [2, 2]]]
    labels = np.array([[0, 2], [2, 2]])
    for targets in (labels, labels[..., None], np.eye(3, dtype=np.int32)[labels]):
        np.testing.assert_array_equal(metrics.accuracy(logits, targets), [0.5, 1.0])
        np.testing.assert_array_equal(metrics.top_k_accuracy(logits, targets, k=1), [0.5, 1.0])
    columns = np.array([[[1.0], [-1.0]], [[1.0], [1.0]]], np.float32)
    np.testing.assert_array_equal(
        metrics.accuracy(columns, np.array([[1, 1], [1, 1]])), [0.5, 1.0]
    )
    np.testing.assert_array_equal(
        metrics.squared_error(columns, np.array([[1, 1], [1, 4]])), [2.0, 4.5]
    )
    np.testing.assert_array_equal(
        metrics.absolute_error(columns, np.array([[1, 1], [1, 4]])), [1.0, 1.5]
    )


@pytest.mark.parametrize("columns", [1, 3])
def test_errors_equal_scikit_learn(columns):
    sklearn = pytest.importorskip("sklearn.metrics")
    outputs, targets, weights = regression(0, columns=columns)
    for metric, oracle in (
        (metrics.squared_error, sklearn.mean_squared_error),
        (metrics.absolute_error, sklearn.mean_absolute_error),
    ):
        expected = oracle(targets, outputs, sample_weight=weights)
        np.testing.assert_allclose(
            evaluated(metric, outputs, targets, weights, batches=4), expected, rtol=1e-5
        )


SCORES = [
    (metrics.Precision, "precision_score"),
    (metrics.Recall, "recall_score"),
    (metrics.F1, "f1_score"),
]


@pytest.mark.sampled(6)
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
    np.testing.assert_allclose(
        evaluated(metric(average), logits, one_hot, weights), got, rtol=1e-5
    )


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("metric", "oracle"), SCORES)
@pytest.mark.parametrize("threshold", [0.0, 0.5, 100.0])
def test_with_one_column_they_are_those_of_the_positive_class(metric, oracle, threshold):
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, labels, weights = binary(12)
    expected = getattr(sklearn, oracle)(
        labels, logits > threshold, sample_weight=weights, zero_division=0
    )
    for average in AVERAGES:
        got = evaluated(metric(average, threshold), logits[:, None], labels, weights, batches=3)
        assert isinstance(got, float)
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_confusion_matrix_equals_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, labels, weights = multiclass(13)
    expected = sklearn.confusion_matrix(
        labels, logits.argmax(1), sample_weight=weights, labels=range(CLASSES)
    )
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
    sequences, sequence_labels, each = (
        logits.reshape(8, 5, CLASSES),
        labels.reshape(8, 5),
        np.repeat(weights, 5),
    )
    got = evaluated(metrics.F1(), sequences, sequence_labels, weights, batches=3)
    expected = sklearn.f1_score(labels, logits.argmax(1), average="macro", sample_weight=each)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    flat = evaluated(metrics.ConfusionMatrix(CLASSES), logits, labels, each)
    matrix = evaluated(
        metrics.ConfusionMatrix(CLASSES), sequences, sequence_labels, weights, batches=3
    )
    np.testing.assert_allclose(matrix, flat, rtol=1e-5)
    whole = evaluated(metrics.ROCAUC(), sequences, sequence_labels, weights, batches=3)
    np.testing.assert_allclose(
        whole, evaluated(metrics.ROCAUC(), logits, labels, each), rtol=1e-6
    )


@pytest.mark.sampled
@pytest.mark.parametrize("seed", range(4))
def test_roc_auc_with_ties_and_weights_equals_scikit_learn(seed):
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, labels, weights = binary(seed, n=101)
    assert len(np.unique(scores)) < 60
    expected = sklearn.roc_auc_score(labels, scores, sample_weight=weights)
    np.testing.assert_allclose(
        evaluated(metrics.ROCAUC(), scores[:, None], labels, weights, batches=4),
        expected,
        rtol=1e-12,
    )


@pytest.mark.sampled(2)
@pytest.mark.parametrize("average", AVERAGES)
def test_roc_auc_of_several_classes_is_one_against_the_rest_as_in_scikit_learn(average):
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, labels, weights = multiclass(21, n=101)
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum(1, keepdims=True)
    expected = sklearn.roc_auc_score(
        labels, probabilities, multi_class="ovr", average=average, sample_weight=weights
    )
    got = evaluated(metrics.ROCAUC(average), logits, labels, weights, batches=4)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_roc_auc_of_two_columns_is_that_of_their_difference():
    logits, labels, weights = multiclass(22, classes=2)
    one = evaluated(
        metrics.ROCAUC(),
        (logits[:, 1].astype(float) - logits[:, 0]).astype(np.float32),
        labels,
        weights,
    )
    np.testing.assert_allclose(
        evaluated(metrics.ROCAUC(), logits, labels, weights), one, rtol=1e-9
    )


def test_roc_auc_of_one_class_is_nan():
    scores, _, weights = binary(23)
    assert np.isnan(evaluated(metrics.ROCAUC(), scores, np.ones(len(scores), int), weights))
    assert np.isnan(evaluated(metrics.ROCAUC(), scores, np.zeros(len(scores), int), weights))
    assert np.isnan(
        evaluated(
            metrics.ROCAUC(),
            np.full(len(scores), np.nan, np.float32),
            np.arange(len(scores)) % 2,
        )
    )
    logits, labels, _ = multiclass(23)
    areas = evaluated(metrics.ROCAUC(None), logits, np.minimum(labels, CLASSES - 2))
    np.testing.assert_array_equal(np.isnan(areas), [False, False, False, True])


@pytest.mark.parametrize("columns", [1, 3])
def test_r2_equals_scikit_learn(columns):
    sklearn = pytest.importorskip("sklearn.metrics")
    outputs, targets, weights = regression(31, columns=columns)
    expected = sklearn.r2_score(
        targets.astype(float), outputs.astype(float), sample_weight=weights.astype(float)
    )
    np.testing.assert_allclose(
        evaluated(metrics.R2(), outputs, targets, weights, batches=5), expected, rtol=1e-12
    )
    if columns == 1:
        np.testing.assert_allclose(
            evaluated(metrics.R2(), outputs, targets[:, 0], weights), expected, rtol=1e-12
        )


def test_r2_of_targets_far_from_zero_keeps_its_digits():
    sklearn = pytest.importorskip("sklearn.metrics")
    targets = np.float32(1e5) + np.random.default_rng(0).integers(0, 8, 200).astype(np.float32)
    outputs = targets + 1
    expected = sklearn.r2_score(targets.astype(np.float64), outputs.astype(np.float64))
    np.testing.assert_allclose(
        evaluated(metrics.R2(), outputs, targets, batches=7), expected, rtol=1e-12
    )


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
    uniform = evaluated(
        metrics.Perplexity(), np.zeros((2, 3, CLASSES), np.float32), labels[:6].reshape(2, 3)
    )
    np.testing.assert_allclose(uniform, CLASSES, rtol=1e-6)
    assert (
        evaluated(metrics.Perplexity(), np.array([[0, 1e4]], np.float32), np.array([0]))
        == np.inf
    )


def test_settings_that_cannot_be_are_told():
    for metric in (metrics.Precision, metrics.Recall, metrics.F1, metrics.ROCAUC):
        sentence = f"{metric.__name__}: average is 'binary', expected 'macro', 'micro', 'weighted' or None."
        value = metric()
        object.__setattr__(
            value, "average", "binary"
        )  # past the type checker that watches over the tests
        with pytest.raises(ValueError, match=re.escape(sentence)):
            value.__post_init__()
    logits, labels, weights = multiclass(0)
    with pytest.raises(
        ValueError,
        match=re.escape("ConfusionMatrix(3): outputs of shape (37, 4) have 4 classes — write"),
    ):
        metrics.ConfusionMatrix(3).measure(logits, labels, weights)
    for k in (0, 5):
        with pytest.raises(
            ValueError,
            match=f"top_k_accuracy: k is {k}, expected 1 to 4, the number of classes",
        ):
            metrics.top_k_accuracy(logits, labels, k=k)


# --- outputs that saturate, are equal, or are no numbers ----------------------------------------------------------


def test_roc_auc_of_saturated_scores_is_in_their_order():
    """Lightning-AI/torchmetrics#2819: squashed to probabilities these scores are all 1.0."""
    scores = float32(
        [
            98.0950,
            98.4612,
            98.1145,
            98.1506,
            97.6037,
            98.9425,
            99.2644,
            99.5014,
            99.7280,
            99.6595,
            99.6931,
        ]
    )
    labels = np.array([0] + [1] * 10)
    right = np.mean(scores[1:] > scores[0])
    assert evaluated(metrics.ROCAUC(), scores, labels) == pytest.approx(right, abs=1e-12)
    for average in AVERAGES:
        got = evaluated(metrics.ROCAUC(average), np.stack([0 * scores, scores], 1), labels)
        if average != "micro":  # which has pairs of two classes too
            np.testing.assert_allclose(got, right, atol=1e-12)


def test_log_odds_are_those_of_softmax_probabilities_in_many_digits():
    mpmath = pytest.importorskip("mpmath")
    generator = np.random.default_rng(0)
    logits = np.concatenate(
        [generator.normal(size=(6, 5)), 300 * generator.normal(size=(6, 5))]
    )
    got = curves.log_odds(logits)
    with mpmath.workdps(400):
        for row, odds in zip(logits, got, strict=True):
            powers = [mpmath.exp(mpmath.mpf(float(x))) for x in row]
            expected = [float(mpmath.log(power / (sum(powers) - power))) for power in powers]
            np.testing.assert_allclose(odds, expected, rtol=1e-12)
    with np.errstate(all="raise"):
        ruled_out = curves.log_odds(np.array([[-np.inf, 1.0, 2.0], [-np.inf, 3.0, -np.inf]]))
    np.testing.assert_array_equal(ruled_out, [[-np.inf, -1, 1], [-np.inf, np.inf, -np.inf]])


@pytest.mark.sampled(2)
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("shift", "right"), [(0.0, 1.0), (0.1, 0.0)])
def test_r2_of_constant_targets_under_weights(seed, shift, right):
    generator = np.random.default_rng(seed)
    n = int(generator.integers(3, 200))
    weights = generator.uniform(0.1, 3, n)
    targets = np.full(n, generator.normal(), np.float32)
    assert (
        evaluated(metrics.R2(), targets + np.float32(shift), targets, weights, batches=2)
        == right
    )


def test_r2_of_targets_that_differ_in_their_last_digit_equals_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    targets = np.full(9, 1000, np.float32)
    targets[1::2] = np.nextafter(np.float32(1000), np.float32(2000))
    outputs = np.full(9, 1000, np.float32)
    exact = targets.astype(np.float64) - 1000
    expected = sklearn.r2_score(exact, outputs.astype(np.float64) - 1000)
    np.testing.assert_allclose(evaluated(metrics.R2(), outputs, targets), expected, rtol=1e-12)


NAN = float32([[0, np.nan, 1], [np.nan, np.nan, np.nan], [3, 1, 2], [0, 5, 1], [np.nan, 9, 0]])
NAN_LABELS = np.array([1, 0, 0, 2, 1])
"""Five examples: three with NaN among their outputs, one right, one where class 1 is taken for 2."""


def test_an_output_that_is_nan_predicts_no_class():
    np.testing.assert_array_equal(metrics.accuracy(NAN, NAN_LABELS), [0, 0, 1, 0, 0])
    for k, second in ((1, 0), (2, 1), (3, 1)):
        np.testing.assert_array_equal(
            metrics.top_k_accuracy(NAN, NAN_LABELS, k=k), [0, 0, 1, second, 0]
        )
    matrix = evaluated(metrics.ConfusionMatrix(3), NAN, NAN_LABELS)
    np.testing.assert_array_equal(matrix, [[1, 0, 0], [0, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(
        evaluated(metrics.Precision(None), NAN, NAN_LABELS), [1, 0, 0]
    )  # of 1, 1 and 0 predicted
    np.testing.assert_allclose(
        evaluated(metrics.Recall(None), NAN, NAN_LABELS), [1 / 2, 0, 0]
    )  # of 2, 2 and 1
    np.testing.assert_allclose(evaluated(metrics.F1(None), NAN, NAN_LABELS), [2 / 3, 0, 0])
    assert evaluated(metrics.F1("micro"), NAN, NAN_LABELS) == pytest.approx(2 / (2 + 5))
    assert evaluated(metrics.F1("weighted"), NAN, NAN_LABELS) == pytest.approx((2 * 2 / 3) / 5)


def test_a_column_that_is_nan_predicts_neither_class():
    logits, labels = float32([np.nan, np.nan, 1, -1]), np.array([0, 1, 1, 0])
    for outputs in (logits, logits[:, None]):
        np.testing.assert_array_equal(metrics.accuracy(outputs, labels), [0, 0, 1, 1])
        np.testing.assert_array_equal(
            evaluated(metrics.ConfusionMatrix(2), outputs, labels), [[1, 0], [0, 1]]
        )
        assert evaluated(metrics.Precision(), outputs, labels) == 1
        assert evaluated(metrics.Recall(), outputs, labels) == 0.5


def test_what_is_computed_of_an_output_that_is_nan_is_nan():
    assert np.isnan(evaluated(metrics.ROCAUC(), NAN, NAN_LABELS))
    assert np.isnan(evaluated(metrics.ROCAUC(), NAN[:, 0], NAN_LABELS > 0))
    assert np.isnan(evaluated(metrics.Perplexity(), NAN, NAN_LABELS))
    assert np.isnan(evaluated(metrics.R2(), NAN[:, 0], np.arange(5, dtype=np.float32)))
    for metric in (metrics.squared_error, metrics.absolute_error):
        np.testing.assert_array_equal(
            np.isnan(metric(NAN[:, 0], NAN_LABELS)), np.isnan(NAN[:, 0])
        )


@pytest.mark.parametrize("zeros", [[0.0, -0.0, 0.0], [-0.0, 0.0, -0.0]])
def test_zeros_of_either_sign_rank_alike(zeros):
    logits = float32([[*zeros, -1]] * 3)
    np.testing.assert_array_equal(metrics.top_k_accuracy(logits, np.arange(3), k=1), [1, 0, 0])
    np.testing.assert_array_equal(metrics.top_k_accuracy(logits, np.arange(3), k=2), [1, 1, 0])
    np.testing.assert_array_equal(metrics.accuracy(logits, np.arange(3)), [1, 0, 0])


def test_a_label_outside_the_classes_is_never_right():
    logits, labels = float32([[0, 1], [0, 1], [np.nan, 0]]), np.array([-1, 2, -1])
    assert not np.asarray(metrics.accuracy(logits, labels)).any()
    assert not np.asarray(metrics.top_k_accuracy(logits, labels, k=2)).any()
    assert not np.any(evaluated(metrics.ConfusionMatrix(2), logits, labels))
    assert evaluated(metrics.Recall(), logits, labels) == 0


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int8])
def test_one_hot_labels_of_any_dtype(dtype):
    logits, labels, _ = multiclass(5)
    one_hot = np.eye(CLASSES, dtype=dtype)[labels]
    np.testing.assert_array_equal(
        metrics.accuracy(logits, one_hot), metrics.accuracy(logits, labels)
    )
    np.testing.assert_array_equal(
        evaluated(metrics.ConfusionMatrix(CLASSES), logits, one_hot),
        evaluated(metrics.ConfusionMatrix(CLASSES), logits, labels),
    )


@pytest.mark.slow
def test_a_confusion_matrix_of_many_classes_equals_a_count():
    """A product of one-hot labels takes batch · classes² operations, 5 · 10¹⁰ of them here."""
    generator = np.random.default_rng(0)
    labels, chosen = generator.integers(0, 5000, (2, 2000))
    weights = generator.integers(1, 5, 2000).astype(np.float32)
    logits = np.zeros((2000, 5000), np.float32)
    logits[np.arange(2000), chosen] = 1
    expected = np.zeros((5000, 5000))
    np.add.at(expected, (labels, chosen), weights)
    np.testing.assert_array_equal(
        evaluated(metrics.ConfusionMatrix(5000), logits, labels, weights), expected
    )


# --- sequences of different lengths -------------------------------------------------------------------------------


def sequences(seed, columns):
    """Nine sequences of up to five steps, with NaN and labels of no class behind their ends, and all steps one by one."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 6, 9).astype(np.int32)
    outputs, labels = (
        generator.normal(size=(9, 5, columns)),
        generator.integers(0, max(columns, 2), (9, 5)),
    )
    weights = generator.uniform(0.5, 2, 9).astype(np.float32)
    real = np.arange(5) < lengths[:, None]
    broken = np.where(real[..., None], outputs, np.nan).astype(np.float32)
    padded, targets = Padded(broken, lengths), np.where(real, labels, -1).astype(np.int32)
    return padded, targets, weights, real


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "metric",
    [
        metrics.Precision("micro"),
        metrics.Recall(None),
        metrics.F1(),
        metrics.ConfusionMatrix(3),
        metrics.ROCAUC(),
        metrics.R2(),
    ],
    ids=lambda metric: type(metric).__name__,
)
@pytest.mark.parametrize("columns", [1, 3])
def test_what_counts_takes_each_step_within_the_lengths_as_an_example(metric, columns):
    padded, targets, weights, real = sequences(0, columns)
    if isinstance(metric, metrics.ConfusionMatrix) and columns == 1:
        metric = metrics.ConfusionMatrix(2)
    if isinstance(metric, metrics.R2):
        targets = np.where(real[..., None], np.nan_to_num(padded.values) + 1, np.nan).astype(
            np.float32
        )
    each = np.repeat(weights, real.sum(1))
    expected = evaluated(metric, padded.values[real], targets[real], each)
    for given in (targets, Padded(targets, padded.lengths)):
        got = jax.device_get(measured(metric, padded, given, weights))
        np.testing.assert_allclose(metric.result(*got), expected, rtol=1e-5)


def test_per_example_metrics_are_means_over_the_steps_within_the_lengths():
    padded, targets, weights, real = sequences(1, 3)
    numbers = np.where(real[..., None], np.full((9, 5, 3), 2), np.nan).astype(np.float32)
    squared = np.square(np.nan_to_num(padded.values, nan=2.0) - 2).mean(-1)
    chosen = padded.values.argmax(-1)
    log_p = padded.values.astype(np.float64)
    log_p = log_p - np.log(np.exp(log_p).sum(-1, keepdims=True))
    entropy = -np.take_along_axis(log_p, targets.clip(0)[..., None], -1)[..., 0]

    def means(values):
        return np.array([row[counts].mean() for row, counts in zip(values, real, strict=True)])

    np.testing.assert_allclose(
        metrics.accuracy(padded, targets), means(chosen == targets), rtol=1e-6
    )
    np.testing.assert_allclose(
        metrics.top_k_accuracy(padded, targets, k=1), means(chosen == targets), rtol=1e-6
    )
    np.testing.assert_allclose(
        metrics.squared_error(padded, numbers), means(squared), rtol=1e-5
    )
    got = metrics.Perplexity().result(
        *jax.device_get(measured(metrics.Perplexity(), padded, targets, weights))
    )
    np.testing.assert_allclose(
        got, np.exp(np.average(means(entropy), weights=weights)), rtol=1e-5
    )


# --- one of several outputs ---------------------------------------------------------------------------------------


def test_a_metric_of_a_part_is_the_metric_of_that_output():
    logits, labels, weights = multiclass(0)
    outputs, targets = (
        {"tag": logits, "size": logits[:, :1]},
        {"tag": labels, "size": logits[:, 0]},
    )
    part = metrics.Part(metrics.F1(), "tag")
    assert part == metrics.Part(metrics.F1(), "tag")
    for given, wanted in ((outputs, targets), (outputs, labels)):
        got = part.result(*jax.device_get(measured(part, given, wanted, weights)))
        assert got == evaluated(metrics.F1(), logits, labels, weights)
    mean = metrics.Part(metrics.accuracy, 1)
    got = mean.result(
        *jax.device_get(measured(mean, (0 * logits, logits), (labels, labels), weights))
    )
    assert got == evaluated(metrics.accuracy, logits, labels, weights)
    with pytest.raises(
        ValueError,
        match=re.escape(
            "Part('tags'): there is no 'tags' among the outputs, which are 'size' and 'tag'"
        ),
    ):
        metrics.Part(metrics.F1(), "tags").measure(outputs, targets, weights)
    with pytest.raises(
        ValueError,
        match=re.escape(
            "Part('tag'): there is no 'tag' among the outputs, which are not named (shape (37, 4)"
        ),
    ):
        part.measure(logits, labels, weights)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "name",
    [
        "accuracy",
        "top_k_accuracy",
        "squared_error",
        "Precision",
        "ConfusionMatrix",
        "ROCAUC",
        "R2",
    ],
)
def test_several_outputs_are_told_how_to_be_chosen(name):
    metric = getattr(metrics, name)
    metric = metrics.as_metric(
        metric(4) if name == "ConfusionMatrix" else metric() if name[0].isupper() else metric
    )
    logits, labels, weights = multiclass(0)
    with pytest.raises(
        ValueError,
        match=rf"{name}: expected one array of outputs, got dict .* metrics.Part\(metric, 'part'\)",
    ):
        metric.measure({"tag": logits}, labels, weights)
    with pytest.raises(
        ValueError,
        match=rf"{name}: expected one array of targets, got dict .* lambda outputs, targets",
    ):
        metric.measure(logits, {"tag": labels}, weights)


@pytest.mark.slow
def test_arrays_of_foreign_byte_order_are_converted():
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(6, 3)).astype(np.float32)
    labels = np.array([0, 2, 1, 1, 0, 2], np.int32)
    numbers = rng.normal(size=(6, 3)).astype(np.float32)
    weights = np.array([1, 2, 0, 1, 1, 3], np.float32)
    of_labels = [
        metrics.accuracy,
        functools.partial(metrics.top_k_accuracy, k=2),
        metrics.F1(),
        metrics.ConfusionMatrix(3),
        metrics.Perplexity(),
        metrics.ROCAUC(),
    ]
    of_numbers = [metrics.squared_error, metrics.absolute_error, metrics.R2()]
    cases = [(each, labels) for each in of_labels] + [(each, numbers) for each in of_numbers]
    for function, targets in cases:
        metric = metrics.as_metric(function)
        native = (outputs, targets, weights)
        foreign = [array.astype(array.dtype.newbyteorder(">")) for array in native]
        assert [array.dtype.isnative for array in foreign] == [False] * 3
        jax.tree.map(
            np.testing.assert_array_equal, metric.measure(*foreign), metric.measure(*native)
        )
