"""Where numbers that are not finite come from: a program is run again, operation by operation."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np

_LIBRARIES = re.compile(r"[/\\](?:jax|jaxlib|optax|chex|numpy|functools|contextlib)(?:[/\\]|\.py$)")
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
_FORWARD, _GRADIENT = "the forward pass", "the gradient"


@dataclasses.dataclass(frozen=True)
class Origin:
    """The operation that first gave a number that is not finite.

    Args:
        operation: of JAX, such as "log" or "dot_general".
        gave: "NaN" or "infinity".
        layer: the path of the part in the model, such as "encoder.dense_0"; "" outside of all.
        during: "the forward pass" or "the gradient".
        line: of the source, such as "losses.py, line 88"; "" where it is not known.
        inputs: what the operation was given.
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
        loop = "" if self.iteration is None else f", in iteration {self.iteration + 1} of a loop"
        line = f" ({self.line})" if self.line else ""
        return (
            f"{self.gave} first appeared in {self.during}{layer}{loop}: {self.operation}{line} "
            f"gave it from {self.inputs}"
        )


def first_not_finite(function: Callable[..., Any], *arguments: Any) -> Origin | None:
    """Which operation of a function first gave NaN or infinity that went on to its result.

    The function is traced, and run operation by operation, each result kept; loops are followed
    into the iteration. Infinities that are written in the program, as in a mask of −∞, are taken as
    meant.

    Args:
        function: of arrays, or trees of them; `jax.grad` of a function is one too.
        arguments: its own.

    Returns:
        None where the result is finite, or where it is not for arguments that were not.

    >>> origin = first_not_finite(jax.grad(lambda x: jnp.sqrt(x).sum()), jnp.zeros(2))
    >>> origin.operation, origin.gave, origin.during
    ('div', 'infinity', 'the forward pass')
    """
    closed = jax.make_jaxpr(function)(*arguments)
    values = [
        leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)
        for leaf in jax.tree.leaves(arguments)
    ]
    return _search(closed.jaxpr, closed.consts, values, "", None)


class _Made(NamedTuple):
    """An equation that was evaluated, and the places on the tape of what it was given and gave."""

    equation: Any
    scope: str
    given: list[int]
    gave: list[int]


class _Tape:
    """Every value of a program that was run operation by operation, and what made it; calls are
    entered.
    """

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.made: list[_Made] = []
        self.written: set[int] = set()
        """The places of numbers that are written in the program."""

    def put(self, values: Sequence[Any]) -> list[int]:
        """The places of new values."""
        self.values += values
        return list(range(len(self.values) - len(values), len(self.values)))

    def run(self, jaxpr: Any, consts: list[int], inputs: list[int], scope: str) -> list[int]:
        """The places of a program's outputs."""
        places: dict[Any, int] = dict(
            zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True)
        )

        def read(atom: Any) -> int:
            if not isinstance(atom, jax.extend.core.Literal):
                return places[atom]
            place = self.put([atom.val])[0]
            self.written.add(place)
            return place

        for equation in jaxpr.eqns:
            given, here = (
                [read(atom) for atom in equation.invars],
                _joined(scope, str(equation.source_info.name_stack)),
            )
            inner = _called(equation)
            if inner is None:
                gave = self.put(_evaluated(equation, [self.values[place] for place in given]))
                self.made.append(_Made(equation, here, given, gave))
            else:
                gave = self.run(inner[0], self.put(inner[1]), given, here)
            places |= dict(zip(equation.outvars, gave, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def first(self, outputs: list[int]) -> _Made | None:
        """The first on the way to an output that gave, from finite numbers, one that is not.

        Where there is none: the first that gave NaN from infinities, or took either from the
            program's text.
        """
        maker = {place: number for number, made in enumerate(self.made) for place in made.gave}
        from_finite, from_infinite, from_text, seen = [], [], [], set()
        left = [place for place in outputs if not _finite(self.values[place])]
        while left:
            number = maker.get(left.pop())
            if number is None or number in seen:
                continue
            seen.add(number)
            made = self.made[number]
            bad = self._bad(made)
            left += bad
            if not bad:
                from_finite.append(number)
            elif any(_nan(self.values[place]) for place in made.gave) and not any(
                _nan(self.values[place]) for place in bad
            ):
                from_infinite.append(number)
            elif self.written.issuperset(bad):
                from_text.append(number)
        number = next(
            (min(found) for found in (from_finite, from_infinite, from_text) if found), None
        )
        return None if number is None else self.made[number]

    def _bad(self, made: _Made) -> list[int]:
        """The inputs that are not finite; of a choice, those of which something not finite was
        chosen.
        """
        bad = [place for place in made.given if not _finite(self.values[place])]
        if made.equation.primitive.name != "select_n" or not bad:
            return bad
        which, *cases = made.given
        chosen = self.values[which].astype(jnp.int32)
        return [
            place
            for k, place in enumerate(cases)
            if bool((~jnp.isfinite(self.values[place]) & (chosen == k)).any())
        ]


def _search(
    jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Any], scope: str, iteration: int | None
) -> Origin | None:
    """The origin of what is not finite among the outputs of a program."""
    tape = _Tape()
    outputs = tape.run(jaxpr, tape.put(consts), tape.put(inputs), scope)
    made = tape.first(outputs)
    if made is None:
        return None
    given, gave = ([tape.values[place] for place in places] for places in (made.given, made.gave))
    return _within(made.equation, given, gave, made.scope, iteration)


def _within(
    equation: Any, given: list[Any], gave: list[Any], scope: str, iteration: int | None
) -> Origin:
    """The origin inside an equation that holds programs, or the equation."""
    found = None
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        branch = params["branches"][int(given[0])]
        found = _search(branch.jaxpr, branch.consts, given[1:], scope, iteration)
    elif name == "scan":
        found = _in_scan(params, given, scope)
    elif name == "while":
        found = _in_while(params, given, scope)
    if found is not None:
        return found
    nan = any(_nan(value) for value in gave)
    return Origin(
        equation.primitive.name,
        "NaN" if nan else "infinity",
        ".".join(_parts(scope)),
        _GRADIENT if "transpose(" in scope else _FORWARD,
        _line(equation),
        _told(given),
        iteration,
    )


def _in_scan(params: Any, given: list[Any], scope: str) -> Origin | None:
    closed = params["jaxpr"]
    if "ft_in" in params:  # JAX 0.12 and later
        fixed, carried, _ = (len(part) for part in params["ft_in"].unpack())
    else:
        fixed, carried = params["num_consts"], params["num_carry"]
    consts, carry, rows = given[:fixed], given[fixed : fixed + carried], given[fixed + carried :]
    run = jax.extend.core.jaxpr_as_fun(closed)
    order = range(params["length"])
    for turn, row in enumerate(reversed(order) if params["reverse"] else order):
        inputs = [*consts, *carry, *(leaf[row] for leaf in rows)]
        outputs = run(*inputs)
        if not all(map(_finite, outputs)):
            found = _search(closed.jaxpr, closed.consts, inputs, scope, turn)
            if found is not None:
                return found
        carry = outputs[:carried]
    return None


def _in_while(params: Any, given: list[Any], scope: str) -> Origin | None:
    tests, fixed = params["cond_nconsts"], params["body_nconsts"]
    asked, consts, carry = given[:tests], given[tests : tests + fixed], given[tests + fixed :]
    test, body = (
        jax.extend.core.jaxpr_as_fun(params["cond_jaxpr"]),
        jax.extend.core.jaxpr_as_fun(params["body_jaxpr"]),
    )
    turn = 0
    while bool(test(*asked, *carry)[0]):
        outputs = body(*consts, *carry)
        if not all(map(_finite, outputs)):
            closed = params["body_jaxpr"]
            found = _search(closed.jaxpr, closed.consts, [*consts, *carry], scope, turn)
            if found is not None:
                return found
        carry, turn = outputs, turn + 1
    return None


def _called(equation: Any) -> tuple[Any, Sequence[Any]] | None:
    """The program that an equation calls, and its constants, where it is such a call."""
    if equation.primitive.name not in _CALLS:
        return None
    inner = next(
        (
            equation.params[name]
            for name in ("jaxpr", "call_jaxpr", "fun_jaxpr")
            if name in equation.params
        ),
        None,
    )
    if inner is None:
        return None
    return (
        (inner.jaxpr, inner.consts)
        if isinstance(inner, jax.extend.core.ClosedJaxpr)
        else (inner, ())
    )


def _evaluated(equation: Any, values: list[Any]) -> list[Any]:
    outputs = equation.primitive.bind(
        *values, **equation.primitive.get_bind_params(equation.params)
    )
    return list(outputs) if equation.primitive.multiple_results else [outputs]


def _floating(value: Any) -> bool:
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.inexact)


def _finite(value: Any) -> bool:
    return not _floating(value) or bool(jnp.isfinite(value).all())


def _nan(value: Any) -> bool:
    return _floating(value) and bool(jnp.isnan(value).any())


def _told(values: list[Any]) -> str:
    """Shapes and ranges of what an operation was given."""
    parts = []
    for value in values:
        if not _floating(value) or not np.size(value):
            continue
        array = np.asarray(
            value, np.complex128 if jnp.issubdtype(value.dtype, jnp.complexfloating) else np.float64
        )
        known = np.abs(array) if np.iscomplexobj(array) else array
        least, most = known.min(), known.max()
        span = f"{least:.4g}" if least == most else f"{least:.4g} to {most:.4g}"
        parts.append(f"{value.dtype}{list(np.shape(value))} of {span}")
    return " and ".join(parts) or "no numbers"


def _joined(outer: str, inner: str) -> str:
    return "/".join(part for part in (outer, inner) if part)


def _parts(scope: str) -> list[str]:
    """The names in a stack such as `transpose(jvp(encoder))/dense_0`, without the
    transformations.
    """
    return [part for part in re.sub(r"\w+\(|\)", "", scope).split("/") if part]


def _line(equation: Any) -> str:
    """The innermost line of the source that is not of JAX or an optimizer's library."""
    traceback, found = equation.source_info.traceback, ""
    entry = None if traceback is None else traceback.as_python_traceback()
    while entry is not None:
        name = entry.tb_frame.f_code.co_filename
        if not name.startswith("<") and not _LIBRARIES.search(name):
            found = f"{Path(name).name}, line {entry.tb_lineno}"
        entry = entry.tb_next
    return found
