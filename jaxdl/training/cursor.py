"""Where in the data a run of a program begins, and the permutations it needs."""

from typing import Any, NamedTuple

import numpy as np

from jaxdl.data.source import Batch, Source
from jaxdl.training.sums import HostVectors


class Cursor(NamedTuple):
    """Where in the data a run of a program begins: an epoch, and a step within it."""

    epoch: int
    step: int


class Permutations(NamedTuple):
    """The permutations of so many epochs from a first, drawn before the run that needs them."""

    places: Any
    first: int
    epochs: int


class EpochCarry(NamedTuple):
    """What an epoch hands from one run of a program to the next.

    Sums are carried on, and not added up run by run, so that they do not depend on where the clock
    cut an epoch into runs.

    Args:
        sums: for each dtype [2, elements], the sums so far and what rounding has lost of them.
        permutations: that were drawn already; None where they have to be drawn anew.
    """

    sums: HostVectors
    permutations: Permutations | None = None


def batch_at(source: Source, carry: EpochCarry, cursor: Cursor, steps: int) -> Batch:
    """The batch that a run from a place in the data gives to its step of that number, from 0."""
    drawn, first = permutations(source, carry, cursor, steps + 1)
    index = (first + steps) % source.steps
    return source.batch(drawn.places, np.int32(first + steps - index), np.int32(index))


def permutations(
    source: Source, carry: EpochCarry, cursor: Cursor, steps: int, ahead: int = 1
) -> tuple[Permutations, int]:
    """The permutations for so many steps from a place, and how many steps after their beginning
    that is.

    Where they have to be drawn, they are of `ahead` epochs at least.
    """
    last = cursor.epoch + max(cursor.step + steps - 1, 0) // source.steps
    drawn = carry.permutations
    if drawn is None or not drawn.first <= cursor.epoch <= last < drawn.first + drawn.epochs:
        count = max(last - cursor.epoch + 1, ahead)
        drawn = Permutations(source.orders(cursor.epoch, count), cursor.epoch, count)
    return drawn, (cursor.epoch - drawn.first) * source.steps + cursor.step
