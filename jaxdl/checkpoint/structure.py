"""The structure of a tree as JSON, beside its leaves by path: what a tree is rebuilt from, without
unpickling.
"""

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import optax

from jaxdl.checkpoint import leaves as trees
from jaxdl.checkpoint.error import FormatError
from jaxdl.compiling.pytree import PyTree

Structure = Any
"""JSON: null, a number, or an object with one of the keys below."""

_ARRAY, _DICT, _LIST, _TUPLE, _NAMED, _FIELDS = "array", "dict", "list", "tuple", "of", "fields"
_NUMBERS = (bool, int, float)
_MODULE = re.compile(r"[a-z_]\w*(\.\w+)*")


def taken_apart(tree: PyTree) -> tuple[Structure, dict[str, Any]]:
    """The structure of a tree, and its arrays by dotted path; an array that occurs twice is there
    once.

    Args:
        tree: dicts named by strings, lists, tuples, and named tuples of jaxdl and optax, of
            arrays, typed keys, numbers and None.

    Raises:
        TypeError: the tree has anything else.
    """
    arrays: dict[str, Any] = {}
    seen: dict[int, str] = {}
    return _taken_apart(tree, (), arrays, seen), arrays


def _taken_apart(
    tree: Any, path: tuple[str, ...], arrays: dict[str, Any], seen: dict[int, str]
) -> Structure:
    def part(name: str, value: Any) -> Structure:
        return _taken_apart(value, (*path, name), arrays, seen)

    if tree is None or isinstance(tree, _NUMBERS):
        return tree
    if isinstance(tree, Mapping) and all(isinstance(key, str) for key in tree):
        return {_DICT: {key: part(key, value) for key, value in tree.items()}}
    names = getattr(tree, "_fields", None) if isinstance(tree, tuple) else None
    if names is not None:
        fields = {field: part(field, getattr(tree, field)) for field in names}
        return {_NAMED: _kind(type(tree), path), _FIELDS: fields}
    if type(tree) in (list, tuple):
        key = _LIST if isinstance(tree, list) else _TUPLE
        return {key: [part(str(index), value) for index, value in enumerate(tree)]}
    if not hasattr(tree, "dtype"):
        raise TypeError(f"{trees.joined(path)} is {type(tree).__name__}")
    name = seen.setdefault(id(tree), trees.joined(path))
    arrays.setdefault(name, tree)
    return {_ARRAY: name}


def _kind(kind: type, path: tuple[str, ...]) -> str:
    name = f"{kind.__module__}.{kind.__qualname__}"
    if _found(name) is not kind:
        raise TypeError(
            f"{trees.joined(path)} is {kind.__name__}, which is neither jaxdl's nor optax's"
        )
    return name


def put_together(structure: Structure, array: Callable[[str], Any]) -> PyTree:
    """The tree that `taken_apart` was given.

    Args:
        structure: as it returned it.
        array: gives the array of a path.

    Raises:
        FormatError: the structure has what this version of jaxdl, or of optax, does not know.
    """
    if structure is None or isinstance(structure, _NUMBERS):
        return structure

    def part(value: Structure) -> PyTree:
        return put_together(value, array)

    if _ARRAY in structure:
        return array(structure[_ARRAY])
    if _DICT in structure:
        return {name: part(value) for name, value in structure[_DICT].items()}
    if _LIST in structure:
        return [part(value) for value in structure[_LIST]]
    if _TUPLE in structure:
        return tuple(part(value) for value in structure[_TUPLE])
    kind = _found(structure[_NAMED])
    fields = structure[_FIELDS]
    if kind is None or set(fields) != set(kind._fields):
        raise FormatError(
            f"holds a {structure[_NAMED]} with {', '.join(fields) or 'no fields'}, which this "
            f"version of jaxdl, or of optax, does not have"
        )
    return kind(**{name: part(value) for name, value in fields.items()})


def _found(name: str) -> Any:
    """A named tuple of jaxdl or of optax, by the module it is defined in and its name; None where
    there is none.
    """
    module, _, kind = name.rpartition(".")
    library = module.partition(".")[0]
    if library not in ("jaxdl", "optax") or not _MODULE.fullmatch(module):
        return None
    found = getattr(sys.modules.get(module), kind, None)
    if found is None and library == "optax":
        found = getattr(_imported(module), kind, None) or getattr(optax, kind, None)
    is_named = isinstance(found, type) and issubclass(found, tuple)
    return found if is_named and hasattr(found, "_fields") else None


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
