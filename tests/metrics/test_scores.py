"""Scores of classes and of several labels, and values at an extreme, against scikit-learn and NumPy."""

import functools
import re

import jax
import numpy as np
import pytest

from jaxdl import metrics
from jaxdl.core.padded import Padded
from tests.metrics.batches import (
    CLASSES,
    binary,
    evaluated,
    float32,
    measured,
    multiclass,
    multilabel,
    regression,
)

pytestmark = pytest.mark.usefixtures("quickly_compiled")

AVERAGES = ["macro", "micro", "weighted", None]
SCORES = {
    "precision": (metrics.Precision, "precision_score", {}),
    "recall": (metrics.Recall, "recall_score", {}),
    "f1": (metrics.F1, "f1_score", {}),
    "f2": (functools.partial(metrics.FBeta, beta=2.0), "fbeta_score", {"beta": 2.0}),
    "f half": (functools.partial(metrics.FBeta, beta=0.5), "fbeta_score", {"beta": 0.5}),
    "iou": (metrics.IoU, "jaccard_score", {}),
}
score = pytest.mark.parametrize("name", SCORES)


def of_scikit_learn(name, true, predicted, weights, **arguments):
    sklearn = pytest.importorskip("sklearn.metrics")
    _, oracle, settings = SCORES[name]
    kept = weights > 0
    return getattr(sklearn, oracle)(
        true[kept],
        predicted[kept],
        sample_weight=weights[kept],
        zero_division=0,
        **settings,
        **arguments,
    )


@pytest.mark.sampled(6)
@score
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("absent", [False, True])
def test_scores_of_classes_equal_scikit_learn(name, average, absent):
    logits, labels, weights = multiclass(11)
    if absent:  # one class is neither label nor prediction, one is predicted and never right
        logits[:, 1] = -100
        labels = np.where(labels < 2, 0, labels)
        labels = np.where(labels == 3, 2, labels)
    more = {"labels": range(CLASSES)} if average is None else {}
    expected = of_scikit_learn(name, labels, logits.argmax(1), weights, average=average, **more)
    got = evaluated(SCORES[name][0](average), logits, labels, weights, batches=3)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.sampled(3)
@score
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_scores_of_one_column_equal_scikit_learn(name, threshold):
    logits, labels, weights = binary(12)
    expected = of_scikit_learn(name, labels, logits > threshold, weights)
    metric = SCORES[name][0](threshold=threshold)
    got = evaluated(metric, logits[:, None], labels, weights, batches=3)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.sampled(8)
@score
@pytest.mark.parametrize("average", [*AVERAGES, "samples"])
@pytest.mark.parametrize("batches", [1, 4])
def test_scores_of_several_labels_equal_scikit_learn(name, average, batches):
    logits, targets, weights = multilabel(13)
    targets[:, 2] = 0  # counts in the macro average all the same
    targets[3] = 0
    logits[3] = -1
    expected = of_scikit_learn(name, targets, logits > 0, weights, average=average)
    metric = SCORES[name][0](average, multilabel=True)
    got = evaluated(metric, logits, targets, weights, batches)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_f_beta_has_precision_and_f1_among_its_values():
    data = multiclass(3)
    for beta, metric in ((0.0, metrics.Precision(None)), (1.0, metrics.F1(None))):
        np.testing.assert_array_equal(
            evaluated(metrics.FBeta(None, beta=beta), *data), evaluated(metric, *data)
        )
    almost = evaluated(metrics.FBeta(None, beta=1e4), *data)
    np.testing.assert_allclose(almost, evaluated(metrics.Recall(None), *data), rtol=1e-6)


def test_a_map_of_classes_is_as_many_examples():
    logits, labels, _ = multiclass(4, n=60)
    maps = logits.reshape(5, 3, 4, CLASSES)
    weights = float32([1, 2, 0, 1, 3])
    each = np.repeat(weights, 12)
    np.testing.assert_allclose(
        evaluated(metrics.IoU(), maps, labels.reshape(5, 3, 4), weights, batches=2),
        evaluated(metrics.IoU(), logits, labels, each),
        rtol=1e-6,
    )


@pytest.mark.parametrize("batches", [1, 4])
def test_balanced_accuracy_equals_scikit_learn(batches):
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, labels, weights = multiclass(5)
    labels = np.where(labels == 1, 0, labels)  # class 1 is predicted, and never the label
    kept = weights > 0
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = sklearn.balanced_accuracy_score(
            labels[kept], logits[kept].argmax(1), sample_weight=weights[kept]
        )
    got = evaluated(metrics.BalancedAccuracy(), logits, labels, weights, batches)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    logits, labels, weights = binary(5)
    expected = sklearn.balanced_accuracy_score(labels, logits > 0.3, sample_weight=weights)
    metric = metrics.BalancedAccuracy(threshold=0.3)
    for outputs in (logits, logits[:, None]):
        got = evaluated(metric, outputs, labels, weights, batches)
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert np.isnan(evaluated(metric, logits, labels, 0 * weights))


# --- top k ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 3, CLASSES])
def test_top_k_precision_equals_keras(k, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    logits, targets, weights = multilabel(6)
    oracle = keras.metrics.Precision(top_k=k, thresholds=0.0)
    probabilities = 1 / (1 + np.exp(-logits - np.linspace(0, 1e-3, CLASSES)))  # without ties
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for start in range(0, 37, 10):
            rows = slice(start, start + 10)
            oracle.update_state(targets[rows], probabilities[rows], weights[rows])
        expected = float(oracle.result())
    metric = functools.partial(metrics.top_k_precision, k=k)
    got = evaluated(metric, probabilities.astype(np.float32), targets, weights, batches=4)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_top_k_precision_of_one_label_is_top_k_accuracy_over_k():
    logits, labels, _ = multiclass(7)
    for k in (1, 2):
        one = metrics.top_k_precision(logits, labels, k=k)
        np.testing.assert_allclose(one, metrics.top_k_accuracy(logits, labels, k=k) / k)
    one_hot = np.eye(CLASSES, dtype=np.int32)[labels]
    np.testing.assert_array_equal(metrics.top_k_precision(logits, one_hot, k=2), one)


def test_top_k_precision_of_nan_and_of_zeros_of_either_sign():
    outputs = float32([[-0.0, 0.0, -1], [np.nan, 1, 2], [0.0, -0.0, -1]])
    targets = np.array([[1, 0, 0], [0, 1, 1], [1, 0, 0]])
    np.testing.assert_array_equal(metrics.top_k_precision(outputs, targets, k=1), [1, 0, 1])
    for k in (0, 4):
        with pytest.raises(ValueError, match=f"top_k_precision: k is {k}, expected 1 to 3"):
            metrics.top_k_precision(outputs, targets, k=k)
    with pytest.raises(ValueError, match="top_k_precision: targets of shape"):
        metrics.top_k_precision(outputs, targets.astype(np.float32), k=1)


# --- outputs that are NaN, sequences, and what is refused -----------------------------------------------------------


def test_a_label_whose_output_is_nan_is_not_predicted():
    outputs = float32([[np.nan, 1, np.nan], [1, -1, np.nan]])
    targets = np.array([[1, 1, 0], [1, 1, 0]])
    precision = metrics.Precision(None, multilabel=True)
    np.testing.assert_array_equal(evaluated(precision, outputs, targets), [1, 1, 0])
    recall = metrics.Recall(None, multilabel=True)
    np.testing.assert_array_equal(evaluated(recall, outputs, targets), [0.5, 0.5, 0])
    samples = metrics.Recall("samples", multilabel=True)
    assert evaluated(samples, outputs, targets) == 0.5


def test_steps_behind_the_lengths_do_not_count_for_several_labels():
    logits, targets, _ = multilabel(8, n=20)
    lengths = np.array([5, 1, 3, 0], np.int32)
    real = np.arange(5) < lengths[:, None]
    broken = np.where(real[..., None], logits.reshape(4, 5, CLASSES), np.float32(np.nan))
    padded = Padded(broken, lengths)
    weights = float32([1, 2, 3, 4])
    each = np.repeat(weights, lengths)
    for average in ("macro", "samples"):
        metric = metrics.F1(average, multilabel=True)
        got = jax.device_get(measured(metric, padded, targets.reshape(4, 5, CLASSES), weights))
        expected = evaluated(metric, logits[real.ravel()], targets[real.ravel()], each)
        np.testing.assert_allclose(metric.result(*got), expected, rtol=1e-6)


def test_what_scores_refuse():
    with pytest.raises(
        ValueError,
        match=re.escape(
            "F1: average is 'samples', expected 'macro', 'micro', 'weighted' or None ('samples' is of "
            "precision and its like with multilabel=True)."
        ),
    ):
        metrics.F1("samples")
    with pytest.raises(
        ValueError, match=r"FBeta: beta is a finite number of at least 0, got -1\.0"
    ):
        metrics.FBeta(beta=-1.0)
    logits, labels, weights = multiclass(0)
    with pytest.raises(
        ValueError,
        match=re.escape(
            "F1: outputs of shape (37, 4) and targets of shape (37,) do not match — "
        ),
    ):
        metrics.F1(multilabel=True).measure(logits, labels, weights)


# --- extremes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [1, 4])
def test_the_largest_and_the_smallest_value_are_those_of_all_examples(batches):
    outputs, targets, weights = regression(9)
    errors = np.abs(outputs - targets)[:, 0][weights > 0]
    data = (outputs, targets, weights, batches)
    assert evaluated(metrics.Maximum(metrics.absolute_error), *data) == errors.max()
    assert evaluated(metrics.Minimum(metrics.absolute_error), *data) == errors.min()


def test_extremes_leave_out_what_has_no_weight_and_keep_nan():
    outputs, targets = float32([1, np.nan, -3]), float32([0, 0, 0])
    for metric in (metrics.Maximum, metrics.Minimum):
        extreme = metric(metrics.absolute_error)
        assert np.isnan(evaluated(extreme, outputs, targets))
        assert np.isnan(evaluated(extreme, outputs, targets, [0, 0, 0]))
    largest = metrics.Maximum(metrics.absolute_error)
    assert evaluated(largest, outputs, targets, [1, 0, 1]) == 3


@pytest.mark.slow
def test_extremes_are_values_as_means_are():
    top = functools.partial(metrics.top_k_accuracy, k=2)
    again = functools.partial(metrics.top_k_accuracy, k=2)
    assert metrics.Maximum(top) == metrics.Maximum(again)
    assert hash(metrics.Maximum(top)) == hash(metrics.Maximum(again))
    assert repr(metrics.Minimum(top)) == "Minimum(top_k_accuracy, k=2)"
    assert len({metrics.Maximum(top), metrics.Minimum(top), metrics.Mean(top)}) == 3
    with pytest.raises(ValueError, match="of which the maximum over examples is taken"):
        metrics.Maximum(lambda outputs, targets: outputs).measure(
            np.zeros((2, 3)), np.zeros(2), np.ones(2, np.float32)
        )
