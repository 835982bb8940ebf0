"""Refuses metrics that decide at the threshold of logits where outputs are probabilities."""

from collections.abc import Callable
from typing import Any

from jaxdl import losses
from jaxdl.losses.by_output import ByOutput
from jaxdl.metrics.accuracy import accuracy
from jaxdl.metrics.metric import Mean, Metric, as_metric
from jaxdl.metrics.part import Part


def check_thresholds(loss: Callable[..., Any], metrics: tuple[tuple[str, Metric], ...]) -> None:
    """Refuses metrics that would take a probability of 0.1 for a yes, because they are told that
    outputs are logits.
    """
    for name, metric in metrics:
        if loss_of_output(loss, metric) is not losses.binary_cross_entropy_from_probabilities:
            continue
        if decides_at_zero(metric):
            raise ValueError(
                f"metric {name!r} decides at 0, which is right for logits, and the loss takes "
                f"probabilities — give it "
                "threshold=0.5, as in functools.partial(metrics.accuracy, threshold=0.5)."
            )


def loss_of_output(loss: Callable[..., Any], metric: Metric) -> Any:
    """The loss of the output that a metric measures; None where that output has none."""
    if not isinstance(loss, ByOutput):
        return loss
    output = getattr(metric, "output", getattr(metric, "part", None))
    found = (term.function for term in loss.terms if term.output == output)
    return next(found, None)


def decides_at_zero(metric: Metric) -> bool:
    """Whether a metric tells yes from no at the threshold of logits."""
    if isinstance(metric, Part):
        return decides_at_zero(as_metric(metric.metric))
    if isinstance(metric, Mean):
        return (
            metric.function is accuracy and dict(metric.keywords).get("threshold", 0.0) == 0.0
        )
    return getattr(metric, "threshold", None) == 0.0
