"""A program that is run operation by operation, with every intermediate value kept."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeGuard, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

Value = object
"""An array, a scalar, or a token: what an equation takes and gives."""


@runtime_checkable
class Numeric(Protocol):
    """An array, or a number that a program holds as a literal."""

    @property
    def dtype(self) -> np.dtype: ...


_CALLS = (
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "checkpoint",
    "remat2",
    "custom_jvp_call",
    "custom_vjp_call",
)
_PROGRAMS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


class Evaluated(NamedTuple):
    """An equation that was evaluated, with the indices on the tape of its inputs and outputs.

    Args:
        equation: of a jaxpr.
        scope: the name stack that it lies in.
        inputs: indices.
        outputs: indices.
    """

    equation: JaxprEqn
    scope: str
    inputs: list[int]
    outputs: list[int]


class Tape:
    """Every value of a program, and the equation that made it; called programs are entered."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.equations: list[Evaluated] = []
        self.literals: set[int] = set()
        """The indices of numbers that are written in the program."""

    def append(self, values: Sequence[Value]) -> list[int]:
        """Appends values, and returns their indices."""
        start = len(self.values)
        self.values += values
        return list(range(start, len(self.values)))

    def run(self, jaxpr: Jaxpr, consts: list[int], inputs: list[int], scope: str) -> list[int]:
        """Evaluates a program.

        Args:
            jaxpr: the program.
            consts: the indices of its constants.
            inputs: the indices of its arguments.
            scope: the name stack that it lies in.

        Returns:
            The indices of its outputs.
        """
        variables = [*jaxpr.constvars, *jaxpr.invars]
        indices: dict[Var, int] = dict(zip(variables, [*consts, *inputs], strict=True))

        def read(atom: Var | Literal) -> int:
            if not isinstance(atom, Literal):
                return indices[atom]
            index = self.append([atom.val])[0]
            self.literals.add(index)
            return index

        for equation in jaxpr.eqns:
            given = [read(atom) for atom in equation.invars]
            inner_scope = _joined(scope, str(equation.source_info.name_stack))
            outputs = self._evaluate(equation, given, inner_scope)
            indices |= dict(zip(equation.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _evaluate(self, equation: JaxprEqn, inputs: list[int], scope: str) -> list[int]:
        called = _called(equation)
        if called is not None:
            jaxpr, consts = called
            return self.run(jaxpr, self.append(consts), inputs, scope)
        outputs = self.append(_bind(equation, [self.values[index] for index in inputs]))
        self.equations.append(Evaluated(equation, scope, inputs, outputs))
        return outputs

    def first_not_finite(self, outputs: list[int]) -> Evaluated | None:
        """The first equation on the way to an output that gave, from finite numbers, one that is
        not.

        Where there is none: the first that gave NaN from infinities, or took either from a literal.

        Args:
            outputs: the indices of the program's outputs.

        Returns:
            None where all outputs are finite, or their origin is an argument.
        """
        maker = {
            index: number
            for number, evaluated in enumerate(self.equations)
            for index in evaluated.outputs
        }
        from_finite: list[int] = []
        from_infinite: list[int] = []
        from_literal: list[int] = []
        seen: set[int] = set()
        left = [index for index in outputs if not is_finite(self.values[index])]
        while left:
            number = maker.get(left.pop())
            if number is None or number in seen:
                continue
            seen.add(number)
            evaluated = self.equations[number]
            bad = self._not_finite_inputs(evaluated)
            left += bad
            if not bad:
                from_finite.append(number)
            elif self._any_nan(evaluated.outputs) and not self._any_nan(bad):
                from_infinite.append(number)
            elif self.literals.issuperset(bad):
                from_literal.append(number)
        for found in (from_finite, from_infinite, from_literal):
            if found:
                return self.equations[min(found)]
        return None

    def _any_nan(self, indices: list[int]) -> bool:
        return any(is_nan(self.values[index]) for index in indices)

    def _not_finite_inputs(self, evaluated: Evaluated) -> list[int]:
        """The inputs that are not finite; of a `select`, those of which something not finite was
        selected.
        """
        bad = [index for index in evaluated.inputs if not is_finite(self.values[index])]
        if evaluated.equation.primitive.name != "select_n" or not bad:
            return bad
        which, *cases = evaluated.inputs
        selected = jnp.asarray(self.values[which], jnp.int32)
        return [
            index
            for case, index in enumerate(cases)
            if bool(
                jnp.any(~jnp.isfinite(jnp.asarray(self.values[index])) & (selected == case))
            )
        ]


def _called(equation: JaxprEqn) -> tuple[Jaxpr, Sequence[Value]] | None:
    """The program that an equation calls, and its constants, where it is such a call."""
    if equation.primitive.name not in _CALLS:
        return None
    for name in _PROGRAMS:
        inner = equation.params.get(name)
        if isinstance(inner, ClosedJaxpr):
            return inner.jaxpr, inner.consts
        if inner is not None:
            return inner, ()
    return None


def _bind(equation: JaxprEqn, values: list[Value]) -> list[Value]:
    """The outputs of an equation."""
    params = equation.primitive.get_bind_params(equation.params)
    outputs = equation.primitive.bind(*values, **params)
    return list(outputs) if equation.primitive.multiple_results else [outputs]


def is_floating(value: Value) -> TypeGuard[Numeric]:
    """Whether a value is an array of floating-point or complex numbers."""
    dtype = getattr(value, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


def is_finite(value: Value) -> bool:
    """Whether all elements are finite; a value of another kind is."""
    return not is_floating(value) or bool(jnp.isfinite(jnp.asarray(value)).all())


def is_nan(value: Value) -> bool:
    """Whether an element is NaN."""
    return is_floating(value) and bool(jnp.isnan(jnp.asarray(value)).any())


def _joined(outer: str, inner: str) -> str:
    return "/".join(part for part in (outer, inner) if part)
