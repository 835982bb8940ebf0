"""What a value is, in a form that another process would give it too: functions by their code,
arrays by a digest of their bytes.
"""

import dataclasses
import enum
import functools
import re
from collections.abc import Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any, TypedDict

import numpy as np
import optax
from jax.core import Tracer
from jax.sharding import Mesh

from jaxdl.checkpoint.code import Code, is_of_library, methods_of, name_of, values_of
from jaxdl.checkpoint.digest import digest, short_digest
from jaxdl.optim.names import is_module_attribute

Node = TypedDict("Node", {"is": str, "parts": "dict[str, Description]"})
"""A value with parts: its kind, and their descriptions by name."""

Description = str | Node
"""What JSON can hold of a value."""

Path = tuple[int, ...]
"""The identities of the objects through which a value was reached."""

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_WRAPPED = ("__wrapped__", "fun", "jvp", "fwd", "bwd")
_PLAIN = (bool, int, float, complex, str, bytes, enum.Enum, slice, type(None), type(...))
_COMPARABLE = (FunctionType, type, functools.partial, optax.GradientTransformation)


def describe(value: object) -> Description:
    """What a value is: values with equal descriptions, in whatever process, compute the same.

    Numbers and strings are themselves. Functions and classes of installed libraries are their name;
    the user's own are their bytecode, with the constants, functions, classes and arrays that it
    reads, and what they have closed over. Dataclasses, `functools.partial`, containers and
    optimizers are described part by part. Anything else is its `repr`.

    Args:
        value: anything.

    >>> describe(optax.scale(0.5))
    {'is': 'scale', 'parts': {'step_size': '0.5'}}
    """
    return _describe(value, ())


def _describe(value: object, path: Path) -> Description:
    plain = _plain(value)
    if plain is not None:
        return plain
    if id(value) in path:
        return "itself"
    path = (*path, id(value))
    if isinstance(value, optax.GradientTransformation):
        return _optimizer(value, path)
    if isinstance(value, (Mapping, tuple, list, set, frozenset)):
        return _container(value, path)
    if isinstance(value, functools.partial):
        return _partial(value, path)
    if isinstance(value, MethodType):
        parts = {"of": value.__self__, "function": value.__func__}
        return _node(value.__qualname__, parts, path)
    if isinstance(value, FunctionType):
        return _function(value, path)
    if isinstance(value, type):
        return _class(value, path)
    return _object(value, path)


def _plain(value: object) -> str | None:
    """The description of what has no parts; None of anything else."""
    if isinstance(value, Tracer):
        return f"traced {value.aval}"
    if isinstance(value, (np.bool_, np.number)) and value.dtype.kind in "biufc":
        return repr(value.item())
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, np.dtype):
        return value.name
    if _is_array(value):
        return digest(value)
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, Mesh):
        return f"{value.size} devices along {', '.join(map(str, value.axis_names))}"
    if is_module_attribute(value) and is_of_library(value):
        return name_of(value)
    return None


def _is_array(value: object) -> bool:
    """Whether a value is an array, and not a class of arrays, which has these attributes too."""
    if isinstance(value, type):
        return False
    return all(hasattr(value, name) for name in ("shape", "dtype", "nbytes"))


def _node(kind: str, parts: Mapping[Any, object], path: Path) -> Node:
    return {
        "is": kind,
        "parts": {str(name): _describe(part, path) for name, part in parts.items()},
    }


def _container(value: Mapping | tuple | list | set | frozenset, path: Path) -> Description:
    """A mapping by its keys; a sequence by the names of its fields, by the names in its pairs of a
    name and a value, or by position.
    """
    if isinstance(value, Mapping):
        return _node("dict", value, path)
    if isinstance(value, (set, frozenset)):
        return _node("set", dict(enumerate(sorted(value, key=repr))), path)
    kind = type(value).__name__
    fields = getattr(value, "_fields", None)
    if fields is not None:
        return _node(kind, dict(zip(fields, value, strict=True)), path)
    if value and all(map(_is_named, value)) and len(dict(value)) == len(value):
        return _node("named", dict(value), path)
    return _node(kind, dict(enumerate(value)), path)


def _is_named(item: object) -> bool:
    """Whether it is a pair of a name and a value."""
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)


def _partial(value: functools.partial, path: Path) -> Node:
    arguments = {str(index): argument for index, argument in enumerate(value.args)}
    parts = {"function": value.func, **arguments, **value.keywords}
    return _node(f"partial of {name_of(value.func)}", parts, path)


def _optimizer(value: optax.GradientTransformation, path: Path) -> Node:
    """An optimizer of optax by what its two functions have closed over: a chain link by link, any
    other by its hyperparameters.
    """
    kind = name_of(value.update).partition(".<locals>")[0]
    values = {**values_of(value.init), **values_of(value.update)}
    links = [values.get(name) for name in ("init_fns", "update_fns")]
    if kind.endswith("chain") and all(isinstance(link, tuple) for link in links):
        return _chain(links, path)
    kind = kind.rpartition(".")[2]
    inner = values.get("tx")
    if kind == "with_extra_args_support" and isinstance(inner, optax.GradientTransformation):
        return _optimizer(inner, path)
    node = _node(kind, values, path)
    for name, function in value._asdict().items():
        if isinstance(function, FunctionType) and not is_of_library(function):
            node["parts"][name] = _describe(function, path)
    return node


def _chain(links: list[Any], path: Path) -> Node:
    """The links of a chain, and of the chains within it, by kind."""
    optimizers = [optax.GradientTransformation(*link) for link in zip(*links, strict=True)]
    flat: list[Any] = []
    for node in [_optimizer(each, path) for each in optimizers]:
        flat += node["parts"].values() if node["is"] == "chain" else [node]
    kinds = [node["is"] for node in flat]
    parts: dict[str, Description] = {}
    for index, node in enumerate(flat):
        kind = node["is"]
        if kinds.count(kind) > 1:
            kind = f"{kind}[{kinds[:index].count(kind)}]"
        parts[kind] = node
    return {"is": "chain", "parts": parts}


def _function(value: FunctionType, path: Path) -> Description:
    if not is_of_library(value):
        return _node(value.__qualname__, {"code": Code.of(value), **values_of(value)}, path)
    # A decorator that only looks on, such as one that checks annotations, keeps the function here.
    wrapped = vars(value).get("__wrapped__")
    if wrapped is not None:
        return _describe(wrapped, path)
    return _node(name_of(value), values_of(value), path)


def _class(value: type, path: Path) -> Description:
    if is_of_library(value):
        return name_of(value)
    return {"is": value.__qualname__, "parts": {"code": _methods(value, path)}}


def _methods(value: type, path: Path) -> str:
    methods = methods_of(value)
    return short_digest([name, _describe(method, path)] for name, method in methods.items())


def _object(value: object, path: Path) -> Description:
    kind = type(value)
    if isinstance(value, Code):
        return _code(value, path)
    if not is_of_library(kind):
        node = _node(kind.__qualname__, _fields(value), path)
        parts: dict[str, Description] = {"code": _methods(kind, path), **node["parts"]}
        return {"is": node["is"], "parts": parts}
    if dataclasses.is_dataclass(value) and kind.__hash__ not in (None, object.__hash__):
        return _node(kind.__name__, _fields(value), path)
    wrapped = {name: getattr(value, name) for name in _WRAPPED if hasattr(value, name)}
    if wrapped and callable(value):
        return _node(kind.__name__, wrapped, path)
    printed = repr(value)
    if _ADDRESS.search(printed) and getattr(value, "__dict__", None):
        return _node(kind.__name__, vars(value), path)
    return _ADDRESS.sub("", printed)


def _fields(value: object) -> dict[str, object]:
    if not dataclasses.is_dataclass(value):
        return dict(getattr(value, "__dict__", {}))
    fields = [field.name for field in dataclasses.fields(value) if field.compare]
    return {name: getattr(value, name, None) for name in fields}


def _code(value: Code, path: Path) -> str:
    """A digest of a function's instructions and of the values that it reads of its module."""
    read = {name: each for name, each in value.globals_read().items() if _is_constant(each)}
    descriptions = {name: _describe(each, path) for name, each in read.items()}
    return short_digest([value.instructions(), descriptions])


def _is_constant(value: object) -> bool:
    """Whether a variable of a module is described by its value: not what changes while a program
    runs, such as a record of a run.
    """
    if _plain(value) is not None or isinstance(value, _COMPARABLE):
        return True
    if isinstance(value, Mapping):
        return all(map(_is_constant, value.values()))
    if isinstance(value, (tuple, list)):
        return all(map(_is_constant, value))
    params = getattr(type(value), "__dataclass_params__", None)
    return params is not None and params.frozen and params.eq
