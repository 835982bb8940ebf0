"""The options of a run that whatever trains takes alike, and what they make of the data."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from jax import Array
from jax.sharding import Mesh

from jaxdl.checkpoint.checkpoints import Checkpoints
from jaxdl.core.interval import EACH_EPOCH, Interval
from jaxdl.training import arguments, checks, data_checks, sources
from jaxdl.training.callbacks import Callbacks
from jaxdl.training.feed import Feed, ResidentFeed
from jaxdl.training.guard import IfNotFinite
from jaxdl.training.history import EarlyStopping
from jaxdl.training.loop_options import LoopOptions
from jaxdl.training.program import Execution

Compile = Literal["eager", "step", "epoch", "auto"]
WITHOUT_END = 2**30
"""How many epochs a run has that ends after so many steps of data of no known length."""


class RunArguments(TypedDict, total=False):
    """What a population takes from `fit` about its data and how it goes on, with the same
    meaning.
    """

    epochs: int
    steps: int | None
    batch_size: int
    validation: Any
    early_stopping: EarlyStopping | None
    shuffle: bool
    steps_per_epoch: int | None
    new_shapes: bool
    drop_last: bool
    compile: Compile
    progress: bool
    checkpoint: Checkpoints | None


@dataclasses.dataclass(frozen=True, eq=False)
class RunOptions:
    """What `fit`, `train`, `fit_many` and `sweep` take about their data and how a run goes on and
    ends; described at `fit`.
    """

    epochs: int = 1
    steps: int | None = None
    batch_size: int = 32
    validation: Any = None
    early_stopping: EarlyStopping | None = None
    every: str = "1 epoch"
    callbacks: Callbacks = ()
    shuffle: bool = True
    steps_per_epoch: int | None = None
    new_shapes: bool = False
    drop_last: bool = False
    compile: Compile = "auto"
    progress: bool = True
    checkpoint: Checkpoints | None = None
    if_not_finite: IfNotFinite = "stop"
    debug: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "RunOptions":
        """Those among a caller's arguments, checked; what else it was given is left alone.

        Raises:
            ValueError, TypeError: one does not fit.
        """
        return cls(**chosen(given, [field.name for field in dataclasses.fields(cls)]))

    def __post_init__(self) -> None:
        checks.check_execution(self.compile)
        checks.check_count("batch_size", self.batch_size)
        checks.check_count("epochs", self.epochs)
        if self.steps is not None:
            checks.check_count("steps", self.steps)
        Interval.parse(self.every, timed=False)
        arguments.check_callbacks(self.callbacks)
        arguments.check_flag("progress", self.progress)
        arguments.check_flag("debug", self.debug)
        if not (self.checkpoint is None or isinstance(self.checkpoint, Checkpoints)):
            raise TypeError(
                f"checkpoint: expected Checkpoints('runs/name'), got {self.checkpoint!r}."
            )

    @property
    def share(self) -> float | None:
        """The share of the examples that is set aside for validation."""
        return self.validation if isinstance(self.validation, float) else None

    def feeds(
        self,
        data: Any,
        key: Array,
        mesh: Mesh | None = None,
        labelled: bool = True,
        check: sources.Check | None = None,
    ) -> tuple[Feed, Feed | None]:
        """The data to train on, and those to validate with.

        Args:
            data: as a caller gave them.
            key: of the order, and of the share that is set aside.
            mesh: the devices that batches are split over.
            labelled: whether there have to be targets.
            check: is given the whole data, or each batch of a stream.
        """
        train_set, validation_set = sources.split(data, self.validation, key, labelled)
        alike: dict[str, Any] = {
            "batch_size": checks.check_count("batch_size", self.batch_size),
            "key": key,
            "new_shapes": self.new_shapes,
            "labelled": labelled,
            "check": check,
            "mesh": mesh,
        }
        feed = sources.as_feed(
            "data",
            train_set,
            shuffle=self.shuffle,
            steps_per_epoch=self.steps_per_epoch,
            drop_last=self.drop_last,
            **alike,
        )
        if validation_set is None:
            return feed, None
        return feed, sources.as_feed("validation", validation_set, **alike)

    def total_steps(self, feed: Feed) -> int | None:
        """The steps of the whole run, or None where nobody knows."""
        if self.steps is not None:
            return int(self.steps)
        return None if feed.steps is None else feed.steps * int(self.epochs)

    def total_epochs(self, feed: Feed) -> int:
        """The epochs of the whole run: as many as its steps need, where they are given."""
        if self.steps is None:
            return int(self.epochs)
        return WITHOUT_END if feed.steps is None else -(-int(self.steps) // feed.steps)

    def loop(self, feed: Feed, held: Feed | None) -> LoopOptions:
        """How the loop over these data goes on and ends.

        Raises:
            ValueError: the validation data can be read once only, and more is asked of them.
        """
        epochs = self.total_epochs(feed)
        every = Interval.parse(self.every)
        once = epochs == 1 and self.steps is None and every == EACH_EPOCH
        data_checks.check_read_again(held, 1 if once else 2)
        return LoopOptions(
            epochs=epochs,
            steps=None if self.steps is None else int(self.steps),
            execution=as_execution(self.compile, feed),
            every=every,
            validation=held,
            early_stopping=self.early_stopping,
            callbacks=tuple(self.callbacks),
            progress=bool(self.progress),
            checkpoint=self.checkpoint,
            debug=bool(self.debug),
        )


def as_execution(compile: Compile, feed: Feed) -> Execution:
    """What "auto" means for these data."""
    if compile == "auto":
        return "epoch" if isinstance(feed, ResidentFeed) else "step"
    return compile


def chosen(given: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The arguments of these names, those of them that were given."""
    return {name: given[name] for name in names if name in given}
