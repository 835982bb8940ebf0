"""What a call may end in: a result, or an error in our own words."""

import collections
import contextlib
import dis
import os
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import jax

import jaxdl

LIBRARY = Path(jaxdl.__file__).parent
OUR_NOTES = ("This came from ", "in the part '")
OUR_WARNINGS = ("training stopped: ",)
CPU_SECONDS = 240
"""What takes longer hangs: the processor's time, because a machine may pause a test."""
FULL = int(os.environ.get("JAXDL_FUZZ", "0"))
"""Examples a strategy; 0 is a small number each, always the same ones."""

tried: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
"""How many cases of each kind were tried, and how they ended."""


class Refused(Exception):
    """Ends a case whose error was one of ours."""


def examples(few: int) -> Callable[[Any], Any]:
    """So many examples, always the same; in full as many as `JAXDL_FUZZ` says, others each time."""
    slow = [
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.data_too_large,
        hypothesis.HealthCheck.filter_too_much,
    ]
    return hypothesis.settings(
        max_examples=FULL or few,
        derandomize=not FULL,
        suppress_health_check=[*slow, hypothesis.HealthCheck.function_scoped_fixture],
        phases=[
            hypothesis.Phase.explicit,
            hypothesis.Phase.generate,
            *([hypothesis.Phase.shrink] if FULL else []),
        ],
    )


@contextlib.contextmanager
def case(kind: str) -> Iterator[None]:
    """One case of a kind: it is counted as a result, or as refused."""
    tried[kind]["cases"] += 1
    try:
        yield
        tried[kind]["results"] += 1
    except Refused:
        tried[kind]["refused"] += 1


def attempt(
    call: Callable[..., Any], *arguments: Any, users: bool = False, **options: Any
) -> Any:
    """The result of a call.

    Args:
        call, arguments, options: what is called with what.
        users: whether an error may be that of a function which the user gave, with our note on where it came from.

    Raises:
        Refused: it raised one of our errors.
        AssertionError: it raised anything else, warned in words that are not ours, or took too long.
    """
    error = None
    with warnings.catch_warnings(record=True) as warned, _within(CPU_SECONDS):
        warnings.simplefilter("always")
        try:
            result = call(*arguments, **options)
        except Exception as raised:
            error = raised
    foreign = [
        str(warning.message)
        for warning in warned
        if not str(warning.message).startswith(OUR_WARNINGS)
    ]
    assert not foreign, f"warned: {foreign}"
    if error is None:
        return result
    if not (ours(error) or (users and noted(error))):
        told = "".join(traceback.format_exception(error)[-24:])
        raise AssertionError(
            f"an error that is not ours: {type(error).__name__}: {error}\n{told}"
        ) from None
    raise Refused(str(error)) from None


def ours(error: Exception) -> bool:
    """Whether an error was raised by a `raise` in the library, as a ValueError or TypeError with a sentence."""
    entry = error.__traceback__
    assert entry is not None
    while entry.tb_next is not None:
        entry = entry.tb_next
    code = entry.tb_frame.f_code
    raised = code.co_code[entry.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    said = str(error).rstrip()
    return (
        isinstance(error, (ValueError, TypeError))
        and raised
        and Path(code.co_filename).is_relative_to(LIBRARY)
        and len(said.split()) > 3
        and (said.endswith((".", "?", ")")) or error.__cause__ is not None)
    )


def noted(error: Exception) -> bool:
    """Whether we say of an error of the user's own function where it came from."""
    return any(note.startswith(OUR_NOTES) for note in getattr(error, "__notes__", []))


@contextlib.contextmanager
def _within(seconds: int) -> Iterator[None]:
    """Ends a call that hangs."""

    def end(*_: Any) -> None:
        raise AssertionError(f"it took more than {seconds} s of the processor's time")

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def whole_tracebacks() -> Iterator[None]:
    """Keeps JAX from taking its own frames out of tracebacks, which would hide whose error it is."""
    before = jax.config.jax_traceback_filtering
    jax.config.update("jax_traceback_filtering", "off")
    yield
    jax.config.update("jax_traceback_filtering", before)
