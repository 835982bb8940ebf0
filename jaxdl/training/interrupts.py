"""Ctrl-C, recorded: Python drops an exception that is raised while garbage is collected or an
object ends, and one raised while a program runs would lose the state that it was given.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class InterruptHandler:
    """A handler of Ctrl-C that records it, and raises KeyboardInterrupt as Python's own does.

    While it is deferred, the first Ctrl-C is recorded alone; a second one raises.
    """

    def __init__(self) -> None:
        self.requested = threading.Event()
        self.deferred = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        again = self.requested.is_set()
        self.requested.set()
        if again or not self.deferred:
            raise KeyboardInterrupt


@contextlib.contextmanager
def catch_interrupts() -> Iterator[None]:
    """Records Ctrl-C meanwhile, in the main thread and where nobody else handles it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, InterruptHandler())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[None]:
    """A Ctrl-C meanwhile is recorded, and raises nothing."""
    handler = signal.getsignal(signal.SIGINT)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not (in_main_thread and isinstance(handler, InterruptHandler)):
        yield
        return
    handler.deferred = True
    try:
        yield
    finally:
        handler.deferred = False


def interrupt_requested() -> threading.Event:
    """What is set by Ctrl-C, if it is recorded; else an event that a run may set itself."""
    handler = signal.getsignal(signal.SIGINT)
    return handler.requested if isinstance(handler, InterruptHandler) else threading.Event()
