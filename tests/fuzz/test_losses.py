"""Losses and metrics of any shapes and dtypes: one number an example, that of NumPy, or a sentence."""

import functools
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxdl import losses, metrics
from jaxdl.metrics.metric import as_metric
from tests.fuzz.outcome import attempt, case, examples
from tests.fuzz.strategies import absurd, filled

LOSSES = (
    *(
        losses.mean_squared_error,
        losses.mean_absolute_error,
        losses.huber,
        losses.binary_cross_entropy,
        losses.hinge,
    ),
    *(
        losses.binary_cross_entropy_from_probabilities,
        losses.softmax_cross_entropy,
        losses.focal,
        losses.kl_divergence,
    ),
    losses.cosine_distance,
)
METRICS = (
    *(
        metrics.accuracy,
        metrics.top_k_accuracy,
        metrics.squared_error,
        metrics.absolute_error,
        metrics.Precision(),
        metrics.F1(),
    ),
    *(
        metrics.Recall(average=None),
        metrics.ConfusionMatrix(3),
        metrics.Perplexity(),
        metrics.ROCAUC(),
        metrics.R2(),
    ),
    *(
        metrics.ROCAUC("micro"),
        metrics.F1("weighted"),
        functools.partial(metrics.accuracy, threshold=0.5),
    ),
)
SETTINGS = {
    losses.huber: ("delta",),
    losses.softmax_cross_entropy: ("label_smoothing",),
    losses.focal: ("alpha", "gamma"),
    metrics.accuracy: ("threshold",),
    metrics.top_k_accuracy: ("k",),
}
DTYPES = (
    np.float32,
    np.float32,
    jnp.float16,
    jnp.bfloat16,
    np.float64,
    np.int32,
    np.bool_,
    np.uint8,
    np.complex64,
    np.int64,
)


@st.composite
def outputs_and_targets(draw: Any) -> tuple[np.ndarray, np.ndarray]:
    """Arrays of shapes that fit one another in some way that losses know, or in none."""
    shape = draw(
        st.lists(st.integers(0, 4), max_size=3).map(tuple)
        | st.tuples(st.integers(1, 5), st.integers(1, 4))
    )
    other = st.sampled_from([shape, shape, shape[:-1], (*shape, 1), (*shape[:-1], 1)])
    targets = draw(other | st.lists(st.integers(0, 4), max_size=3).map(tuple))
    dtypes = st.sampled_from(DTYPES)
    return filled(shape, draw(dtypes), draw(st.integers(0, 3))), filled(
        targets, draw(dtypes), draw(st.integers(4, 6))
    )


@pytest.mark.slow
@examples(120)
@hypothesis.given(
    st.sampled_from(LOSSES),
    outputs_and_targets(),
    st.dictionaries(st.integers(0, 1), absurd, max_size=1),
)
def test_a_loss_gives_one_number_an_example(loss: Any, pair: Any, settings: Any) -> None:
    outputs, targets = pair
    given = {
        name: settings[number]
        for number, name in enumerate(SETTINGS.get(loss, ()))
        if number in settings
    }
    with case("losses"):
        told = attempt(jax.eval_shape, functools.partial(loss, **given), outputs, targets)
        assert told.shape == outputs.shape[:1]
        assert jnp.issubdtype(told.dtype, jnp.floating)
        assert told.dtype.itemsize >= 4


@pytest.mark.slow
@examples(8)
@hypothesis.given(
    st.sampled_from(LOSSES[:4]),
    st.integers(1, 5),
    st.sampled_from([(), (1,), (3,), (2, 2)]),
    st.integers(0, 3),
)
def test_regressions_are_those_of_numpy(
    loss: Any, n: int, rest: tuple[int, ...], seed: int
) -> None:
    x, y = (
        filled((n, *rest), np.float32, seed),
        np.abs(filled((n, *rest), np.float32, seed + 1)) % 1,
    )
    error = np.abs(x.astype(np.float64) - y)
    expected = {
        "mean_squared_error": error**2,
        "mean_absolute_error": error,
        "huber": np.where(error <= 1, error**2 / 2, error - 0.5),
        "binary_cross_entropy": np.logaddexp(0, x) - x * y.astype(np.float64),
    }[loss.__name__]
    with case("losses, by numbers"):
        got = attempt(loss, x, y)
        np.testing.assert_allclose(got, expected.reshape(n, -1).mean(1), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@examples(100)
@hypothesis.given(
    st.sampled_from(METRICS),
    outputs_and_targets(),
    st.sampled_from([np.ones, np.zeros]),
    st.none() | absurd,
)
def test_a_metric_gives_a_number(metric: Any, pair: Any, weights: Any, setting: Any) -> None:
    outputs, targets = pair
    with case("metrics"):
        if setting is not None and metric in SETTINGS:
            metric = functools.partial(metric, **{SETTINGS[metric][0]: setting})
        lifted = attempt(as_metric, metric)
        sums, gathered = attempt(
            jax.eval_shape,
            lifted.measure,
            outputs,
            targets,
            jax.ShapeDtypeStruct(outputs.shape[:1], np.float32),
        )
        if 0 in outputs.shape or setting is not None:
            return
        sums, gathered = lifted.measure(
            outputs, targets, weights(outputs.shape[:1], np.float32)
        )
        figure = attempt(lifted.result, *jax.tree.map(np.asarray, (sums, gathered)))
        assert np.shape(figure) == () or np.ndim(figure) <= 2


@pytest.mark.slow
@examples(60)
@hypothesis.given(
    st.sampled_from([metrics.Precision, metrics.F1, metrics.ROCAUC, metrics.ConfusionMatrix]),
    st.lists(absurd, min_size=1, max_size=2),
)
def test_arguments_of_metrics(kind: Any, given: list[Any]) -> None:
    with case("arguments of metrics"):
        hash(attempt(kind, *given[: 1 if kind is metrics.ROCAUC else 2]))
