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
    return {dtype: jnp.concatenate(leaves) for dtype, leaves in by_dtype.items()}


class Layout:
    """Where the elements of a tree lie in its vectors.

    Args:
        shapes: of the tree.
    """

    def __init__(self, shapes: PyTree) -> None:
        leaves, self._structure = jax.tree.flatten(shapes)
        self._sizes: dict[str, int] = {}
        self._places: list[tuple[str, slice, tuple[int, ...]]] = []
        for leaf in leaves:
            dtype = str(leaf.dtype)
            first = self._sizes.get(dtype, 0)
            self._sizes[dtype] = first + math.prod(leaf.shape)
            place = slice(first, self._sizes[dtype])
            self._places.append((dtype, place, tuple(leaf.shape)))

    def zeros(self) -> HostVectors:
        """The sums before the first step."""
        return {dtype: np.zeros((2, size), dtype) for dtype, size in self._sizes.items()}

    def totals(self, sums: Mapping[str, np.ndarray]) -> PyTree:
        """The sums [2, elements] in float64, compensation included, as the tree."""
        return self.tree(in_float64(sums))

    def tree(self, vectors: Mapping[str, np.ndarray]) -> PyTree:
        """The tree with these elements; axes in front of a vector are kept."""
        leaves = []
        for dtype, place, shape in self._places:
            part = vectors[dtype][..., place]
            leaves.append(part.reshape((*part.shape[:-1], *shape)))
        return self._structure.unflatten(leaves)


def in_float64(sums: Mapping[str, np.ndarray]) -> HostVectors:
    """The sums [..., 2, elements] in float64, compensation included."""
    vectors = {}
    for dtype, each in sums.items():
        both = each.astype(np.float64)
        rounded = both[..., 0, :]
        vectors[dtype] = np.where(np.isfinite(rounded), both.sum(-2), rounded)
    return vectors


def plus(sums: Mapping[str, Array], tree: PyTree) -> Vectors:
    """The sums with the elements of a tree added."""
    terms = as_vectors(tree)
    return {dtype: _both_added(both, terms[dtype]) for dtype, both in sums.items()}


def scalar(value: Any) -> Any:
    """A float, or an array with one for each member."""
    return float(value) if np.ndim(value) == 0 else np.asarray(value)


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
