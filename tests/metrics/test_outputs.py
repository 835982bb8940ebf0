"""Every metric measures one of several outputs by its name, as it measures that output alone."""

import dataclasses
import inspect
import re

import jax
import numpy as np
import pytest

import jaxdl as dl
from jaxdl import losses, metrics
from tests.metrics.batches import binary, evaluated, multiclass, multilabel, regression


def within(outputs, targets):
    return (abs(outputs - targets) < 0.5).astype(np.float32)[:, 0]


CASES = [
    (metrics.F1(), multiclass),
    (metrics.FBeta(beta=2.0), multiclass),
    (metrics.Precision(), binary),
    (metrics.Recall("samples", multilabel=True), multilabel),
    (metrics.IoU(), multiclass),
    (metrics.BalancedAccuracy(), multiclass),
    (metrics.ConfusionMatrix(4), multiclass),
    (metrics.ROCAUC(), multiclass),
    (metrics.AveragePrecision(), binary),
    (metrics.PrecisionAtRecall(recall=0.5), binary),
    (metrics.RecallAtPrecision(precision=0.5), binary),
    (metrics.SensitivityAtSpecificity(specificity=0.5), binary),
    (metrics.SpecificityAtSensitivity(sensitivity=0.5), binary),
    (metrics.Perplexity(), multiclass),
    (metrics.R2(), regression),
    (metrics.Mean(within), regression),
    (metrics.Maximum(within), regression),
    (metrics.Minimum(within), regression),
]


def named(metric, output):
    """The same metric of one of several outputs."""
    function = getattr(metric, "function", None)
    if function is not None:
        return type(metric)(function, output=output)
    return dataclasses.replace(metric, output=output)


def test_every_metric_is_in_the_table():
    classes = {
        value
        for value in vars(metrics).values()
        if inspect.isclass(value) and issubclass(value, metrics.Metric)
    }
    tested = {type(metric) for metric, _ in CASES}
    assert classes - tested == {metrics.Metric, metrics.OfOutput, metrics.Part}


@pytest.mark.parametrize(("metric", "draw"), CASES, ids=lambda case: type(case).__name__)
def test_a_metric_of_a_named_output_is_that_of_the_output(metric, draw):
    outputs, targets, weights = draw(0)
    expected = evaluated(metric, outputs, targets, weights)
    several = {"a": outputs, "b": outputs[:1]}
    for key, pair in (("a", (several, {"a": targets, "b": ()})), (0, ((outputs, 3), targets))):
        own = named(metric, key)
        sums, gathered = jax.device_get(own.measure(*pair, weights))
        np.testing.assert_allclose(own.result(sums, gathered), expected, rtol=1e-6)
    assert named(metric, "a") == named(metric, "a")
    assert named(metric, "a") != metric
    assert "output='a'" in repr(named(metric, "a"))
    assert "output" not in repr(metric)


def test_a_missing_output_is_told_with_those_there_are():
    outputs = {"b": np.zeros(2, np.float32), "a": np.zeros(2, np.float32)}
    targets = {"a": np.zeros(2, np.int32)}
    ones = np.ones(2, np.float32)
    told = re.escape(
        "ROCAUC(output='c'): there is no 'c' among the outputs, which are 'a' and 'b'"
    )
    with pytest.raises(ValueError, match=told):
        metrics.ROCAUC(output="c").measure(outputs, targets, ones)
    with pytest.raises(ValueError, match="no 'b' among the targets, which are 'a'"):
        metrics.Mean(metrics.accuracy, output="b").measure(outputs, targets, ones)
    with pytest.raises(ValueError, match="no 'a' among the outputs, which are not named"):
        metrics.Part(metrics.F1(), "a").measure(ones, ones, ones)


@pytest.mark.slow
def test_metrics_of_outputs_train_validate_and_evaluate():
    random = np.random.default_rng(0)
    x = random.normal(size=(11, 3)).astype(np.float32)
    targets = {"rating": x[:, :1], "click": (x[:, 1] > 0).astype(np.int32)}
    model = dl.Sequential(dl.Dense(2), lambda x: {"rating": x[:, :1], "click": x[:, 1]})
    figures = {
        "auc": metrics.ROCAUC(output="click"),
        "accuracy": metrics.Mean(metrics.accuracy, output="click"),
        "r2": metrics.R2(output="rating"),
    }
    loss = losses.ByOutput({"rating": losses.mean_squared_error})
    run = dl.fit(
        model, (x, targets), loss=loss, optimizer="adam", epochs=1, batch_size=4, metrics=figures,
        validation=(x, targets), progress=False,
    )  # fmt: skip
    outputs = dl.predict(model, run.params, run.state, x)
    found = dl.evaluate(model, run.params, run.state, (x, targets), metrics=figures)
    alone = {
        "auc": evaluated(metrics.ROCAUC(), outputs["click"], targets["click"]),
        "accuracy": float((np.asarray(outputs["click"] > 0) == targets["click"]).mean()),
        "r2": evaluated(metrics.R2(), outputs["rating"], targets["rating"]),
    }
    assert found == pytest.approx(alone, rel=1e-6)
    assert run.history["validation_auc"][-1] == pytest.approx(alone["auc"])


@dataclasses.dataclass(frozen=True)
class Count(metrics.OfOutput):
    """A metric of one's own."""

    least: float = 0.0

    def measure_output(self, outputs, targets, weights):
        return (weights * (outputs > self.least)).sum(), ()

    def result(self, sums, gathered):
        return float(sums)


def test_a_metric_of_ones_own_takes_an_output():
    ones = np.ones(3, np.float32)
    metric = Count(0.5, output="a")
    assert repr(metric) == "Count(output='a', least=0.5)"
    assert metric.result(*metric.measure({"a": ones}, ones, ones)) == 3
