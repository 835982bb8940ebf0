"""Losses of several outputs in training: a dict as a loss, and a figure for each term."""

from collections.abc import Mapping
from typing import Any

from jaxdl.losses.by_output import ByOutput
from jaxdl.metrics.metric import Mean, Metric


def as_loss(loss: Any) -> Any:
    """A loss as it is, and a dict of them by output as `ByOutput`."""
    if isinstance(loss, Mapping):
        return ByOutput(loss)
    return loss


def with_terms(
    metrics: tuple[tuple[str, Metric], ...], loss: Any
) -> tuple[tuple[str, Metric], ...]:
    """Metrics, with the terms of a loss by output before them, each under its own name.

    Raises:
        ValueError: a metric has the name of a term.
    """
    if not isinstance(loss, ByOutput):
        return metrics
    terms = {term.figure: Mean(term.loss, output=term.output) for term in loss.terms}
    for name, _ in metrics:
        if name in terms:
            raise ValueError(
                f"metrics: {name!r} is what the loss of an output is called in the history — give "
                "the metric another name."
            )
    return (*terms.items(), *metrics)
