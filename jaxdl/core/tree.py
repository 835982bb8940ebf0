"""Names, counts and selections over trees of arrays."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from jaxdl.compiling.pytree import PyTree

Path = tuple[object, ...]


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by their dotted path, such as `conv_0.kernel`, in the order of the
    tree.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_dotted(path): leaf for path, leaf in leaves}


def parameter_count(tree: PyTree) -> int:
    """The number of elements of all arrays of a tree, or of their `jax.ShapeDtypeStruct`."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def byte_count(tree: PyTree) -> int:
    """The size of all arrays of a tree, or of their `jax.ShapeDtypeStruct`, in bytes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def map_named(function: Callable[[str, Any], PyTree], tree: PyTree) -> PyTree:
    """`jax.tree.map` for a function that also gets each leaf's dotted path.

    Args:
        function: `function(path, leaf) -> leaf`.
        tree: any pytree.

    It makes the masks that optax takes:

    >>> import jax.numpy as jnp
    >>> params = {"dense_0": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    >>> map_named(lambda name, leaf: name.endswith("kernel"), params)
    {'dense_0': {'bias': False, 'kernel': True}}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(_dotted(path), leaf), tree
    )


def shapes(tree: PyTree) -> PyTree:
    """The same tree with a `jax.ShapeDtypeStruct` for each array, in the dtypes that JAX has
    enabled.
    """

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype, allow_extended_dtype=True)
        return jax.ShapeDtypeStruct(leaf.shape, dtype)

    return jax.tree.map(shape, tree)


def strongly_typed(tree: PyTree) -> PyTree:
    """The same tree with weakly typed arrays converted to their own dtype.

    An update makes them strongly typed, and a program is compiled for either.
    """

    def convert(leaf: Any) -> Any:
        if getattr(leaf, "weak_type", False):
            return lax.convert_element_type(leaf, leaf.dtype)
        return leaf

    return jax.tree.map(convert, tree)


Shapes = tuple[Any, tuple[tuple[tuple[int, ...], Any], ...]]
"""The structure, shapes and dtypes of a tree, hashable."""


def frozen_shapes(tree: PyTree) -> Shapes:
    """The structure, shapes and dtypes of a tree as a hashable value, such as a key of a cache."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((tuple(leaf.shape), leaf.dtype) for leaf in leaves)


def thawed_shapes(shapes: Shapes) -> PyTree:
    """The tree of `jax.ShapeDtypeStruct` of `frozen_shapes`."""
    structure, leaves = shapes
    structs = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in leaves]
    return jax.tree.unflatten(structure, structs)


def _dotted(path: Path) -> str:
    return ".".join(map(_name, path))


def _name(entry: object) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)
