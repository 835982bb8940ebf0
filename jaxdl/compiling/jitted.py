"""Programs of the library: `jax.jit` with compiler options for a CPU.

What it buys of a first `fit`, in seconds of processor time on a CPU: that LLVM does not optimise
draws, 1.8 of the 2.4 of the 10-10-10-1 network and 3.2 of the 8.1 of a GPT of four blocks; that
their kernels are emitted the shorter way, 0.1 and 0.4; that the garbage collector is put off, 0.2
of those 2.4. `jax.jit(compiler_options=…)` would replace `Jitted`
if it took them by platform: a program for another platform is refused for a CPU's options.
"""

import contextlib
import functools
import gc
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import jax
import jaxlib.version
from jax.stages import Lowered, Traced

from jaxdl.compiling.target import default_platform

Options = Mapping[str, str | int | bool]
"""`compiler_options` of `jax.jit`."""

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)

_HAS_TWO_EMITTERS = jaxlib.version.__version_info__ < (0, 11)
RUN_ONCE: Options = {
    "xla_backend_optimization_level": 0,
    **({"xla_cpu_use_fusion_emitters": False} if _HAS_TWO_EMITTERS else {}),
}
"""For a program that runs once: LLVM optimises nothing, and where XLA has two ways to emit kernels,
it takes the shorter one. The bits are the same.
"""


@runtime_checkable
class JitFunction(Protocol[Result_co]):
    """What `jax.jit` returns."""

    def __call__(self, *arguments: object) -> Result_co: ...

    def trace(self, *arguments: object) -> Traced: ...

    def lower(self, *arguments: object) -> Lowered: ...

    def _cache_size(self) -> int: ...


class Jitted(Generic[Result]):
    """`jax.jit` of a function, with compiler options that apply where programs are for a CPU.

    Args:
        function: pure.
        cpu_options: `compiler_options`, or a function of the arguments that returns them.
        static_argnums: as in `jax.jit`.
        donate_argnums: as in `jax.jit`.
    """

    def __init__(
        self,
        function: Callable[..., Result],
        cpu_options: Options | Callable[..., Options],
        static_argnums: int | tuple[int, ...] = (),
        donate_argnums: int | tuple[int, ...] = (),
    ) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._cpu_options = cpu_options
        self._static_argnums = static_argnums
        self._donate_argnums = donate_argnums
        self._compiled: dict[tuple[tuple[str, str | int | bool], ...], JitFunction[Result]] = {}

    def __call__(self, *arguments: object) -> Result:
        return self._for(arguments)(*arguments)

    def trace(self, *arguments: object) -> Traced:
        return self._for(arguments).trace(*arguments)

    def lower(self, *arguments: object) -> Lowered:
        return self._for(arguments).lower(*arguments)

    def options(self, *arguments: object) -> Options:
        """The compiler options for such arguments."""
        return _on_cpu(self._cpu_options_for(arguments))

    def with_options(self, cpu_options: Options) -> JitFunction[Result]:
        """The function under `jax.jit` with these options on a CPU, for callers that know them
        before each call.
        """
        options = _on_cpu(cpu_options)
        key = tuple(sorted(options.items()))
        if key not in self._compiled:
            jitted: Any = jax.jit(
                self._function,
                static_argnums=self._static_argnums,
                donate_argnums=self._donate_argnums,
                compiler_options=dict(options) or None,
            )
            self._compiled[key] = jitted
        return self._compiled[key]

    def _cache_size(self) -> int:
        """The number of compiled programs, as functions under `jax.jit` report it."""
        return sum(function._cache_size() for function in self._compiled.values())

    def _for(self, arguments: tuple[object, ...]) -> JitFunction[Result]:
        return self.with_options(self._cpu_options_for(arguments))

    def _cpu_options_for(self, arguments: tuple[object, ...]) -> Options:
        if callable(self._cpu_options):
            return self._cpu_options(*arguments)
        return self._cpu_options


def _on_cpu(options: Options) -> Options:
    return options if default_platform() == "cpu" else {}


def jit_once(
    function: Callable[..., Result], static_argnums: int | tuple[int, ...] = ()
) -> Jitted[Result]:
    """`jax.jit` of a function that runs once for each shape, such as one that draws parameters.

    On a CPU it is compiled with `RUN_ONCE`: the initial state of a convolutional network takes
    0.5 s instead of 1.6 s, and drawing a million parameters 0.05 s instead of 0.01 s.
    """
    return Jitted(function, RUN_ONCE, static_argnums=static_argnums)


@contextlib.contextmanager
def gc_disabled() -> Iterator[None]:
    """Puts off Python's cyclic garbage collector, in the whole process.

    A trace allocates so many objects that the collector runs again and again, and finds little.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
