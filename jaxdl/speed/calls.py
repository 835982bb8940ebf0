"""What a function was called with when it was compiled, and how it differs from earlier calls."""

import dataclasses
import functools
import inspect
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl.speed.differences import (
    Difference,
    abbreviated,
    closures,
    described,
    differences,
    leaf,
)
from jaxdl.speed.stack_frames import JAX_FOLDER, JitCall

WITHOUT_MEANING = {"fun_sourceinfo", "fun_signature", "static_argnums", "static_argnames"}
"""The options of `jit` that say nothing about a program."""


class Function(NamedTuple):
    """Which function a program is of: equal for two objects of one definition.

    Args:
        name: its module and name.
        place: its file and line.
        operation: whether it is one of JAX's own.
    """

    name: str
    place: str
    operation: bool


@dataclasses.dataclass(frozen=True)
class Call:
    """The call of a function, without the elements of its arrays.

    Args:
        of: the function's definition.
        reference: returns the function, or None once it was garbage collected.
        closed_over: what the function closes over, by name.
        arguments: by name.
        options: of `jit`, by name.
        settings: of JAX, by name.
    """

    of: Function
    reference: Callable[[], object]
    closed_over: Mapping[str, object]
    arguments: Mapping[str, object]
    options: Mapping[str, object]
    settings: Mapping[str, object]

    @classmethod
    def read(cls, call: JitCall | None) -> "Call | None":
        """The description of a call; None where there is none, or it cannot be described."""
        if call is None:
            return None
        try:
            return cls._described(call)
        except Exception:  # an exception in a listener would end the user's call
            return None

    @classmethod
    def _described(cls, call: JitCall) -> "Call":
        function, info, args, kwargs = call
        arguments = {}
        for name, (position, value) in _bound(function, args, kwargs).items():
            static = position in info.static_argnums or name in info.static_argnames
            arguments[name] = value if static else described(value)
        names = [name for name in getattr(info, "_fields", ()) if name not in WITHOUT_MEANING]
        return cls(
            definition(function),
            _reference(function),
            _closed_over(function),
            arguments,
            {name: getattr(info, name) for name in names},
            {name: getattr(jax.config, name, None) for name in jax.config.values},
        )

    def differences(self, earlier: "Call") -> tuple[Difference, ...]:
        """In what this call differs from an earlier one of the same function."""
        found = list(_by_name(earlier.arguments, self.arguments))
        for name, value in self.settings.items():
            before = earlier.settings.get(name)
            if value != before:
                found.append(Difference(name, "setting", str(before), str(value)))
        for name, value in self.options.items():
            before = earlier.options.get(name)
            if value != before:
                found.append(Difference(name, "option", str(before), str(value)))
        if earlier.reference() is not self.reference():
            inside = _by_name(earlier.closed_over, self.closed_over)
            found += [each for each in inside if each.kind not in ("static object", "function")]
            found.append(Difference(self.of.name, "function", self.of.place, self.of.place))
        return tuple(found)


def nearest_differences(call: Call, earlier: Sequence[Call]) -> tuple[Difference, ...]:
    """The differences from the earlier call that has the fewest, the latest of several."""
    try:
        found = [call.differences(each) for each in earlier]
    except Exception:  # a static value's own comparison must not end the user's call
        return ()
    return min(reversed(found), key=len, default=())


def definition(function: Callable[..., object]) -> Function:
    """Where a function was defined, through decorators and `functools.partial`."""
    innermost: Any = inspect.unwrap(function)
    while isinstance(innermost, functools.partial):
        innermost = inspect.unwrap(innermost.func)
    kind = type(innermost)
    code = getattr(innermost, "__code__", None) or getattr(kind.__call__, "__code__", None)
    name = getattr(innermost, "__qualname__", kind.__qualname__)
    given = getattr(function, "__name__", name)
    if given not in (getattr(innermost, "__name__", name), "<lambda>"):
        name = given
    module = getattr(innermost, "__module__", None)
    if module not in (None, "__main__"):
        name = f"{module}.{name}"
    if code is None:
        return Function(name, "a built-in function", False)
    place = f"{os.path.basename(code.co_filename)}:{code.co_firstlineno}"
    return Function(name, place, code.co_filename.startswith(JAX_FOLDER))


def _bound(
    function: Callable[..., object],
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> dict[str, tuple[int, object]]:
    """Arguments by name, with their positions."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    variadic = [each.name for each in parameters if each.kind is each.VAR_POSITIONAL]
    rest = variadic[0] if variadic else "args"
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [each.name for each in parameters if each.kind in kinds]
    found = {}
    for position, value in enumerate(args):
        name = names[position] if position < len(names) else f"{rest}[{position - len(names)}]"
        found[name] = position, value
    for name, value in kwargs.items():
        position = names.index(name) if name in names else -1 - len(args)
        found[name] = position, value
    return found


def _closed_over(function: Callable[..., object]) -> dict[str, object]:
    """What a function closes over, by name, without the elements of arrays."""

    def kept(value: object) -> object:
        return leaf(value) if isinstance(value, (jax.Array, np.ndarray)) else value

    return {name: jax.tree.map(kept, value) for name, value, _ in closures(function, function)}


def _reference(function: Callable[..., object]) -> Callable[[], object]:
    try:
        return weakref.ref(function)
    except TypeError:
        return lambda: None


def _by_name(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[Difference]:
    for name in dict.fromkeys([*old, *new]):
        if name in old and name in new:
            yield from differences(name, old[name], new[name])
        else:
            before = abbreviated(old[name]) if name in old else "not given"
            after = abbreviated(new[name]) if name in new else "not given"
            yield Difference(name, "structure", before, after)
