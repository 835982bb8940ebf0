"""Areas under curves and points on them against scikit-learn, with ties, weights and several batches."""

import functools

import numpy as np
import pytest

from jaxdl import metrics
from jaxdl.metrics import curves
from tests.metrics.batches import CLASSES, binary, evaluated, float32, multiclass, multilabel

pytestmark = pytest.mark.usefixtures("quickly_compiled")

AVERAGES = ["macro", "micro", "weighted", None]


def softmax(logits):
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(1, keepdims=True)


def curve_points(labels, scores, weights):
    """Precision, recall, sensitivity and specificity of each threshold, by scikit-learn."""
    sklearn = pytest.importorskip("sklearn.metrics")
    precision, recall, _ = sklearn.precision_recall_curve(labels, scores, sample_weight=weights)
    false, true, _ = sklearn.roc_curve(
        labels, scores, sample_weight=weights, drop_intermediate=False
    )
    return precision, recall, true, 1 - false


POINTS = {
    "precision at recall": (
        lambda least: metrics.PrecisionAtRecall(recall=least),
        lambda p, r, sensitivity, specificity, least: p[r >= least].max(),
    ),
    "recall at precision": (
        lambda least: metrics.RecallAtPrecision(precision=least),
        lambda p, r, sensitivity, specificity, least: r[p >= least].max(),
    ),
    "sensitivity at specificity": (
        lambda least: metrics.SensitivityAtSpecificity(specificity=least),
        lambda p, r, sensitivity, specificity, least: sensitivity[specificity >= least].max(),
    ),
    "specificity at sensitivity": (
        lambda least: metrics.SpecificityAtSensitivity(sensitivity=least),
        lambda p, r, sensitivity, specificity, least: specificity[sensitivity >= least].max(),
    ),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("least", [0.031, 0.503, 0.811, 0.997])
@pytest.mark.parametrize("seed", range(3))
def test_points_on_a_curve_equal_scikit_learn(name, least, seed):
    metric, oracle = POINTS[name]
    scores, labels, weights = binary(seed, n=101)
    kept = weights > 0
    expected = oracle(*curve_points(labels[kept], scores[kept], weights[kept]), least)
    for outputs in (scores, scores[:, None]):
        got = evaluated(metric(least), outputs, labels, weights, batches=4)
        np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("name", POINTS)
def test_points_on_the_curves_of_classes_are_averaged(name):
    metric, oracle = POINTS[name]
    logits, labels, weights = multiclass(3, n=101)
    kept = weights > 0
    probabilities = softmax(logits)[kept]
    expected = [
        oracle(*curve_points(labels[kept] == c, probabilities[:, c], weights[kept]), 0.7)
        for c in range(CLASSES)
    ]
    got = evaluated(metric(0.7), logits, labels, weights, batches=3)
    np.testing.assert_allclose(got, np.mean(expected), rtol=1e-6)


def test_points_at_the_ends_of_a_curve():
    scores, labels = float32([3, 2, 1, 0]), np.array([0, 1, 0, 1])
    whole = {
        metrics.PrecisionAtRecall(recall=1.0): 0.5,
        metrics.RecallAtPrecision(precision=0.9): 0.0,
        metrics.RecallAtPrecision(precision=0.0): 1.0,
        metrics.SensitivityAtSpecificity(specificity=1.0): 0.0,
        metrics.SensitivityAtSpecificity(specificity=0.5): 0.5,
        metrics.SpecificityAtSensitivity(sensitivity=0.0): 1.0,
        metrics.SpecificityAtSensitivity(sensitivity=1.0): 0.0,
    }
    for metric, expected in whole.items():
        assert evaluated(metric, scores, labels) == expected, metric
        assert np.isnan(evaluated(metric, scores, 0 * labels))
        assert np.isnan(evaluated(metric, np.nan * scores, labels))
        assert np.isnan(evaluated(metric, scores, labels, [0, 0, 0, 0]))


@pytest.mark.sampled
@pytest.mark.parametrize("seed", range(3))
def test_average_precision_of_one_column_equals_scikit_learn(seed):
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, labels, weights = binary(seed, n=101)
    expected = sklearn.average_precision_score(labels, scores, sample_weight=weights)
    got = evaluated(metrics.AveragePrecision(), scores[:, None], labels, weights, batches=4)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("average", AVERAGES)
def test_average_precision_of_classes_equals_scikit_learn(average):
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, labels, weights = multiclass(21, n=101)
    expected = sklearn.average_precision_score(
        np.eye(CLASSES)[labels], softmax(logits), average=average, sample_weight=weights
    )
    got = evaluated(metrics.AveragePrecision(average), logits, labels, weights, batches=4)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize(
    ("metric", "oracle"),
    [
        (metrics.ROCAUC, "roc_auc_score"),
        (metrics.AveragePrecision, "average_precision_score"),
    ],
)
def test_areas_of_several_labels_equal_scikit_learn(metric, oracle, average):
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, targets, weights = multilabel(22, n=101)
    expected = getattr(sklearn, oracle)(targets, logits, average=average, sample_weight=weights)
    data = (logits, targets, weights)
    got = evaluated(metric(average, multilabel=True), *data, batches=4)
    np.testing.assert_allclose(got, expected, rtol=1e-7)  # whose weighted mean is of float32


@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_roc_auc_of_pairs_of_classes_equals_scikit_learn(average):
    """Which takes no weights there: an example of weight n counts as n examples."""
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, labels, _ = multiclass(23, n=101)
    whole = np.random.default_rng(0).integers(0, 3, 101)
    expected = sklearn.roc_auc_score(
        np.repeat(labels, whole),
        np.repeat(softmax(logits), whole, axis=0),
        multi_class="ovo",
        average=average,
    )
    metric = metrics.ROCAUC(average, multi_class="ovo")
    got = evaluated(metric, logits, labels, whole, batches=4)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_what_does_not_go_with_pairs_of_classes_is_refused():
    for settings in ({"average": "micro"}, {"average": None}, {"multilabel": True}):
        with pytest.raises(ValueError, match="ROCAUC: multi_class is 'ovo' with average="):
            metrics.ROCAUC(multi_class="ovo", **settings)
    with pytest.raises(
        ValueError, match=r"PrecisionAtRecall: recall is a finite number from 0 to 1, got 1\.5"
    ):
        metrics.PrecisionAtRecall(recall=1.5)


EVERY = [
    metrics.ROCAUC,
    metrics.AveragePrecision,
    functools.partial(metrics.PrecisionAtRecall, recall=0.5),
    functools.partial(metrics.RecallAtPrecision, precision=0.5),
    functools.partial(metrics.SensitivityAtSpecificity, specificity=0.5),
    functools.partial(metrics.SpecificityAtSensitivity, sensitivity=0.5),
]


@pytest.mark.parametrize("make", EVERY)
def test_zeros_of_either_sign_rank_alike(make):
    labels = np.array([1, 0, 1, 0, 0])
    zeros = float32([0.0, -0.0, -0.0, 0.0, -1.0])
    got = evaluated(make(), zeros, labels)
    assert got == evaluated(make(), np.abs(zeros) * float32([1, 1, 1, 1, -1]), labels)
    assert got == evaluated(make(), -zeros * float32([1, 1, 1, 1, -1]), labels)


@pytest.mark.parametrize("classes", range(2, 9))
def test_equal_logits_have_equal_log_odds_wherever_they_stand(classes):
    generator = np.random.default_rng(classes)
    np.testing.assert_array_equal(
        np.ptp(curves.log_odds(np.full((3, classes), 0.3)), axis=1), np.zeros(3)
    )
    logits = generator.integers(0, 3, (20, classes)) * 0.7
    order = generator.permutation(classes)
    odds = curves.log_odds(logits)
    np.testing.assert_array_equal(curves.log_odds(logits[:, order]), odds[:, order])
    for row, found in zip(logits, odds, strict=True):
        assert len(np.unique(found)) == len(np.unique(row))
