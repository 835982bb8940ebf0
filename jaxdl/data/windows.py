"""Examples for a language model: windows of a text, and the tokens that follow each."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from jaxtyping import Int32, Integer

from jaxdl.data import arguments

_Windows = tuple[Int32[np.ndarray, "n length"], Int32[np.ndarray, "n length"]]


def windows(
    ids: Integer[np.ndarray, " tokens"], length: int, stride: int | None = None
) -> _Windows:
    """Cuts a text into windows of one length, and for each the tokens that follow its own.

        x_i = ids[i·s : i·s + length],   y_i = ids[i·s + 1 : i·s + length + 1]

    With the stride s = length every token is predicted once, but for the first of all and up to
    length − 1 at the end, which do not fill a window. A small stride repeats the text length / s
    times in memory; `RandomWindows` does not.

    Args:
        ids: [tokens], as of `Characters.encode`.
        length: tokens in a window.
        stride: tokens from the start of a window to that of the next; None is the length.

    Returns:
        `(inputs, targets)`, each [n, length] int32, n = 1 + (tokens − length − 1) // s.

    Raises:
        ValueError: the text is too short for one window, or length or stride is less than 1.

    >>> inputs, targets = windows(np.arange(8), length=3)
    >>> inputs.tolist(), targets.tolist()
    ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])
    """
    ids = _checked("windows", ids, length)
    stride = length if stride is None else stride
    arguments.whole("windows", "stride", stride, 1)
    pieces = np.lib.stride_tricks.sliding_window_view(ids, length + 1)[::stride]
    return pieces[:, :-1].copy(), pieces[:, 1:].copy()


@dataclasses.dataclass(frozen=True, eq=False)
class RandomWindows:
    """An endless stream of batches of windows at random positions of a text.

    It is for `fit(..., steps_per_epoch=...)`. Each position where a whole window fits is as likely
    as any other, and may be drawn again: there are no epochs. Each `iter()` begins the same
    sequence of batches anew.

    Args:
        ids: [tokens], as of `Characters.encode`.
        length: tokens in a window.
        batch_size: windows in a batch.
        seed: of the positions.

    Yields:
        `(inputs, targets)`, each [batch_size, length] int32, as in `windows`.

    Raises:
        ValueError: the text is too short for one window, or length or batch_size is less than 1.

    >>> inputs, targets = next(iter(RandomWindows(np.arange(1000), length=3, batch_size=2)))
    >>> inputs.shape, (targets - inputs).tolist()
    ((2, 3), [[1, 1, 1], [1, 1, 1]])
    """

    ids: np.ndarray
    length: int
    batch_size: int
    seed: int = 0
    restarts: ClassVar[bool] = True
    """Each `iter()` yields the same batches: a resumed run skips those it has had."""

    def __post_init__(self) -> None:
        arguments.whole("RandomWindows", "batch_size", self.batch_size, 1)
        arguments.seed("RandomWindows", self.seed)
        object.__setattr__(self, "ids", _checked("RandomWindows", self.ids, self.length))
        if self.batch_size * (self.length + 1) > 2**31:
            raise ValueError(
                f"RandomWindows: a batch of {self.batch_size} windows of {self.length} tokens fits "
                f"no device."
            )

    def identity(self) -> dict[str, object]:
        """The fields by which a resumed run recognises its data."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __iter__(self) -> Iterator[_Windows]:
        pieces = np.lib.stride_tricks.sliding_window_view(self.ids, self.length + 1)
        random = np.random.default_rng(self.seed)
        while True:
            chosen = pieces[random.integers(len(pieces), size=self.batch_size)]
            yield chosen[:, :-1], chosen[:, 1:]


def _checked(owner: str, ids: np.ndarray, length: int) -> np.ndarray:
    arguments.whole(owner, "length", length, 1)
    if not _are_ids(ids):
        got = type(ids).__name__
        if isinstance(ids, np.ndarray):
            got = f"{ids.dtype}{list(ids.shape)}"
        raise ValueError(
            f"{owner}: expected ids as one NumPy array [tokens] of integers, got {got}."
        )
    if len(ids) <= length:
        raise ValueError(
            f"{owner}: a window of {length} and its targets take {length + 1} tokens, and the text "
            f"has {len(ids)}."
        )
    if ids.min() < -(2**31) or ids.max() >= 2**31:
        raise ValueError(
            f"{owner}: ids are int32, and {ids.min()} … {ids.max()} do not fit it."
        )
    return ids.astype(np.int32, copy=False)


def _are_ids(ids: object) -> bool:
    if not isinstance(ids, np.ndarray) or ids.ndim != 1:
        return False
    return np.issubdtype(ids.dtype, np.integer)
