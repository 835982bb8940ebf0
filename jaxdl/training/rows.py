"""When a row of a run's history ends: after each epoch, or every so many epochs or steps."""

from jaxdl.core.interval import EACH_EPOCH, Interval

UNLIMITED = 2**30
"""More steps than a run makes."""


def counts_steps(every: Interval) -> bool:
    """Whether rows end after so many steps, wherever epochs do."""
    return every.unit == "steps"


def row_ends(every: Interval, steps: int, made: int, ended: int | None) -> bool:
    """Whether a row of the history ends here.

    Args:
        every: how often.
        steps: made in all.
        made: of them, in this row.
        ended: the number of the epoch that ended with them, from 0, or None.
    """
    count = int(every.count)
    if counts_steps(every):
        return steps // count > (steps - made) // count
    return ended is not None and (ended + 1) % count == 0


def steps_to_row(every: Interval, steps: int) -> int:
    """After how many more steps a row ends, where it is steps that are counted."""
    if not counts_steps(every):
        return UNLIMITED
    count = int(every.count)
    return count - steps % count


def row_name(every: Interval) -> str:
    """What a row of the history is, in the plural."""
    return "epochs" if every == EACH_EPOCH else f"rows, one every {every}"
