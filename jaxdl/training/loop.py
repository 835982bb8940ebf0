"""The one training loop. It owns all I/O: progress, history, the clock, interruption."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from jaxdl.checkpoint.checkpoints import Checkpoints
from jaxdl.checkpoint.digest import digest_of
from jaxdl.compiling.jitted import uncollected
from jaxdl.core.number import is_true
from jaxdl.core.warnings import warn
from jaxdl.debugging.origin import first_not_finite
from jaxdl.training.checks import figure_names
from jaxdl.training.feed import DataEndedError, Feed, Piece
from jaxdl.training.identity import run_identity
from jaxdl.training.interrupts import noted
from jaxdl.training.pace import Pace, known
from jaxdl.training.position import FIRST, Position, Tally
from jaxdl.training.program import Begun, Place, Program, Ran, Way, batch_at
from jaxdl.training.progress import Progress, progress
from jaxdl.training.run import Best, EarlyStopping, History, Run
from jaxdl.training.saving import Saver, ending_well
from jaxdl.training.step import Step, TrainingStep, TrainState, Updating


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
    checkpoint: Checkpoints | None = None,
    debug: bool = False,
    initial: Any = None,
    prepared: float = 0.0,
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
        checkpoint: where the run saves itself, and goes on from where it was.
        debug: whether to say which operation first gave numbers that are not finite.
        initial: what a caller has given to start from, which tells the run from others.
        prepared: how many seconds the first state has taken.
    """
    position = begin(step, feed, start)
    with contextlib.ExitStack() as stack:
        saver = None
        if checkpoint is not None:
            others = {"initial": None if initial is None else digest_of(initial)}
            identity = run_identity(step, feed, position.state, validation, early_stopping, others)
            saver = Saver(checkpoint, step, feed, position, identity)
            stack.callback(saver.close)
            position = saver.resume() or position
        loop = Loop(
            step, feed, position, way, validation, early_stopping, tuple(callbacks), saver, debug
        )
        loop.compile_seconds = prepared
        shown = stack.enter_context(progress(show_progress, epochs, feed.steps))
        first = position.steps
        stopped = loop.run(epochs, steps, shown)
        if loop.position.steps == first > 0:
            stopped = ended_earlier(checkpoint, stopped)
    return loop.finished(stopped)


def ended_earlier(checkpoint: Checkpoints | None, stopped: str) -> str:
    """Says that a run which a checkpoint holds had ended before, and why, unless this one was
    interrupted at once.
    """
    if checkpoint is None or stopped == "interrupted":
        return stopped
    warn(
        f"checkpoint: {checkpoint.folder} holds this run, and it had ended ({stopped}): it is "
        f"given back, and nothing was "
        "trained — give more epochs to go on, or another folder to train anew.",
        UserWarning,
    )
    return f"{stopped} (in an earlier call)"


def measure(step: Step, feed: Feed, state: Any, way: Way) -> dict[str, Any]:
    """One pass of a step that trains nothing: its figures over all the data; such a step may count
    batches in its state.
    """
    return Measurement(Program(way, step, state), feed).of(state, noted())


class Measurement:
    """Passes of a step that trains nothing over data, each from a state of its own.

    A pass begins at the pace that the program had when it last ran.
    """

    def __init__(self, program: Program, feed: Feed) -> None:
        self.program, self.feed = program, feed
        self.begun = program.beginning(feed.first.source)
        self.longest = program.longest(feed.first.source)
        self.known = known(*program.identity(feed.first.source))

    def of(self, state: Any, interrupted: threading.Event) -> dict[str, Any]:
        """The figures over all the data from a state."""
        tally, pace, begun = Tally(), Pace(self.known.steps), self.begun
        for piece in self.feed.pieces(FIRST, 1, lambda: min(pace.steps, self.longest), False):
            if interrupted.is_set():
                raise KeyboardInterrupt
            pace.begin()
            ran = self.program.run(piece.source, state, begun, piece.place, piece.steps)
            pace.end(ran.steps)
            state, begun = ran.state, ran.begun
            for part in ran.parts:
                tally.add(part, 0.0)
        self.known.steps = pace.steps
        self.begun = self.begun._replace(orders=begun.orders)
        return self.program.step.report(tally.sums, tally.joined())


@uncollected()
def begin(step: Step, feed: Feed, start: Any, way: Way = "epoch") -> Position:
    """The position before the first step."""
    return Position(start, Program(way, step, start).beginning(feed.first.source))


class Loop:
    """A run on the host.

    What it does with a whole population in place of one model differs in `settled`, `watch`,
    `not_finite` and `headline`.
    """

    def __init__(
        self,
        step: Updating,
        feed: Feed,
        position: Position,
        way: Way,
        validation: Feed | None,
        early_stopping: EarlyStopping | None,
        callbacks: tuple[Callback, ...],
        saver: Saver | None = None,
        debug: bool = False,
    ) -> None:
        self.debug = debug
        self.step, self.feed, self.position = step, feed, position
        self.saver, self.stable = saver, position.copy()
        self.way: Way = way
        self.validation, self.callbacks = validation, callbacks
        self.early_stopping = early_stopping
        self.monitored = early_stopping or (
            EarlyStopping(patience=0) if validation is not None else None
        )
        self.compile_seconds = 0.0
        self.program = Program(way, step, position.state)
        self.measurement: Measurement | None = None
        self.known = known(*self.program.identity(feed.first.source))
        self.pace = Pace(self.known.steps)
        self.recent: list[tuple[Piece, Any, Begun, int]] = []
        self.longest = 1
        self.all_counted = True
        self.interrupted = noted()

    @property
    def across(self) -> bool:
        """Whether nothing on the host waits for the end of an epoch."""
        waits = (
            self.validation is not None or self.early_stopping is not None or bool(self.callbacks)
        )
        return not (waits or (self.saver is not None and self.saver.each_epoch))

    def run(self, epochs: int, steps: int | None, shown: Progress) -> str:
        """Runs to the end of so many epochs, or steps, counted from the first of all; says why it
        ended.
        """
        if self.saver is not None and self.saver.stopped not in ("", "finished", "interrupted"):
            return self.saver.stopped
        with ending_well(self.saver, lambda: self.stable, self.interrupted):
            try:
                self._compile()
                stopped = self._epochs(epochs, steps, shown)
            except DataEndedError as error:
                stopped = self._data_ended(error, shown)
            except KeyboardInterrupt:
                stopped = "interrupted"
                if self.saver is not None:
                    self.position = self.stable
            if self.saver is not None:
                self.saver.save(self.position, stopped)
            return stopped

    def finished(self, stopped: str) -> Run:
        """The outcome."""
        here = self.position
        if not here.history:
            here.history = {name: [] for name in self._names()}
        params, state = here.state.trained, here.state.state
        if (
            self.early_stopping is not None
            and self.early_stopping.restore_best
            and here.best is not None
        ):
            params, state = here.best.params, here.best.state
        return Run(
            params,
            state,
            here.history,
            here.best,
            here.state.average,
            here.state,
            stopped,
            self.compile_seconds,
        )

    def _names(self) -> list[str]:
        """Of the figures that the history has after an epoch."""
        names = figure_names(self.step, self.feed, self.position.state)
        if self.validation is not None:
            start = self.step.evaluated_from(self.position.state)
            names += [
                f"validation_{name}"
                for name in figure_names(self.step.evaluation(), self.validation, start)
            ]
        return [*names, *jax.eval_shape(self.step.observe, self.position.state), "seconds"]

    def settled(self, ran: Ran, again: Callable[[Any], Ran]) -> Ran:
        """A run of a program as it counts; `again(state)` makes the same steps from another
        state.
        """
        del again
        return ran

    def watch(self, epoch: int, figures: dict[str, Any]) -> str | None:
        """Keeps the best epoch; says so when it is time to stop."""
        here, rule = self.position, self.monitored
        if rule is None or (self.early_stopping is None and rule.monitor not in figures):
            return None
        value = float(figures[rule.monitor])
        if rule.better(value, None if here.best is None else here.best.value):
            here.best = Best(epoch, value, *self.step.result(here.state))
        since = epoch - (here.best.epoch if here.best else -1)
        if self.early_stopping is not None and since >= self.early_stopping.epochs:
            return f"early stopping: {rule.monitor} has not become better for {since} epochs"
        return None

    def headline(self, figures: dict[str, Any]) -> dict[str, Any]:
        """What is shown of an epoch's figures."""
        return figures

    def not_finite(self) -> str:
        """Goes back to the last state whose parameters are finite, by running the same steps again
        up to it.
        """
        here = self.position
        bad = here.steps
        for piece, before, begun, made in reversed(self.recent):
            here.steps -= made
            steps = self._whole_steps(piece, before, begun, made)
            if steps is None:
                continue
            here.steps += steps
            epoch = piece.place.epoch + (piece.place.step + steps) // piece.source.steps
            why = (
                f"the loss or a gradient was not finite at step {here.steps + 1} (epoch "
                f"{epoch + 1}); params and state are "
                f"those after step {here.steps}, the last that are finite"
            )
            if self.debug:
                why += f"; {self._origin(piece, begun, steps)}"
            warn(
                f"training stopped: {why} — try a smaller learning rate, clip_norm or "
                f"if_not_finite.",
                RuntimeWarning,
            )
            return why
        return f"the loss was not finite at step {bad}, and nor were the parameters before it"

    def _whole_steps(self, piece: Piece, before: Any, begun: Begun, made: int) -> int | None:
        """After how many steps of a piece, fewer than were made, the state was last finite; the
        loop's state is then that.
        """

        def whole(steps: int) -> bool:
            self.position.state = self.program.run(
                piece.source, before, begun, piece.place, steps
            ).state
            return self.step.sound(self.position.state)

        for steps in (made - 1, made - 2):
            if steps >= 0 and whole(steps):
                return steps
        least, most = -1, made - 2
        while most - least > 1:
            middle = (least + most) // 2
            least, most = (middle, most) if whole(middle) else (least, middle)
        return least if least >= 0 and whole(least) else None

    def _origin(self, piece: Piece, begun: Begun, steps: int) -> str:
        """What the step after so many did first that was not finite."""
        origin = first_not_finite(
            self.step.alone(),
            self.position.state,
            batch_at(piece.source, begun, piece.place, steps),
        )
        return (
            "run again operation by operation, that step is finite"
            if origin is None
            else str(origin)
        )

    @uncollected()
    def _compile(self) -> None:
        """Makes a new program ready: the compiled loop runs no step for it, the others run one and
        forget it.
        """
        piece, began, state = self.feed.first, time.perf_counter(), self.position.state
        if not self.known.compiled:
            steps = 0 if self.way == "epoch" else 1
            begun = self.program.beginning(piece.source)
            ran = self.program.run(piece.source, state, begun, piece.place, steps)
            self.position.begun = self.position.begun._replace(orders=ran.begun.orders)
            self.known.compiled = True
        self.longest = self.program.longest(piece.source)
        self.compile_seconds += time.perf_counter() - began

    def _epochs(self, epochs: int, steps: int | None, shown: Progress) -> str:
        here = self.position
        first = self.program.beginning(self.feed.first.source)

        def left() -> int:
            return 2**30 if steps is None else steps - here.steps

        def most() -> int:
            due = 2**30 if self.saver is None else self.saver.most(here.steps)
            return min(self.pace.steps, self.longest, left(), due)

        for piece in self.feed.pieces(here.place, epochs, most, self.across):
            if self.interrupted.is_set():
                raise KeyboardInterrupt
            piece = piece._replace(steps=min(piece.steps, left()))
            ran, seconds = self._run_piece(piece)
            if not ran.finite:
                return self.not_finite()
            here.begun = ran.begun._replace(sums=first.sums) if piece.ends else ran.begun
            for number, part in enumerate(ran.parts):
                epoch, last = piece.place.epoch + number, number == len(ran.parts) - 1
                here.tally.add(part, seconds * part.steps / max(ran.steps, 1))
                spent = last and left() == 0
                if last:
                    self._show(shown, epoch, piece, ran.steps / max(seconds, 1e-9))
                if not last or piece.ends or spent:
                    why = self._end_epoch(epoch, shown, quiet=not last)
                    here.tally, here.place = Tally(), Place(epoch + 1, 0)
                    if why or spent:
                        return why or "finished"
                else:
                    here.place = Place(epoch, here.tally.steps)
            here.stream = piece.after
            if self.saver is not None:
                self.stable = here.copy()
                self.saver.offer(self.stable)
        return "finished"

    def _data_ended(self, error: DataEndedError, shown: Progress) -> str:
        """Closes the epoch in which data that cannot be read again ended, so that what was trained
        is kept.
        """
        here = self.position
        if here.tally.steps:
            self._end_epoch(here.place.epoch, shown, quiet=False)
            here.tally, here.place = Tally(), Place(here.place.epoch + 1, 0)
        warn(f"training stopped after {here.steps} steps: {error}", RuntimeWarning)
        return f"the data ended: {error}"

    def _run_piece(self, piece: Piece) -> tuple[Ran, float]:
        here = self.position
        before, begun = here.state, here.begun

        def made(state: Any) -> Ran:
            return self.program.run(piece.source, state, begun, piece.place, piece.steps)

        self.pace.begin()
        ran = self.settled(made(before), made)
        seconds = self.pace.end(ran.steps)
        self.known.steps = self.pace.steps
        here.state = ran.state
        here.steps += ran.steps
        self.recent = [*self.recent[-1:], (piece, before, begun, ran.steps)]
        return ran, seconds

    def _check_counted(self, epoch: int, figures: dict[str, Any]) -> None:
        """Warns once where nothing of an epoch counted: its mean loss is then NaN, and yet no
        step's was.
        """
        here, loss = self.position, figures.get("loss")
        if not (self.all_counted and isinstance(loss, float) and loss != loss):
            return
        counts = {name: here.tally.observed.get(name, 0) for name in ("skipped_steps", "set_backs")}
        if not any(count > (here.history.get(name) or [0])[-1] for name, count in counts.items()):
            self.all_counted = False
            warn(
                f"epoch {epoch + 1}: its loss is NaN, since the weights of all its examples are 0.",
                RuntimeWarning,
            )

    def _show(self, shown: Progress, epoch: int, piece: Piece, steps_a_second: float) -> None:
        tally = self.position.tally
        size = self.feed.examples(piece.place, piece.steps) / piece.steps
        figures = self.headline(self.step.report(tally.sums, tally.joined()))
        shown.moved(epoch, tally.steps, figures, steps_a_second * size)

    def _end_epoch(self, epoch: int, shown: Progress, quiet: bool) -> str | None:
        here = self.position
        figures = self.step.report(here.tally.sums, here.tally.joined())
        self._check_counted(epoch, figures)
        if self.validation is not None:
            figures |= {
                f"validation_{name}": value
                for name, value in self._measured(self.validation).items()
            }
        figures |= here.tally.observed | {"seconds": here.tally.seconds}
        here.record(figures)
        if not quiet:
            shown.ended(epoch, self.headline(figures))
        why = self.watch(epoch, figures)
        told = [
            is_true(callback(EpochEnd(epoch, here.history, here.state)))
            for callback in self.callbacks
        ]
        return why or ("callback" if any(told) else None)

    def _measured(self, validation: Feed) -> dict[str, Any]:
        """The figures over the validation data."""
        start = self.step.evaluated_from(self.position.state)
        if self.measurement is None:
            self.measurement = Measurement(
                Program(self.way, self.step.evaluation(), start), validation
            )
        return self.measurement.of(start, self.interrupted)
