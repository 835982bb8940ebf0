"""Training in one execution mode, for measurements."""

import jax
import numpy as np

from jaxdl.training.callbacks import copied
from jaxdl.training.cursor import Cursor
from jaxdl.training.feed import Feed, FirstChunkFeed
from jaxdl.training.iteration import Iteration, initial_state, measure
from jaxdl.training.program import Execution, Program
from jaxdl.training.rows import UNLIMITED
from jaxdl.training.state import TrainState
from jaxdl.training.step import TrainingStep


class Runner:
    """Training in one execution mode, which goes on from where it was.

    Args:
        execution: the mode.
        step: what is done with each batch.
        feed: the data; of a stream, the first batches again and again.
        start: the first state, which is copied.
    """

    def __init__(
        self,
        execution: Execution,
        step: TrainingStep,
        feed: Feed,
        start: TrainState,
    ) -> None:
        self.execution: Execution = execution
        self.step = step
        self.feed = feed
        start = copied(start)
        program = Program(execution, step, start)
        self.here = initial_state(program, feed, start)
        self.iteration = Iteration(program, FirstChunkFeed(feed, feed.first), self.here)

    def compile(self) -> None:
        """Makes its programs ready."""
        self.iteration.compile()
        jax.block_until_ready(self.here.state)

    def advance(self, steps: int) -> None:
        """Makes so many steps, and waits for the last."""
        last = self.here.steps + steps
        epochs = UNLIMITED
        for advance in self.iteration.chunks(
            epochs, lambda: last - self.here.steps, across=True
        ):
            self.here.cursor = Cursor(*divmod(self.here.steps, self.feed.first.source.steps))
            if not advance.result.finite:
                raise FloatingPointError(
                    f"compare: the loss or a gradient was not finite at step "
                    f"{self.here.steps + 1} ({self.execution}), so there is nothing to time — try "
                    f"a smaller learning rate or clip_norm."
                )
            if self.here.steps >= last:
                break
        jax.block_until_ready(self.here.state)

    def metrics(self) -> dict[str, float]:
        """The scalar metrics of one pass over its data."""
        state = self.step.evaluation_state(self.here.state)
        measured = measure(
            self.step.evaluation(), FirstChunkFeed(self.feed, self.feed.first), state, "step"
        )
        return {name: float(value) for name, value in measured.items() if np.ndim(value) == 0}
