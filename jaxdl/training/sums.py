"""The sums of an epoch: every element of a tree in one vector for each dtype, with compensation."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxdl.compiling.pytree import PyTree

Vectors = dict[str, Array]
"""By dtype, [2, elements]: the sums so far, and what rounding has lost of them."""
HostVectors = dict[str, np.ndarray]


def as_vectors(tree: PyTree) -> dict[str, Array]:
    """The elements of a tree, one after another, as a vector for each dtype."""
    by_dtype: dict[str, list[Array]] = {}
    for leaf in jax.tree.leaves(tree):
        by_dtype.setdefault(str(leaf.dtype), []).append(leaf.reshape(-1))
    return {dtype: _joined(leaves) for dtype, leaves in by_dtype.items()}


def vector_sizes(shapes: PyTree) -> dict[str, int]:
    """How long those vectors are for a tree of such shapes."""
    sizes: dict[str, int] = {}
    for leaf in jax.tree.leaves(shapes):
        sizes[str(leaf.dtype)] = sizes.get(str(leaf.dtype), 0) + math.prod(leaf.shape)
    return sizes


def zero_sums(shapes: PyTree) -> HostVectors:
    """The sums before the first step, for a tree of such shapes."""
    return {dtype: np.zeros((2, size), dtype) for dtype, size in vector_sizes(shapes).items()}


def plus(sums: Mapping[str, Array], tree: PyTree) -> Vectors:
    """The sums with the elements of a tree added."""
    terms = as_vectors(tree)
    return {dtype: _both_added(both, terms[dtype]) for dtype, both in sums.items()}


def totals(sums: Mapping[str, np.ndarray], shapes: PyTree) -> PyTree:
    """The sums [..., 2, elements] in float64, compensation included, as the tree of these
    shapes.
    """
    vectors = {}
    for dtype, each in sums.items():
        both = np.asarray(each, np.float64)
        rounded = both[..., 0, :]
        vectors[dtype] = np.where(np.isfinite(rounded), both.sum(-2), rounded)
    return _from_vectors(vectors, shapes)


def scalar(value: Any) -> Any:
    """A float, or an array with one for each member."""
    return float(value) if np.ndim(value) == 0 else np.asarray(value)


def _joined(vectors: list[Array]) -> Array:
    """One vector after another.

    A few scalars are placed by selects: on a CPU that is a part of the kernel that takes them,
    where a concatenation would be a kernel of its own.
    """
    if len(vectors) > 8 or any(vector.size != 1 for vector in vectors):
        return jnp.concatenate(vectors)
    index = lax.iota(jnp.int32, len(vectors))
    joined = jnp.broadcast_to(vectors[0], index.shape)
    for number, vector in enumerate(vectors[1:], 1):
        joined = jnp.where(index == number, vector, joined)
    return joined


def _from_vectors(vectors: Mapping[str, np.ndarray], shapes: PyTree) -> PyTree:
    """The tree of such shapes with these elements; axes in front of a vector are kept."""
    leaves, structure = jax.tree.flatten(shapes)
    first = dict.fromkeys(vectors, 0)
    found = []
    for leaf in leaves:
        dtype = str(leaf.dtype)
        last = first[dtype] + math.prod(leaf.shape)
        part = vectors[dtype][..., first[dtype] : last]
        found.append(part.reshape((*part.shape[:-1], *leaf.shape)))
        first[dtype] = last
    return structure.unflatten(found)


def _both_added(both: Array, term: Array) -> Array:
    """A sum with a term added, and what rounding lost of it: [2, elements].

    Knuth, *The art of computer programming*, volume 2 (1969), section 4.2.2, theorem B. By a select
    in place of a concatenation, so that it is one kernel and not three.
    """
    old = both[0]
    added = old + term
    lost = both[1] + _rounding(old, term, added)
    is_sum = lax.broadcasted_iota(jnp.int32, both.shape, 0) == 0
    return jnp.where(is_sum, added[None], lost[None])


def _rounding(a: Array, b: Array, total: Array) -> Array:
    """a + b − total, exactly, for total = a + b as rounded."""
    part = total - a
    return (a - (total - part)) + (b - part)
