"""Digests of arrays, which tell whether two processes train on the same data."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdl.checkpoint.leaves import little_endian
from jaxdl.compiling.pytree import PyTree

WHOLE_BYTES = 2**24
"""Up to how many bytes the digest of an array is of all of it."""

SAMPLED_BYTES = 2**22
"""Of how many bytes the digest of a larger array is, in rows that are spread over it."""

_GOLDEN = (5**0.5 - 1) / 2


def digest(array: Any) -> str:
    """The dtype and shape of an array, and twelve digits of the SHA-256 of its bytes.

    Args:
        array: of any library, or typed keys; of a large one, some rows are read.

    >>> digest(np.zeros((3, 2), np.float32))
    'float32[3, 2], digest 9d908ecfb6b2 of all'
    """
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    size = len(array) if array.shape else 1
    rows = _sampled(size, array.nbytes)
    taken = little_endian(array if rows is None else _rows(array, rows))
    sha = hashlib.sha256(taken.reshape(-1).view(np.uint8).data).hexdigest()[:12]
    part = "all" if rows is None else f"{len(rows)} of {size} rows"
    return f"{np.dtype(array.dtype).name}{list(array.shape)}, digest {sha} of {part}"


def digest_of(tree: PyTree) -> str:
    """One digest of the structure of a tree and of its arrays; of large trees, of some arrays.

    Args:
        tree: arrays and numbers, in any structure.
    """
    leaves, structure = jax.tree.flatten(tree)
    size = sum(getattr(leaf, "nbytes", 8) for leaf in leaves)
    rows = _sampled(len(leaves), size)
    taken = leaves if rows is None else [leaves[row] for row in rows]
    part = "all" if rows is None else f"{len(rows)}"
    sha = short_digest([str(structure), *(digest(_as_array(leaf)) for leaf in taken)])
    return f"{len(leaves)} arrays, digest {sha} of {part}"


def short_digest(value: Iterable[object]) -> str:
    """Twelve digits of the SHA-256 of values as JSON writes them."""
    text = json.dumps(list(value), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _as_array(leaf: object) -> Array | np.ndarray:
    if isinstance(leaf, (jax.Array, np.ndarray)):
        return leaf
    return np.asarray(leaf)


def _sampled(size: int, count: int) -> np.ndarray | None:
    """Indices below `size` that are spread evenly; None for all of them.

    They are multiples of the golden ratio, which repeat the period of no data.

    Args:
        size: how many rows there are.
        count: how many bytes all of them have.
    """
    if count <= WHOLE_BYTES or size < 2:
        return None
    some = min(max(SAMPLED_BYTES * size // count, 16), size)
    return np.unique((np.arange(some) * _GOLDEN % 1 * size).astype(np.int64))


def _rows(array: Array | np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some rows, on the host; the others of an array on an accelerator stay there."""
    if isinstance(array, jax.Array) and any(each.platform != "cpu" for each in array.devices()):
        return jax.device_get(array.at[rows].get())
    return np.asarray(array)[rows]
