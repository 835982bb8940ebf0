"""Ctrl-C, recorded: Python drops an exception that is raised while garbage is collected or an
object ends, and one raised while a program runs would lose the state that it was given.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any


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


Handler = Callable[[int, FrameType | None], Any]
TERMINATED = 128 + signal.SIGTERM
"""The status of a process that ends after SIGTERM."""


@contextlib.contextmanager
def handled(handler: Handler, *numbers: signal.Signals) -> Iterator[None]:
    """Signals go to a handler meanwhile; in the main thread."""
    before = handlers_of(*numbers)
    try:
        for number in numbers:
            signal.signal(number, handler)
        yield
    finally:
        handle_by(before)


def handlers_of(*numbers: signal.Signals) -> dict[signal.Signals, Any]:
    """Where signals go."""
    return {number: signal.getsignal(number) for number in numbers}


def handle_by(handlers: Mapping[signal.Signals, Any]) -> None:
    """Signals go there from now on."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def catch_interrupts() -> Iterator[None]:
    """Records Ctrl-C meanwhile, in the main thread and where nobody else handles it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    handler = InterruptHandler()
    _installed.append(handler)
    try:
        with handled(handler, signal.SIGINT):
            yield
    finally:
        _installed.remove(handler)


_installed: list[InterruptHandler] = []


@contextlib.contextmanager
def termination_interrupts(wanted: bool, told: threading.Event) -> Iterator[None]:
    """SIGTERM is a KeyboardInterrupt meanwhile, and noted; in the main thread, where it is
    wanted.
    """
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        told.set()
        raise KeyboardInterrupt

    with handled(handle, signal.SIGTERM):
        yield


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[None]:
    """A Ctrl-C meanwhile is recorded, and raises nothing."""
    # `signal.getsignal` takes 15 µs, as much as the rest of what the host does between two steps.
    if not _installed or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = _installed[-1]
    handler.deferred = True
    try:
        yield
    finally:
        handler.deferred = False


def interrupt_requested() -> threading.Event:
    """What is set by Ctrl-C, if it is recorded; else an event that a run may set itself."""
    handler = signal.getsignal(signal.SIGINT)
    return handler.requested if isinstance(handler, InterruptHandler) else threading.Event()
