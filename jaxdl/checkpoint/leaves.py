"""The leaves of a tree by path, with what is recorded of each: shape, dtype and a digest."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from types import EllipsisType
from typing import Any, NotRequired, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.arrays import as_numpy, is_foreign

MAX_DIFFERENCES = 20
_NUMBERS = (bool, int, float, complex)


class LeafRecord(TypedDict):
    """A `Leaf` as JSON holds it."""

    dtype: str
    shape: list[int]
    digest: str
    key: NotRequired[str]


@dataclasses.dataclass(frozen=True)
class Leaf:
    """What is recorded of an array besides its bytes.

    Args:
        dtype: the name of its dtype; for a typed key, the dtype of its data.
        shape: for a typed key, the shape of its data.
        digest: SHA-256 of its bytes, little-endian and row by row, in hexadecimal.
        key: the name of a typed key's generator, else None.
    """

    dtype: str
    shape: tuple[int, ...]
    digest: str
    key: str | None = None

    def __str__(self) -> str:
        if self.key is None:
            return f"{self.dtype}{list(self.shape)}"
        return f"keys of {self.key}{list(self.shape[:-1])}"

    @property
    def size(self) -> int:
        """How many bytes it has."""
        elements = int(np.prod(self.shape, dtype=np.int64))
        return elements * as_dtype(self.dtype).itemsize

    def to_record(self) -> LeafRecord:
        """The leaf as JSON can hold it."""
        record = LeafRecord(dtype=self.dtype, shape=list(self.shape), digest=self.digest)
        if self.key is not None:
            record["key"] = self.key
        return record

    @classmethod
    def from_record(cls, record: LeafRecord) -> "Leaf":
        """The leaf that `to_record` was called on."""
        shape = tuple(record["shape"])
        return cls(record["dtype"], shape, record["digest"], record.get("key"))


WantedLeaf = object
"""A leaf to read into: an array, a shape, a number, or `...` for an array of any shape."""


def leaves_by_path(tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by dotted path.

    A dot within a name is written `\\.`, so that different leaves have different paths.

    Args:
        tree: any pytree.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {joined(_name(entry) for entry in path): leaf for path, leaf in leaves}


def joined(names: Iterable[str]) -> str:
    """Names as one dotted path.

    >>> joined(["layer.0", "kernel"])
    'layer\\\\.0.kernel'
    """
    return ".".join(name.replace("\\", "\\\\").replace(".", "\\.") for name in names)


def split(path: str) -> list[str]:
    """The names that `joined` made a path of.

    >>> split(joined(["a.b", "", "c\\\\"])) == ["a.b", "", "c\\\\"]
    True
    """
    names = [""]
    escaped = False
    for letter in path:
        if escaped or letter not in ".\\":
            names[-1] += letter
            escaped = False
        elif letter == ".":
            names.append("")
        else:
            escaped = True
    return names


def put(tree: dict[str, Any], names: Sequence[str], leaf: object) -> None:
    """Sets a leaf of nested dicts, which are made as needed."""
    *above, last = names
    for name in above:
        tree = tree.setdefault(name, {})
    tree[last] = leaf


def _name(entry: object) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def is_key(leaf: Any) -> bool:
    """Whether a leaf, or its shape, is of typed keys."""
    if not hasattr(leaf, "dtype") or is_foreign(leaf):
        return False
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def as_plain(leaf: object) -> tuple[Array | np.ndarray, str | None]:
    """A leaf as a numeric array, without copying.

    Args:
        leaf: an array of any library, a typed key, or a number.

    Returns:
        The array, or a key's data; and the name of the key's generator, else None.

    Raises:
        TypeError: the leaf is neither an array nor a number.
    """
    if isinstance(leaf, Array) and is_key(leaf):
        return jax.random.key_data(leaf), _generator(leaf)
    if isinstance(leaf, Array):
        return leaf, None
    if not isinstance(leaf, _NUMBERS) and not hasattr(leaf, "__array__"):
        raise TypeError(
            f"is {type(leaf).__name__} ({leaf!r:.60}); expected an array or a number."
        )
    try:
        return as_numpy("it", leaf), None
    except ValueError as error:
        raise TypeError(
            f"is {type(leaf).__name__} ({leaf!r:.60}); expected an array or a number ({error})."
        ) from error


def as_bytes(array: Array | np.ndarray) -> np.ndarray:
    """An array's bytes [size], row by row and little-endian: a view where they lie so already."""
    return little_endian(array).reshape(-1).view(np.uint8)


def little_endian(array: Array | np.ndarray) -> np.ndarray:
    """An array on the host, contiguous and little-endian; copied only where it has to be."""
    host = np.ascontiguousarray(array)
    if host.dtype.byteorder == ">":
        return host.astype(host.dtype.newbyteorder("<"))
    return host


def record_of(array: Array | np.ndarray, key: str | None) -> Leaf:
    """What is recorded of a numeric array, its digest included."""
    digest = hashlib.sha256(as_bytes(array).data).hexdigest()
    return Leaf(np.dtype(array.dtype).name, tuple(array.shape), digest, key)


def as_dtype(name: str) -> np.dtype:
    """The dtype with a name, also where JAX adds it to NumPy's."""
    return np.dtype(jnp.dtype(name))


def shape_of(leaf: Any) -> Leaf:
    """The shape and dtype of a leaf, or of its `ShapeDtypeStruct`; without a digest."""
    if is_key(leaf):
        data = jax.eval_shape(jax.random.key_data, _abstract(leaf))
        return Leaf(np.dtype(data.dtype).name, data.shape, "", _generator(leaf))
    if not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    return Leaf(np.dtype(leaf.dtype).name, tuple(leaf.shape), "")


def _generator(key: Array | jax.ShapeDtypeStruct) -> str:
    """The name of a typed key's generator."""
    if isinstance(key, Array):
        return str(jax.random.key_impl(key))
    found: list[str] = []
    jax.eval_shape(lambda traced: found.append(str(jax.random.key_impl(traced))), key)
    return found[0]


def _abstract(leaf: Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def differences(wanted: Mapping[str, WantedLeaf], found: Mapping[str, Leaf]) -> list[str]:
    """How the leaves that were saved differ from those that are wanted.

    Args:
        wanted: by path: arrays, shapes, numbers, or `...` for an array of any shape.
        found: what was saved, by path.

    Returns:
        A line for each leaf that is missing, extra, or of another shape or dtype.
    """
    lines = []
    for path, leaf in wanted.items():
        expected = "" if leaf is ... else str(shape_of(leaf))
        if path not in found:
            lines.append(f"missing: {path}" + (f", {expected}" if expected else ""))
        elif expected and expected != str(found[path]):
            lines.append(f"{path}: expected {expected}, saved was {found[path]}")
    extra = [f"extra: {path}, {leaf}" for path, leaf in found.items() if path not in wanted]
    return lines + extra


def listed(lines: Sequence[str]) -> str:
    """Differences as the end of an error message, the first 20 of them."""
    shown = list(lines[:MAX_DIFFERENCES])
    if len(lines) > MAX_DIFFERENCES:
        shown.append(f"and {len(lines) - MAX_DIFFERENCES} more")
    return "".join(f"\n  {line}" for line in shown)


def as_leaf(array: np.ndarray, key: str | None) -> Array | np.ndarray:
    """A JAX array, or typed keys.

    An array whose dtype JAX has not enabled stays NumPy's, so that no bit is lost.

    Args:
        array: numbers, or the data of keys.
        key: the name of the generator of keys, else None.
    """
    if key is not None:
        return jax.random.wrap_key_data(jnp.asarray(array), impl=key)
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        return array
    return jnp.asarray(array)


def as_wanted(array: np.ndarray, key: str | None, wanted: Any) -> PyTree:
    """An array as the kind of leaf it replaces: a JAX array on its devices, NumPy's, or a number.

    Args:
        array: numbers, or the data of keys.
        key: the name of the generator of keys, else None.
        wanted: the leaf it replaces, or its shape, or `...`.
    """
    if isinstance(wanted, (EllipsisType, np.ndarray)):
        return array if key is None else as_leaf(array, key)
    if isinstance(wanted, np.generic):
        return array[()]
    if not hasattr(wanted, "dtype"):
        return array.item()
    leaf = as_leaf(array, key)
    if not isinstance(leaf, Array):
        return leaf
    if getattr(wanted, "weak_type", False) and key is None:
        leaf = _weakly_typed(array, leaf)
    return _on_devices_of(wanted, leaf)


def _weakly_typed(array: np.ndarray, leaf: Array) -> Array:
    """A scalar with the weak type that the saved leaf had; only a Python number gives one."""
    if array.shape:
        return leaf
    weak = jnp.asarray(array.item())
    return weak if weak.dtype == array.dtype else leaf


def _on_devices_of(wanted: object, leaf: Array) -> Array:
    sharding = getattr(wanted, "sharding", None)
    if sharding is None or sharding.device_set == leaf.sharding.device_set:
        return leaf
    return jax.device_put(leaf, sharding)
