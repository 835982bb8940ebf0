"""What a value is, in words that another process would use too: functions by their code, arrays by
a digest of their bytes.
"""

import dataclasses
import dis
import enum
import functools
import hashlib
import json
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.sharding import Mesh

Description = str | dict[str, Any]
"""A string, or `{"is": its kind, "parts": {name: Description}}`; JSON holds it."""

WHOLE_BYTES = 2**24
"""Up to how many bytes an array is digested whole."""
SAMPLED_BYTES = 2**22
"""How many bytes of a larger one are, in rows spread over it."""
SHOWN = 200
"""How many characters of a description an error shows."""

_LIBRARIES = frozenset({"jax", "jaxlib", "jaxdl", "numpy", "optax", "builtins"})
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_GOLDEN = (5**0.5 - 1) / 2
_WRAPPED = ("__wrapped__", "fun", "jvp", "fwd", "bwd")


def describe(value: Any) -> Description:
    """What a value is: equal descriptions, in whatever process, are of values that compute the
    same.

    Numbers and strings are themselves. Functions and classes of installed libraries are their name;
    the user's own are their bytecode, with the constants, functions, classes and arrays that it
    reads, and what they have closed over. Dataclasses, `functools.partial`, containers and
    optimizers are described part by part. Anything else is how it prints.

    >>> describe(optax.scale(0.5))
    {'is': 'scale', 'parts': {'step_size': '0.5'}}
    """
    return _describe(value, ())


def digest(array: Any) -> str:
    """Twelve digits of the SHA-256 of an array's bytes, and of which rows they are.

    >>> digest(np.zeros((3, 2), np.float32))
    'float32[3, 2], digest 9d908ecfb6b2 of all'
    """
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    size = len(array) if array.shape else 1
    rows = _sampled(size, array.nbytes)
    taken = np.ascontiguousarray(array if rows is None else _rows(array, rows))
    if taken.dtype.byteorder == ">":
        taken = taken.astype(taken.dtype.newbyteorder("<"))
    sha = hashlib.sha256(taken.reshape(-1).view(np.uint8).data).hexdigest()[:12]
    told = "all" if rows is None else f"{len(rows)} of {size} rows"
    return f"{np.dtype(array.dtype).name}{list(array.shape)}, digest {sha} of {told}"


def digest_of(tree: Any) -> str:
    """One digest of the arrays of a tree and of their places in it; of large trees, of some
    arrays.
    """
    leaves, structure = jax.tree.flatten(tree)
    rows = _sampled(len(leaves), sum(getattr(leaf, "nbytes", 8) for leaf in leaves))
    taken = leaves if rows is None else [leaves[row] for row in rows]
    told = "all" if rows is None else f"{len(rows)}"
    sha = _short([str(structure), *(digest(_array(leaf)) for leaf in taken)])
    return f"{len(leaves)} arrays, digest {sha} of {told}"


def differences(old: Description, new: Description, name: str = "") -> list[str]:
    """What differs between two descriptions: a line for each part, by its path.

    >>> differences(describe(optax.sgd(0.1)), describe(optax.sgd(0.2)), "optimizer")
    ['optimizer: learning rate 0.1 → 0.2']
    """
    return list(
        dict.fromkeys(
            _line(path, before, after) for path, before, after in _differing(old, new, (name,))
        )
    )


def shown(description: Description) -> str:
    """A description as a call.

    >>> shown(describe(optax.clip(1.0)))
    'clip(max_delta=1.0)'
    """
    if isinstance(description, str):
        return description
    parts = (f"{name}={shown(part)}" for name, part in description["parts"].items())
    return f"{description['is']}({', '.join(parts)})"


def has_a_name(value: Any) -> bool:
    """Whether it is what a module has under a name, such as a function or a class: there is one of
    it.
    """
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return False
    return getattr(sys.modules.get(module), name, None) is value


def closed_over(function: FunctionType) -> dict[str, Any]:
    """The values of a function's free variables, by name; those that are not bound yet are left
    out.
    """
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells if _is_bound(cell)}


def _is_bound(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _describe(value: Any, within: tuple[int, ...]) -> Description:
    """The description of a value that was reached through objects of those identities."""
    plain = _plain(value)
    if plain is not None:
        return plain
    if id(value) in within:
        return "itself"
    within = (*within, id(value))
    if isinstance(value, optax.GradientTransformation):
        return _optimizer(value, within)
    if isinstance(value, Mapping):
        return _node("dict", value, within)
    if isinstance(value, (tuple, list)):
        return _sequence(value, within)
    if isinstance(value, (set, frozenset)):
        return _node("set", dict(enumerate(sorted(value, key=repr))), within)
    if isinstance(value, functools.partial):
        named = {str(number): argument for number, argument in enumerate(value.args)} | dict(
            value.keywords
        )
        return _node(f"partial of {_name(value.func)}", {"function": value.func, **named}, within)
    if isinstance(value, MethodType):
        return _node(value.__qualname__, {"of": value.__self__, "function": value.__func__}, within)
    if isinstance(value, FunctionType):
        return _function(value, within)
    if isinstance(value, type):
        return (
            _name(value)
            if _of_library(value)
            else {"is": value.__qualname__, "parts": {"code": _methods_of(value, within)}}
        )
    return _object(value, within)


def _plain(value: Any) -> str | None:
    """The description of what has no parts; None of anything else."""
    if isinstance(value, Tracer):
        return f"traced {value.aval}"
    if isinstance(value, (np.bool_, np.number)) and value.dtype.kind in "biufc":
        return repr(value.item())
    if (
        value is None
        or isinstance(value, (bool, int, float, complex, str, bytes, enum.Enum, slice))
        or value is ...
    ):
        return repr(value)
    if isinstance(value, np.dtype):
        return value.name
    if hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "nbytes"):
        return digest(value)
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, Mesh):
        return f"{value.size} devices along {', '.join(map(str, value.axis_names))}"
    if has_a_name(value) and _of_library(value):
        return _name(value)
    return None


def _node(kind: str, parts: Mapping[Any, Any], within: tuple[int, ...]) -> dict[str, Any]:
    return {
        "is": kind,
        "parts": {str(name): _describe(part, within) for name, part in parts.items()},
    }


def _sequence(value: Any, within: tuple[int, ...]) -> Description:
    """By field, where it has names; by name, where it is of pairs of a name and a value."""
    if hasattr(value, "_fields"):
        return _node(type(value).__name__, value._asdict(), within)
    pairs = value and all(
        isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) for item in value
    )
    if pairs and len(dict(value)) == len(value):
        return _node("named", dict(value), within)
    return _node(type(value).__name__, dict(enumerate(value)), within)


def _optimizer(value: optax.GradientTransformation, within: tuple[int, ...]) -> dict[str, Any]:
    """An optimizer of optax by what its two functions have closed over: a chain link by link, any
    other by its numbers.
    """
    kind = _name(value.update).partition(".<locals>")[0]
    held = {**_held(value.init), **_held(value.update)}
    links = [held.get(name) for name in ("init_fns", "update_fns")]
    if kind.endswith("chain") and all(isinstance(link, tuple) for link in links):
        optimizers = [optax.GradientTransformation(*link) for link in zip(*links, strict=True)]
        return {
            "is": "chain",
            "parts": _numbered(_flat([_optimizer(one, within) for one in optimizers])),
        }
    kind = kind.rpartition(".")[2]
    if kind == "with_extra_args_support" and isinstance(
        held.get("tx"), optax.GradientTransformation
    ):
        return _optimizer(held["tx"], within)
    node = _node(kind, held, within)
    for name, function in value._asdict().items():
        if isinstance(function, FunctionType) and not _of_library(function):
            node["parts"][name] = _describe(function, within)
    return node


def _flat(links: list[Any]) -> list[Any]:
    """The links of a chain and of the chains within it."""
    return [
        part
        for link in links
        for part in (link["parts"].values() if link["is"] == "chain" else [link])
    ]


def _numbered(links: list[Any]) -> dict[str, Description]:
    """Links by their kind; with a number, where there are several of one."""
    kinds = [link["is"] for link in links]
    named = {}
    for number, (kind, link) in enumerate(zip(kinds, links, strict=True)):
        named[kind if kinds.count(kind) == 1 else f"{kind}[{kinds[:number].count(kind)}]"] = link
    return named


def _function(value: FunctionType, within: tuple[int, ...]) -> Description:
    if _of_library(value):
        wrapped = value.__dict__.get(
            "__wrapped__"
        )  # by a decorator that only looks on, such as one that checks annotations
        return (
            _describe(wrapped, within)
            if wrapped is not None
            else _node(_name(value), _held(value), within)
        )
    return _node(
        value.__qualname__,
        {"code": _Code(value.__code__, value.__globals__, value.__doc__), **_held(value)},
        within,
    )


def _held(function: Any) -> dict[str, Any]:
    """What a function has closed over, its defaults, and what was set on it, by name."""
    if not isinstance(function, FunctionType):
        return {"function": function}
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    own = {name: part for name, part in function.__dict__.items() if name != "__wrapped__"}
    given = {
        **dict(zip(names[len(names) - len(defaults) :], defaults, strict=True)),
        **(function.__kwdefaults__ or {}),
    }
    return {
        **closed_over(function),
        **{name: part for name, part in given.items() if part is not None},
        **own,
    }


def _methods_of(value: type, within: tuple[int, ...]) -> str:
    """A digest of the methods of a class of the user's, and of those of the user's that it is
    derived from.
    """
    methods = {
        f"{one.__qualname__}.{name}": part
        for one in value.__mro__
        if not _of_library(one)
        for name, held in vars(one).items()
        for part in [_method(held)]
        if part is not None
        and not (
            part.__code__.co_filename == "<string>" and name.startswith("__")
        )  # a dataclass's own
    }
    return _short([name, _describe(method, within)] for name, method in methods.items())


def _method(value: Any) -> FunctionType | None:
    value = (
        getattr(value, "__func__", None)
        or getattr(value, "fget", None)
        or getattr(value, "func", None)
        or value
    )
    return value if isinstance(value, FunctionType) else None


def _object(value: Any, within: tuple[int, ...]) -> Description:
    kind = type(value)
    if isinstance(value, _Code):
        return value.digest(within)
    if not _of_library(kind):
        node = _node(kind.__qualname__, _fields(value), within)
        return {"is": node["is"], "parts": {"code": _methods_of(kind, within), **node["parts"]}}
    if dataclasses.is_dataclass(value) and kind.__hash__ not in (None, object.__hash__):
        return _node(kind.__name__, _fields(value), within)
    wrapped = {name: getattr(value, name) for name in _WRAPPED if hasattr(value, name)}
    if wrapped and callable(value):
        return _node(kind.__name__, wrapped, within)
    printed = repr(value)
    if _ADDRESS.search(printed) and getattr(value, "__dict__", None):
        return _node(kind.__name__, vars(value), within)
    return _ADDRESS.sub("", printed)


def _fields(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        return {
            field.name: getattr(value, field.name, None)
            for field in dataclasses.fields(value)
            if field.compare
        }
    return dict(getattr(value, "__dict__", {}))


@dataclasses.dataclass(frozen=True, eq=False)
class _Code:
    """The bytecode of a function of the user's, and where it looks its names up."""

    code: CodeType
    names: Mapping[str, Any]
    doc: str | None = None

    def digest(self, within: tuple[int, ...]) -> str:
        return _short(
            [
                self._instructions(self.code),
                {n: _describe(v, within) for n, v in self._globals(self.code).items()},
            ]
        )

    def _instructions(self, code: CodeType) -> list[Any]:
        """Without line numbers, file names, the names of local variables and the docstring."""
        constants = [
            None if constant is self.doc else self._constant(constant)
            for constant in code.co_consts
        ]
        return [
            code.co_code.hex(),
            code.co_names,
            constants,
            code.co_argcount,
            code.co_kwonlyargcount,
            code.co_flags,
        ]

    def _constant(self, constant: Any) -> Any:
        if isinstance(constant, CodeType):
            return self._instructions(constant)
        return (
            repr(sorted(constant, key=repr)) if isinstance(constant, frozenset) else repr(constant)
        )

    def _globals(self, code: CodeType) -> dict[str, Any]:
        """What the function reads of its module and can be compared: numbers, arrays, containers,
        functions and classes.
        """
        nested = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        found = {name: value for one in nested for name, value in self._globals(one).items()}
        read = {
            instruction.argval
            for instruction in dis.get_instructions(code)
            if instruction.opname == "LOAD_GLOBAL"
        }
        return found | {
            name: self.names[name]
            for name in sorted(read)
            if name in self.names and _compares(self.names[name])
        }


def _compares(value: Any) -> bool:
    """Whether a variable of a module is told by its value: not what changes while a program runs,
    such as a record of a run.
    """
    if _plain(value) is not None or isinstance(
        value, (FunctionType, type, functools.partial, optax.GradientTransformation)
    ):
        return True
    if isinstance(value, (tuple, list, Mapping)):
        return all(map(_compares, value.values() if isinstance(value, Mapping) else value))
    frozen = getattr(type(value), "__dataclass_params__", None)
    return frozen is not None and frozen.frozen and frozen.eq


def _of_library(value: Any) -> bool:
    """Whether a function or a class is of Python or an installed package, whose code is known by
    its name.
    """
    module = (
        value.__globals__.get("__name__")
        if isinstance(value, FunctionType)
        else getattr(value, "__module__", None)
    )
    if not isinstance(module, str) or module.partition(".")[0] in _LIBRARIES:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    if isinstance(value, FunctionType):
        file = value.__code__.co_filename
    return module != "__main__" and file is not None and _is_installed(file)


@functools.lru_cache(maxsize=1024)
def _is_installed(file: str) -> bool:
    parts = Path(file).parts
    standard = Path(sysconfig.get_path("stdlib"))
    return (
        "site-packages" in parts or "dist-packages" in parts or Path(file).is_relative_to(standard)
    )


def _name(value: Any) -> str:
    """Its name, with that of its package; the modules between may move from one version to the
    next.
    """
    name = (
        getattr(value, "__qualname__", None)
        or getattr(value, "__name__", None)
        or type(value).__name__
    )
    package = str(getattr(value, "__module__", "")).partition(".")[0]
    return (
        name
        if package in ("", "builtins", "__main__") or not _of_library(value)
        else f"{package}.{name}"
    )


def _array(leaf: Any) -> Any:
    return (
        leaf
        if hasattr(leaf, "dtype") and isinstance(leaf, (jax.Array, np.ndarray))
        else np.asarray(leaf)
    )


def _sampled(size: int, count: int) -> np.ndarray | None:
    """Places spread over so many, of so many bytes together; None for all of them.

    By multiples of the golden ratio, which repeat the period of no data.
    """
    if count <= WHOLE_BYTES or size < 2:
        return None
    some = min(max(SAMPLED_BYTES * size // count, 16), size)
    return np.unique((np.arange(some) * _GOLDEN % 1 * size).astype(np.int64))


def _rows(array: Any, rows: np.ndarray) -> Any:
    """Some rows; an array on an accelerator stays there but for these."""
    on_host = not isinstance(array, jax.Array) or all(
        device.platform == "cpu" for device in array.devices()
    )
    return np.asarray(array)[rows] if on_host else jax.device_get(array.at[rows].get())


def _short(value: Iterable[Any]) -> str:
    text = json.dumps(list(value), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _differing(
    old: Description, new: Description, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    if old == new:
        return
    if isinstance(old, str) or isinstance(new, str) or old["is"] != new["is"]:
        yield path, shown(old), shown(new)
        return
    for name in dict.fromkeys((*old["parts"], *new["parts"])):
        yield from _differing(
            old["parts"].get(name, "none"), new["parts"].get(name, "none"), (*path, name)
        )


def _line(path: tuple[str, ...], old: str, new: str) -> str:
    """One difference, for a reader: a scale behind a direction is a learning rate."""
    first, *rest = path
    if rest[-2:] == ["scale", "step_size"] or rest == ["step_size"]:
        return f"{first}: learning rate {old.removeprefix('-')} → {new.removeprefix('-')}"
    if rest and rest[-1] == "code":
        return f"{'.'.join(filter(None, path[:-1]))}: other code, or other values that it reads"
    return f"{'.'.join(filter(None, path))}: {_cut(old)} → {_cut(new)}"


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
