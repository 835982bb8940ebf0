"""What happens between two runs of a program: what callbacks are given, and what they change."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxdl.core.number import is_number, is_true
from jaxdl.optim.learning_rate import with_learning_rate
from jaxdl.training.history import History
from jaxdl.training.state import TrainState, distinct_arrays

copied = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))

Moment = Literal["on_train_begin", "on_stage", "on_train_end"]


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """Where training is after an epoch, or after so many steps.

    Args:
        epoch: the number of the epoch at hand, from 0.
        steps: how many were made in all.
        metrics: by name, since the last stage; of validation data after them.
        history: so far; to be read, and not changed.
    """

    epoch: int
    steps: int
    metrics: dict[str, Any]
    history: History
    _state: TrainState = dataclasses.field(repr=False, kw_only=True)

    @functools.cached_property
    def train_state(self) -> TrainState:
        """A copy of the state, made when it is first asked for.

        Raises:
            RuntimeError: it is asked for when training has gone on from that state.
        """
        if any(leaf.is_deleted() for leaf in jax.tree.leaves(self._state)):
            raise RuntimeError(
                "Stage.train_state: training has gone on from this state, which is no longer in "
                "memory — read train_state while the run is at this Stage, which copies it."
            )
        return copied(self._state)


@dataclasses.dataclass(frozen=True)
class Change:
    """What a callback changes of a run.

    Args:
        stop: whether the run ends; a string says why, and is the run's `stopped`.
        learning_rate: from the next step on, of every optimizer that keeps its learning rate in its
            state, as those of `optax.inject_hyperparams` do. No program is compiled for it; the
            history has it from the next row on, and a checkpoint holds it. None leaves it.

    Raises:
        TypeError, ValueError: an argument does not fit.

    >>> import optax, jaxdl as dl
    >>> optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)
    >>> def halve(stage: dl.Stage) -> dl.Change:
    ...     return dl.Change(learning_rate=1e-3 * 0.5 ** (stage.epoch + 1))
    """

    stop: bool | str = False
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.stop, (bool, str)):
            raise TypeError(
                f"Change: stop is True, False or why the run ends, got {self.stop!r}."
            )
        rate = self.learning_rate
        if rate is not None and not (is_number(rate) and rate >= 0):
            raise ValueError(
                f"Change: learning_rate is a finite number of at least 0, got {rate!r}."
            )


Answer = Change | bool | None
"""What a callback returns: True is `Change(stop=True)`."""


class Callback:
    """What a run calls at its moments; a subclass overrides those that it needs.

    A plain function of a `Stage` is a callback with `on_stage` alone. What a callback keeps of
    itself is in no checkpoint.

    >>> import numpy as np, optax, jaxdl as dl
    >>> class Steps(dl.Callback):
    ...     def on_train_begin(self, stage):
    ...         self.seen = []
    ...     def on_stage(self, stage):
    ...         self.seen.append(stage.steps)
    ...         return dl.Change(stop="seen enough") if stage.steps >= 6 else None
    >>> steps = Steps()
    >>> x = np.ones((64, 3), np.float32)
    >>> run = dl.fit(dl.Dense(1), (x, x[:, :1]), loss=dl.losses.mean_squared_error,
    ...     optimizer="sgd", every="3 steps", epochs=9, callbacks=[steps], progress=False)
    >>> steps.seen, run.stopped
    ([3, 6], 'seen enough')
    """

    def on_train_begin(self, stage: Stage) -> Answer:
        """Before the first step, once the program is compiled; also of a run that goes on from a
        checkpoint.
        """

    def on_stage(self, stage: Stage) -> Answer:
        """After each epoch, or every so many steps, as `every` says: after the validation."""

    def on_train_end(self, stage: Stage) -> None:
        """After the last step, however the run has ended; there is nothing left to change."""


StageFunction = Callable[[Stage], Any]
Callbacks = Sequence[Callback | StageFunction]


def call(
    callbacks: Callbacks,
    moment: Moment,
    stage: Callable[[], Stage],
) -> tuple[str | None, float | None]:
    """Calls them at a moment, in their order.

    Returns:
        Why the run ends, or None; and the learning rate from there on, or None: what the last of
        them said.
    """
    why = None
    rate = None
    for callback in callbacks:
        if isinstance(callback, Callback):
            answer = getattr(callback, moment)(stage())
        elif moment == "on_stage":
            answer = callback(stage())
        else:
            continue
        change = answer if isinstance(answer, Change) else Change(stop=is_true(answer))
        if change.stop and why is None:
            why = change.stop if isinstance(change.stop, str) else "callback"
        if change.learning_rate is not None:
            rate = change.learning_rate
    return why, rate


def with_rate(state: Any, rate: float) -> Any:
    """A state whose next update has that learning rate.

    Raises:
        ValueError: no optimizer keeps its learning rate in its state.
    """
    changed, found = with_learning_rate(state.optimizer_state, rate)
    if not found:
        raise ValueError(
            f"callbacks: a learning rate of {rate:g} was asked for, and the optimizer keeps none "
            f"in its state — give optimizer=optax.inject_hyperparams(optax.adam)"
            f"(learning_rate=1e-3), without a schedule."
        )
    return distinct_arrays(state._replace(optimizer_state=changed))
