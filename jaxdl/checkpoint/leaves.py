"""The leaves of a tree by path, as bytes with a digest, and as what they were."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.arrays import as_numpy, is_foreign

SHOWN_DIFFERENCES = 20
_NUMBERS = (bool, int, float, complex)


@dataclasses.dataclass(frozen=True)
class Leaf:
    """What is noted of an array beside its bytes.

    Args:
        dtype: the name of its dtype; of a typed key, the dtype of its data.
        shape: of a typed key, the shape of its data.
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
        return int(np.prod(self.shape, dtype=np.int64)) * as_dtype(self.dtype).itemsize

    def noted(self) -> dict[str, Any]:
        """As JSON can hold it."""
        note = {"dtype": self.dtype, "shape": list(self.shape), "digest": self.digest}
        return note if self.key is None else note | {"key": self.key}

    @classmethod
    def of_note(cls, note: Mapping[str, Any]) -> "Leaf":
        """What `noted` gave."""
        return cls(note["dtype"], tuple(note["shape"]), note["digest"], note.get("key"))


def leaves_by_path(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by dotted path; a dot within a name is written `\\.`, so that no two
    paths are alike.
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
    names, escaped = [""], False
    for letter in path:
        if escaped or letter not in ".\\":
            names[-1] += letter
            escaped = False
        elif letter == ".":
            names.append("")
        else:
            escaped = True
    return names


def _name(entry: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def is_key(leaf: Any) -> bool:
    """Whether a leaf, or the shape of one, is of typed keys."""
    return (
        hasattr(leaf, "dtype")
        and not is_foreign(leaf)
        and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    )


def as_plain(leaf: Any) -> tuple[Any, str | None]:
    """A leaf as an array of numbers, without copying, and the name of its generator where it is one
    of keys.

    Raises:
        TypeError: it is neither an array nor a number.
    """
    if is_key(leaf):
        return jax.random.key_data(leaf), str(jax.random.key_impl(leaf))
    if isinstance(leaf, jax.Array):
        return leaf, None
    if not isinstance(leaf, _NUMBERS) and not hasattr(leaf, "__array__"):
        raise TypeError(f"is {type(leaf).__name__} ({leaf!r:.60}); expected an array or a number.")
    try:
        return as_numpy("it", leaf), None
    except ValueError as error:
        raise TypeError(
            f"is {type(leaf).__name__} ({leaf!r:.60}); expected an array or a number ({error})."
        ) from error


def as_bytes(array: Any) -> np.ndarray:
    """An array's bytes, row by row and little-endian: a view of them where it lies so already."""
    host = np.ascontiguousarray(array)
    if host.dtype.byteorder == ">":
        host = host.astype(host.dtype.newbyteorder("<"))
    return host.reshape(-1).view(np.uint8)


def note_of(array: Any, key: str | None) -> Leaf:
    """What is noted of an array of numbers."""
    digest = hashlib.sha256(as_bytes(array).data).hexdigest()
    return Leaf(np.dtype(array.dtype).name, tuple(array.shape), digest, key)


def as_dtype(name: str) -> np.dtype:
    """The dtype of a name, those that JAX adds to NumPy's too."""
    return np.dtype(jnp.dtype(name))


def shape_of(leaf: Any) -> Leaf:
    """The shape and dtype of a leaf, or of what stands for one, without a digest."""
    if is_key(leaf):
        data = jax.eval_shape(
            jax.random.key_data, leaf if isinstance(leaf, jax.Array) else _abstract(leaf)
        )
        return Leaf(np.dtype(data.dtype).name, data.shape, "", _generator(leaf))
    if not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    return Leaf(np.dtype(leaf.dtype).name, tuple(leaf.shape), "")


def _generator(leaf: Any) -> str:
    if isinstance(leaf, jax.Array):
        return str(jax.random.key_impl(leaf))
    found: list[str] = []
    jax.eval_shape(lambda key: found.append(str(jax.random.key_impl(key))), _abstract(leaf))
    return found[0]


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def differences(wanted: Mapping[str, Any], found: Mapping[str, Leaf]) -> list[str]:
    """How the leaves that were saved differ from those that are wanted, a line each.

    Args:
        wanted: arrays, shapes, or `...` where any array will do.
        found: what was saved.
    """
    lines = []
    for path, leaf in wanted.items():
        if path not in found:
            lines.append(f"missing: {path}" + ("" if leaf is ... else f", {shape_of(leaf)}"))
        elif leaf is not ... and str(shape_of(leaf)) != str(found[path]):
            lines.append(f"{path}: expected {shape_of(leaf)}, saved was {found[path]}")
    return lines + [f"extra: {path}, {leaf}" for path, leaf in found.items() if path not in wanted]


def told(lines: Sequence[str]) -> str:
    """Differences as the end of a message."""
    more = len(lines) - SHOWN_DIFFERENCES
    shown = [*lines[:SHOWN_DIFFERENCES], f"and {more} more"] if more > 0 else lines
    return "".join(f"\n  {line}" for line in shown)


def as_leaf(array: np.ndarray, key: str | None) -> Any:
    """A JAX array, or typed keys; a NumPy array where JAX does not have the dtype enabled, so that
    no bit is lost.
    """
    if key is not None:
        return jax.random.wrap_key_data(jnp.asarray(array), impl=key)
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        return array
    return jnp.asarray(array)


def as_wanted(array: np.ndarray, key: str | None, wanted: Any) -> Any:
    """An array as the kind of thing that stands in the tree it goes into: on its devices, or as
    NumPy, or as a number.
    """
    if wanted is ... or isinstance(wanted, np.ndarray):
        return array if key is None else as_leaf(array, key)
    if isinstance(wanted, np.generic):
        return array[()]
    if not hasattr(wanted, "dtype"):
        return array.item()
    leaf = as_leaf(array, key)
    if getattr(wanted, "weak_type", False) and key is None and not array.shape:
        weak = jnp.asarray(
            array.item()
        )  # only a Python number gives a weak type, which promotes as the saved leaf did
        leaf = weak if weak.dtype == array.dtype else leaf
    sharding = getattr(wanted, "sharding", None)
    if (
        sharding is None
        or not isinstance(leaf, jax.Array)
        or sharding.device_set == leaf.sharding.device_set
    ):
        return leaf
    return jax.device_put(leaf, sharding)
