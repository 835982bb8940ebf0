"""Sequences of different lengths, in batches of few shapes."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from jaxdl.core.padded import Padded
from jaxdl.data import arguments

Keep = Literal["first", "last"]


def pad(sequences: Sequence[np.ndarray], length: int, keep: Keep = "last") -> Padded:
    """Lays sequences into one array from its start, fills it up with zeros behind them, and cuts
    what is longer.

    Args:
        sequences: n arrays [time, ...] of one dtype, of any lengths.
        length: of the array.
        keep: which end of a longer sequence is kept.

    Returns:
        `Padded(values, lengths)`: values [n, length, ...] in the sequences' dtype; lengths [n]
        int32.

    Raises:
        ValueError: there is no sequence, or they differ in more than their length.

    >>> pad([np.array([1, 2, 3]), np.array([4])], length=2)
    Padded(values=array([[2, 3],
           [4, 0]]), lengths=array([2, 1], dtype=int32))
    """
    _check("pad", sequences, keep)
    arguments.whole("pad", "length", length, 1)
    return _padded([_cut(sequence, length, keep) for sequence in sequences], length)


class Buckets:
    """Batches of sequences of similar lengths, for `fit`: each batch is padded to one of a few
    lengths, its bucket's boundary.

    So little is computed in vain, and as many programs are compiled as there are boundaries
    (`fit(..., new_shapes=True)`). Each `iter()` is an epoch in an order of its own: within each
    bucket the sequences are permuted, and the batches of all buckets are mixed. Every sequence
    comes once an epoch. A bucket's last batch may be smaller; it follows upon a whole one of the
    same bucket, to whose shape `fit` fills it up. Where outputs shall come in the order of the
    sequences, as of `predict`, use `pad` instead.

    Args:
        sequences: n arrays [time, ...] of one dtype, of any lengths, 0 among them.
        targets: [n, ...].
        batch_size: sequences in a batch.
        boundaries: the lengths to which batches are padded, rising; a sequence goes to the first
            that holds it.
        longest: what is longer is cut to this; None is the last boundary.
        keep: which end of a longer sequence is kept. Of a review it should be the last, where the
            verdict is: a logistic regression on the words of IMDB's reviews is right on 88.3 % with
                their last 400 words and on 88.0 % with their
            first; of 100 words, on 84.9 % and on 82.0 %.
        seed: of the orders, together with the number of the epoch.

    Raises:
        ValueError: sequences are none, or differ in more than their length; targets are fewer or
            more; boundaries do not rise, or end before `longest`.

    >>> words = [np.arange(length, dtype=np.int32) for length in (3, 9, 2, 8, 1)]
    >>> buckets = Buckets(words, np.zeros(5), batch_size=2, boundaries=(4, 8))
    >>> sorted(inputs.values.shape for inputs, targets in buckets)
    [(1, 4), (2, 4), (2, 8)]
    """

    def __init__(
        self,
        sequences: Sequence[np.ndarray],
        targets: np.ndarray,
        batch_size: int,
        *,
        boundaries: Sequence[int],
        longest: int | None = None,
        keep: Keep = "last",
        seed: int = 0,
    ) -> None:
        _check("Buckets", sequences, keep)
        targets = np.asarray(targets)
        count = len(targets) if targets.ndim else "no array of"
        if count != len(sequences):
            raise ValueError(
                f"Buckets: each sequence has one target, got {len(sequences)} sequences and "
                f"{count} targets."
            )
        arguments.whole("Buckets", "batch_size", batch_size, 1)
        arguments.seed("Buckets", seed)
        if not _rise(boundaries):
            raise ValueError(
                f"Buckets: boundaries are lengths of at least 1 that rise, got {boundaries!r}."
            )
        self.longest = boundaries[-1] if longest is None else longest
        whole = isinstance(self.longest, (int, np.integer)) and not isinstance(self.longest, bool)
        if not (whole and 1 <= self.longest <= boundaries[-1]):
            raise ValueError(
                f"Buckets: longest lies between 1 and the last boundary, got {longest} with "
                f"boundaries {tuple(boundaries)}."
            )
        self.batch_size, self.boundaries, self.seed = batch_size, tuple(boundaries), seed
        self._sequences, self._targets = (
            [_cut(sequence, self.longest, keep) for sequence in sequences],
            targets,
        )
        self._buckets = self._sorted()
        self._epochs = self._drawn = 0

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return sum(-(-len(rows) // self.batch_size) for rows in self._buckets.values())

    def __iter__(self) -> Iterator[tuple[Padded, np.ndarray]]:
        first, self._drawn = self._drawn, 0
        self._epochs += first == 0
        for drawn, batch in enumerate(self.epoch(self._epochs - 1)):
            if drawn >= first:
                self._drawn = drawn + 1
                yield batch
        self._drawn = 0

    def state_dict(self) -> dict[str, int]:
        """Where the batches are: how many epochs were begun, and how many batches of the last one
        were taken.
        """
        return {"epochs": self._epochs, "drawn": self._drawn}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes to where they were: the next pass begins there."""
        self._epochs, self._drawn = state["epochs"], state["drawn"]

    def identity(self) -> Mapping[str, object]:
        """What tells these batches from others, for a run that saves itself."""
        settings = {
            "batch_size": self.batch_size,
            "boundaries": self.boundaries,
            "seed": self.seed,
            "targets": self._targets,
        }
        return settings | {
            "lengths": np.array([len(sequence) for sequence in self._sequences]),
            "sequences": np.concatenate(self._sequences),
        }

    def epoch(self, number: int) -> Iterator[tuple[Padded, np.ndarray]]:
        """The batches of one epoch, counted from 0: always the same for one seed.

        Yields:
            `(Padded(values, lengths), targets)`: values [batch, boundary, ...], lengths [batch]
            int32, targets [batch, ...].
        """
        random = np.random.default_rng([self.seed, number])
        runs = [run for boundary in self._buckets for run in self._runs(boundary, random)]
        for place in random.permutation(len(runs)):
            for boundary, rows in runs[place]:
                yield _padded([self._sequences[row] for row in rows], boundary), self._targets[rows]

    def _sorted(self) -> dict[int, np.ndarray]:
        """The rows of each bucket that is not empty, by its boundary."""
        chosen = np.searchsorted(self.boundaries, [len(sequence) for sequence in self._sequences])
        return {
            boundary: rows
            for i, boundary in enumerate(self.boundaries)
            if len(rows := np.flatnonzero(chosen == i))
        }

    def _runs(
        self, boundary: int, random: np.random.Generator
    ) -> list[list[tuple[int, np.ndarray]]]:
        """A bucket's batches, each alone; but what is left over together with the one that it
        follows.
        """
        rows = random.permutation(self._buckets[boundary])
        batches = [
            (boundary, rows[start : start + self.batch_size])
            for start in range(0, len(rows), self.batch_size)
        ]
        together = 1 if len(rows) % self.batch_size == 0 else 2
        return [[batch] for batch in batches[:-together]] + [batches[-together:]]


def _check(owner: str, sequences: Sequence[np.ndarray], keep: Keep) -> None:
    arguments.word(owner, "keep", keep, ("first", "last"))
    if not (isinstance(sequences, (list, tuple)) or hasattr(sequences, "shape")) or not all(
        map(_is_array, sequences)
    ):
        raise ValueError(
            f"{owner}: expected a list of NumPy arrays, each a sequence, got "
            f"{type(sequences).__name__}."
        )
    if not len(sequences):
        raise ValueError(f"{owner}: expected at least one sequence, got none.")
    kinds = {(sequence.dtype, sequence.shape[1:], sequence.ndim > 0) for sequence in sequences}
    if len(kinds) > 1 or not next(iter(kinds))[-1]:
        shown = ", ".join(
            sorted({f"{sequence.dtype}{list(sequence.shape)}" for sequence in sequences})[:4]
        )
        raise ValueError(
            f"{owner}: sequences may differ in their length alone, got {shown}, … — make their "
            f"dtypes and the rest alike."
        )


def _rise(boundaries: object) -> bool:
    """Whether these are whole numbers of at least 1, each larger than the one before."""
    if not isinstance(boundaries, (list, tuple, range)) or not boundaries:
        return False
    whole = all(
        isinstance(one, (int, np.integer)) and not isinstance(one, bool) and 0 < one < 2**31
        for one in boundaries
    )
    return whole and all(one < next for one, next in pairwise(boundaries))


def _is_array(value: object) -> bool:
    return isinstance(value, (np.ndarray, np.generic))


def _cut(sequence: np.ndarray, length: int, keep: Keep) -> np.ndarray:
    if len(sequence) <= length:
        return sequence
    return sequence[-length:] if keep == "last" else sequence[:length]


def _padded(sequences: Sequence[np.ndarray], length: int) -> Padded:
    values = np.zeros((len(sequences), length, *sequences[0].shape[1:]), sequences[0].dtype)
    for row, sequence in zip(values, sequences, strict=True):
        row[: len(sequence)] = sequence
    return Padded(values, np.array([len(sequence) for sequence in sequences], np.int32))
