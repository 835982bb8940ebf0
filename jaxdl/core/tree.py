"""Names, counts and selections over trees of arrays."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax import lax

Tree = Any


def named_leaves(tree: Tree) -> dict[str, Any]:
    """The leaves of a tree by their dotted path, such as `conv_0.kernel`, in the tree's own
    order.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {".".join(_name(entry) for entry in path): leaf for path, leaf in leaves}


def parameter_count(tree: Tree) -> int:
    """How many numbers the arrays of a tree hold; arrays and `jax.ShapeDtypeStruct` count alike."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def byte_count(tree: Tree) -> int:
    """How many bytes the arrays of a tree hold."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def map_named(function: Callable[[str, Any], Any], tree: Tree) -> Tree:
    """`jax.tree.map` for a function that also gets each leaf's dotted path.

    It makes the masks that optax asks for:

    >>> import jax.numpy as jnp
    >>> params = {"dense_0": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    >>> map_named(lambda name, leaf: name.endswith("kernel"), params)
    {'dense_0': {'bias': False, 'kernel': True}}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(".".join(map(_name, path)), leaf), tree
    )


def shapes(tree: Tree) -> Tree:
    """The same tree with a `jax.ShapeDtypeStruct` for each array, in the dtypes that JAX has
    enabled.
    """

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(
            leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype, allow_extended_dtype=True)
        )

    return jax.tree.map(shape, tree)


def strongly_typed(tree: Tree) -> Tree:
    """The same tree with arrays of their dtype alone: one of a weak type would become another once
    it is updated.

    A program is compiled for either.
    """
    return jax.tree.map(
        lambda leaf: lax.convert_element_type(leaf, leaf.dtype) if _is_weak(leaf) else leaf, tree
    )


def _is_weak(leaf: Any) -> bool:
    return getattr(leaf, "weak_type", False)


Shapes = tuple[Any, tuple[tuple[tuple[int, ...], Any], ...]]
"""The structure, shapes and dtypes of a tree, as a value that hashes."""


def frozen_shapes(tree: Tree) -> Shapes:
    """A tree's structure, shapes and dtypes as a value: a key for what is remembered of trees of
    that kind.
    """
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((tuple(leaf.shape), leaf.dtype) for leaf in leaves)


def thawed_shapes(shapes: Shapes) -> Tree:
    """The tree of `jax.ShapeDtypeStruct` that was frozen."""
    structure, leaves = shapes
    return jax.tree.unflatten(
        structure, [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in leaves]
    )


def _name(entry: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)
