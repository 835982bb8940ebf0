"""`why_compiled`: which functions were compiled while it watched, how long that took, and what made
one compile again.
"""

import contextlib
import dataclasses
import functools
import inspect
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from types import FrameType
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl.core.units import seconds as in_seconds
from jaxdl.speed.differences import Difference, closures, described, differences, leaf, shown

TRACED = "/jax/core/compile/jaxpr_trace_duration"
LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
COMPILED = "/jax/core/compile/backend_compile_duration"
CACHE_HIT = "/jax/compilation_cache/cache_hits"
OF_JAX = os.path.dirname(jax.__file__)
MOST_SHOWN = 3
"""How many differences of one compilation a sentence tells."""
WITHOUT_MEANING = {"fun_sourceinfo", "fun_signature", "static_argnums", "static_argnames"}


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
            not say.
        differences: from the nearest of the function's earlier programs.
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
    differences: tuple[Difference, ...]

    @property
    def seconds(self) -> float:
        """Tracing, lowering and compiling together."""
        return self.trace_seconds + self.lower_seconds + self.compile_seconds

    @property
    def reason(self) -> str:
        """Why it was compiled, as a sentence."""
        if self.number == 1:
            return "the first program of this function since the watch began."
        if not self.differences:
            return (
                "no argument differs from an earlier program's: the caches were cleared, or the "
                "function was transformed or "
                "compiled ahead of time in another way."
            )
        told = "; ".join(map(str, self.differences[:MOST_SHOWN]))
        more = len(self.differences) - MOST_SHOWN
        return f"{told}{f'; and {more} more' if more > 0 else ''}."

    def __str__(self) -> str:
        times = (
            f"{in_seconds(self.trace_seconds + self.lower_seconds)} to trace, "
            f"{in_seconds(self.compile_seconds)} to "
        )
        times += "read from the cache" if self.cached else "compile"
        return f"{self.function} ({self.place}), program {self.number}, {times}: {self.reason}"


class Compilations(list[Compilation]):
    """What was compiled, in order; `print` tells it in sentences.

    Single operations of JAX that ran outside of any compiled function are in the list, and are told
    in one line.
    """

    @property
    def functions(self) -> "Compilations":
        """Without single operations."""
        return Compilations(each for each in self if not each.operation)

    @property
    def repeated(self) -> "Compilations":
        """Those of functions that had been compiled before."""
        return Compilations(each for each in self.functions if each.number > 1)

    @property
    def seconds(self) -> float:
        return sum(each.seconds for each in self)

    def __str__(self) -> str:
        lines = [str(each) for each in self.functions]
        single = [each for each in self if each.operation]
        if single:
            names = list(dict.fromkeys(each.function.rpartition(".")[2] for each in single))
            some = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
            spent = in_seconds(sum(each.seconds for each in single))
            lines.append(
                f"{len(single)} single operation{'s' * (len(single) > 1)} outside of jit, {spent}: "
                f"{some}"
            )
        return "\n".join(lines) or "nothing was compiled."

    def __repr__(self) -> str:
        return (
            f"Compilations({len(self)} programs, {len(self.repeated)} of functions compiled "
            f"before, {in_seconds(self.seconds)})"
        )


@contextlib.contextmanager
def why_compiled(show: bool = True) -> Iterator[Compilations]:
    """Watches what is compiled inside of it, and tells which argument made a function compile
    again.

    It works for any jitted function, and for `fit`; nothing is changed in how they run. What was
    compiled before the watch
    began is not known to it: put the calls to compare inside.

    Args:
        show: whether to print the sentences at the end.

    Yields:
        The record, which fills as programs are compiled.

    >>> import jax, jax.numpy as jnp
    >>> double = jax.jit(lambda x: 2 * x)
    >>> with why_compiled(show=False) as why:
    ...     _ = double(jnp.ones(3)), double(jnp.ones(4))
    >>> print(*(each.reason for each in why.repeated))
    `x` has another shape, float32[3] → float32[4].
    """
    watch = Watch()
    jax.monitoring.register_event_duration_secs_listener(watch.spent)
    jax.monitoring.register_event_listener(watch.happened)
    try:
        yield watch.found
    finally:
        jax.monitoring.unregister_event_duration_listener(watch.spent)
        jax.monitoring.unregister_event_listener(watch.happened)
        if show:
            print(watch.found)


class Function(NamedTuple):
    """Which function a program is of: equal for two objects of one definition."""

    name: str
    place: str
    operation: bool


@dataclasses.dataclass(frozen=True)
class Call:
    """What a function was called with when it was compiled."""

    of: Function
    itself: Any
    closed_over: dict[str, Any]
    arguments: dict[str, Any]
    options: dict[str, Any]
    settings: dict[str, Any]

    def differences(self, earlier: "Call") -> tuple[Difference, ...]:
        found = list(_by_name(earlier.arguments, self.arguments))
        for name, value in self.settings.items():
            if value != earlier.settings.get(name):
                found.append(
                    Difference(name, "setting", str(earlier.settings.get(name)), str(value))
                )
        for name, value in self.options.items():
            if value != earlier.options.get(name):
                found.append(Difference(name, "option", str(earlier.options.get(name)), str(value)))
        if earlier.itself() is not self.itself():
            inside = _by_name(earlier.closed_over, self.closed_over)
            found += [each for each in inside if each.kind not in ("static object", "function")]
            found.append(Difference(self.of.name, "function", self.of.place, self.of.place))
        return tuple(found)


class Watch:
    """Listens to JAX: its events come while the call that caused them is on the stack, arguments
    and all.
    """

    def __init__(self) -> None:
        self.found = Compilations()
        self.calls: dict[Function, list[Call | None]] = {}
        self.times: dict[tuple[int, str], dict[str, float]] = {}
        self.traced: dict[tuple[int, str], Call | None] = {}
        self.hits: set[int] = set()
        self.lock = threading.RLock()

    def happened(self, event: str, **details: Any) -> None:
        del details
        if event == CACHE_HIT:
            self.hits.add(threading.get_ident())

    def spent(self, event: str, duration_secs: float, **details: Any) -> None:
        if event not in (TRACED, LOWERED, COMPILED):
            return
        frame: FrameType | None = sys._getframe(1)
        key = threading.get_ident(), _bare(str(details.get("fun_name", "?")))
        with self.lock:
            self.times.setdefault(key, {})[event] = duration_secs
            if event == TRACED:
                self.traced[key] = _call(frame)
            elif event == COMPILED:
                self.add(key, frame)

    def add(self, key: tuple[int, str], frame: FrameType | None) -> None:
        times = self.times.pop(key, {})
        call = _call(frame) or self.traced.get(key)
        of = Function(key[1], "arguments unknown", False) if call is None else call.of
        earlier = self.calls.setdefault(of, [])
        nearest = _nearest(call, earlier)
        earlier.append(call)
        cached = key[0] in self.hits
        self.hits.discard(key[0])
        traced, lowered, compiled = (times.get(event, 0.0) for event in (TRACED, LOWERED, COMPILED))
        self.found.append(
            Compilation(
                *of, len(earlier), traced, lowered, compiled, cached, _memory(frame), nearest
            )
        )


def _bare(name: str) -> str:
    """`f` of `jit(f)`."""
    return name.removeprefix("jit(").removesuffix(")") if name.startswith("jit(") else name


def _call(frame: FrameType | None) -> Call | None:
    """The call of a jitted function that the stack holds innermost; None where it is of another
    kind.
    """
    try:
        while frame is not None:
            if frame.f_code.co_filename.startswith(OF_JAX):
                here = frame.f_locals
                if frame.f_code.co_name == "cache_miss" and "jit_info" in here:
                    return _described(here["fun"], here["jit_info"], here["args"], here["kwargs"])
                if frame.f_code.co_name == "jit_trace" and "jit_func" in here:
                    function = here["jit_func"]
                    return _described(
                        function._fun, function._jit_info, here["args"], here["kwargs"]
                    )
            frame = frame.f_back
    # another version of JAX may keep them elsewhere; a listener that raised would end the user's
    # call
    except Exception:
        return None
    return None


def _nearest(call: Call | None, earlier: list[Call | None]) -> tuple[Difference, ...]:
    """The differences from the earlier call that has the fewest, the latest of several."""
    try:
        told = [call.differences(each) for each in earlier if call is not None and each is not None]
    except Exception:  # a static value's own comparison, which must not end the user's call
        return ()
    return min(reversed(told), key=len, default=())


def _described(function: Any, info: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    arguments = {}
    for name, (position, value) in _bound(function, args, kwargs).items():
        static = position in info.static_argnums or name in info.static_argnames
        arguments[name] = value if static else described(value)
    options = {
        name: getattr(info, name)
        for name in getattr(info, "_fields", ())
        if name not in WITHOUT_MEANING
    }
    settings = {name: getattr(jax.config, name, None) for name in jax.config.values}
    return Call(
        _function(function),
        _reference(function),
        _closed_over(function),
        arguments,
        options,
        settings,
    )


def _bound(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, tuple[int, Any]]:
    """Arguments by name, with their positions."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    several = next((each.name for each in parameters if each.kind is each.VAR_POSITIONAL), "args")
    names = [
        each.name
        for each in parameters
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    found = {}
    for position, value in enumerate(args):
        name = names[position] if position < len(names) else f"{several}[{position - len(names)}]"
        found[name] = position, value
    for name, value in kwargs.items():
        found[name] = names.index(name) if name in names else -1 - len(args), value
    return found


def _function(function: Any) -> Function:
    innermost = inspect.unwrap(function)
    while isinstance(innermost, functools.partial):
        innermost = inspect.unwrap(innermost.func)
    code = getattr(innermost, "__code__", None) or getattr(
        type(innermost).__call__, "__code__", None
    )
    name = getattr(innermost, "__qualname__", type(innermost).__qualname__)
    given = getattr(function, "__name__", name)
    if given not in (innermost.__name__ if hasattr(innermost, "__name__") else name, "<lambda>"):
        name = given
    module = getattr(innermost, "__module__", None)
    whole = name if module in (None, "__main__") else f"{module}.{name}"
    if code is None:
        return Function(whole, "a built-in function", False)
    place = f"{os.path.basename(code.co_filename)}:{code.co_firstlineno}"
    return Function(whole, place, code.co_filename.startswith(OF_JAX))


def _closed_over(function: Any) -> dict[str, Any]:
    """What a function closes over, by name, without the numbers of arrays."""

    def kept(value: Any) -> Any:
        return leaf(value) if isinstance(value, (jax.Array, np.ndarray)) else value

    return {name: jax.tree.map(kept, value) for name, value, _ in closures(function, function)}


def _reference(function: Any) -> Any:
    try:
        return weakref.ref(function)
    except TypeError:
        return lambda: None


def _by_name(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys([*old, *new]):
        if name in old and name in new:
            yield from differences(name, old[name], new[name])
        else:
            one, other = (shown(each[name]) if name in each else "not given" for each in (old, new))
            yield Difference(name, "structure", one, other)


def _memory(frame: FrameType | None) -> int | None:
    """What the program that was just compiled takes; found on the stack, as its call is."""
    while frame is not None and frame.f_code.co_filename.startswith(OF_JAX):
        if "xla_executable" in frame.f_locals:
            return program_bytes(frame.f_locals["xla_executable"])
        frame = frame.f_back
    return None


def program_bytes(executable: Any) -> int | None:
    """Arguments, outputs and temporary memory of a compiled program, what is shared counted
    once.
    """
    try:
        stats = executable.get_compiled_memory_stats()
        held = stats.argument_size_in_bytes + stats.output_size_in_bytes + stats.temp_size_in_bytes
        return int(held - stats.alias_size_in_bytes)
    except Exception:  # not every platform says
        return None
