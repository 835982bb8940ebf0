"""What one run of a function costs: operations and bytes, as XLA counts them, with loops counted as often as they turn."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.extend import core

PRODUCTS = ("dot_general", "conv_general_dilated")


class Cost(NamedTuple):
    """What a function costs.

    Args:
        flops: floating-point operations of the program that JAX hands to XLA (XLA no longer counts what it turns into calls of
            a library); None where the platform does not count.
        bytes: that the operations of the compiled program read and write, from caches too; None where it does not count.
        exact: whether all loops have a known length; the body of one that has not is counted once.
        dtype: what its matrix products and convolutions multiply, the narrowest where there are several; None without any.
    """

    flops: float | None
    bytes: float | None
    exact: bool
    dtype: str | None


def cost_of(function: Callable[..., Any], *args: Any) -> Cost:
    """Compiles a function for arguments, or their shapes, and counts.

    XLA counts the body of a loop once. Here a `lax.scan` counts as often as it turns, cost = whole + Σ (length − 1) · body.

    >>> import jax, jax.numpy as jnp
    >>> square = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    >>> cost_of(jnp.dot, square, square).flops == 2 * 64**3
    True
    """
    traced = jax.jit(function).trace(*args)
    lowered = traced.lower()
    flops = _figure(lowered.cost_analysis(), "flops")
    moved = _figure(lowered.compile().cost_analysis(), "bytes accessed")
    exact = True
    for name, params, body in _loops(traced.jaxpr):
        if name == "while":
            exact = False
            continue
        once = cost_of(_function(body), *_shapes(body))
        more = params["length"] - 1
        flops = None if flops is None or once.flops is None else flops + more * once.flops
        moved = None if moved is None or once.bytes is None else moved + more * once.bytes
        exact = exact and once.exact
    widths = sorted({(dtype.itemsize, dtype.name) for dtype in _multiplied(traced.jaxpr)})
    return Cost(flops, moved, exact, widths[0][1] if widths else None)


def _figure(costs: Any, name: str) -> float | None:
    if isinstance(costs, (list, tuple)):
        costs = costs[0] if costs else None
    value = None if not costs else costs.get(name)
    return None if value is None or value < 0 else float(value)


def _loops(jaxpr: Any) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """The outermost loops of a program: "scan" or "while", its parameters, its body."""
    for equation in _opened(jaxpr).eqns:
        name, params = equation.primitive.name, equation.params
        if name == "scan":
            yield name, params, params["jaxpr"]
        elif name == "while":
            yield name, params, params["body_jaxpr"]
        else:
            for inner in core.jaxprs_in_params(params):
                yield from _loops(inner)


def _multiplied(jaxpr: Any) -> Iterator[Any]:
    for equation in _opened(jaxpr).eqns:
        if equation.primitive.name in PRODUCTS:
            yield equation.invars[0].aval.dtype
        for inner in core.jaxprs_in_params(equation.params):
            yield from _multiplied(inner)


def _opened(jaxpr: Any) -> Any:
    return jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr


def _function(jaxpr: Any) -> Callable[..., Any]:
    """A program as a function; JAX 0.12 has one kind of program, earlier versions tell closed ones apart."""
    return core.jaxpr_as_fun(jaxpr)


def _shapes(jaxpr: Any) -> list[Any]:
    avals = jaxpr.in_avals if hasattr(jaxpr, "in_avals") else [variable.aval for variable in jaxpr.invars]
    return [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
