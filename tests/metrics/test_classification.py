"""The area under the ROC curve against its definition, and what metrics say of targets that do not fit."""

import functools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl import metrics
from jaxdl.metrics import curves


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(-3, 3), st.booleans(), st.floats(0, 5)), min_size=1, max_size=30
    )
)
def test_area_under_roc_is_the_share_of_pairs_in_order(rows):
    scores, positive, weights = (np.array(column) for column in zip(*rows, strict=True))
    scores, weights = scores.astype(np.float64), weights.astype(np.float64)
    better = (scores[:, None] > scores) + 0.5 * (scores[:, None] == scores)
    pairs = np.outer(weights * positive, weights * ~positive)
    got = curves.area_under_roc(scores, positive, weights)
    if pairs.sum() > 1e-200:
        np.testing.assert_allclose(
            got, (pairs * better).sum() / pairs.sum(), rtol=1e-9, atol=1e-12
        )
    elif positive.all() or not positive.any():
        assert np.isnan(got)


@pytest.mark.parametrize(
    "name", ["accuracy", "Precision", "Recall", "F1", "ConfusionMatrix", "ROCAUC"]
)
@pytest.mark.parametrize(
    "shapes", [((4,), (4,)), ((4, 1), (4,)), ((4, 3), (4,)), ((4, 3), (4, 1))]
)
def test_floating_labels_are_told_to_be_a_regression(name, shapes):
    metric = getattr(metrics, name)
    metric = metrics.as_metric(
        metric if name == "accuracy" else metric(3) if name == "ConfusionMatrix" else metric()
    )
    with pytest.raises(ValueError, match=re.escape(
        f"{name}: targets of shape {shapes[1]} are float32, expected class labels as integers — cast labels with "
        "targets.astype(np.int32); for a regression use mean_squared_error as the loss and squared_error or R2() as"
    )):  # fmt: skip
        metric.measure(
            np.zeros(shapes[0], np.float32),
            np.zeros(shapes[1], np.float32),
            np.ones(4, np.float32),
        )


def test_shapes_that_do_not_fit_are_told():
    zeros = functools.partial(np.zeros, dtype=np.float32)
    with pytest.raises(
        ValueError,
        match=re.escape("accuracy: targets of shape (4, 2) do not fit outputs of shape (4, 3)"),
    ):
        metrics.accuracy(zeros((4, 3)), np.zeros((4, 2), int))
    with pytest.raises(
        ValueError,
        match=re.escape("accuracy: outputs of shape (4, 1) and targets of shape (4, 4) do not"),
    ):
        metrics.accuracy(zeros((4, 1)), np.zeros((4, 4), int))
    with pytest.raises(
        ValueError,
        match=re.escape("accuracy: outputs of shape () and targets of shape () do not match"),
    ):
        metrics.accuracy(zeros(()), np.zeros((), int))
    with pytest.raises(
        ValueError,
        match=re.escape("squared_error: outputs of shape (4, 1) and targets of shape (4, 4)"),
    ):
        metrics.squared_error(zeros((4, 1)), zeros((4, 4)))
    with pytest.raises(
        ValueError,
        match=re.escape("absolute_error: outputs of shape (4,) and targets of shape (3,)"),
    ):
        metrics.absolute_error(zeros(4), zeros(3))
    with pytest.raises(
        ValueError,
        match=r"top_k_accuracy: outputs of shape .* have no axis of two or more classes",
    ):
        metrics.top_k_accuracy(zeros((4, 1)), np.zeros(4, int))
    with pytest.raises(
        ValueError, match=r"Perplexity: outputs of shape .* have no axis of two or more classes"
    ):
        metrics.Perplexity().measure(zeros(4), np.zeros(4, int), np.ones(4, np.float32))
    with pytest.raises(ValueError, match=r"R2: outputs of shape .* do not match"):
        metrics.R2().measure(zeros((4, 2)), zeros(4), np.ones(4, np.float32))


@pytest.mark.parametrize(
    "function", [metrics.accuracy, metrics.top_k_accuracy, metrics.squared_error]
)
def test_swapped_arguments_are_told(function):
    with pytest.raises(
        ValueError,
        match=rf"{function.__name__}: outputs of shape \(4,\) are int64.*look swapped",
    ):
        function(np.zeros(4, np.int64), np.zeros((4, 3), np.float32))
