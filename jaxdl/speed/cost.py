"""What one run of a function costs: operations and bytes, as XLA counts them, with loops counted as
often as they turn.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jax.extend import core

from jaxdl.compiling.jitted import Jitted
from jaxdl.compiling.loops import outermost_loops

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
        exact: whether all loops have a known length; the body of one that has not is counted once.
        dtype: what its matrix products and convolutions multiply, the narrowest where there are
            several; None without any.
    """

    flops: float | None
    bytes: float | None
    exact: bool
    dtype: str | None


def cost_of(
    function: Callable[..., Any], *args: Any, cpu_options: Mapping[str, str] | None = None
) -> Cost:
    """Compiles a function for arguments, or their shapes, and counts.

    Args:
        function, args: what is counted; arrays, or their shapes.
        cpu_options: `compiler_options` where it is compiled for a CPU.

    XLA counts the body of a loop once. Here a `lax.scan` counts as often as it turns:
    cost = once + Σ (length · cost of the body − the body once), over the outermost loops.

    >>> import jax, jax.numpy as jnp
    >>> square = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    >>> cost_of(jnp.dot, square, square).flops == 2 * 64**3
    True
    """
    options = cpu_options or {}
    traced = Jitted(function, options).trace(*args)
    flops, moved, exact = _counted(traced, options)[1]
    multiplied = set(_multiplied(traced.lower().as_text()))
    return Cost(
        flops,
        moved,
        exact,
        next((name for short, name in NARROWEST_FIRST.items() if short in multiplied), None),
    )


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


def _counted(traced: Any, options: Mapping[str, str]) -> tuple[_Count, _Count]:
    """A program with the bodies of its loops counted once, and as often as they turn."""
    lowered = traced.lower()
    flops = _figure(lowered.cost_analysis(), "flops")
    once = every = _Count(flops, _figure(lowered.compile().cost_analysis(), "bytes accessed"))
    for body, length in outermost_loops(traced.jaxpr):
        if length is None:
            every = every._replace(exact=False)
        else:
            body_once, body_every = _counted(
                Jitted(core.jaxpr_as_fun(body), options).trace(*_shapes(body)), options
            )
            every = every.plus(length, body_every).plus(-1, body_once)
    return once, every


def _figure(costs: Any, name: str) -> float | None:
    if isinstance(costs, (list, tuple)):
        costs = costs[0] if costs else None
    value = None if not costs else costs.get(name)
    return None if value is None or value < 0 else float(value)


def _multiplied(program: str) -> Iterator[str]:
    """The dtypes of what a program's products and convolutions multiply, in the text that JAX hands
    to XLA.
    """
    for line in program.splitlines():
        if any(name in line for name in PRODUCTS) and (operand := OPERAND.search(line)):
            yield operand[1]


def _shapes(jaxpr: Any) -> list[Any]:
    avals = (
        jaxpr.in_avals
        if hasattr(jaxpr, "in_avals")
        else [variable.aval for variable in jaxpr.invars]
    )
    return [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
