"""What `compare` measures: a model and its loss, an objective, or a training step, over data."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from jax import Array

from jaxdl.core.hashable import check_hashable
from jaxdl.core.layer import Layer
from jaxdl.optim.optimizers import as_optimizer
from jaxdl.training import checks, sources, step_checks
from jaxdl.training.feed import Feed
from jaxdl.training.fit import first_start
from jaxdl.training.objective import Objective
from jaxdl.training.options import (
    ObjectiveArguments,
    SupervisedArguments,
    SupervisedOptions,
    check_names,
)
from jaxdl.training.state import TrainState
from jaxdl.training.step import TrainingStep
from jaxdl.training.steps.supervised import Supervised
from jaxdl.training.train import begun_state

StepType = TypeVar("StepType", bound=TrainingStep)


@dataclasses.dataclass(frozen=True)
class Work:
    """A step over data.

    Args:
        step: what is done with each batch.
        full: the same in float32, where `step` computes in another dtype.
        dtype: that other dtype, or None.
        feed: the data.
        key: of the first state.
    """

    step: TrainingStep
    full: TrainingStep
    dtype: str | None
    feed: Feed
    key: Array

    def start(self, step: TrainingStep) -> TrainState:
        """The first state, once step and data are known to fit each other."""
        if isinstance(step, Supervised):
            return first_start(step, self.feed, self.key, None)
        return begun_state(step, self.feed, None, self.key, None)


def work_of(
    model: Layer | Objective | TrainingStep,
    data: Any,
    given: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Work:
    """The work of `compare`'s arguments.

    Args:
        model, data: as it is given them.
        given: its `loss`, `optimizer`, `learning_rate`, `batch_size`, `drop_last`, `seed` and
            `shuffle`.
        options: its further ones.

    Raises:
        ValueError, TypeError: an argument does not fit.
    """
    own = isinstance(model, TrainingStep)
    check_names(
        "compare", options, SupervisedArguments if _is_model(model) else ObjectiveArguments
    )
    parts = {name: given[name] for name in ("loss", "optimizer", "learning_rate")}
    _check_parts(model, {**parts, **options})
    key = sources.as_key(given["seed"])
    feed = sources.as_feed(
        "data",
        data,
        batch_size=checks.check_count("batch_size", given["batch_size"]),
        key=key,
        shuffle=given["shuffle"],
        drop_last=given["drop_last"],
        labelled=_is_model(model),
        check=step_checks.check_step(model) if own else None,
    )
    if own:
        return Work(model, model, None, feed, key)
    epoch = feed.first.source.steps
    optimizer = as_optimizer(given["optimizer"], given["learning_rate"], epoch, epoch)
    supervised = SupervisedOptions.of(feed, options)
    if isinstance(model, Objective):
        check_hashable("model", model)
        checks.check_accumulate(supervised.accumulate, feed.example)

    def made(options: SupervisedOptions) -> TrainingStep:
        if isinstance(model, Objective):
            return options.minimize(model, optimizer)
        return options.step(checks.check_model(model), given["loss"], optimizer)

    full = made(dataclasses.replace(supervised, precision=None))
    return Work(made(supervised), full, supervised.precision, feed, key)


def compiled_anew(step: StepType) -> StepType:
    """The same step, for which every program is compiled anew: it is of a class of its own, and so
    equals no other.
    """
    kind = type(step)
    fresh = copy.copy(step)
    own = type(kind.__name__, (kind,), {"__module__": kind.__module__, "__slots__": ()})
    object.__setattr__(fresh, "__class__", own)
    return fresh


def _is_model(model: Any) -> bool:
    return not isinstance(model, (Objective, TrainingStep))


def _check_parts(model: Any, given: Mapping[str, Any]) -> None:
    """Refuses what a step or an objective has itself, and what a model or an objective lacks."""
    name = type(model).__name__
    if isinstance(model, TrainingStep):
        for argument, value in given.items():
            if value is not None:
                raise TypeError(
                    f"compare: {name} is a training step, which has its own loss, optimizer and "
                    f"options — leave {argument} out."
                )
        return
    if isinstance(model, Objective) and given["loss"] is not None:
        raise TypeError(
            f"compare: {name} is an Objective, which has its own loss — leave it out."
        )
    if _is_model(model) and given["loss"] is None:
        raise TypeError(
            "compare: give the loss of the model, such as loss=losses.mean_squared_error."
        )
    if given["optimizer"] is None:
        raise TypeError(f"compare: give the optimizer of {name}, such as optax.adam(1e-3).")
