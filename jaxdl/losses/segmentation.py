"""Losses of maps of classes, which count regions and not positions."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdl.losses.operands import (
    AnyArray,
    Sequences,
    Setting,
    check_setting,
    class_numbers,
    floating,
    pair,
    without_padding,
)
from jaxdl.losses.shapes import are_class_numbers

Maps = tuple[Float[Array, "batch ... classes"], Float[Array, "batch ... classes"]]


def dice(
    logits: Sequences, labels: Sequences, *, smoothing: Setting = 1.0
) -> Float[Array, " batch"]:
    """Soft Dice loss, `1 - (2 Σ p y + s) / (Σ p + Σ y + s)`, the sums over an example's positions.

    p is the softmax of the logits, and the mean over the classes is taken; of one column p is the
    sigmoid, and the loss that of the positive class. Logits and labels of one shape with a last
    axis of two or more are read as classes and one-hot labels: give binary maps a last axis of
    length 1 (`outputs[..., None]`).

    Args:
        logits: `[batch, ..., classes]` or `Padded`, floating; or one column, `[batch, ..., 1]`.
        labels: class numbers `[batch, ...]`, or one-hot or soft `[batch, ..., classes]`; for one
            column 0 and 1 or probabilities.
        smoothing: s, of at least 0; with it a class that is neither there nor predicted costs
            nothing.

    Returns:
        The loss of each example, `[batch]`, from 0 to 1, in at least float32.

    Raises:
        ValueError: the shapes do not fit, or the logits are not floating.

    Source: Milletari, Navab, Ahmadi, *V-Net: fully convolutional neural networks for volumetric
    medical image segmentation* (2016), section 3, where the denominator is of squares.

    Example:
        >>> logits = jnp.array([[[99.0], [-99.0], [-99.0]], [[99.0], [99.0], [99.0]]])
        >>> dice(logits, jnp.array([[1, 0, 0], [1, 0, 0]]), smoothing=0.0)
        Array([0. , 0.5], dtype=float32)
    """
    smoothing = check_setting("dice", "smoothing", smoothing, least=0)
    logits, labels, valid = without_padding("dice", logits, labels)
    p, y = _maps(logits, labels)
    if valid is not None:
        mask = valid.reshape(*valid.shape, *[1] * (p.ndim - 2))
        p = jnp.where(mask, p, 0)
        y = jnp.where(mask, y, 0)
    positions = tuple(range(1, p.ndim - 1))
    overlap = (p * y).sum(axis=positions)
    sizes = (p + y).sum(axis=positions)
    each = 1 - (2 * overlap + smoothing) / (sizes + smoothing)
    return each.mean(axis=-1)


def _maps(logits: AnyArray, labels: AnyArray) -> Maps:
    """The probability of each class at each position, and how much it is the label's."""
    if has_one_column(logits.shape):
        x, y, _ = pair("dice", logits, labels)
        if logits.ndim == 1:
            x = x.reshape(-1, 1)
            y = y.reshape(-1, 1)
        return jax.nn.sigmoid(x), y
    logits = floating("dice", logits)
    p = jax.nn.softmax(logits)
    if are_class_numbers("dice", logits, labels):
        numbers = class_numbers(logits, labels)
        return p, jax.nn.one_hot(numbers, logits.shape[-1], dtype=p.dtype)
    return p, jnp.asarray(labels).astype(p.dtype)


def has_one_column(shape: tuple[int, ...]) -> bool:
    """Whether outputs are binary: `[batch]`, or with a last axis of length 1."""
    return len(shape) < 2 or shape[-1] == 1
