"""Checks of training steps, and of what a run monitors."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxdl.core.hashable import check_hashable
from jaxdl.core.tree import named_leaves
from jaxdl.data.source import Batch
from jaxdl.training.data_checks import check_counts
from jaxdl.training.feed import Feed
from jaxdl.training.history import EarlyStopping
from jaxdl.training.outcome import outcome
from jaxdl.training.state import Measured, TrainState
from jaxdl.training.step import EvaluationStep, Step, TrainingStep


def check_same_tree(name: str, expected: Any, given: Any) -> None:
    """Refuses parameters that are not the model's: which leaves are missing, extra, or of another
    shape.
    """
    wanted = named_leaves(expected)
    got = named_leaves(given)
    problems = [f"{leaf} is missing" for leaf in wanted if leaf not in got]
    problems += [f"{leaf} is not the model's" for leaf in got if leaf not in wanted]
    problems += [
        f"{leaf} has shape {got[leaf].shape} where the model has {wanted[leaf].shape}"
        for leaf in wanted
        if leaf in got and got[leaf].shape != wanted[leaf].shape
    ]
    if problems:
        raise ValueError(f"{name}: {'; '.join(problems)}.")


def check_step(step: Any) -> Callable[[str, Batch], None]:
    """Refuses what is not a training step; gives what refuses data that it cannot use."""
    if not isinstance(step, TrainingStep):
        called = (
            f"the class {step.__name__} — call it" if isinstance(step, type) else f"{step!r}"
        )
        raise TypeError(
            f"step: expected an Objective, or a training step such as Reconstruction(model, loss, "
            f"optimizer), got {called}."
        )
    check_hashable("step", step)
    return step.check


def check_step_runs(step: TrainingStep, start: TrainState, feed: Feed) -> None:
    """Runs a step on shapes alone: errors of its layers come out, and a state of another structure
    is refused.
    """
    check_counts("data", feed, getattr(step, "class_weights", None))
    state = outcome(step, feed.first.source, start).state
    check_same_tree("step: the state after it", start, state)


def check_measures(step: TrainingStep, start: TrainState, feed: Feed) -> None:
    """Runs a step's evaluation on shapes alone."""
    check_counts("validation", feed)
    evaluation = step.evaluation()
    if not isinstance(evaluation, EvaluationStep):
        raise TypeError(
            f"step: its evaluation() returns an EvaluationStep, which measures a batch and changes "
            f"nothing, got {evaluation!r}."
        )
    outcome(evaluation, feed.first.source, jax.eval_shape(step.evaluation_state, start))


def check_monitor(
    early_stopping: EarlyStopping | None,
    step: TrainingStep,
    start: TrainState,
    feed: Feed,
    held: Feed | None,
) -> None:
    """Refuses to watch a figure that the history will not have."""
    if early_stopping is None:
        return
    if not isinstance(early_stopping, EarlyStopping):
        raise TypeError(
            f"early_stopping: expected EarlyStopping(patience=5), got {early_stopping!r}."
        )
    names = metric_names(step, feed, start)
    if held is not None:
        given = jax.eval_shape(step.evaluation_state, start)
        names += [f"validation_{name}" for name in metric_names(step.evaluation(), held, given)]
    if early_stopping.monitor not in names:
        raise ValueError(
            f"early_stopping: the history will have no {early_stopping.monitor!r} to monitor, only "
            f"{', '.join(names)} — "
            "give validation data, or monitor another figure."
        )


def metric_names(step: Step, feed: Feed, start: Any) -> list[str]:
    """The names of what a step reports, read from its report of a batch that weighs nothing."""
    nothing: Measured = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype),
        outcome(step, feed.first.source, start).measured,
    )
    with np.errstate(all="ignore"):
        return list(step.report(nothing.sums, nothing.gathered))
