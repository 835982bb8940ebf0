"""Ctrl-C, noted: Python drops an exception that is raised while garbage is collected or an object
ends.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Noting:
    """A handler of Ctrl-C that notes it, and raises KeyboardInterrupt as Python's own does."""

    def __init__(self) -> None:
        self.interrupted = threading.Event()

    def __call__(self, number: int, frame: Any) -> None:
        del number, frame
        self.interrupted.set()
        raise KeyboardInterrupt


@contextlib.contextmanager
def noting() -> Iterator[None]:
    """Notes Ctrl-C meanwhile, in the main thread and where nobody else handles it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, Noting())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def noted() -> threading.Event:
    """What is set when Ctrl-C comes, if it is noted; else what a run may set itself."""
    handler = signal.getsignal(signal.SIGINT)
    return handler.interrupted if isinstance(handler, Noting) else threading.Event()
