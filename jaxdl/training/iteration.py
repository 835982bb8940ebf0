"""The one iterator that drives a step over data: runs of a program, one after another."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jaxdl.compiling.jitted import gc_disabled
from jaxdl.training.cursor import Cursor
from jaxdl.training.feed import Chunk, Feed
from jaxdl.training.interrupts import deferred_interrupts, interrupt_requested
from jaxdl.training.loop_state import LoopState, MetricAccumulator
from jaxdl.training.pace import Pace, known
from jaxdl.training.program import ChunkResult, Execution, Program
from jaxdl.training.rows import UNLIMITED
from jaxdl.training.step import Step


class Advance(NamedTuple):
    """One run of a program over data.

    Args:
        chunk: what was asked for.
        result: what was made of it.
        seconds: it took.
        ends: whether the epoch of its last step ended with it.
    """

    chunk: Chunk
    result: ChunkResult
    seconds: float
    ends: bool


class Iteration:
    """Drives a step over data; `fit`, `train`, `evaluate`, populations, the range test of learning
    rates and speed reports use it.

    Args:
        program: the step as a program.
        feed: the data.
        here: where it is; its `state`, `carry`, `steps` and `stream` go on.
        interrupted: raises KeyboardInterrupt between two runs, once it is set.
    """

    def __init__(
        self,
        program: Program,
        feed: Feed,
        here: LoopState,
        interrupted: threading.Event | None = None,
    ) -> None:
        self.program = program
        self.feed = feed
        self.here = here
        self.interrupted = interrupted or interrupt_requested()
        self.known = known(*program.identity(feed.first.source))
        self.pace = Pace(self.known.steps)
        self.max_steps = program.max_steps(feed.first.source)
        self._zeros = program.init_carry(feed.first.source).sums

    @gc_disabled()
    def compile(self) -> float:
        """Compiles the program, unless it was compiled before, by a run that changes nothing; the
        seconds it took.
        """
        began = time.perf_counter()
        if not self.known.compiled:
            first = self.feed.first
            carry = self.here.carry._replace(sums=self._zeros)
            ran = self.program.run(first.source, self.here.state, carry, first.cursor, 0)
            self.here.state = ran.state
            self.here.carry = self.here.carry._replace(permutations=ran.carry.permutations)
            self.known.compiled = True
        return time.perf_counter() - began

    def chunks(
        self,
        epochs: int,
        left: Callable[[], int] = lambda: UNLIMITED,
        due: Callable[[], int] = lambda: UNLIMITED,
        across: bool = False,
        from_cursor: Cursor | None = None,
    ) -> Iterator[Advance]:
        """Runs the program to the end of epoch `epochs`, or to an update that is not finite.

        Args:
            epochs: the number of the epoch to end before, counted from 0.
            left: how many steps are left in all; asked before each run.
            due: after how many steps the next run has to end; asked before each run.
            across: whether a run may go on from one epoch into the next.
            from_cursor: where to begin; None is where it is.
        """
        cursor = from_cursor or self.here.cursor
        self._step = cursor.step

        def most() -> int:
            return self._whole_epochs(min(self.pace.steps, self.max_steps, left(), due()))

        for chunk in self.feed.chunks(cursor, epochs, most, due, across):
            if self.interrupted.is_set():
                raise KeyboardInterrupt
            chunk = chunk._replace(steps=min(chunk.steps, left()))
            yield (advance := self._run(chunk))
            if not advance.result.finite:
                return

    def begin_epoch(self) -> None:
        """Sets the sums of the epoch at hand to zero."""
        self.here.carry = self.here.carry._replace(sums=self._zeros)

    def _run(self, chunk: Chunk) -> Advance:
        here = self.here
        self.pace.begin()
        with deferred_interrupts():
            ran = self.program.run(
                chunk.source, here.state, here.carry, chunk.cursor, chunk.steps
            )
            here.state = ran.state
            here.carry = ran.carry
            here.steps += ran.steps
        seconds = self.pace.end(max(ran.steps, 1))
        self.known.steps = self.pace.steps
        ends = chunk.ends and ran.steps == chunk.steps
        if ends:
            self.begin_epoch()
        self._step = 0 if ends else chunk.cursor.step + ran.steps
        here.stream = chunk.after
        return Advance(chunk, ran, seconds, ends)

    def _whole_epochs(self, steps: int) -> int:
        """So many steps, fewer where a loop of known length, over whole epochs, pays."""
        epoch = self.feed.steps
        if epoch is None or not self.program.prefers_whole_epochs():
            return steps
        step = self._step % epoch
        if step:
            return min(steps, epoch - step)
        return steps - steps % epoch if steps > epoch else steps


class Measurement:
    """Passes of an evaluation over data, each from a state of its own.

    A pass begins at the pace that the program had when it last ran.
    """

    def __init__(self, execution: Execution, step: Step, state: Any, feed: Feed) -> None:
        program = Program(execution, step, state)
        self.step = step
        self.iteration = Iteration(program, feed, initial_state(program, feed, state))

    def of(self, state: Any, interrupted: threading.Event) -> dict[str, Any]:
        """The metrics over all the data for a state."""
        self.iteration.interrupted = interrupted
        self.iteration.here.state = state
        metrics = MetricAccumulator()
        for advance in self.iteration.chunks(1, from_cursor=Cursor(0, 0)):
            for part in advance.result.epochs:
                metrics.add(part, 0.0)
        return self.step.report(metrics.sums, metrics.joined())


def measure(step: Step, feed: Feed, state: Any, execution: Execution) -> dict[str, Any]:
    """One pass of an evaluation: its metrics over all the data."""
    return Measurement(execution, step, state, feed).of(state, interrupt_requested())


@gc_disabled()
def initial_state(program: Program, feed: Feed, start: Any) -> LoopState:
    """Where a run is before the first step."""
    return LoopState(start, program.init_carry(feed.first.source))
