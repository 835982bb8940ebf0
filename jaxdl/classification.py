"""Predicted and true classes, the counts that metrics of classes are made of, and what the host makes of them."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxdl.targets import AnyArray, check_numeric, check_shapes, check_whole, class_numbers, floating, holds_classes

Average = Literal["macro", "micro", "weighted"] | None


def is_binary(outputs: AnyArray) -> bool:
    """Whether outputs have one column: `[batch]`, or a last axis of length 1."""
    return outputs.ndim == 1 or outputs.shape[-1] == 1


def class_labels(name: str, outputs: AnyArray, targets: AnyArray) -> Int[Array, "batch ..."]:
    """Class numbers `[batch, ...]` for outputs `[batch, ..., classes]`, from class numbers or one-hot labels."""
    if holds_classes(name, outputs, targets):
        return class_numbers(outputs, targets)
    return jnp.argmax(jnp.asarray(targets), axis=-1).astype(jnp.int32)


def classified(
    name: str, outputs: AnyArray, targets: AnyArray, threshold: float
) -> tuple[Int[Array, "batch ..."], Int[Array, "batch ..."], int]:
    """Predicted classes, true classes, and how many classes there are.

    Raises:
        ValueError: if shapes or dtypes do not fit.
    """
    outputs = floating(name, outputs)
    if outputs.ndim > 0 and not is_binary(outputs):
        labels = class_labels(name, outputs, targets)
        return jnp.argmax(outputs, axis=-1).astype(jnp.int32), labels, outputs.shape[-1]
    check_shapes(name, outputs.shape, targets.shape)
    check_numeric(name, targets)
    check_whole(name, targets)
    shape = outputs.shape[:-1] if outputs.ndim > 1 else outputs.shape
    positive = jnp.asarray(targets).astype(jnp.int32) > 0  # so that hinge's labels, -1 and +1, are read rightly too
    return (outputs > threshold).reshape(shape).astype(jnp.int32), positive.reshape(shape).astype(jnp.int32), 2


def counts(
    name: str, outputs: AnyArray, targets: AnyArray, weights: Float[AnyArray, " batch"], threshold: float
) -> dict[str, Float[Array, "..."]]:
    """The weight of true positives, predicted and actual examples, `[classes]`, and the weight of all.

    For outputs of one column `[1]`, of the positive class.
    """
    predicted, labels, classes = classified(name, outputs, targets, threshold)
    first = 1 if is_binary(outputs) else 0
    chosen, actual = (one_hot(numbers, classes)[:, first:] for numbers in (predicted, labels))
    weight = weight_of_each(weights, labels)[:, None]
    sums = {"true_positives": chosen * actual, "predicted": chosen, "actual": actual, "weight": jnp.ones_like(weight)}
    return {key: (weight * value).sum(axis=0) for key, value in sums.items()}


def one_hot(numbers: Int[Array, "batch ..."], classes: int) -> Float[Array, "positions classes"]:
    """One row for each position of each example; a number outside the classes gives zeros."""
    return jax.nn.one_hot(numbers.ravel(), classes, dtype=jnp.float32)


def weight_of_each(weights: Float[AnyArray, " batch"], labels: Int[Array, "batch ..."]) -> Float[Array, " positions"]:
    """The weight of an example for every position in it."""
    column = jnp.asarray(weights).astype(jnp.float32).reshape(-1, *[1] * (labels.ndim - 1))
    return jnp.broadcast_to(column, labels.shape).ravel()


def from_counts(
    average: Average, sums: dict[str, np.ndarray], score: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
) -> float | np.ndarray:
    """The average over classes of `score(true positives, predicted, actual)`; nan without any weight."""
    true, predicted, actual = (np.asarray(sums[name], np.float64) for name in ("true_positives", "predicted", "actual"))
    if not np.any(sums["weight"]):
        return np.full(true.shape, np.nan) if average is None and true.size > 1 else float("nan")
    if true.size == 1 or average == "micro":
        return float(score(true.sum(keepdims=True), predicted.sum(keepdims=True), actual.sum(keepdims=True))[0])
    return averaged(average, score(true, predicted, actual), support=actual, occurs=(actual != 0) | (predicted != 0))


def averaged(
    average: Average, scores: Float[np.ndarray, " classes"], support: np.ndarray, occurs: Bool[np.ndarray, " classes"]
) -> float | np.ndarray:
    """Scores of classes as one number: the mean over those that occur, the mean weighted by support, or as they are."""
    if average is None:
        return scores
    counted = support != 0 if average == "weighted" else occurs
    if not counted.any():
        return float("nan")
    return float(np.average(scores[counted], weights=support[counted] if average == "weighted" else None))


def divided(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """`numerator / denominator`, and 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


def area_under_roc(
    scores: Float[np.ndarray, " examples"],
    positive: Bool[np.ndarray, " examples"],
    weights: Float[np.ndarray, " examples"],
) -> float:
    """The weighted share of pairs of a positive and a negative example that are in order, ties counting half.

    Returns:
        From 0 to 1; nan if all examples are positive, or all negative, or a score is nan.
    """
    if np.isnan(scores).any():
        return float("nan")
    values, group = np.unique(scores, return_inverse=True)
    positives = np.bincount(group, weights * positive, minlength=len(values))
    negatives = np.bincount(group, weights * ~positive, minlength=len(values))
    below = np.concatenate([[0.0], np.cumsum(negatives)[:-1]])
    pairs = positives.sum() * negatives.sum()
    return float((positives * (below + negatives / 2)).sum() / pairs) if pairs else float("nan")


def softmax(logits: Float[np.ndarray, "examples classes"]) -> Float[np.ndarray, "examples classes"]:
    """Probabilities over the last axis, on the host, in the dtype of the logits."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def check_average(name: str, average: object) -> None:
    """An average must be one of the four.

    Raises:
        ValueError: if it is not.
    """
    if not (average is None or (isinstance(average, str) and average in ("macro", "micro", "weighted"))):
        raise ValueError(f"{name}: average is {average!r}, expected 'macro', 'micro', 'weighted' or None.")
