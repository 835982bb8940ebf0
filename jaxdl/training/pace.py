"""How much a program runs before the host looks again."""

import dataclasses
import functools
import time
from typing import Any


@dataclasses.dataclass
class Known:
    """What earlier runs of a program left for the next: whether it is compiled, and how many steps
    fit into a run.
    """

    compiled: bool = False
    steps: int = 1


@functools.lru_cache(maxsize=256)
def known(*program: Any) -> Known:
    """What is known of the program of a way, a step and shapes; nothing, where it has not run."""
    del program
    return Known()


class Pace:
    """Chooses how many steps to run next, so that a run takes about `seconds`: often enough for a
    progress bar and Ctrl-C.

    Args:
        steps: of the first run.
        seconds: how long a run should take.
    """

    def __init__(self, steps: int = 1, seconds: float = 0.5) -> None:
        self.seconds = seconds
        self.steps = steps
        self.started = time.perf_counter()

    def begin(self) -> None:
        self.started = time.perf_counter()

    def end(self, steps: int) -> float:
        """Notes that so many steps have run since `begin`, and returns the seconds they took."""
        elapsed = time.perf_counter() - self.started
        self.steps = max(1, int(steps * self.seconds / max(elapsed, 1e-6)))
        return elapsed
