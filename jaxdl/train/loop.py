"""The one training loop. It owns all I/O: progress, history, the clock, interruption."""

import dataclasses
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.train.feed import Feed, Piece
from jaxdl.train.pace import Pace, known
from jaxdl.train.program import Begun, Part, Ran, Way, beginning, longest, run
from jaxdl.train.progress import Progress, progress
from jaxdl.train.run import Best, EarlyStopping, History, Run
from jaxdl.train.step import Step, TrainingStep, TrainState
from jaxdl.tree import frozen_shapes


class EpochEnd(NamedTuple):
    """What a callback is given after each epoch.

    Args:
        epoch: the number of the epoch that ended, from 0.
        history: so far; the callback may read it and must not change it.
        train_state: after the epoch.
    """

    epoch: int
    history: History
    train_state: TrainState


Callback = Callable[[EpochEnd], Any]
"""Called between epochs; a callback that returns True ends the run."""


def run_training(
    step: TrainingStep,
    feed: Feed,
    start: TrainState,
    *,
    epochs: int,
    steps: int | None = None,
    way: Way = "epoch",
    validation: Feed | None = None,
    early_stopping: EarlyStopping | None = None,
    callbacks: Sequence[Callback] = (),
    show_progress: bool = True,
) -> Run:
    """Runs a training step over data; `fit` and `train` check what they are given, and call this.

    Args:
        step: what is done with each batch.
        feed: the data.
        start: the first state.
        epochs: how many.
        steps: the most steps in all, or None.
        way: how the step becomes a program.
        validation: data to measure after each epoch.
        early_stopping: when to end early.
        callbacks: called after each epoch.
        show_progress: whether to show how far the run is.
    """
    loop = _Loop(step, feed, start, way, validation, early_stopping, tuple(callbacks))
    with progress(show_progress, epochs, feed.steps) as shown:
        stopped = loop.run(epochs, steps, shown)
    return loop.finished(stopped)


def measure(step: Step, feed: Feed, state: Any, way: Way, pace: Pace | None = None) -> dict[str, Any]:
    """One pass of a step that trains nothing: its figures over all the data; such a step may count batches in its state."""
    tally, pace, begun = _Tally(), pace or Pace(), beginning(step, feed.first.source, state)
    most = longest(step, feed.first.source, state)
    for piece in feed.pieces(1, lambda: min(pace.steps, most), False):
        pace.begin()
        ran = run(way, step, piece.source, state, begun, piece.place, piece.steps)
        pace.end(ran.steps)
        state, begun = ran.state, ran.begun
        for part in ran.parts:
            tally.add(part, 0.0)
    return step.report(tally.sums, tally.joined())


@dataclasses.dataclass
class _Tally:
    """What was measured of one epoch so far."""

    sums: dict[str, Any] = dataclasses.field(default_factory=dict)
    gathered: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    observed: dict[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    steps: int = 0

    def add(self, part: Part, seconds: float) -> None:
        self.sums = part.sums
        self.gathered.append(part.gathered)
        self.observed = part.observed
        self.seconds += seconds
        self.steps += part.steps

    def joined(self) -> dict[str, Any]:
        if not self.gathered:
            return {}
        return jax.tree.map(lambda *rows: np.concatenate(rows), *self.gathered)


class _Loop:
    """The state of a run on the host."""

    def __init__(
        self,
        step: TrainingStep,
        feed: Feed,
        start: TrainState,
        way: Way,
        validation: Feed | None,
        early_stopping: EarlyStopping | None,
        callbacks: tuple[Callback, ...],
    ) -> None:
        self.step, self.feed, self.state = step, feed, start
        self.way: Way = way
        self.validation, self.callbacks = validation, callbacks
        self.early_stopping = early_stopping
        self.watch = early_stopping or (EarlyStopping(patience=0) if validation is not None else None)
        self.history: History = {}
        self.best: Best | None = None
        self.compile_seconds = 0.0
        self.known = known(way, step, frozen_shapes((feed.first.source, start)))
        self.pace, self.validation_pace = Pace(self.known.steps), Pace()
        self.recent: list[tuple[Piece, TrainState, Begun, int]] = []
        self.steps_done = 0
        self.longest = 1

    @property
    def across(self) -> bool:
        """Whether nothing on the host waits for the end of an epoch."""
        return self.validation is None and self.early_stopping is None and not self.callbacks

    def run(self, epochs: int, steps: int | None, shown: Progress) -> str:
        """Runs to the end, and says why it ended."""
        try:
            self._compile()
            return self._epochs(epochs, steps, shown)
        except KeyboardInterrupt:
            return "interrupted"

    def finished(self, stopped: str) -> Run:
        params, state = self.state.params, self.state.state
        if self.early_stopping is not None and self.early_stopping.restore_best and self.best is not None:
            params, state = self.best.params, self.best.state
        return Run(params, state, self.history, self.best, self.state.average, self.state, stopped, self.compile_seconds)

    def _compile(self) -> None:
        """Makes a new program ready: the compiled loop runs no step for it, the others run one and forget it."""
        piece, began = self.feed.first, time.perf_counter()
        if not self.known.compiled:
            steps = 0 if self.way == "epoch" else 1
            begun = beginning(self.step, piece.source, self.state)
            run(self.way, self.step, piece.source, self.state, begun, piece.place, steps)
            self.known.compiled = True
        self.longest = longest(self.step, piece.source, self.state)
        self.compile_seconds = time.perf_counter() - began

    def _epochs(self, epochs: int, steps: int | None, shown: Progress) -> str:
        tally, first = _Tally(), beginning(self.step, self.feed.first.source, self.state)
        begun = first

        def left() -> int:
            return 2**30 if steps is None else steps - self.steps_done

        for piece in self.feed.pieces(epochs, lambda: min(self.pace.steps, self.longest, left()), self.across):
            piece = piece._replace(steps=min(piece.steps, left()))
            ran, seconds = self._run_piece(piece, begun)
            begun = ran.begun._replace(sums=first.sums) if piece.ends else ran.begun
            if not ran.finite:
                return self._not_finite(piece.place.epoch + len(ran.parts) - 1, tally.steps)
            for number, part in enumerate(ran.parts):
                epoch, last = piece.place.epoch + number, number == len(ran.parts) - 1
                tally.add(part, seconds * part.steps / max(ran.steps, 1))
                spent = last and left() == 0
                if last:
                    self._show(shown, epoch, tally, piece, ran.steps / max(seconds, 1e-9))
                if not last or piece.ends or spent:
                    why = self._end_epoch(epoch, tally, shown, quiet=not last)
                    tally = _Tally()
                    if why or spent:
                        return why or "finished"
        return "finished"

    def _run_piece(self, piece: Piece, begun: Begun) -> tuple[Ran, float]:
        before = self.state
        self.pace.begin()
        ran = run(self.way, self.step, piece.source, before, begun, piece.place, piece.steps)
        seconds = self.pace.end(ran.steps)
        self.known.steps = self.pace.steps
        self.state = ran.state
        self.steps_done += ran.steps
        self.recent = [*self.recent[-1:], (piece, before, begun, ran.steps)]
        return ran, seconds

    def _show(self, shown: Progress, epoch: int, tally: _Tally, piece: Piece, steps_a_second: float) -> None:
        size = self.feed.examples(piece.place, piece.steps) / piece.steps
        shown.moved(epoch, tally.steps, self.step.report(tally.sums, tally.joined()), steps_a_second * size)

    def _end_epoch(self, epoch: int, tally: _Tally, shown: Progress, quiet: bool) -> str | None:
        figures = self.step.report(tally.sums, tally.joined())
        if self.validation is not None:
            start = self.state._replace(step=jnp.zeros_like(self.state.step))  # draws the same after each epoch
            measured = measure(self.step.evaluation(), self.validation, start, self.way, self.validation_pace)
            figures |= {f"validation_{name}": value for name, value in measured.items()}
        figures |= tally.observed | {"seconds": tally.seconds}
        for name, value in figures.items():
            self.history.setdefault(name, []).append(value)
        if not quiet:
            shown.ended(epoch, figures)
        why = self._watch(epoch, figures)
        told = [callback(EpochEnd(epoch, self.history, self.state)) is True for callback in self.callbacks]
        return why or ("callback" if any(told) else None)

    def _watch(self, epoch: int, figures: dict[str, Any]) -> str | None:
        """Keeps the best epoch; says so when it is time to stop."""
        if self.watch is None or (self.early_stopping is None and self.watch.monitor not in figures):
            return None
        value = float(figures[self.watch.monitor])
        if self.watch.better(value, None if self.best is None else self.best.value):
            self.best = Best(epoch, value, self.state.evaluated, self.state.state)
        since = epoch - (self.best.epoch if self.best else -1)
        if self.early_stopping is not None and since >= self.early_stopping.patience:
            return f"early stopping: {self.watch.monitor} has not become better for {since} epochs"
        return None

    def _not_finite(self, epoch: int, batch: int) -> str:
        """Goes back to the last state whose parameters are finite, by running the same steps again up to it."""
        bad = self.steps_done
        for piece, before, begun, made in reversed(self.recent):
            self.steps_done -= made
            for steps in dict.fromkeys((made - 1, made - 2, 0)):
                if steps < 0:
                    continue
                self.state = run(self.way, self.step, piece.source, before, begun, piece.place, steps).state
                if _all_finite(self.state):
                    self.steps_done += steps
                    why = (
                        f"the loss was not finite at step {bad} (epoch {epoch + 1}); params and state are those after step "
                        f"{self.steps_done}, the last that are finite"
                    )
                    warnings.warn(f"training stopped: {why} — try a smaller learning rate or clip_norm.", RuntimeWarning, 5)
                    return why
        return f"the loss was not finite at step {bad}, and nor were the parameters before it"


def _all_finite(state: TrainState) -> bool:
    leaves = [leaf for leaf in jax.tree.leaves((state.params, state.state)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return all(bool(jnp.isfinite(leaf).all()) for leaf in leaves)
