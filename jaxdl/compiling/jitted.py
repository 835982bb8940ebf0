"""Programs of the library: `jax.jit` with compiler options for a CPU."""

import contextlib
import functools
import gc
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from jaxdl.compiling.target import (
    compiling_for,
    default_platform,
    single_platform,
    target,
    tracing_population,
)


@contextlib.contextmanager
def gc_disabled() -> Iterator[None]:
    """Puts off Python's search for garbage: a trace makes so many objects that it is begun again
    and again, and finds little.

    A twentieth of the time to the first step. It is a matter of the whole process, for as long as a
    program is made.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


Options = Mapping[str, Any]


class Jitted:
    """`jax.jit` of a function, compiled with options of its own where programs are for a CPU by
    default.

    Args:
        cpu_options: `compiler_options` for it, or a function that tells them from the arguments.
        arguments: for `jax.jit`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        cpu_options: Options | Callable[..., Options],
        **arguments: Any,
    ) -> None:
        functools.update_wrapper(self, function)
        self._cpu_options = cpu_options if callable(cpu_options) else lambda *_: cpu_options
        self._jit = functools.partial(jax.jit, function, **arguments)
        self._programs: dict[tuple[tuple[str, Any], ...], Any] = {}

    def __call__(self, *arguments: Any) -> Any:
        return self._program(arguments)(*arguments)

    def trace(self, *arguments: Any) -> Any:
        return self._program(arguments).trace(*arguments)

    def lower(self, *arguments: Any) -> Any:
        return self._program(arguments).lower(*arguments)

    def options(self, *arguments: Any) -> Options:
        """What a program for such arguments is compiled with."""
        return self._cpu_options(*arguments) if default_platform() == "cpu" else {}

    def _cache_size(self) -> int:
        """How many programs it has, as functions under `jax.jit` tell."""
        return sum(program._cache_size() for program in self._programs.values())

    def _program(self, arguments: tuple[Any, ...]) -> Any:
        """The function under `jax.jit` that has the options for such arguments."""
        return self.chosen(self._cpu_options(*arguments))

    def chosen(self, cpu_options: Options) -> Any:
        """The function under `jax.jit` that has those options on a CPU: for who knows them before
        each call.
        """
        options = cpu_options if default_platform() == "cpu" else {}
        key = tuple(sorted(options.items()))
        if key not in self._programs:
            self._programs[key] = (
                self._jit(compiler_options=dict(options)) if options else self._jit()
            )
        return self._programs[key]


def jit_once(function: Callable[..., Any], static_argnums: tuple[int, ...] = ()) -> Jitted:
    """`jax.jit` of a function that runs once for each shape, such as one that draws parameters.

    On a CPU LLVM optimises nothing of it: the first state of a convolutional network is there after
    0.5 s in place of 1.6 s, and a million parameters take 0.05 s in place of 0.01 s to draw.
    """
    return Jitted(function, {"xla_backend_optimization_level": 0}, static_argnums=static_argnums)


only_platform = single_platform
tracing_mapped = tracing_population
uncollected = gc_disabled


def in_program() -> bool:
    return target().program


def in_mapped() -> bool:
    return target().population


def program_platform() -> str | None:
    return target().platform


def tracing_program(platform: str | None = None) -> contextlib.AbstractContextManager[None]:
    return compiling_for(platform)
