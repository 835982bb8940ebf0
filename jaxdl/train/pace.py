"""How much a program runs before the host looks again."""

import time


class Pace:
    """Chooses how many steps to run next, so that a run takes about `seconds`: often enough for a progress bar and Ctrl-C.

    Args:
        seconds: how long a run should take.
    """

    def __init__(self, seconds: float = 0.5) -> None:
        self.seconds = seconds
        self.steps = 1
        self.started = time.perf_counter()

    def begin(self) -> None:
        self.started = time.perf_counter()

    def end(self, steps: int) -> float:
        """Notes that so many steps have run since `begin`, and returns the seconds they took."""
        elapsed = time.perf_counter() - self.started
        self.steps = max(1, int(steps * self.seconds / max(elapsed, 1e-6)))
        return elapsed
