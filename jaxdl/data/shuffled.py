"""A shuffle buffer: batches of a stream, of its examples in another order."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxdl.core.arrays import host_arrays
from jaxdl.data import arguments

Stream = Iterable[Any] | Callable[[], Iterable[Any]]


class Shuffled:
    """Batches of a stream, of examples drawn at random from a buffer of the last that were read.

    The buffer is filled; each batch takes examples from it at random, and those that are read next
    take their places. So every example comes once in each pass of the stream, and a buffer that
    holds a whole pass permutes it evenly; of a smaller one, an example leaves at the earliest
    `buffer_size` examples before its place in the stream. The buffer is on the host, and takes the
    memory of `buffer_size` examples.

    Each `iter()` is a pass of the stream, in an order of its own that the seed and the number of
    the pass decide. A run that saves itself resumes exactly, for a stream that can be read again as
    it was: a list, one whose `restarts` is true such as `RandomWindows`, or one with
    `state_dict()` and `load_state_dict(state)` such as `Buckets`. The pass is then read again from
    its beginning, and what was drawn of it is left out. Another stream, such as a function that
    returns a generator, trains as well, and refuses to be saved.

    Args:
        stream: yields batches `(inputs, targets)`, or with weights, trees of arrays [batch, ...] of
            one shape but for the number of their examples; or a function that returns such a one.
        buffer_size: how many examples the buffer holds.
        batch_size: examples in a batch; None is the number in the stream's first one. The last
            batch of a pass may be smaller.
        seed: of the orders, together with the number of the pass.

    Raises:
        ValueError: buffer_size or batch_size is less than 1, or the seed is none.

    >>> batches = [(np.arange(i, i + 4), np.arange(i, i + 4)) for i in range(0, 12, 4)]
    >>> shuffled = list(Shuffled(batches, buffer_size=12))
    >>> [len(inputs) for inputs, targets in shuffled]
    [4, 4, 4]
    >>> sorted(np.concatenate([inputs for inputs, targets in shuffled]).tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    """

    def __init__(
        self,
        stream: Stream,
        buffer_size: int,
        *,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        arguments.whole("Shuffled", "buffer_size", buffer_size, 1)
        if batch_size is not None:
            arguments.whole("Shuffled", "batch_size", batch_size, 1)
        arguments.seed("Shuffled", seed)
        self.stream = stream
        self.buffer_size = buffer_size
        self.batch_size = batch_size
        self.seed = seed
        self._passes = 0
        self._drawn = 0
        self._at_start: Any = None

    def __iter__(self) -> Iterator[Any]:
        skipped = self._drawn
        self._drawn = 0
        if skipped == 0:
            self._passes += 1
            self._at_start = _position(self.stream)
        elif self._at_start is not None:
            _positioned(self.stream).load_state_dict(self._at_start)
        random = np.random.default_rng([self.seed, self._passes - 1])
        for drawn, batch in enumerate(self._batches(random)):
            if drawn >= skipped:
                self._drawn = drawn + 1
                yield batch
        self._drawn = 0

    def state_dict(self) -> dict[str, Any]:
        """The position: the number of passes begun, of batches drawn from the last one, and the
        stream's own position at its beginning, or behind it once it has ended.
        """
        stream = self._at_start if self._drawn else _position(self.stream)
        return {"passes": self._passes, "drawn": self._drawn, "stream": stream}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a position: the next `iter()` continues there."""
        self._passes = state["passes"]
        self._drawn = state["drawn"]
        self._at_start = state["stream"]
        if self._at_start is not None:
            _positioned(self.stream).load_state_dict(self._at_start)

    def identity(self) -> Mapping[str, object]:
        """The values by which a resumed run recognises its data.

        Raises:
            ValueError: the stream cannot be read again as it was.
        """
        stream: Any = self.stream
        found: dict[str, object] = {
            "buffer_size": self.buffer_size,
            "batch_size": self.batch_size,
            "seed": self.seed,
        }
        if hasattr(stream, "identity"):
            return found | {"stream": stream.identity()}
        if isinstance(stream, (list, tuple)):
            return found | {"stream": list(stream)}
        if getattr(stream, "restarts", False) or _has_position(stream):
            return found
        raise ValueError(
            "Shuffled: a run that saves itself has to take its data up again where it was, and "
            "this stream cannot be read again as it was — give a list of batches, or an iterable "
            "with state_dict() and load_state_dict(state), as torchdata's StatefulDataLoader is "
            "and jaxdl.data's Buckets is."
        )

    def _batches(self, random: np.random.Generator) -> Iterator[Any]:
        """The batches of one pass."""
        reader = _Reader(self.stream)
        buffer = reader.take(self.buffer_size)
        if buffer is None:
            return
        size = self.batch_size or reader.first_size
        if size > self.buffer_size:
            raise ValueError(
                f"Shuffled: a batch of {size} examples does not fit a buffer of "
                f"{self.buffer_size} — give a larger buffer_size, or a smaller batch_size."
            )
        left = np.arange(_size(buffer))
        while len(left) == self.buffer_size:
            slots = random.choice(self.buffer_size, size, replace=False)
            batch = _rows(buffer, slots)
            read = reader.take(size)
            count = 0 if read is None else _size(read)
            _put(buffer, slots[:count], read)
            if count < size:
                left = np.delete(left, slots[count:])
            yield batch
        order = random.permutation(left)
        for start in range(0, len(order), size):
            yield _rows(buffer, order[start : start + size])


class _Reader:
    """Reads a number of examples at once from batches of any sizes."""

    def __init__(self, stream: Stream) -> None:
        opened = stream() if callable(stream) else stream
        self.first_size = 0
        self._batches = iter(opened)
        self._number = 0
        self._first: Any = None
        self._batch: Any = None
        self._start = 0

    def take(self, count: int) -> Any:
        """The next examples, fewer at the end, as a tree of arrays of its own; None for none."""
        pieces = []
        while count:
            if self._batch is None or self._start == _size(self._batch):
                self._batch = self._next()
                self._start = 0
            if self._batch is None:
                break
            end = min(self._start + count, _size(self._batch))
            pieces.append(_rows(self._batch, slice(self._start, end)))
            count -= end - self._start
            self._start = end
        if not pieces:
            return None
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *pieces)

    def _next(self) -> Any:
        """The next batch as NumPy arrays; None at the end."""
        item = next(self._batches, None)
        if item is None:
            return None
        self._number += 1
        name = f"Shuffled: batch {self._number}"
        if not isinstance(item, (tuple, list)):
            raise ValueError(
                f"{name} is {type(item).__name__}; expected a tuple (inputs, targets), or with "
                "weights (inputs, targets, weights)."
            )
        batch = tuple(host_arrays(name, part) for part in item)
        if self._first is None:
            self._first = _example(name, batch)
            self.first_size = _size(batch)
        self._check(name, batch)
        return batch

    def _check(self, name: str, batch: Any) -> None:
        example = _example(name, batch)
        if example == self._first:
            return
        raise ValueError(
            f"{name} has examples of {_shown(example)}, where the first has {_shown(self._first)} "
            "— examples of one shape alone can be mixed: shuffle them before they are padded."
        )


def _example(name: str, batch: Any) -> tuple[Any, ...]:
    """The structure of a batch, and the shape and dtype of each array of an example."""
    leaves, structure = jax.tree.flatten(batch)
    sizes = {leaf.shape[:1] for leaf in leaves}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(
            f"{name} has arrays of different lengths, {sorted(sizes)}: each has one entry an "
            "example."
        )
    return structure, tuple((leaf.shape[1:], str(leaf.dtype)) for leaf in leaves)


def _shown(example: tuple[Any, ...]) -> str:
    return ", ".join(f"{dtype}{list(shape)}" for shape, dtype in example[1])


def _size(tree: Any) -> int:
    """The number of examples."""
    return len(jax.tree.leaves(tree)[0])


def _rows(tree: Any, rows: np.ndarray | slice) -> Any:
    return jax.tree.map(lambda leaf: leaf[rows], tree)


def _put(buffer: Any, slots: np.ndarray, tree: Any) -> None:
    """Writes examples into slots of the buffer."""
    if tree is None:
        return
    for leaf, read in zip(jax.tree.leaves(buffer), jax.tree.leaves(tree), strict=True):
        leaf[slots] = read


def _has_position(stream: object) -> bool:
    return hasattr(stream, "state_dict") and hasattr(stream, "load_state_dict")


def _position(stream: Any) -> Any:
    """Where a stream says that it is; None where it does not."""
    return stream.state_dict() if _has_position(stream) else None


def _positioned(stream: Any) -> Any:
    """A stream that had a position, as the state that is loaded says.

    Raises:
        ValueError: it has none.
    """
    if _has_position(stream):
        return stream
    raise ValueError(
        f"Shuffled: the position is of a stream that says where it is, and {type(stream).__name__} "
        "has no load_state_dict(state) — give the stream that the position is of."
    )
