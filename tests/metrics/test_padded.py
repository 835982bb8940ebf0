"""Every metric of `Padded` sequences: that of their steps without the padding."""

import dataclasses

import jax
import numpy as np
import pytest

import jaxdl as dl
from jaxdl import metrics
from tests.metrics.test_outputs import CASES

LENGTHS = np.array([4, 0, 2, 3, 5, 1, 4], np.int32)
TIME = 5
VALID = np.arange(TIME) < LENGTHS[:, None]
FUNCTIONS = [
    metrics.accuracy,
    metrics.top_k_accuracy,
    metrics.top_k_precision,
    metrics.squared_error,
    metrics.absolute_error,
]
OF_FUNCTIONS = (metrics.Mean, metrics.Maximum, metrics.Minimum)
METRICS = [
    case for case in CASES if not isinstance(case[0], (*OF_FUNCTIONS, metrics.Perplexity))
]


def sequences(values, fill):
    """`[batch, time, ...]` of one row a step, with a filler behind the ends."""
    laid = np.full((*VALID.shape, *values.shape[1:]), fill, values.dtype)
    laid[VALID] = values[: VALID.sum()]
    return laid


def result(metric, *given):
    return metric.result(*jax.device_get(metric.measure(*given)))


@pytest.mark.sampled
@pytest.mark.parametrize(("metric", "draw"), METRICS, ids=lambda case: type(case).__name__)
@pytest.mark.parametrize("both", [True, False])
def test_steps_within_the_lengths_are_examples(metric, draw, both):
    outputs, targets, _ = draw(0)
    count = VALID.sum()
    padded = dl.Padded(sequences(outputs, np.nan), LENGTHS)
    wanted = sequences(targets, np.nan if targets.dtype.kind == "f" else 99)
    if both:
        wanted = dl.Padded(wanted, LENGTHS)
    weights = np.arange(1, 8, dtype=np.float32)
    each = np.repeat(weights, LENGTHS)
    expected = result(metric, outputs[:count], targets[:count], each)
    found = result(metric, padded, wanted, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # The same as weights by position.
    by_step = np.broadcast_to(weights[:, None], VALID.shape)
    np.testing.assert_allclose(result(metric, padded, wanted, by_step), expected, rtol=1e-5)


@pytest.mark.sampled
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_functions_take_the_mean_over_the_steps_of_each(function):
    random = np.random.default_rng(0)
    outputs = random.normal(size=(*VALID.shape, 6)).astype(np.float32)
    targets = random.integers(0, 6, VALID.shape).astype(np.int32)
    if function in (metrics.squared_error, metrics.absolute_error):
        targets = random.normal(size=outputs.shape).astype(np.float32)
    hidden = np.where(VALID[..., None], outputs, np.nan)
    found = function(dl.Padded(hidden, LENGTHS), targets)
    for i in np.flatnonzero(LENGTHS):
        alone = function(outputs[i : i + 1, : LENGTHS[i]], targets[i : i + 1, : LENGTHS[i]])
        np.testing.assert_allclose(found[i], alone[0], rtol=1e-5)


@pytest.mark.slow
def test_perplexity_is_of_the_mean_of_each_or_of_all_steps():
    random = np.random.default_rng(0)
    logits = random.normal(size=(*VALID.shape, 6)).astype(np.float32)
    labels = random.integers(0, 6, VALID.shape).astype(np.int32)
    weights = (LENGTHS > 0).astype(np.float32)
    padded = dl.Padded(np.where(VALID[..., None], logits, np.nan), LENGTHS)
    double = logits.astype(np.float64)
    log_p = double - np.log(np.exp(double).sum(-1, keepdims=True))
    each = -np.take_along_axis(log_p, labels[..., None], -1)[..., 0]
    means = (each * VALID).sum(1)[LENGTHS > 0] / LENGTHS[LENGTHS > 0]
    metric = metrics.Perplexity()
    assert result(metric, padded, labels, weights) == pytest.approx(
        np.exp(means.mean()), rel=1e-5
    )
    every = dataclasses.replace(metric, ignore=-1)
    assert result(every, padded, labels, weights) == pytest.approx(
        np.exp(each[VALID].mean()), rel=1e-5
    )
