"""What JAX's own frames on the stack say of a program that is being compiled.

JAX has no public way to ask which call caused a compilation, nor for the program before it runs. A
listener to its events runs while that call is on the stack, and reads it from the local variables
of JAX's frames. A version of JAX that names them otherwise hides them: the readers here then return
None, and `Compilation.reason` says so. Nothing else in jaxdl reads frames.
"""

import os
import sys
from types import FrameType
from typing import Any, NamedTuple

import jax

JAX_FOLDER = os.path.join(os.path.dirname(jax.__file__), "")


class JitCall(NamedTuple):
    """The call of a jitted function.

    Args:
        function: that was given to `jit`.
        info: of `jit`: its options.
        args: positional arguments.
        kwargs: keyword arguments.
    """

    function: Any
    info: Any
    args: tuple[object, ...]
    kwargs: dict[str, object]


def jit_call() -> JitCall | None:
    """The innermost call of a jitted function on the stack.

    Returns:
        None where there is none, or this version of JAX hides it.
    """
    try:
        return _jit_call(sys._getframe())
    except Exception:  # an exception in a listener would end the user's call
        return None


def _jit_call(frame: FrameType | None) -> JitCall | None:
    while frame is not None:
        if _is_of_jax(frame):
            local = frame.f_locals
            name = frame.f_code.co_name
            if name == "cache_miss" and "jit_info" in local:
                return JitCall(local["fun"], local["jit_info"], local["args"], local["kwargs"])
            if name == "jit_trace" and "jit_func" in local:
                jitted = local["jit_func"]
                return JitCall(jitted._fun, jitted._jit_info, local["args"], local["kwargs"])
        frame = frame.f_back
    return None


def _is_of_jax(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(JAX_FOLDER)


def compiled_program_bytes() -> int | None:
    """The memory of the program that was just compiled.

    Returns:
        None where the platform does not report it, or this version of JAX hides the program.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None and not _is_of_jax(frame):
        frame = frame.f_back
    while frame is not None and _is_of_jax(frame):
        if "xla_executable" in frame.f_locals:
            return program_bytes(frame.f_locals["xla_executable"])
        frame = frame.f_back
    return None


def program_bytes(executable: Any) -> int | None:
    """Arguments, outputs and temporary memory of a compiled program; what outputs share with
    arguments is counted once.

    Args:
        executable: of XLA.

    Returns:
        None where the platform does not report it.
    """
    try:
        stats = executable.get_compiled_memory_stats()
        held = stats.argument_size_in_bytes + stats.output_size_in_bytes
        return int(held + stats.temp_size_in_bytes - stats.alias_size_in_bytes)
    except Exception:  # each platform has errors of its own for what it does not report
        return None
