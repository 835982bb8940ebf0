"""What one run of a function costs: operations and bytes, as XLA counts them, with every iteration
of loops.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jax.extend import core

from jaxdl.compiling.jitted import Jitted
from jaxdl.compiling.loops import outermost_loops
from jaxdl.compiling.pytree import PyTree

PRODUCTS = ("stablehlo.dot_general", "stablehlo.convolution")
OPERAND = re.compile(r" : \(tensor<(?:[\dx?]*x)?(\w+)>")
NARROWEST_FIRST = {"f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64"}


class Cost(NamedTuple):
    """What a function costs.

    Args:
        flops: floating-point operations of the program that JAX hands to XLA (XLA no longer counts
            what it turns into calls of a library); None where the platform does not count.
        bytes: that the operations of the compiled program read and write, from caches too; None
            where it does not count.
        exact: whether all loops have a known length; the body of any other is counted once.
        dtype: what its matrix products and convolutions multiply, the narrowest where there are
            several; None without any.
    """

    flops: float | None
    bytes: float | None
    exact: bool
    dtype: str | None


def cost_of(
    function: Callable[..., PyTree],
    *args: PyTree,
    cpu_options: Mapping[str, str] | None = None,
) -> Cost:
    """Compiles a function for arguments, or their shapes, and counts its operations and bytes.

    XLA counts the body of a loop once. Here each iteration of a `lax.scan` counts:
    cost = once + Σ (length · cost of the body − the body once), over the outermost loops.

    Args:
        function: what is counted.
        args: its arguments: arrays, or their shapes.
        cpu_options: `compiler_options` where it is compiled for a CPU.

    Returns:
        The counts.

    >>> import jax, jax.numpy as jnp
    >>> square = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    >>> cost_of(jnp.dot, square, square).flops == 2 * 64**3
    True
    """
    options = cpu_options or {}
    traced = Jitted(function, options).trace(*args)
    flops, moved, exact = _counted(traced, options)[1]
    multiplied = set(_multiplied(traced.lower().as_text()))
    dtypes = [name for short, name in NARROWEST_FIRST.items() if short in multiplied]
    return Cost(flops, moved, exact, dtypes[0] if dtypes else None)


class _Count(NamedTuple):
    flops: float | None
    bytes: float | None
    exact: bool = True

    def plus(self, times: float, other: "_Count") -> "_Count":
        def added(one: float | None, more: float | None) -> float | None:
            return None if one is None or more is None else one + times * more

        return _Count(
            added(self.flops, other.flops),
            added(self.bytes, other.bytes),
            self.exact and other.exact,
        )


def _counted(traced: jax.stages.Traced, options: Mapping[str, str]) -> tuple[_Count, _Count]:
    """The counts of a program with the bodies of its loops counted once, and for each iteration."""
    lowered = traced.lower()
    flops = _entry(lowered.cost_analysis(), "flops")
    moved = _entry(lowered.compile().cost_analysis(), "bytes accessed")
    once = _Count(flops, moved)
    every = once
    for body, length in outermost_loops(traced.jaxpr):
        if length is None:
            every = every._replace(exact=False)
        else:
            function = Jitted(core.jaxpr_as_fun(body), options)
            body_once, body_every = _counted(function.trace(*_shapes(body)), options)
            every = every.plus(length, body_every).plus(-1, body_once)
    return once, every


def _entry(costs: Any, name: str) -> float | None:
    """One of the counts of XLA, in whose older versions they lie in a list."""
    if isinstance(costs, (list, tuple)):
        costs = costs[0] if costs else None
    value = costs.get(name) if costs else None
    return None if value is None or value < 0 else float(value)


def _multiplied(program: str) -> Iterator[str]:
    """The dtypes of the operands of a program's products and convolutions, in the text that JAX
    hands to XLA.
    """
    for line in program.splitlines():
        if any(name in line for name in PRODUCTS):
            operand = OPERAND.search(line)
            if operand:
                yield operand[1]


def _shapes(body: Any) -> list[jax.ShapeDtypeStruct]:
    avals: list[Any] = body.in_avals
    return [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
