"""The lift of per-example functions to metrics: equal, printed, merged, and told where it cannot be."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import metrics
from jaxdl.metrics.metric import as_metric


@functools.partial(jax.jit, static_argnums=0)
def measured(metric, outputs, targets, weights):
    return metric.measure(outputs, targets, weights)


def evaluated(metric, values, weights):
    return metric.result(*jax.device_get(measured(metric, values, values, weights)))


def test_equal_partials_are_equal_metrics_and_compile_once():
    traced = []

    def own(outputs, targets, scale, shift=0.0):
        traced.append(scale)
        return scale * outputs + shift + targets

    first, second = (as_metric(functools.partial(own, shift=1.0, scale=2.0)) for _ in range(2))
    third = as_metric(functools.partial(functools.partial(own, scale=2.0), shift=1.0))
    assert first == second == third
    assert hash(first) == hash(second) == hash(third)
    assert first != as_metric(functools.partial(own, scale=2.0))
    assert first != as_metric(own)
    outputs, weights = np.array([1.0, 2.0], np.float32), np.array([1.0, 3.0], np.float32)
    for metric in (first, second, third):
        assert evaluated(metric, outputs, weights) == (1 * 4 + 3 * 7) / 4
    assert traced == [2.0]


def test_a_lifted_function_prints_as_it_was_bound():
    assert repr(as_metric(metrics.accuracy)) == "Mean(accuracy)"
    assert (
        repr(as_metric(functools.partial(metrics.top_k_accuracy, k=3)))
        == "Mean(top_k_accuracy, k=3)"
    )


def test_any_per_example_function_is_a_metric():
    values = np.array([1.0, 2.0, 4.0], np.float32)
    weights = np.array([1.0, 1.0, 2.0], np.float32)
    sums, gathered = as_metric(lambda x, y: x["a"] > y[0]).measure(
        {"a": values}, (2 * np.ones(3, np.float32),), weights
    )
    assert gathered == ()
    assert as_metric(max).result(sums, gathered) == 0.5
    assert evaluated(as_metric(lambda x, y: x.astype(jnp.int32)), values, weights) == 2.75


def test_a_class_in_place_of_a_value_is_told():
    with pytest.raises(
        TypeError,
        match=re.escape(
            "metric R2 is a class, expected a value — write R2() with parentheses."
        ),
    ):
        as_metric(metrics.R2)
    with pytest.raises(
        TypeError,
        match=r"metric is 'accuracy', expected a function .* such as metrics.accuracy",
    ):
        as_metric("accuracy")


def test_an_argument_that_cannot_be_hashed_is_told():
    unhashable = {"threshold": [0.5]}
    with pytest.raises(
        TypeError,
        match=re.escape(
            "metric 'accuracy' binds [0.5]: list cannot be hashed (unhashable type: 'list')"
        ),
    ):
        as_metric(functools.partial(metrics.accuracy, **unhashable))


def test_a_function_that_does_not_return_one_number_an_example_is_told():
    def own(outputs, targets):
        return (outputs - targets).mean()

    outputs = np.zeros((4, 3), np.float32)
    weights = np.ones(4, np.float32)
    with pytest.raises(ValueError, match=re.escape(
        "metric 'own' returned shape (), float32 for a batch of 4 — return one value for each example ([batch])"
    )):  # fmt: skip
        measured(as_metric(own), outputs, outputs, weights)
    with pytest.raises(
        ValueError,
        match=re.escape("metric '<lambda>' returned shape (4, 3), float32 for a batch of 4"),
    ):
        measured(as_metric(lambda x, y: x), outputs, outputs, weights)
    with pytest.raises(ValueError, match=re.escape("metric '<lambda>' returned tuple (")):
        measured(as_metric(lambda x, y: (x[:, 0], y[:, 0])), outputs, outputs, weights)
