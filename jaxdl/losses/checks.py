"""Checks of a loss and of its targets, on the host and before anything is traced."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxdl.core.padded import Padded
from jaxdl.losses.classification import (
    Loss,
    binary_cross_entropy,
    binary_cross_entropy_from_probabilities,
    focal,
    hinge,
    kl_divergence,
    softmax_cross_entropy,
)
from jaxdl.losses.per_example import function_name, innermost, shown, telling_batch
from jaxdl.losses.regression import cosine_distance, huber, mean_absolute_error, mean_squared_error
from jaxdl.losses.targets import (
    AnyArray,
    Shape,
    certain_steps,
    check_array,
    check_every_length,
    check_finite,
    check_steps,
    replaced_behind,
    targets_that_count,
    wants_binary,
    wants_distributions,
    wants_labels,
    wants_numbers,
    wants_signs,
    wants_vectors,
)


def check_targets(
    loss: Loss,
    outputs: PyTree,
    targets: PyTree,
    inputs: PyTree = (),
    weights: AnyArray | None = None,
) -> None:
    """Checks all targets against what a loss wants of them, once, on the host, before anything is
    traced.

    A loss of this file is checked for shapes, dtypes and values; any other loss only for targets
    that are finite. Where outputs or targets are `Padded`, only the steps that count for certain
    are looked at.

    Args:
        loss: a loss, or a `functools.partial` or `jax.jit` of one.
        outputs: what the model gives, a `jax.ShapeDtypeStruct` `[batch, ...]`; its batch may have
            any length.
        targets: all targets, a NumPy array `[examples, ...]`; for a loss of one's own, any pytree
            of such arrays.
        inputs: all inputs, whose lengths `Padded` outputs have.
        weights: of all examples; one of weight 0 may have no step that counts.

    Raises:
        ValueError: how many targets are wrong, which is the first, and what to do.
    """
    name = function_name(loss)
    check = next((check for known, check in _CHECKS if innermost(known) is innermost(loss)), None)
    sources = inputs if _has_padded(outputs) else ()
    if check is None:
        for leaf in jax.tree.leaves(targets, is_leaf=_is_padded):
            check_finite(f"loss '{name}'", targets_that_count(leaf, sources))
        return
    check_array(name, "outputs", outputs)
    given: Any = targets
    if isinstance(given, (dict, tuple)):
        check_array(name, "targets", given)
    if _is_padded(outputs) or _is_padded(targets):
        _check_sequences(name, check, outputs, given, sources, weights)
        return
    values = np.asarray(given)
    if values.ndim == 0:
        raise ValueError(f"{name}: targets are a single number, expected an array, batch first.")
    check(name, jax.ShapeDtypeStruct((len(values), *outputs.shape[1:]), outputs.dtype), values)


def _check_sequences(
    name: str, check: Any, outputs: Any, targets: Any, sources: PyTree, weights: Any
) -> None:
    """Checks the targets of the steps that count, where outputs or targets are `Padded`."""
    shape = (*targets.shape[:1], *outputs.shape[1:])
    check_steps(name, shape, targets.shape)
    check_every_length(name, targets.shape, (targets, sources), weights)
    shape = (*shape, 1) if len(shape) == 2 else shape
    values = _of_steps_that_count(check, shape, targets, sources)
    check(name, jax.ShapeDtypeStruct(shape, outputs.dtype), values)


def _of_steps_that_count(
    check: Any, shape: Shape, targets: AnyArray | Padded, sources: PyTree
) -> np.ndarray:
    """Targets with values that no check refuses where steps do not count, or are not known to."""
    values = np.asarray(targets.values if isinstance(targets, Padded) else targets)
    real = certain_steps(values.shape, targets, sources)
    real = np.zeros(values.shape[:2], bool) if real is None else real
    good = np.ones(values.shape[2:])
    if check is wants_distributions or (check is wants_labels and values.shape == shape):
        good[..., 1:] = 0
    return replaced_behind(values, real, good)


def _is_padded(node: Any) -> bool:
    return isinstance(node, Padded)


def _has_padded(tree: PyTree) -> bool:
    return any(_is_padded(leaf) for leaf in jax.tree.leaves(tree, is_leaf=_is_padded))


def check_loss(loss: Any, outputs: PyTree, targets: PyTree) -> None:
    """Checks that a loss returns one number an example, by its shapes alone and without computing
    anything.

    Args:
        loss: any function `loss(outputs, targets)`.
        outputs: what the model gives, a pytree of `jax.ShapeDtypeStruct` (or arrays) `[batch,
            ...]`.
        targets: the same for the targets.

    Raises:
        TypeError: if the loss is no function.
        ValueError: what it returned instead. What the loss itself raises comes through with a note.
    """
    if not callable(loss):
        raise TypeError(
            f"loss is {loss!r}, expected a function loss(outputs, targets) -> [batch] — pass one "
            f"such as "
            "losses.mean_squared_error."
        )
    batch = telling_batch(outputs, targets)
    given = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype), (outputs, targets)
    )
    name, came = (
        f"loss '{function_name(loss)}'",
        f"outputs of {shown(given[0])} and targets of {shown(given[1])}",
    )
    try:
        returned = jax.eval_shape(loss, *given)
    except Exception as error:
        error.add_note(f"This came from {name}, called with {came}.")
        raise
    if not isinstance(returned, jax.ShapeDtypeStruct) or returned.shape != (batch,):
        raise ValueError(
            f"{name} returned {shown(returned)} for a batch of {batch} ({came}): return one number "
            f"for each example "
            "([batch]); fit weighs and averages them. One that mixes examples is declared by "
            "losses.batchwise."
        )
    if not jnp.issubdtype(returned.dtype, jnp.floating):
        raise ValueError(
            f"{name} returned {returned.dtype} numbers, which have no gradient: return floating "
            f"ones."
        )


_CHECKS: tuple[tuple[Loss, Callable[[str, jax.ShapeDtypeStruct, np.ndarray], None]], ...] = (
    (mean_squared_error, wants_numbers),
    (mean_absolute_error, wants_numbers),
    (huber, wants_numbers),
    (binary_cross_entropy, wants_binary),
    (binary_cross_entropy_from_probabilities, wants_binary),
    (focal, wants_binary),
    (hinge, wants_signs),
    (kl_divergence, wants_distributions),
    (cosine_distance, wants_vectors),
    (softmax_cross_entropy, wants_labels),
)
