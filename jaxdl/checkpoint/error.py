"""What is said of files that are not what they should be."""

import os
import re

_LONGEST = 160


class CheckpointError(ValueError):
    """A checkpoint or a file of weights that cannot be used; the message names it, what is wrong,
    and what to do.
    """


class Flaw(Exception):
    """What is wrong with a file or folder, as the second half of a sentence whose subject it is.

    Args:
        told: the half sentence.
        damaged: whether what was written is no longer there; else it is whole, but not for this
            version of jaxdl.
    """

    def __init__(self, told: str, damaged: bool = True) -> None:
        super().__init__(told)
        self.damaged = damaged


def reason(error: BaseException) -> str:
    """What an exception says, short enough for brackets in a sentence: what the system says, where
    it is the system's.
    """
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if number := re.search(
        r"os_error_code='(\d+)'", told
    ):  # as Orbax's writer tells it, at the end of a long story
        return os.strerror(int(number[1]))
    first = told.strip().splitlines()[0]
    return first if len(first) <= _LONGEST else first[:_LONGEST] + "…"
