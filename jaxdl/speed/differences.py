"""In what two calls of a compiled function differ, argument by argument."""

import dataclasses
import functools
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
from jax import core

from jaxdl.compiling.pytree import PyTree
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
MAX_DEPTH = 16
"""How deep values are compared inside one another; closures of closures may be circular."""

MAX_LENGTH = 72
"""How many characters of a value a sentence shows."""

_PLAIN = (bool, int, float, complex, str, bytes, type, frozenset)


class Difference(NamedTuple):
    """One thing in which a call differs from an earlier one.

    Args:
        path: of the leaf inside an argument, such as `params['kernel']` or `step.optimizer`.
        kind: what differs.
        old: as text.
        new: as text.
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
    "placement": "`{path}` is on other devices, {old} → {new}",
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
    """An array argument, without its elements.

    Args:
        shape: of the array.
        dtype: of the array.
        weak: whether its type is weak, as that of a Python number.
        placement: its sharding, or "anywhere" where it is not committed to devices.
        transformation: the kind of tracer that it is, or "none".
    """

    shape: tuple[int, ...]
    dtype: str
    weak: bool
    placement: str
    transformation: str

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def described(value: PyTree) -> PyTree:
    """An argument with a `Leaf` for each array: what a program is cached by, without the memory."""
    try:
        return jax.tree.map(leaf, value)
    except Exception:  # a class whose instances cannot hold anything else
        return [leaf(each) for each in jax.tree.leaves(value)]


def leaf(value: object) -> Leaf | str:
    """The `Leaf` of an array; the name of its type for anything else."""
    try:
        aval: Any = jax.typeof(value)
        shape = tuple(aval.shape)
        dtype = str(aval.dtype)
    except (TypeError, AttributeError):
        return type(value).__name__
    placement = "anywhere"
    transformation = "none"
    if isinstance(value, core.Tracer):
        transformation = type(value).__name__
    elif isinstance(value, jax.Array) and value.committed:
        placement = str(value.sharding)
    weak = bool(getattr(aval, "weak_type", False))
    return Leaf(shape, dtype, weak, placement, transformation)


def differences(
    path: str,
    old: object,
    new: object,
    depth: int = 0,
    composed: bool = True,
) -> Iterator[Difference]:
    """Where two arguments differ; nothing where they are equal.

    Args:
        path: of the arguments.
        old: as `described` gives it, or a static value.
        new: as `old`.
        depth: how deep inside an argument they lie.
        composed: whether an optimizer is one value, rather than the functions it consists of.
    """
    if old is new or _equal(old, new):
        return
    old = _as_given(old)
    new = _as_given(new)
    if isinstance(old, Leaf) and isinstance(new, Leaf):
        yield from _of_leaves(path, old, new)
    elif isinstance(old, Leaf) or isinstance(new, Leaf):
        yield Difference(path, "structure", abbreviated(old), abbreviated(new))
    elif type(old) is not type(new) or depth > MAX_DEPTH:
        yield Difference(path, "static value", abbreviated(old), abbreviated(new))
    elif composed and _is_optimizer(old):
        yield _of_optimizers(path, old, new, depth)
    else:
        found = list(_inside(path, old, new, depth + 1, composed))
        alike = Difference(path, "static object", abbreviated(old), abbreviated(new))
        yield from found or [alike]


def _as_given(value: object) -> object:
    """A step or an optimizer as the user gave it, of the form that a program is compiled for."""
    if isinstance(value, StepForm):
        return value.template
    return value.example if isinstance(value, OptimizerForm) else value


def abbreviated(value: object) -> str:
    """A value as a sentence shows it, in at most 72 characters."""
    if isinstance(value, types.FunctionType):
        return f"{value.__qualname__} ({_place(value)})"
    if _is_optimizer(value):
        return type(value).__name__
    try:
        text = str(value) if isinstance(value, Leaf) else repr(value)
    except Exception:  # a user's own repr
        text = type(value).__name__
    text = " ".join(text.split())
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 1] + "…"


def _of_leaves(path: str, old: Leaf, new: Leaf) -> Iterator[Difference]:
    if old.shape != new.shape:
        yield Difference(path, "shape", str(old), str(new))
    if old.dtype != new.dtype:
        yield Difference(path, "dtype", str(old), str(new))
    if old.weak != new.weak:
        yield Difference(path, "weak type", _with_weakness(old), _with_weakness(new))
    if old.placement != new.placement:
        yield Difference(path, "placement", old.placement, new.placement)
    if old.transformation != new.transformation:
        yield Difference(path, "transformation", old.transformation, new.transformation)


def _with_weakness(value: Leaf) -> str:
    return f"{value} {'weak' if value.weak else 'strong'}"


def _inside(path: str, old: Any, new: Any, depth: int, composed: bool) -> Iterator[Difference]:
    """The differences between the parts of two values of one type."""
    if isinstance(old, dict):
        yield from _of_dicts(path, old, new, depth, composed)
    elif isinstance(old, (tuple, list)):
        yield from _of_sequences(path, old, new, depth, composed)
    elif isinstance(old, types.FunctionType):
        yield from _of_functions(path, old, new, depth, composed)
    elif dataclasses.is_dataclass(old):
        names = [field.name for field in dataclasses.fields(old)]
        yield from _of_attributes(path, names, old, new, depth, composed)
    elif isinstance(old, functools.partial):
        names = ["func", "args", "keywords"]
        yield from _of_attributes(path, names, old, new, depth, composed)
    elif isinstance(old, _PLAIN) or repr(old) != repr(new):
        yield Difference(path, "static value", abbreviated(old), abbreviated(new))


def _of_dicts(
    path: str,
    old: dict,
    new: dict,
    depth: int,
    composed: bool,
) -> Iterator[Difference]:
    for key in dict.fromkeys([*old, *new]):
        inner = f"{path}[{key!r}]"
        if key in old and key in new:
            yield from differences(inner, old[key], new[key], depth, composed)
        else:
            before = abbreviated(old[key]) if key in old else "nothing"
            after = abbreviated(new[key]) if key in new else "nothing"
            yield Difference(inner, "structure", before, after)


def _of_sequences(
    path: str,
    old: Sequence,
    new: Sequence,
    depth: int,
    composed: bool,
) -> Iterator[Difference]:
    if len(old) != len(new):
        yield Difference(path, "structure", f"{len(old)} entries", f"{len(new)} entries")
    fields = getattr(old, "_fields", None)
    for index, (one, other) in enumerate(zip(old, new, strict=False)):
        name = f"[{index}]" if fields is None else f".{fields[index]}"
        yield from differences(f"{path}{name}", one, other, depth, composed)


def _of_attributes(
    path: str,
    names: list[str],
    old: object,
    new: object,
    depth: int,
    composed: bool,
) -> Iterator[Difference]:
    for name in names:
        one = getattr(old, name, None)
        other = getattr(new, name, None)
        yield from differences(f"{path}.{name}", one, other, depth, composed)


def _of_functions(
    path: str,
    old: types.FunctionType,
    new: types.FunctionType,
    depth: int,
    composed: bool,
) -> Iterator[Difference]:
    """Two functions of one definition differ in their closures and defaults, if in anything but
    their identity.
    """
    if old.__code__ is not new.__code__ and _place(old) != _place(new):
        yield Difference(path, "static value", abbreviated(old), abbreviated(new))
        return
    for name, one, other in [*closures(old, new), *_defaults(old, new)]:
        yield from differences(f"{path}.{name}", one, other, depth, composed)


def closures(
    old: Callable[..., object],
    new: Callable[..., object],
) -> Iterator[tuple[str, object, object]]:
    """What two functions of one definition close over: names, and the values of both."""
    if not isinstance(old, types.FunctionType) or not isinstance(new, types.FunctionType):
        return
    cells = zip(old.__closure__ or (), new.__closure__ or (), strict=False)
    for name, (one, other) in zip(old.__code__.co_freevars, cells, strict=False):
        try:
            yield name, one.cell_contents, other.cell_contents
        except ValueError:  # a cell that is still empty
            continue


def _defaults(
    old: types.FunctionType,
    new: types.FunctionType,
) -> Iterator[tuple[str, object, object]]:
    names = old.__code__.co_varnames[: old.__code__.co_argcount]
    pairs = list(zip(old.__defaults__ or (), new.__defaults__ or (), strict=False))
    for name, (one, other) in zip(names[len(names) - len(pairs) :], pairs, strict=False):
        yield name, one, other


def _is_optimizer(value: object) -> bool:
    """Whether a value is an optimizer of optax, or another named tuple of functions."""
    if not isinstance(value, tuple) or not hasattr(value, "_fields"):
        return False
    return bool(value) and all(map(callable, value))


def _of_optimizers(path: str, old: Any, new: Any, depth: int) -> Difference:
    """Optimizers are functions in functions, of which a reader knows only the names of the
    innermost hyperparameters.
    """
    values = dict.fromkeys(_hyperparameters(path, old, new, depth))
    if not values:
        return Difference(path, "static object", abbreviated(old), abbreviated(new))
    before = ", ".join(f"{name}={value}" for name, value, _ in values)
    after = ", ".join(f"{name}={value}" for name, _, value in values)
    kind = type(old).__name__
    return Difference(path, "static value", f"{kind}({before})", f"{kind}({after})")


def _hyperparameters(
    path: str,
    old: Any,
    new: Any,
    depth: int,
) -> Iterator[tuple[str, str, str]]:
    """The values that are not functions and differ, by their own names; optimizers inside
    optimizers are opened.
    """
    for name, one, other in zip(old._fields, old, new, strict=True):
        for each in differences(f"{path}.{name}", one, other, depth + 1, composed=False):
            if each.kind == "static value":
                yield each.path.rpartition(".")[2], each.old, each.new


def _place(function: types.FunctionType) -> str:
    """The file and line where a function was defined."""
    code = function.__code__
    file = code.co_filename.replace("\\", "/").rpartition("/")[2]
    return f"{file}:{code.co_firstlineno}"


def _equal(old: object, new: object) -> bool:
    try:
        return type(old) is type(new) and bool(old == new)
    except Exception:  # arrays among static values, or a user's own comparison
        return False
