"""`why_compiled`: which functions were compiled, how long that took, and which argument made one
compile again.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator

import jax

from jaxdl.core.units import seconds as in_seconds
from jaxdl.speed.calls import Call, Function, nearest_differences
from jaxdl.speed.differences import Difference
from jaxdl.speed.stack_frames import compiled_program_bytes, jit_call

TRACED = "/jax/core/compile/jaxpr_trace_duration"
LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
COMPILED = "/jax/core/compile/backend_compile_duration"
CACHE_HIT = "/jax/compilation_cache/cache_hits"
MAX_DIFFERENCES = 3
"""How many differences of one compilation a sentence names."""

MAX_OPERATIONS = 6
"""How many single operations a line names."""

_Key = tuple[int, str]
"""A thread, and the name of a function that it compiles."""


@dataclasses.dataclass(frozen=True)
class Compilation:
    """One program that was compiled.

    Args:
        function: its module and name.
        place: its file and line.
        operation: whether it is one of JAX's own, run outside of any compiled function.
        number: which of the function's programs it is, counted from 1, since the watch began.
        trace_seconds: spent in running the function on shapes.
        lower_seconds: spent in writing the program for XLA.
        compile_seconds: spent by XLA, or in reading the program from the persistent cache.
        cached: whether it came from the persistent cache.
        memory_bytes: arguments, outputs and temporary memory of the program; None where XLA does
            not report it.
        differences: from the nearest of the function's earlier programs; None where this version of
            JAX does not show the arguments of the call.
    """

    function: str
    place: str
    operation: bool
    number: int
    trace_seconds: float
    lower_seconds: float
    compile_seconds: float
    cached: bool
    memory_bytes: int | None
    differences: tuple[Difference, ...] | None

    @property
    def seconds(self) -> float:
        """Tracing, lowering and compiling together."""
        return self.trace_seconds + self.lower_seconds + self.compile_seconds

    @property
    def reason(self) -> str:
        """Why it was compiled, as a sentence."""
        if self.number == 1:
            return "the first program of this function since the watch began."
        if self.differences is None:
            return (
                f"its arguments are unknown, as JAX {jax.__version__} does not show its calls."
            )
        if not self.differences:
            return (
                "no argument differs from an earlier program's: the caches were cleared, or the "
                "function was transformed or compiled ahead of time with other options."
            )
        sentence = "; ".join(map(str, self.differences[:MAX_DIFFERENCES]))
        more = len(self.differences) - MAX_DIFFERENCES
        return f"{sentence}; and {more} more." if more > 0 else f"{sentence}."

    def __str__(self) -> str:
        traced = in_seconds(self.trace_seconds + self.lower_seconds)
        compiled = in_seconds(self.compile_seconds)
        origin = "read from the cache" if self.cached else "compile"
        return (
            f"{self.function} ({self.place}), program {self.number}, {traced} to trace, {compiled} "
            f"to {origin}: {self.reason}"
        )


class Compilations(list[Compilation]):
    """What was compiled, in order; `print` shows a sentence for each program.

    Single operations of JAX that ran outside of any compiled function are in the list, and are
    printed in one line.
    """

    @property
    def functions(self) -> "Compilations":
        """The programs of functions, without single operations."""
        return Compilations(each for each in self if not each.operation)

    @property
    def repeated(self) -> "Compilations":
        """The programs of functions that had been compiled before."""
        return Compilations(each for each in self.functions if each.number > 1)

    @property
    def seconds(self) -> float:
        """Tracing, lowering and compiling of all programs together."""
        return sum(each.seconds for each in self)

    def __str__(self) -> str:
        lines = [str(each) for each in self.functions]
        single = [each for each in self if each.operation]
        if single:
            names = list(dict.fromkeys(each.function.rpartition(".")[2] for each in single))
            named = ", ".join(names[:MAX_OPERATIONS])
            if len(names) > MAX_OPERATIONS:
                named += ", …"
            spent = in_seconds(sum(each.seconds for each in single))
            plural = "s" if len(single) > 1 else ""
            lines.append(
                f"{len(single)} single operation{plural} outside of jit, {spent}: {named}"
            )
        return "\n".join(lines) or "nothing was compiled."

    def __repr__(self) -> str:
        return (
            f"Compilations({len(self)} programs, {len(self.repeated)} of functions compiled "
            f"before, {in_seconds(self.seconds)})"
        )


@contextlib.contextmanager
def why_compiled(show: bool = True) -> Iterator[Compilations]:
    """Records what is compiled inside of it, and which argument made a function compile again.

    It works for any jitted function, and for `fit`; nothing is changed in how they run. It does not
    know what was compiled before: put the calls to compare inside.

    Args:
        show: whether to print the sentences at the end.

    Yields:
        The record, to which each program is appended as it is compiled.

    >>> import jax, jax.numpy as jnp
    >>> double = jax.jit(lambda x: 2 * x)
    >>> with why_compiled(show=False) as why:
    ...     _ = double(jnp.ones(3)), double(jnp.ones(4))
    >>> print(*(each.reason for each in why.repeated))
    `x` has another shape, float32[3] → float32[4].
    """
    watch = _Watch()
    jax.monitoring.register_event_duration_secs_listener(watch.on_duration)
    jax.monitoring.register_event_listener(watch.on_event)
    try:
        yield watch.found
    finally:
        jax.monitoring.unregister_event_duration_listener(watch.on_duration)
        jax.monitoring.unregister_event_listener(watch.on_event)
        if show:
            print(watch.found)


class _Watch:
    """Listens to JAX's events, which come while the call that caused them is on the stack."""

    def __init__(self) -> None:
        self.found = Compilations()
        self.calls: dict[Function, list[Call | None]] = {}
        self.times: dict[_Key, dict[str, float]] = {}
        self.traced: dict[_Key, Call | None] = {}
        self.hits: set[int] = set()
        self.lock = threading.RLock()

    def on_event(self, event: str, **details: object) -> None:
        del details
        if event == CACHE_HIT:
            self.hits.add(threading.get_ident())

    def on_duration(self, event: str, duration_secs: float, **details: object) -> None:
        if event not in (TRACED, LOWERED, COMPILED):
            return
        key = threading.get_ident(), _bare(str(details.get("fun_name", "?")))
        with self.lock:
            self.times.setdefault(key, {})[event] = duration_secs
            if event == TRACED:
                self.traced[key] = Call.read(jit_call())
            elif event == COMPILED:
                self._append(key)

    def _append(self, key: _Key) -> None:
        thread, name = key
        times = self.times.pop(key, {})
        call = Call.read(jit_call()) or self.traced.get(key)
        function = Function(name, "arguments unknown", False) if call is None else call.of
        calls = self.calls.setdefault(function, [])
        differences = None
        if call is not None:
            earlier = [each for each in calls if each is not None]
            differences = nearest_differences(call, earlier)
        calls.append(call)
        cached = thread in self.hits
        self.hits.discard(thread)
        self.found.append(
            Compilation(
                *function,
                len(calls),
                times.get(TRACED, 0.0),
                times.get(LOWERED, 0.0),
                times.get(COMPILED, 0.0),
                cached,
                compiled_program_bytes(),
                differences,
            )
        )


def _bare(name: str) -> str:
    """`f` of `jit(f)`."""
    if not name.startswith("jit("):
        return name
    return name.removeprefix("jit(").removesuffix(")")
