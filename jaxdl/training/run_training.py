"""A run from its first state to its outcome: the loop, and the checkpoints beside it."""

import contextlib
from typing import Any

from jaxdl.checkpoint.checkpoints import Checkpoints
from jaxdl.checkpoint.digest import digest_of
from jaxdl.core.interval import EACH_EPOCH
from jaxdl.core.warnings import warn
from jaxdl.training.feed import Feed
from jaxdl.training.identity import run_identity, run_settings
from jaxdl.training.iteration import initial_state
from jaxdl.training.loop import Loop
from jaxdl.training.loop_options import LoopOptions
from jaxdl.training.program import Program
from jaxdl.training.progress import progress
from jaxdl.training.run import Run
from jaxdl.training.saving import Saver
from jaxdl.training.state import TrainState, distinct_arrays
from jaxdl.training.step import TrainingStep


def run_training(
    step: TrainingStep,
    feed: Feed,
    start: TrainState,
    options: LoopOptions,
    *,
    initial: Any = None,
    prepared: float = 0.0,
) -> Run:
    """Runs a training step over data; `fit` and `train` check what they are given, and call this.

    Args:
        step: what is done with each batch.
        feed: the data.
        start: the first state, which is donated.
        options: how the run goes on and ends.
        initial: what a caller has given to start from, which tells the run from others.
        prepared: how many seconds the first state has taken.
    """
    program = Program(options.execution, step, start)
    here = initial_state(program, feed, start)
    with contextlib.ExitStack() as stack:
        saver = None
        if options.checkpoint is not None:
            others = {"initial": None if initial is None else digest_of(initial)}
            if options.every != EACH_EPOCH:
                others["every"] = str(options.every)
            identity = run_identity(
                step, feed, here.state, options.validation, options.early_stopping, others
            )
            saver = Saver(options.checkpoint, step, feed, here, identity)
            stack.callback(saver.close)
            here = saver.resume() or here
            here.state = distinct_arrays(here.state)
        loop = Loop(step, feed, here, options, saver, program)
        loop.compile_seconds = prepared
        # Before training: what cannot be described is said then, and not after hours.
        settings = run_settings(step, feed, here.state, options.epochs, options.early_stopping)
        shown = stack.enter_context(progress(options.progress, options.epochs, feed.steps))
        first = here.steps
        stopped = loop.run(shown)
        if loop.here.steps == first > 0:
            stopped = ended_earlier(options.checkpoint, stopped)
    return loop.finished(stopped, settings)


def ended_earlier(checkpoint: Checkpoints | None, stopped: str) -> str:
    """Says that a run which a checkpoint holds had ended before, and why, unless this one was
    interrupted at once.
    """
    if checkpoint is None or stopped == "interrupted":
        return stopped
    warn(
        f"checkpoint: {checkpoint.folder} holds this run, and it had ended ({stopped}): it is "
        f"returned, and nothing was trained — give more epochs to go on, or another folder to "
        f"train anew.",
        UserWarning,
    )
    return f"{stopped} (in an earlier call)"
