"""How a run goes on and ends, and what callbacks are given."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl.checkpoint.checkpoints import Checkpoints
from jaxdl.training.feed import Feed
from jaxdl.training.history import EarlyStopping, History
from jaxdl.training.program import Execution
from jaxdl.training.state import TrainState


@dataclasses.dataclass(frozen=True, eq=False)
class Paused:
    """What training hands over between two runs of a program."""

    _state: TrainState = dataclasses.field(repr=False, kw_only=True)

    @functools.cached_property
    def train_state(self) -> TrainState:
        """A copy of the state, made when it is first asked for.

        Raises:
            RuntimeError: it is asked for when training has gone on from that state.
        """
        if any(leaf.is_deleted() for leaf in jax.tree.leaves(self._state)):
            name = type(self).__name__
            raise RuntimeError(
                f"{name}.train_state: training has gone on from this state, which is no longer in "
                f"memory — read train_state while the run has this {name}, which copies it."
            )
        return copied(self._state)


@dataclasses.dataclass(frozen=True, eq=False)
class EpochEnd(Paused):
    """What a callback is given after each epoch.

    Args:
        epoch: the number of the epoch that ended, from 0.
        history: so far; the callback may read it and must not change it.
    """

    epoch: int
    history: History


Callback = Callable[[EpochEnd], Any]
"""Called between epochs; a callback that returns True ends the run."""


copied = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))


@dataclasses.dataclass(frozen=True)
class LoopOptions:
    """How a run goes on and ends.

    Args:
        epochs: how many.
        steps: the most steps in all, or None.
        execution: how the step becomes a program.
        validation: data to measure after each epoch.
        early_stopping: when to end early.
        callbacks: called after each epoch.
        progress: whether to show how far the run is.
        checkpoint: where the run saves itself, and goes on from where it was.
        debug: whether to say which operation first returned a value that is not finite.
    """

    epochs: int
    steps: int | None = None
    execution: Execution = "epoch"
    validation: Feed | None = None
    early_stopping: EarlyStopping | None = None
    callbacks: tuple[Callback, ...] = ()
    progress: bool = True
    checkpoint: Checkpoints | None = None
    debug: bool = False
