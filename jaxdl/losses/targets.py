"""Targets of `Padded` sequences on the host: which of their steps count."""

import jax
import numpy as np
from jaxtyping import Int

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.padded import Padded
from jaxdl.losses.operands import AnyArray
from jaxdl.losses.shapes import Shape
from jaxdl.losses.values import counted


def is_padded(node: object) -> bool:
    """Whether a node of a pytree is `Padded`."""
    return isinstance(node, Padded)


def has_padded(tree: PyTree) -> bool:
    """Whether a pytree holds a `Padded`."""
    leaves = jax.tree.leaves(tree, is_leaf=is_padded)
    return any(map(is_padded, leaves))


def lengths_of(shape: Shape, *trees: PyTree) -> Int[np.ndarray, "sequences examples"]:
    """The lengths of each `Padded` in the pytrees that has the examples and steps of a shape."""
    leaves = jax.tree.leaves(trees, is_leaf=is_padded)
    found = [
        np.asarray(leaf.lengths)
        for leaf in leaves
        if isinstance(leaf, Padded) and tuple(leaf.shape[:2]) == tuple(shape[:2])
    ]
    lengths = np.array(found, np.int64)
    return lengths.reshape(len(found), shape[0])


def certain_steps(shape: Shape, *trees: PyTree) -> np.ndarray | None:
    """Which steps of arrays `[examples, time, ...]` certainly count, `[examples, time]` bool.

    They are those within the lengths of every `Padded` in the pytrees that fits; None where there
    is none.
    """
    lengths = lengths_of(shape, *trees)
    if not len(lengths):
        return None
    shortest = lengths.min(axis=0)
    return np.arange(shape[1]) < shortest[:, None]


def replaced_behind(
    targets: np.ndarray,
    valid: np.ndarray | None,
    replacement: np.ndarray | float = 0,
) -> np.ndarray:
    """Targets with a replacement at the steps that do not count."""
    if valid is None:
        return targets
    extra = [1] * (targets.ndim - 2)
    mask = valid.reshape(*valid.shape, *extra)
    filler = np.asarray(replacement, targets.dtype)
    return np.where(mask, targets, filler)


def plain_values(targets: AnyArray | Padded) -> np.ndarray:
    """The values of targets, be they `Padded` or an array, as a NumPy array."""
    if isinstance(targets, Padded):
        return np.asarray(targets.values)
    return np.asarray(targets)


def targets_that_count(targets: AnyArray | Padded, inputs: PyTree) -> np.ndarray:
    """Targets as a NumPy array, with zeros at the steps that do not count.

    Args:
        targets: an array `[examples, ...]`, or `Padded`.
        inputs: a pytree whose `Padded`, where they fit the targets, bound the steps too.
    """
    values = plain_values(targets)
    if values.ndim < 2:
        return values
    valid = certain_steps(values.shape, targets, inputs)
    return replaced_behind(values, valid)


def check_every_length(
    name: str,
    shape: Shape,
    trees: PyTree,
    weights: AnyArray | None,
) -> None:
    """Checks that each example with weight has a step that counts: there is no mean over none.

    Args:
        name: the loss, for the error.
        shape: of the targets, `[examples, time, ...]`.
        trees: pytrees whose `Padded`, where they fit the shape, give the lengths.
        weights: `[examples]`, or None where all count alike.

    Raises:
        ValueError: how many examples have no step, and which is the first.
    """
    lengths = lengths_of(shape, trees)
    if not len(lengths):
        return
    empty = lengths.max(axis=0) == 0
    if weights is not None:
        empty &= np.asarray(weights) != 0
    if not empty.any():
        return
    raise ValueError(
        f"{name}: {counted(empty)} sequences have no "
        f"step, the first at index {np.argmax(empty)}, "
        "and a loss is the mean over an example's steps "
        "— leave them out, or give them a sample weight "
        "of 0."
    )
