"""What tells a run from others: everything that changes its numbers, described part by part."""

from collections.abc import Mapping
from typing import Any

import jax

from jaxdl.checkpoint.describe import Description, describe
from jaxdl.training.feed import Feed
from jaxdl.training.history import EarlyStopping
from jaxdl.training.step import Updating

Identity = dict[str, Description]
"""By name, as a checkpoint holds it."""


def run_identity(
    step: Updating,
    feed: Feed,
    start: Any,
    validation: Feed | None = None,
    early_stopping: EarlyStopping | None = None,
    others: Mapping[str, Any] | None = None,
) -> Identity:
    """The identity of a run.

    Args:
        step: what is done with each batch; each of its fields is a part.
        feed: the data, by a digest, and how they are cut and shuffled.
        start: the first state, for the seed and what the optimizer has in its state.
        validation: data that are measured after each epoch, and so decide which is the best.
        early_stopping: when to end early.
        others: what else there is to tell, by name.
    """
    parts = {
        "seed": keys(start),
        "hyperparameters": hyperparameters(start),
        "data": feed.identity(),
        "validation": None if validation is None else validation.identity(),
        "early_stopping": early_stopping,
        **(others or {}),
    }
    return _described(step, parts)


def run_settings(
    step: Updating, feed: Feed, state: Any, epochs: int, early_stopping: EarlyStopping | None
) -> Identity:
    """What a run reports of itself: its identity without the data.

    Args:
        step: what is done with each batch.
        feed: the data, for the size of a batch.
        state: of training, for the seed.
        epochs: how many were asked for.
        early_stopping: when to end early.
    """
    parts = {
        "seed": keys(state),
        "epochs": epochs,
        "batch_size": feed.example.size,
        "early_stopping": early_stopping,
    }
    return _described(step, parts)


def _described(step: Updating, parts: Mapping[str, Any]) -> Identity:
    others = {name: describe(part) for name, part in parts.items()}
    return {"if_not_finite": "stop", **step.described(), **others}


def keys(state: Any) -> Any:
    """The key that the steps draw from, as numbers; of a population, a digest of all."""
    data = jax.device_get(jax.random.key_data(_trained(state).key))
    return data.tolist() if data.ndim == 1 else data


def hyperparameters(state: Any) -> dict[str, Any]:
    """The numbers that an optimizer has in its state, as `optax.inject_hyperparams` does, by
    name.
    """
    found: dict[str, Any] = {}
    for each in _injecting(_trained(state).optimizer_state):
        found |= {name: value for name, value in each.hyperparams.items() if name not in found}
    return {
        name: value.item() if value.ndim == 0 else value
        for name, value in jax.device_get(found).items()
    }


def with_hyperparameters_of(start: Any, state: Any) -> Any:
    """The optimizer's state of a run that goes on, with the numbers of another's first state."""
    if hasattr(state, "hyperparams"):
        state = state._replace(hyperparams=start.hyperparams)
    if isinstance(state, tuple):
        parts = [
            with_hyperparameters_of(one, other) for one, other in zip(start, state, strict=True)
        ]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    if isinstance(state, dict):
        return type(state)(
            {name: with_hyperparameters_of(start[name], part) for name, part in state.items()}
        )
    return state


def _trained(state: Any) -> Any:
    """The `TrainState` of a run, or that of all members."""
    return getattr(state, "members", state)


def _injecting(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if not isinstance(tree, tuple):
        return []
    own = [tree] if hasattr(tree, "hyperparams") else []
    return own + [found for part in tree for found in _injecting(part)]
