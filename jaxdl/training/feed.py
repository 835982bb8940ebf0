"""What the loop asks of data: chunks, each one run of a program."""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.arrays import as_numpy, host_arrays
from jaxdl.data.source import Batch, Resident, ResidentMembers, Source
from jaxdl.training.cursor import Cursor


class Chunk(NamedTuple):
    """One run of a program: so many steps from a place in the data, and whether its last epoch ends
    there.

    `after` is where a stream is then, as it says itself.
    """

    source: Source
    cursor: Cursor
    steps: int
    ends: bool
    after: Any = None


@runtime_checkable
class Feed(Protocol):
    """Data, as the loop sees it."""

    @property
    def steps(self) -> int | None:
        """Steps in an epoch; None where nobody knows before it ends."""
        ...

    @property
    def example(self) -> Batch:
        """The shapes of a batch."""
        ...

    @property
    def first(self) -> Chunk:
        """A chunk that shows the program what will come."""
        ...

    def chunks(
        self,
        first: Cursor,
        epochs: int,
        longest: Callable[[], int],
        due: Callable[[], int],
        across: bool,
    ) -> Iterator[Chunk]:
        """All from a place to the end of epoch `epochs`, in turn.

        Args:
            first: where to begin.
            epochs: the number of the epoch to end before, counted from 0.
            longest: the most steps that the next chunk of data which lie on the device may have;
                asked before each.
            due: the most steps that the next chunk of any data may have; asked before each.
            across: whether a chunk may go on from one epoch into the next.
        """
        ...

    def examples(self, place: Cursor, steps: int) -> int:
        """How many examples those steps hold."""
        ...

    def identity(self) -> dict[str, Any]:
        """What tells these data and their order from others; said of a run that saves itself.

        Raises:
            ValueError: the data cannot be taken up again in the middle.
        """
        ...

    def restore(self, after: Any) -> None:
        """Goes to where a stream was; see `Chunk`."""
        ...


@dataclasses.dataclass(frozen=True)
class ResidentFeed:
    """Data that lies on the device."""

    source: Resident | ResidentMembers

    @property
    def steps(self) -> int:
        return self.source.steps

    @property
    def example(self) -> Batch:
        source = self.source
        shaped = functools.partial(
            jax.tree.map,
            lambda leaf: jax.ShapeDtypeStruct((source.batch_size, *leaf.shape[1:]), leaf.dtype),
        )
        mask = None if source.full else jax.ShapeDtypeStruct((source.batch_size,), jnp.bool_)
        return Batch(
            shaped(source.inputs), shaped(source.targets), shaped(source.weights), mask
        )

    @property
    def first(self) -> Chunk:
        return Chunk(self.source, Cursor(0, 0), 1, self.steps == 1)

    def chunks(
        self,
        first: Cursor,
        epochs: int,
        longest: Callable[[], int],
        due: Callable[[], int],
        across: bool,
    ) -> Iterator[Chunk]:
        del due
        return chunks_of(self.source, first, epochs, longest, across)

    def examples(self, place: Cursor, steps: int) -> int:
        def before(step: int) -> int:
            epochs, index = divmod(step, self.steps)
            return epochs * self.source.examples + index * self.source.batch_size

        return before(place.step + steps) - before(place.step)

    def identity(self) -> dict[str, Any]:
        fields = {
            field.name: getattr(self.source, field.name)
            for field in dataclasses.fields(self.source)
        }
        return {
            name: part for name, part in fields.items() if name not in ("key", "keys", "axis")
        }

    def restore(self, after: Any) -> None:
        assert after is None


def chunks_of(
    source: Source, first: Cursor, epochs: int, longest: Callable[[], int], across: bool
) -> Iterator[Chunk]:
    """The chunks of a source whose epochs are alike; as `Feed.chunks`."""
    done = first.epoch * source.steps + first.step
    total = epochs * source.steps
    while done < total:
        epoch, index = divmod(done, source.steps)
        steps = min(longest(), (total - done) if across else (source.steps - index))
        done += steps
        yield Chunk(source, Cursor(epoch, index), steps, done % source.steps == 0)


@dataclasses.dataclass(frozen=True)
class FirstChunkFeed:
    """The first chunk of data, over and over, for measurements: of a stream its first batches."""

    feed: Feed
    first: Chunk

    @property
    def steps(self) -> int:
        return self.first.source.steps

    @property
    def example(self) -> Batch:
        return self.feed.example

    def chunks(
        self,
        first: Cursor,
        epochs: int,
        longest: Callable[[], int],
        due: Callable[[], int],
        across: bool,
    ) -> Iterator[Chunk]:
        del due
        return chunks_of(self.first.source, first, epochs, longest, across)

    def examples(self, place: Cursor, steps: int) -> int:
        return self.feed.examples(place, steps)

    def identity(self) -> dict[str, Any]:
        return self.feed.identity()

    def restore(self, after: Any) -> None:
        assert after is None


def as_batch(name: str, item: Any, labelled: bool = True) -> Batch:
    """A stream's item as NumPy arrays, in the dtypes that the device will hold."""
    item = item if labelled else with_targets(item)
    if not isinstance(item, (tuple, list)) or len(item) not in (2, 3):
        raise ValueError(
            f"{name} is {type(item).__name__}; expected a tuple (inputs, targets) or (inputs, "
            f"targets, weights)."
        )
    inputs = host_arrays(f"{name} inputs", item[0])
    targets = host_arrays(f"{name} targets", item[1])
    weights = as_weights(name, item[2]) if len(item) == 3 else None
    if not jax.tree.leaves(inputs):
        raise ValueError(
            f"{name} has no inputs: expected arrays, got {type(item[0]).__name__}."
        )
    lengths = {leaf.shape[:1] for leaf in jax.tree.leaves((inputs, targets, weights))}
    if len(lengths) != 1 or () in lengths:
        shown = _shown(Batch(inputs, targets, weights))
        raise ValueError(f"{name} has arrays of different lengths: {shown}{lists_read(item)}.")
    return Batch(inputs, targets, weights)


def with_targets(item: Any) -> Any:
    """Inputs that may come without targets, as a tuple that has them: `()` where there are none."""
    parts = tuple(item) if isinstance(item, (tuple, list)) else (item,)
    return (*parts, ()) if len(parts) == 1 else parts


def lists_read(tree: Any) -> str:
    """What to do with lists that were meant as arrays, for the end of a sentence; nothing where
    there are none.
    """
    if not any(
        isinstance(part, list)
        for part in jax.tree.leaves(tree, is_leaf=lambda part: isinstance(part, list))
    ):
        return ""
    return " — a list is read as a tree of arrays: give np.asarray(list)"


def as_weights(name: str, weights: Any) -> np.ndarray | None:
    """The weights of examples, [batch] float32, or of their positions, [batch, time], or None.

    Raises:
        ValueError: they are not finite numbers of at least 0.
    """
    if weights is None:
        return None
    given = as_numpy(f"{name} weights", weights)
    if (
        given.ndim == 0
        or np.iscomplexobj(given)
        or not np.all((given >= 0) & np.isfinite(given))
    ):
        raise ValueError(
            f"{name}: weights are one finite number of at least 0 for each example, or [examples, "
            f"time] for each position, got {given.dtype} of shape {given.shape}."
        )
    return given.astype(np.float32)


def _result(pending: concurrent.futures.Future[Any]) -> Any:
    """Waits in short turns, so that Ctrl-C is answered while a source is slow."""
    while True:
        concurrent.futures.wait([pending], timeout=0.2)
        if pending.done():
            return pending.result()


def _rows(batch: Batch) -> int:
    return jax.tree.leaves(batch.inputs)[0].shape[0]


def _filled(batch: Batch, rows: int) -> Batch:
    """The batch with its last example repeated up to so many rows, and the mask that tells them
    apart.

    Zeros might be no example, and a loss have no gradient there: zero times NaN is NaN.
    """
    count = _rows(batch)
    mode = "edge" if count else "constant"
    arrays = jax.tree.map(
        lambda leaf: (
            leaf
            if count == rows
            else np.pad(leaf, [(0, rows - count)] + [(0, 0)] * (leaf.ndim - 1), mode)
        ),
        batch._replace(mask=None),
    )
    return arrays._replace(mask=np.arange(rows) < count)


def _shape(batch: Batch, rest: bool = False) -> Any:
    batch = batch._replace(mask=None)
    leaves, structure = jax.tree.flatten(batch)
    return structure, tuple(
        (leaf.shape[1:] if rest else leaf.shape, leaf.dtype) for leaf in leaves
    )


def _shown(batch: Batch) -> str:
    return ", ".join(
        f"{leaf.dtype}{list(leaf.shape)}" for leaf in jax.tree.leaves(batch._replace(mask=None))
    )
