"""Batches of a stream, stacked, as the loop sees them."""

import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxdl.checkpoint.digest import digest_of
from jaxdl.data.source import Batch, Stack
from jaxdl.training.cursor import Cursor
from jaxdl.training.feed import Chunk, _filled, _result, _rows, _shape, _shown, as_batch
from jaxdl.training.spread import parts, split

STACK_STEPS = 16
"""How many batches of a stream go to the device together."""


STACK_BYTES = 2**26


class DataEndedError(ValueError):
    """Batches came to an end before the epochs that were asked for."""


class StreamFeed:
    """Batches from an iterable, stacked; the next stack is read in the background while the device
    works on this one.

    Args:
        name: what errors call the source.
        stream: an iterable of `(inputs, targets)` or `(inputs, targets, weights)`, or a function
            that returns one.
        steps: how many batches make an epoch, which goes on from where the one before ended, and
            into a new pass where a pass ends; None takes an epoch to be one pass.
        new_shapes: whether batches may change their shape, each shape being compiled once.
        labelled: whether batches have to have targets; else inputs may come alone.
        mesh: the devices that batches are split over; one that cannot be split evenly is filled up
            with masked rows.
        drop_last: whether a batch with fewer examples than others of its shape had before is left
            out; else it is filled up.

    `check(name, batch)` is called with each batch that is read, once it is set.

    A stream that has a method `identity()` says by it, in numbers, strings and arrays, what tells
    it from others.

    Raises:
        ValueError: the stream is empty; a batch is not such a tuple, or changes its shape.
        DataEndedError: by `chunks`, behind the last that there is: the stream ends too soon, and
            cannot be read again.
    """

    def __init__(
        self,
        name: str,
        stream: Iterable[Any] | Callable[[], Iterable[Any]],
        steps: int | None = None,
        new_shapes: bool = False,
        labelled: bool = True,
        mesh: Mesh | None = None,
        drop_last: bool = False,
    ) -> None:
        self.mesh = mesh
        self.drop_last = drop_last
        self.name = name
        self.stream = stream
        self.steps = steps
        self.new_shapes = new_shapes
        self.labelled = labelled
        self.check: Callable[[str, Batch], None] | None = None
        self._iterator: Iterator[Any] | None = None
        self._count = 0
        self._skip = self._count_at_start = 0
        self._full: dict[Any, int] = {}
        self._held = self._read()
        if self._held is None:
            raise ValueError(
                f"{name}: the batch source is empty — it has to yield at least one batch."
            )
        self._model = self._filled(self._held)

    @property
    def first_targets(self) -> Any:
        """Those of the first batch, on the host."""
        return self._model.targets

    @property
    def example(self) -> Batch:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self._model
        )

    @property
    def first(self) -> Chunk:
        capacity = self._capacity()
        return Chunk(self._stacked([self._model] * capacity, capacity), Cursor(0, 0), 1, False)

    def examples(self, place: Cursor, steps: int) -> int:
        return steps * _rows(self._model)

    def chunks(
        self,
        first: Cursor,
        epochs: int,
        longest: Callable[[], int],
        due: Callable[[], int],
        across: bool,
    ) -> Iterator[Chunk]:
        del longest, across
        with concurrent.futures.ThreadPoolExecutor(
            1, thread_name_prefix="jaxdl-reader"
        ) as reader:
            for epoch in range(first.epoch, epochs):
                stacks = self._stacks(epoch)
                pending = reader.submit(next, stacks, None)
                while (taken := _result(pending)) is not None:
                    stack, places, ends = taken
                    if not ends:
                        pending = reader.submit(next, stacks, None)
                    made = 0
                    while made < len(places):
                        steps = min(len(places) - made, due())
                        last = made + steps == len(places)
                        after = places[made + steps - 1]
                        yield Chunk(stack, Cursor(epoch, made), steps, ends and last, after)
                        made += steps
                    if ends:
                        break

    def identity(self) -> dict[str, Any]:
        if not (self._says_where or self._restarts):
            raise ValueError(
                f"{self.name}: a run that saves itself has to take its data up again where it was, "
                f"and this stream cannot say "
                "where it is — give arrays, a list of batches, or an iterable with state_dict() "
                "and load_state_dict(state), as "
                "torchdata's StatefulDataLoader is and jaxdl.data's Buckets and RandomWindows are."
            )
        told = {
            "batches an epoch": self.steps,
            "drop_last": self.drop_last,
            "first batch": _shown(self._model),
        }
        stream: Any = self.stream
        if hasattr(stream, "identity"):
            return told | {"batches": stream.identity()}
        if isinstance(stream, (list, tuple)):
            return told | {"batches": digest_of(list(stream))}
        return (
            told
            if self._says_where
            else told | {"first batch's numbers": digest_of(self._held)}
        )

    def restore(self, after: Any) -> None:
        if after is None:
            return
        self._held = None
        self._iterator = None
        if self._says_where:
            stream: Any = self.stream
            stream.load_state_dict(after["state"])
        else:
            self._skip = after["drawn"]
        self._count_at_start = after["count"]

    @property
    def is_read_once(self) -> bool:
        """Whether the stream is its own iterator, as a generator is: once it has ended there is no
        more.
        """
        return hasattr(self.stream, "__next__")

    @property
    def _says_where(self) -> bool:
        return hasattr(self.stream, "state_dict") and hasattr(self.stream, "load_state_dict")

    @property
    def _restarts(self) -> bool:
        return isinstance(self.stream, (list, tuple)) or getattr(self.stream, "restarts", False)

    def _now(self) -> dict[str, Any]:
        """Where the stream is: as it says itself, and how many batches its iterator has given."""
        stream: Any = self.stream
        return {
            "state": stream.state_dict() if self._says_where else None,
            "drawn": self._count,
        }

    def _stacks(self, epoch: int) -> Iterator[tuple[Stack, list[dict[str, Any]], bool]]:
        """The stacks of one epoch: batches of one shape, where it is after each, and whether
        they are the last.
        """
        batch = self._begin(epoch)
        count = self._count_at_start
        self._count_at_start = 0
        while batch is not None:
            capacity = self._capacity()
            stack = [batch]
            places = []
            count = count + 1
            ends = False
            while True:
                ends = count == self.steps
                after = self._now()
                batch = None if ends else self._next(epoch)
                if batch is None and not ends:
                    after = self._now() | {"drawn": 0}
                    ends = self.steps is None
                places.append(after | {"count": 0 if ends else count})
                if batch is None or len(stack) == capacity or _shape(batch) != _shape(stack[0]):
                    break
                stack.append(batch)
                count += 1
            yield self._stacked(stack, capacity), places, ends
            if batch is None and not ends:
                raise DataEndedError(
                    f"{self.name}: the batch source ended after {count} of the {self.steps} "
                    f"batches of epoch {epoch + 1} — "
                    "give a smaller steps_per_epoch, or a source that can be read again."
                )

    def _begin(self, epoch: int) -> Batch | None:
        if self._held is None and self.steps is None:
            self._iterator = None
        batch = self._next(epoch)
        if batch is None:
            raise DataEndedError(
                f"{self.name}: the batch source yields nothing for epoch {epoch + 1}, as a "
                f"generator does once it is used up — "
                "pass a function that returns a fresh generator, or an iterable such as a "
                "DataLoader."
            )
        return batch

    def _next(self, epoch: int) -> Batch | None:
        batch = self._held if self._held is not None else self._read()
        self._held = None
        batch = self._kept(batch)
        if batch is None and self.steps is not None and not self.is_read_once:
            self._iterator = None
            batch = self._kept(self._read())
        if batch is None:
            return None
        if self.check is not None:
            self.check(f"{self.name}: batch {self._count} of epoch {epoch + 1}", batch)
        rows = _rows(batch)
        most = _rows(self._model)
        if rows > most or _shape(batch, rest=True) != _shape(self._model, rest=True):
            if not self.new_shapes:
                raise ValueError(
                    f"{self.name}: batch {self._count} of epoch {epoch + 1} has shapes "
                    f"{_shown(batch)} where the first has "
                    f"{_shown(self._model)} — make them alike, or pass new_shapes=True to compile "
                    f"each shape anew."
                )
            self._model = self._filled(batch)
        filled = _filled(batch, _rows(self._model))
        return filled._replace(mask=None) if self._model.mask is None else filled

    def _kept(self, batch: Batch | None) -> Batch | None:
        """The batch, or the next one that is not left out."""
        while batch is not None and self._is_left_out(batch):
            batch = self._read()
        return batch

    def _is_left_out(self, batch: Batch) -> bool:
        """Whether it is a smaller one than others of its shape, where such are dropped."""
        if not self.drop_last:
            return False
        shape = _shape(batch, rest=True)
        rows = _rows(batch)
        self._full[shape] = max(rows, self._full.get(shape, 0))
        return rows < self._full[shape]

    def _filled(self, batch: Batch) -> Batch:
        """The batch with as many rows as can be split evenly over the devices; without a mask where
        every one will be full.
        """
        count = parts(self.mesh)
        rows = -(-_rows(batch) // count) * count
        filled = _filled(batch, rows)
        return filled._replace(mask=None) if self.drop_last and rows == _rows(batch) else filled

    def _stacked(self, batches: list[Batch], capacity: int) -> Stack:
        """One stack of a fixed length, so that one program serves all; the places past the end
        repeat the last batch.
        """
        filled = batches + [batches[-1]] * (capacity - len(batches))
        return Stack(
            jax.tree.map(
                lambda *leaves: jax.device_put(np.stack(leaves), split(self.mesh, 1)), *filled
            )
        )

    def _read(self) -> Batch | None:
        if self._iterator is None:
            self._iterator = iter(self._opened())
            for _ in range(self._skip):
                next(self._iterator, None)
            self._count = self._skip
            self._skip = 0
        item = next(self._iterator, None)
        if item is None:
            return None
        self._count += 1
        return as_batch(f"{self.name}: batch {self._count}", item, self.labelled)

    def _opened(self) -> Iterable[Any]:
        if isinstance(self.stream, type):
            raise TypeError(
                f"{self.name}: the class {self.stream.__name__} is no data — call it, and give "
                f"what it makes."
            )
        if not callable(self.stream):
            return self.stream
        try:
            opened = self.stream()
        except Exception as error:
            error.add_note(
                f"This came from the function that was given as {self.name}, called without "
                f"arguments."
            )
            raise
        if not hasattr(opened, "__iter__"):
            raise TypeError(
                f"{self.name}: the function returned {type(opened).__name__}, expected a generator "
                f"of batches."
            )
        return opened

    def _capacity(self) -> int:
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(self._model))
        return max(1, min(STACK_STEPS, STACK_BYTES // max(size, 1), self.steps or STACK_STEPS))
