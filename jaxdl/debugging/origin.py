"""Where values that are not finite come from: a program is run again, operation by operation."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, jaxpr_as_fun

from jaxdl.compiling.pytree import PyTree
from jaxdl.debugging.tape import Numeric, Tape, Value, is_finite, is_floating, is_nan

_LIBRARIES = re.compile(
    r"[/\\](?:jax|jaxlib|optax|chex|numpy|functools|contextlib)(?:[/\\]|\.py$)"
)
_FORWARD = "the forward pass"
_GRADIENT = "the gradient"


@dataclasses.dataclass(frozen=True)
class Origin:
    """The operation that first gave a value that is not finite.

    Args:
        operation: of JAX, such as "log" or "dot_general".
        gave: "NaN" or "infinity".
        layer: the path of the part in the model, such as "encoder.dense_0"; "" outside of all.
        during: "the forward pass" or "the gradient".
        line: of the source, such as "losses.py, line 88"; "" where it is not known.
        inputs: the shapes and ranges of the operation's inputs.
        iteration: of the innermost loop, from 0, or None outside of all.
    """

    operation: str
    gave: str
    layer: str = ""
    during: str = _FORWARD
    line: str = ""
    inputs: str = ""
    iteration: int | None = None

    def __str__(self) -> str:
        layer = f" of '{self.layer}'" if self.layer else ""
        line = f" ({self.line})" if self.line else ""
        loop = ""
        if self.iteration is not None:
            loop = f", in iteration {self.iteration + 1} of a loop"
        return (
            f"{self.gave} first appeared in {self.during}{layer}{loop}: {self.operation}{line} "
            f"gave it from {self.inputs}"
        )


def first_not_finite(function: Callable[..., PyTree], *arguments: PyTree) -> Origin | None:
    """The operation of a function that first gave NaN or infinity that reached its result.

    The function is traced and run operation by operation, and each result is kept; loops are
    followed into the iteration. Infinities that are written in the program, as in a mask of −∞, are
    taken as intended.

    Args:
        function: of arrays, or trees of them; `jax.grad` of a function is one too.
        arguments: the function's.

    Returns:
        None where the result is finite, or where arguments were not.

    >>> origin = first_not_finite(jax.grad(lambda x: jnp.sqrt(x).sum()), jnp.zeros(2))
    >>> origin.operation, origin.gave, origin.during
    ('div', 'infinity', 'the forward pass')
    """
    closed = jax.make_jaxpr(function)(*arguments)
    leaves = jax.tree.leaves(arguments)
    values = [leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf) for leaf in leaves]
    return _search(closed.jaxpr, closed.consts, values, "", None)


def _search(
    jaxpr: Jaxpr,
    consts: Sequence[Value],
    inputs: Sequence[Value],
    scope: str,
    iteration: int | None,
) -> Origin | None:
    """The origin of what is not finite among the outputs of a program."""
    tape = Tape()
    outputs = tape.run(jaxpr, tape.append(consts), tape.append(inputs), scope)
    found = tape.first_not_finite(outputs)
    if found is None:
        return None
    given = [tape.values[index] for index in found.inputs]
    inner = _search_inside(found.equation, given, found.scope, iteration)
    if inner is not None:
        return inner
    nan = any(is_nan(tape.values[index]) for index in found.outputs)
    return Origin(
        found.equation.primitive.name,
        "NaN" if nan else "infinity",
        ".".join(_part_names(found.scope)),
        _GRADIENT if "transpose(" in found.scope else _FORWARD,
        _source_line(found.equation),
        _ranges(given),
        iteration,
    )


def _search_inside(
    equation: JaxprEqn, inputs: list[Value], scope: str, iteration: int | None
) -> Origin | None:
    """The origin inside an equation that holds programs: a branch or a loop."""
    params = equation.params
    match equation.primitive.name:
        case "cond":
            branch = params["branches"][int(np.asarray(inputs[0]))]
            return _search(branch.jaxpr, branch.consts, inputs[1:], scope, iteration)
        case "scan":
            return _search_scan(params, inputs, scope)
        case "while":
            return _search_while(params, inputs, scope)
    return None


def _search_scan(params: Mapping[str, Any], inputs: list[Any], scope: str) -> Origin | None:
    closed = params["jaxpr"]
    fixed, carried = _scan_counts(params)
    consts = inputs[:fixed]
    carry = inputs[fixed : fixed + carried]
    xs = inputs[fixed + carried :]
    body = jaxpr_as_fun(closed)
    order = range(params["length"])
    if params["reverse"]:
        order = reversed(order)
    for iteration, index in enumerate(order):
        given = [*consts, *carry, *(leaf[index] for leaf in xs)]
        outputs = body(*given)
        if not all(map(is_finite, outputs)):
            found = _search(closed.jaxpr, closed.consts, given, scope, iteration)
            if found is not None:
                return found
        carry = outputs[:carried]
    return None


def _scan_counts(params: Mapping[str, Any]) -> tuple[int, int]:
    """How many inputs of a scan are constants, and how many are carried."""
    if "ft_in" in params:  # JAX 0.12 and later
        fixed, carried, _ = params["ft_in"].unpack()
        return len(fixed), len(carried)
    return params["num_consts"], params["num_carry"]


def _search_while(params: Mapping[str, Any], inputs: list[Value], scope: str) -> Origin | None:
    tested = params["cond_nconsts"]
    fixed = tested + params["body_nconsts"]
    condition_consts = inputs[:tested]
    consts = inputs[tested:fixed]
    carry = inputs[fixed:]
    closed = params["body_jaxpr"]
    condition = jaxpr_as_fun(params["cond_jaxpr"])
    body = jaxpr_as_fun(closed)
    iteration = 0
    while bool(condition(*condition_consts, *carry)[0]):
        outputs = body(*consts, *carry)
        if not all(map(is_finite, outputs)):
            found = _search(closed.jaxpr, closed.consts, [*consts, *carry], scope, iteration)
            if found is not None:
                return found
        carry = outputs
        iteration += 1
    return None


def _ranges(values: list[Value]) -> str:
    """The dtypes, shapes and ranges of an operation's floating-point inputs."""
    parts = [_range(value) for value in values if is_floating(value) and np.asarray(value).size]
    return " and ".join(parts) or "no numbers"


def _range(value: Numeric) -> str:
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        known = np.abs(np.asarray(value, np.complex128))
    else:
        known = np.asarray(value, np.float64)
    least = known.min()
    greatest = known.max()
    span = f"{least:.4g}" if least == greatest else f"{least:.4g} to {greatest:.4g}"
    return f"{value.dtype}{list(known.shape)} of {span}"


def _part_names(scope: str) -> list[str]:
    """The names in a stack such as `transpose(jvp(encoder))/dense_0`, without the
    transformations.
    """
    return [part for part in re.sub(r"\w+\(|\)", "", scope).split("/") if part]


def _source_line(equation: JaxprEqn) -> str:
    """The innermost line of the source that is not of JAX or an optimizer's library."""
    traceback = equation.source_info.traceback
    entry = None if traceback is None else traceback.as_python_traceback()
    found = ""
    while entry is not None:
        name = entry.tb_frame.f_code.co_filename
        if not name.startswith("<") and not _LIBRARIES.search(name):
            found = f"{Path(name).name}, line {entry.tb_lineno}"
        entry = entry.tb_next
    return found
