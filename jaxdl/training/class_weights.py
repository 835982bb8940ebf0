"""Weights of classes: checked on the host, and the weight that an example's label has by them.

A label is a class number, or a distribution over the classes: one-hot, or soft as label smoothing
and mixup make it. The weight of an example with a distribution y is `Σ_c y_c w_c`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdl.core.padded import Padded
from jaxdl.data.source import Batch
from jaxdl.losses.values import check_distributions, check_finite
from jaxdl.training.arguments import by_class

MOST_CLASSES = 10**6

Check = Callable[[str, Batch], None]
"""`check(place, batch)` of a batch that was read from a stream."""


def check_class_weight(class_weight: Any, targets: Any) -> tuple[float, ...] | None:
    """Weights of classes 0 … n − 1 as a tuple.

    Args:
        class_weight: as `fit` takes it.
        targets: of all examples: class numbers, one each, or distributions [examples, classes].

    Raises:
        ValueError: the targets are neither, or a class that occurs has no weight.
    """
    if class_weight is None:
        return None
    labels = _labels(targets)
    weights = _by_class(class_weight)
    if is_distribution(labels):
        classes = labels.shape[1]
        occurring = np.flatnonzero(labels.any(axis=0)).tolist()
    else:
        classes = int(labels.max()) + 1
        occurring = np.unique(labels).tolist()
    _check_every_class(weights, occurring)
    return tuple(float(weights.get(label, 0.0)) for label in range(classes))


def check_class_weight_of_stream(class_weight: Any, first_targets: Any) -> tuple[float, ...]:
    """Weights of classes 0 … n − 1 as a tuple, for a stream, whose classes are those with weights.

    Args:
        class_weight: as `fit` takes it, with every class from 0 to the last.
        first_targets: of the first batch.

    Raises:
        ValueError: a class between has no weight, or the targets are no labels.
    """
    labels = _labels(first_targets)
    weights = _by_class(class_weight)
    missing = sorted(set(range(max(weights, default=0) + 1)) - set(weights))
    if missing:
        raise ValueError(
            f"class_weight: class {missing[0]} has no weight, and a stream may have any class from "
            f"0 to {max(weights, default=0)} — give every class one."
        )
    found = tuple(float(weights[label]) for label in range(len(weights)))
    check_labels("class_weight", labels, found)
    return found


def with_class_weights(check: Check | None, class_weights: tuple[float, ...]) -> Check:
    """A check of a stream's batches that also refuses labels that have no weight."""

    def both(place: str, batch: Batch) -> None:
        if check is not None:
            check(place, batch)
        check_labels(f"{place}: class_weight", _labels(batch.targets), class_weights)

    return both


def check_labels(name: str, labels: np.ndarray, class_weights: tuple[float, ...]) -> None:
    """Checks that every label of a batch has a weight.

    Raises:
        ValueError: a class number has none, or distributions are over more or fewer classes.
    """
    classes = len(class_weights)
    if is_distribution(labels):
        if labels.shape[1] == classes:
            return
        raise ValueError(
            f"{name}: labels are over {labels.shape[1]} classes, and {classes} have weights — give "
            "every class one."
        )
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        raise ValueError(
            f"{name}: class {labels[wrong][0]} has examples and no weight — give every class one."
        )


def weights_of_labels(class_weights: tuple[float, ...], targets: Any) -> np.ndarray:
    """The weight of each example by its label, on the host."""
    labels = np.asarray(jax.tree.leaves(targets)[0])
    weights = np.asarray(class_weights)
    if labels.size == len(labels):
        return weights[labels.reshape(-1).astype(np.int64)]
    return labels @ weights


def class_weights_of(class_weights: tuple[float, ...], targets: Array) -> Array:
    """The weight of each example by its label, [batch] float32, traced.

    Args:
        class_weights: of the classes.
        targets: class numbers, one for each example, or distributions [batch, classes].

    Raises:
        ValueError: distributions are over more or fewer classes.
    """
    weights = jnp.asarray(class_weights, jnp.float32)
    if targets.size == len(targets):
        # Booleans would be read as a mask.
        labels = targets.reshape(len(targets)).astype(jnp.int32)
        return weights[labels]
    if targets.shape[1:] != weights.shape:
        raise ValueError(
            f"class_weights: targets of shape {targets.shape} are no labels of {len(weights)} "
            "classes — give class numbers [batch], or distributions [batch, classes]."
        )
    return (targets.astype(jnp.float32) * weights[None]).sum(axis=-1)


def is_distribution(labels: np.ndarray) -> bool:
    """Whether labels, of a shape that was checked, are distributions over classes."""
    return labels.size != len(labels)


def _by_class(class_weight: Any) -> Mapping[int, float]:
    weights = by_class(class_weight)
    if any(label > MOST_CLASSES for label in weights):
        raise ValueError(
            f"class_weight: classes are numbered from 0, got class {max(weights)}."
        )
    return weights


def _check_every_class(weights: Mapping[int, float], occurring: list[int]) -> None:
    missing = sorted(set(occurring) - set(weights))
    if missing:
        raise ValueError(
            f"class_weight: class {missing[0]} has examples and no weight — give every class one."
        )


def _labels(targets: Any) -> np.ndarray:
    """Targets as class numbers, one for each example, or distributions [examples, classes].

    Raises:
        ValueError: they are neither.
    """
    leaves = jax.tree.leaves(targets, is_leaf=lambda node: isinstance(node, Padded))
    if isinstance(targets, Mapping):
        names = " and ".join(sorted(map(repr, targets)))
        raise ValueError(
            f"class_weight: targets are several, {names}, and weights are of one array of class "
            "labels — weigh the classes in the loss of their output, as in losses.ByOutput."
        )
    if len(leaves) != 1 or isinstance(leaves[0], Padded):
        raise ValueError(
            "class_weight: targets have to be one array of class labels, got "
            f"{len(jax.tree.leaves(targets))} arrays."
        )
    labels = np.asarray(leaves[0])
    integer = np.issubdtype(labels.dtype, np.integer) or labels.dtype == np.bool_
    if labels.size == len(labels):
        if integer:
            return labels.reshape(-1)
        raise ValueError(
            "class_weight: targets have to be class labels of an integer dtype, got "
            f"{labels.dtype}, or soft labels [examples, classes]."
        )
    if labels.ndim != 2 or not (_is_floating(labels) or _is_one_hot(labels)):
        raise ValueError(
            "class_weight: each example needs one class label, or one-hot or soft labels "
            f"[examples, classes], got targets of shape {labels.shape}."
        )
    check_finite("class_weight", labels)
    check_distributions("class_weight", labels)
    return labels


def _is_floating(labels: np.ndarray) -> bool:
    return jnp.issubdtype(labels.dtype, jnp.floating)


def _is_one_hot(labels: np.ndarray) -> bool:
    """Whether integers are 1 once in each row, and 0 elsewhere."""
    binary = (labels == 0) | (labels == 1)
    return bool(binary.all() and (labels.sum(axis=1) == 1).all())
