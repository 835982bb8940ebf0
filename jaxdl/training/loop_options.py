"""How a run goes on and ends."""

import dataclasses

from jaxdl.checkpoint.checkpoints import Checkpoints
from jaxdl.core.interval import EACH_EPOCH, Interval
from jaxdl.training.callbacks import Callbacks
from jaxdl.training.feed import Feed
from jaxdl.training.history import EarlyStopping
from jaxdl.training.program import Execution


@dataclasses.dataclass(frozen=True)
class LoopOptions:
    """How a run goes on and ends.

    Args:
        epochs: how many.
        steps: the most steps in all, or None.
        execution: how the step becomes a program.
        every: how often a row of the history ends.
        validation: data to measure then.
        early_stopping: when to end early.
        callbacks: called then.
        progress: whether to show how far the run is.
        checkpoint: where the run saves itself, and goes on from where it was.
        debug: whether to say which operation first returned a value that is not finite.
    """

    epochs: int
    steps: int | None = None
    execution: Execution = "epoch"
    every: Interval = EACH_EPOCH
    validation: Feed | None = None
    early_stopping: EarlyStopping | None = None
    callbacks: Callbacks = ()
    progress: bool = True
    checkpoint: Checkpoints | None = None
    debug: bool = False
