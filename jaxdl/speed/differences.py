"""In what two calls of a compiled function differ, argument by argument."""

import dataclasses
import functools
import types
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import jax
from jax import core

from jaxdl.training.step_form import OptimizerForm, StepForm

Kind = Literal[
    "shape",
    "dtype",
    "weak type",
    "placement",
    "transformation",
    "structure",
    "static value",
    "static object",
    "function",
    "setting",
    "option",
]
DEEPEST = 16
"""How far values are compared inside one another: closures of closures go on and may come round."""
WIDEST = 72
"""The most characters of a value that a sentence shows."""


class Difference(NamedTuple):
    """One thing in which a call differs from an earlier one.

    Args:
        path: the argument's name and the way to the leaf inside it, such as `params['kernel']` or
            `step.optimizer`.
        kind: what differs.
        old, new: as text.
    """

    path: str
    kind: Kind
    old: str
    new: str

    def __str__(self) -> str:
        return _SENTENCES[self.kind].format(path=self.path, old=self.old, new=self.new)


_SENTENCES: dict[str, str] = {
    "shape": "`{path}` has another shape, {old} → {new}",
    "dtype": "`{path}` has another dtype, {old} → {new}",
    "weak type": "`{path}` has another weak type, {old} → {new} (Python numbers are weak, arrays "
    "are not)",
    "placement": "`{path}` lies elsewhere, {old} → {new}",
    "transformation": "`{path}` came through another transformation, {old} → {new}",
    "structure": "`{path}` has another structure, {old} → {new}",
    "static value": "static `{path}` has another value, {old} → {new}",
    "static object": "static `{path}` is another object, though it looks alike ({new}): make it "
    "once and pass the same one",
    "function": "the function was defined anew ({new}), and programs are kept by function: define "
    "it once, outside the loop",
    "setting": "the setting {path} differs, {old} → {new}",
    "option": "the option {path} of jit differs, {old} → {new}",
}


@dataclasses.dataclass(frozen=True)
class Leaf:
    """An array argument, without its numbers."""

    shape: tuple[int, ...]
    dtype: str
    weak: bool
    placement: str
    transformation: str

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def described(value: Any) -> Any:
    """An argument with a `Leaf` for each array: what programs are kept by, without memory being
    held.
    """
    try:
        return jax.tree.map(leaf, value)
    except Exception:  # a class whose instances cannot hold anything else
        return [leaf(each) for each in jax.tree.leaves(value)]


def leaf(value: Any) -> Any:
    """The shape, dtype and place of an array; the name of its type for anything else."""
    try:
        aval = jax.typeof(value)
        shape, dtype, weak = (
            tuple(aval.shape),
            str(aval.dtype),
            bool(getattr(aval, "weak_type", False)),
        )
    except (TypeError, AttributeError):
        return type(value).__name__
    traced = isinstance(value, core.Tracer)
    placed = not traced and isinstance(value, jax.Array) and value.committed
    return Leaf(
        shape,
        dtype,
        weak,
        str(value.sharding) if placed else "anywhere",
        type(value).__name__ if traced else "none",
    )


def differences(
    path: str, old: Any, new: Any, depth: int = 0, composed: bool = True
) -> Iterator[Difference]:
    """Where two arguments differ; nothing where they are equal.

    Args:
        path: what leads to them.
        old, new: arguments as `described` gives them, or static values.
        depth: how deep inside an argument they lie.
        composed: whether an optimizer is told as a whole, rather than by what lies inside.
    """
    if old is new or _equal(old, new):
        return
    old, new = _given(old), _given(new)
    if isinstance(old, Leaf) and isinstance(new, Leaf):
        yield from _of_leaves(path, old, new)
    elif type(old) is not type(new) or depth > DEEPEST:
        kind: Kind = (
            "structure" if isinstance(old, Leaf) or isinstance(new, Leaf) else "static value"
        )
        yield Difference(path, kind, shown(old), shown(new))
    elif composed and _transformation(old):
        yield _of_transformations(path, old, new, depth)
    else:
        found = list(_inside(path, old, new, depth + 1, composed))
        yield from found or [Difference(path, "static object", shown(old), shown(new))]


def _given(value: Any) -> Any:
    """A step or an optimizer as the user gave it, of the form that a program is compiled for."""
    if isinstance(value, StepForm):
        return value.template
    return value.example if isinstance(value, OptimizerForm) else value


def shown(value: Any) -> str:
    """A value as a sentence shows it."""
    if isinstance(value, types.FunctionType):
        return f"{value.__qualname__} ({_place(value)})"
    if _transformation(value):
        return type(value).__name__
    try:
        text = " ".join((str(value) if isinstance(value, Leaf) else repr(value)).split())
    except Exception:  # a user's own repr
        text = type(value).__name__
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def _of_leaves(path: str, old: Leaf, new: Leaf) -> Iterator[Difference]:
    if old.shape != new.shape:
        yield Difference(path, "shape", str(old), str(new))
    if old.dtype != new.dtype:
        yield Difference(path, "dtype", str(old), str(new))
    if old.weak != new.weak:
        yield Difference(
            path,
            "weak type",
            *(f"{each} {'weak' if each.weak else 'strong'}" for each in (old, new)),
        )
    if old.placement != new.placement:
        yield Difference(path, "placement", old.placement, new.placement)
    if old.transformation != new.transformation:
        yield Difference(path, "transformation", old.transformation, new.transformation)


def _inside(path: str, old: Any, new: Any, depth: int, composed: bool) -> Iterator[Difference]:
    if isinstance(old, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _optional(f"{path}[{key!r}]", old, new, key, depth, composed)
    elif isinstance(old, (tuple, list)):
        names = getattr(old, "_fields", None)
        if len(old) != len(new):
            yield Difference(path, "structure", f"{len(old)} entries", f"{len(new)} entries")
        for index, (one, other) in enumerate(zip(old, new, strict=False)):
            yield from differences(
                f"{path}.{names[index]}" if names else f"{path}[{index}]",
                one,
                other,
                depth,
                composed,
            )
    elif dataclasses.is_dataclass(old):
        for field in dataclasses.fields(old):
            name = field.name
            yield from differences(
                f"{path}.{name}",
                getattr(old, name, None),
                getattr(new, name, None),
                depth,
                composed,
            )
    elif isinstance(old, functools.partial):
        for name in ("func", "args", "keywords"):
            yield from differences(
                f"{path}.{name}", getattr(old, name), getattr(new, name), depth, composed
            )
    elif isinstance(old, types.FunctionType):
        yield from _of_functions(path, old, new, depth, composed)
    elif isinstance(old, (bool, int, float, complex, str, bytes, type, frozenset)) or repr(
        old
    ) != repr(new):
        yield Difference(path, "static value", shown(old), shown(new))


def _optional(
    path: str, old: dict[Any, Any], new: dict[Any, Any], key: Any, depth: int, composed: bool
) -> Iterator[Difference]:
    if key in old and key in new:
        yield from differences(path, old[key], new[key], depth, composed)
    else:
        one, other = (shown(each[key]) if key in each else "nothing" for each in (old, new))
        yield Difference(path, "structure", one, other)


def _of_functions(
    path: str, old: types.FunctionType, new: types.FunctionType, depth: int, composed: bool
) -> Iterator[Difference]:
    """Two functions of one definition differ in what they close over, if in anything but their
    identity.
    """
    if old.__code__ is not new.__code__ and _place(old) != _place(new):
        yield Difference(path, "static value", shown(old), shown(new))
        return
    for name, one, other in closures(old, new):
        yield from differences(f"{path}.{name}", one, other, depth, composed)
    for name, one, other in _defaults(old, new):
        yield from differences(f"{path}.{name}", one, other, depth, composed)


def closures(old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """What two functions of one definition close over: names and both values."""
    cells = zip(
        getattr(old, "__closure__", None) or (),
        getattr(new, "__closure__", None) or (),
        strict=False,
    )
    names = old.__code__.co_freevars if isinstance(old, types.FunctionType) else ()
    for name, (one, other) in zip(names, cells, strict=False):
        try:
            yield name, one.cell_contents, other.cell_contents
        except ValueError:  # a cell that is still empty
            continue


def _defaults(old: types.FunctionType, new: types.FunctionType) -> Iterator[tuple[str, Any, Any]]:
    names = old.__code__.co_varnames[: old.__code__.co_argcount]
    pairs = list(zip(old.__defaults__ or (), new.__defaults__ or (), strict=False))
    for name, (one, other) in zip(names[len(names) - len(pairs) :], pairs, strict=False):
        yield name, one, other


def _transformation(value: Any) -> bool:
    """Whether a value is an optimizer of optax, or another tuple of nothing but functions."""
    return (
        isinstance(value, tuple)
        and hasattr(value, "_fields")
        and bool(value)
        and all(map(callable, value))
    )


def _of_transformations(path: str, old: Any, new: Any, depth: int) -> Difference:
    """Optimizers are functions in functions; what their innermost numbers are called is all that a
    reader knows of them.
    """
    values = dict.fromkeys(_numbers(path, old, new, depth))
    if not values:
        return Difference(path, "static object", shown(old), shown(new))
    one, other = (", ".join(f"{name}={pair[at]}" for name, *pair in values) for at in (0, 1))
    return Difference(
        path, "static value", f"{type(old).__name__}({one})", f"{type(new).__name__}({other})"
    )


def _numbers(path: str, old: Any, new: Any, depth: int) -> Iterator[tuple[str, str, str]]:
    """What values of another kind than functions differ in, by their own names; optimizers inside
    optimizers are opened.
    """
    for name, one, other in zip(old._fields, old, new, strict=True):
        for each in differences(f"{path}.{name}", one, other, depth + 1, composed=False):
            if each.kind == "static value":
                yield each.path.rpartition(".")[2], each.old, each.new


def _place(function: Any) -> str:
    code = function.__code__
    return f"{code.co_filename.replace(chr(92), '/').rpartition('/')[2]}:{code.co_firstlineno}"


def _equal(old: Any, new: Any) -> bool:
    try:
        return type(old) is type(new) and bool(old == new)
    except Exception:  # arrays among static values, or a user's own comparison
        return False
