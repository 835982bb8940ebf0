"""The one training loop. It owns all I/O: progress, history, the clock, interruption."""

import dataclasses
from typing import Any

import jax

from jaxdl.core.interval import EACH_EPOCH
from jaxdl.core.warnings import warn
from jaxdl.debugging.origin import first_not_finite
from jaxdl.training.callbacks import Moment, Stage, call, copied, with_rate
from jaxdl.training.cursor import Cursor, EpochCarry, batch_at
from jaxdl.training.feed import Chunk, Feed
from jaxdl.training.finite import is_finite
from jaxdl.training.history import Best, EarlyStopping
from jaxdl.training.identity import Identity
from jaxdl.training.interrupts import deferred_interrupts, interrupt_requested
from jaxdl.training.iteration import Advance, Iteration, Measurement
from jaxdl.training.loop_options import LoopOptions
from jaxdl.training.loop_state import LoopState, MetricAccumulator
from jaxdl.training.program import Program
from jaxdl.training.progress import Progress
from jaxdl.training.rows import UNLIMITED, counts_steps, row_ends, row_name, steps_to_row
from jaxdl.training.run import Run, trained_by
from jaxdl.training.saving import Saver, ending_well
from jaxdl.training.step import Updating
from jaxdl.training.step_checks import metric_names
from jaxdl.training.stream_feed import DataEndedError


class Loop:
    """A run on the host.

    What it does with a whole population in place of one model differs in `advanced`, `watch`,
    `not_finite` and `headline`.

    Args:
        step: what is done with each batch.
        feed: the data.
        here: where the run is.
        options: how it goes on and ends.
        saver: its checkpoints, or None.
        program: the step as a program, where there is one already.
    """

    def __init__(
        self,
        step: Updating,
        feed: Feed,
        here: LoopState,
        options: LoopOptions,
        saver: Saver | None = None,
        program: Program | None = None,
    ) -> None:
        self.step = step
        self.feed = feed
        self.here = here
        self.options = options
        self.saver = saver
        self.stable = here.copy()
        self.monitored = options.early_stopping
        if self.monitored is None and options.validation is not None:
            self.monitored = EarlyStopping(patience=0)
        self.compile_seconds = 0.0
        self.interrupted = interrupt_requested()
        program = program or Program(options.execution, step, here.state)
        self.iteration = Iteration(program, feed, here, self.interrupted)
        self.measurement: Measurement | None = None
        self.all_counted = True

    @property
    def across(self) -> bool:
        """Whether nothing on the host waits for the end of an epoch."""
        options = self.options
        if counts_steps(options.every):
            return not (self.saver is not None and self.saver.each_epoch)
        waits = (
            options.validation is not None
            or options.early_stopping is not None
            or bool(options.callbacks)
        )
        return not (waits or (self.saver is not None and self.saver.each_epoch))

    def run(self, shown: Progress) -> str:
        """Runs to the end of the epochs, or steps, counted from the first of all; says why it
        ended.
        """
        if self.saver is not None and self.saver.stopped not in ("", "finished", "interrupted"):
            return self.saver.stopped
        with ending_well(self.saver, lambda: self.stable, self.interrupted):
            try:
                self.compile_seconds += self.iteration.compile()
                self.stable = self.here.copy()
                stopped = self._called("on_train_begin") or self._epochs(shown)
            except DataEndedError as error:
                stopped = self._data_ended(error, shown)
            except KeyboardInterrupt:
                if _is_lost(self.here.state):
                    raise
                stopped = "interrupted"
                if self.saver is not None:
                    self.here = self.stable
            if self.saver is not None:
                self.saver.save(self.here, stopped)
            self._called("on_train_end")
            return stopped

    def finished(self, stopped: str, settings: Identity) -> Run:
        """The outcome.

        Args:
            stopped: why the run ended.
            settings: what it was.
        """
        here = self.here
        if not here.history:
            here.history = {name: [] for name in self._names()}
        params = here.state.trained
        state = here.state.state
        rule = self.options.early_stopping
        if rule is not None and rule.restore_best and here.best is not None:
            params = here.best.params
            state = here.best.state
        about = trained_by(self.step)
        given = (params, state, here.history, here.best, here.state.average, here.state)
        return Run(*given, stopped, self.compile_seconds, **about, settings=settings)

    def _names(self) -> list[str]:
        """Of the metrics that the history has after an epoch."""
        state = self.here.state
        names = metric_names(self.step, self.feed, state)
        if self.options.validation is not None:
            given = self.step.evaluation_state(state)
            measured = metric_names(self.step.evaluation(), self.options.validation, given)
            names += [f"validation_{name}" for name in measured]
        steps = [] if self.options.every == EACH_EPOCH else ["step"]
        return [*steps, *names, *jax.eval_shape(self.step.observe, state), "seconds"]

    def advanced(self, advance: Advance) -> None:
        """Called after each run of the program."""
        del advance

    def watch(self, row: int, metrics: dict[str, Any]) -> str | None:
        """Keeps the best row of the history; says so when it is time to stop."""
        here = self.here
        rule = self.monitored
        stopping = self.options.early_stopping
        if rule is None or (stopping is None and rule.monitor not in metrics):
            return None
        value = float(metrics[rule.monitor])
        if rule.better(value, None if here.best is None else here.best.value):
            here.best = Best(row, value, *copied(self.step.result(here.state)))
        since = row - (here.best.epoch if here.best else -1)
        if stopping is not None and since >= stopping.epochs:
            rows = row_name(self.options.every)
            return f"early stopping: {rule.monitor} has not become better for {since} {rows}"
        return None

    def headline(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """What is shown of an epoch's metrics."""
        return metrics

    def not_finite(self, chunk: Chunk, carry: EpochCarry) -> str:
        """Why the run ends, where an update was not finite and so was not applied."""
        here = self.here
        epoch = here.cursor.epoch + 1
        why = (
            f"the loss or a gradient was not finite at step {here.steps + 1} (epoch {epoch}); "
        )
        if is_finite((here.state.params, here.state.state)):
            why += (
                f"params and state are those after step {here.steps}, the last that are finite"
            )
        else:
            why += (
                f"the update of step {here.steps} had overflowed inside the optimizer: params and "
                f"state are those after it, and are not finite"
            )
        if self.options.debug:
            why += f"; {self._origin(chunk, carry)}"
        warn(
            f"training stopped: {why} — try a smaller learning rate, clip_norm or if_not_finite.",
            RuntimeWarning,
        )
        return why

    def _origin(self, chunk: Chunk, carry: EpochCarry) -> str:
        """The first operation of the step that was left out which was not finite."""
        made = self.here.steps - self._before
        batch = batch_at(chunk.source, carry, chunk.cursor, made)
        origin = first_not_finite(self.step.on_one_device(), self.here.state, batch)
        if origin is None:
            return "run again operation by operation, that step is finite"
        return str(origin)

    def _left(self) -> int:
        steps = self.options.steps
        return UNLIMITED if steps is None else steps - self.here.steps

    def _due(self) -> int:
        steps = self.here.steps
        row = steps_to_row(self.options.every, steps)
        return row if self.saver is None else min(row, self.saver.most(steps))

    def _epochs(self, shown: Progress) -> str:
        here = self.here
        self._before = here.steps
        why = None
        if here.ended:
            why = self._close_row(shown)
            if why or self._left() == 0:
                return why or self._checked("finished")
        epochs = self.options.epochs
        for advance in self.iteration.chunks(epochs, self._left, self._due, self.across):
            self.advanced(advance)
            with deferred_interrupts():
                why = self._recorded(advance, shown)
            if not advance.result.finite:
                return self.not_finite(advance.chunk, advance.result.carry)
            if why:
                return why
            if self.saver is not None:
                self.stable = here.copy()
                self.saver.offer(self.stable)
            self._before = here.steps
        if here.metrics.steps:  # the last row may be a shorter one
            why = self._close_row(shown)
        return why or self._checked("finished")

    def _recorded(self, advance: Advance, shown: Progress) -> str | None:
        """Takes up what a run of the program measured; says why the run of training ends."""
        here = self.here
        chunk = advance.chunk
        result = advance.result
        first = here.cursor.step
        steps = self._before
        for number, part in enumerate(result.epochs):
            epoch = chunk.cursor.epoch + number
            last = number == len(result.epochs) - 1
            here.metrics.add(part, advance.seconds * part.steps / max(result.steps, 1))
            steps += part.steps
            done = first + part.steps
            first = 0
            spent = last and self._left() == 0
            if last:
                self._show(shown, epoch, done, chunk, result.steps / max(advance.seconds, 1e-9))
            ended = not last or advance.ends or done == self.feed.steps
            here.cursor = Cursor(epoch + 1, 0) if ended else Cursor(epoch, done)
            row = row_ends(
                self.options.every, steps, here.metrics.steps, epoch if ended else None
            )
            if not (row or spent):
                if ended:
                    here.metrics.bank()
                continue
            # What follows may take long, and be interrupted.
            if last and self.saver is not None:
                self.stable = dataclasses.replace(here.copy(), carry=result.carry, ended=True)
            why = self._close_row(shown, quiet=not last, steps=steps)
            if why or spent:
                return why or self._checked("finished")
        return None

    def _close_row(
        self,
        shown: Progress,
        quiet: bool = False,
        steps: int | None = None,
    ) -> str | None:
        """Ends the row of the history at hand; says why the run of training ends with it.

        Args:
            shown: the progress.
            quiet: whether the run has gone on from there, into another epoch.
            steps: made in all up to its end, then; None is all that were made.
        """
        here = self.here
        why = self._end_row(shown, quiet, here.steps if steps is None else steps)
        here.metrics = MetricAccumulator()
        here.ended = False
        if here.cursor.step and not counts_steps(self.options.every):
            here.cursor = Cursor(here.cursor.epoch + 1, 0)
        if not quiet:  # else the sums are already those of a later epoch
            self.iteration.begin_epoch()
        return why

    def _checked(self, stopped: str) -> str:
        """Why the run ends, where the last update of all had overflowed inside the optimizer."""
        here = self.here
        if not here.steps or is_finite((here.state.params, here.state.state)):
            return stopped
        why = (
            f"the update of step {here.steps}, the last, overflowed inside the optimizer: params "
            f"and state are not finite"
        )
        warn(
            f"training stopped: {why} — try a smaller learning rate, clip_norm or if_not_finite.",
            RuntimeWarning,
        )
        return why

    def _data_ended(self, error: DataEndedError, shown: Progress) -> str:
        """Closes the epoch in which data that cannot be read again ended, so that what was trained
        is kept.
        """
        here = self.here
        if here.metrics.steps:
            self._close_row(shown)
        warn(f"training stopped after {here.steps} steps: {error}", RuntimeWarning)
        return f"the data ended: {error}"

    def _check_counted(self, epoch: int, metrics: dict[str, Any]) -> None:
        """Warns once where nothing of an epoch counted: its mean loss is then NaN, and yet no
        step's was.
        """
        here = self.here
        loss = metrics.get("loss")
        if not (self.all_counted and isinstance(loss, float) and loss != loss):
            return
        observed = here.metrics.observed
        counts = {name: observed.get(name, 0) for name in ("skipped_steps", "rollbacks")}
        if not any(
            count > (here.history.get(name) or [0])[-1] for name, count in counts.items()
        ):
            self.all_counted = False
            warn(
                f"epoch {epoch + 1}: its loss is NaN, since the weights of all its examples are 0.",
                RuntimeWarning,
            )

    def _show(
        self,
        shown: Progress,
        epoch: int,
        done: int,
        chunk: Chunk,
        steps_a_second: float,
    ) -> None:
        if not self.options.progress:
            return
        measured = self.here.metrics
        size = self.feed.examples(chunk.cursor, chunk.steps) / chunk.steps
        metrics = self.headline(self.step.report(measured.sums, measured.joined()))
        shown.moved(epoch, done, metrics, steps_a_second * size)

    def _end_row(self, shown: Progress, quiet: bool, steps: int) -> str | None:
        here = self.here
        epoch = self._epoch()
        measured = self.step.report(here.metrics.sums, here.metrics.joined())
        self._check_counted(epoch, measured)
        metrics = measured if self.options.every == EACH_EPOCH else {"step": steps} | measured
        if self.options.validation is not None:
            held = self._measured(self.options.validation)
            metrics |= {f"validation_{name}": value for name, value in held.items()}
        metrics |= here.metrics.observed | {"seconds": here.metrics.seconds}
        here.record(metrics)
        if not quiet:
            shown.ended(epoch, self.headline(metrics))
        row = epoch if self.options.every == EACH_EPOCH else here.rows - 1
        why = self.watch(row, metrics)
        called = self._called("on_stage", metrics)
        return why or called

    def _epoch(self) -> int:
        """The number of the epoch of the last step."""
        cursor = self.here.cursor
        return max(cursor.epoch - 1, 0) if cursor.step == 0 else cursor.epoch

    def _called(self, moment: Moment, metrics: dict[str, Any] | None = None) -> str | None:
        """Calls the callbacks, and makes the changes they ask for; says why the run ends."""
        if not self.options.callbacks:
            return None
        here = self.here

        def stage() -> Stage:
            return Stage(
                self._epoch(), here.steps, dict(metrics or {}), here.history, _state=here.state
            )

        why, rate = call(self.options.callbacks, moment, stage)
        if rate is not None and moment != "on_train_end":
            here.state = with_rate(here.state, rate)
        return why

    def _measured(self, validation: Feed) -> dict[str, Any]:
        """The metrics over the validation data."""
        given = self.step.evaluation_state(self.here.state)
        if self.measurement is None:
            evaluation = self.step.evaluation()
            self.measurement = Measurement(
                self.options.execution, evaluation, given, validation
            )
        return self.measurement.of(given, self.interrupted)


def _is_lost(state: Any) -> bool:
    """Whether a state was donated to a program that did not return."""
    leaves = jax.tree.leaves(state)
    return any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in leaves)
