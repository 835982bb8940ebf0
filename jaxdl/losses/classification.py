"""Losses of classes and of probability distributions."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxdl.losses.targets import (
    AnyArray,
    Sequences,
    check_setting,
    class_numbers,
    floating,
    holds_classes,
    over_examples,
    pair,
    vectors,
    without_padding,
)

Loss = Callable[..., Array]


Setting = float | Array
"""A number; inside of a sweep one that is being traced."""


PROBABILITY_MARGIN = 1e-7  # as Keras clips; about two float32 steps below one


def binary_cross_entropy(logits: Sequences, labels: Sequences) -> Float[Array, " batch"]:
    """Binary cross-entropy from logits, `-y log σ(x) - (1 - y) log σ(-x)`.

    Args:
        logits: x, `[batch, ...]` or `Padded`, floating, before any sigmoid. Infinite ones are
            certain.
        labels: y, 0 and 1 or probabilities, of the same shape; a trailing axis of length 1 may be
            missing on one side.

    Returns:
        One number an example, `[batch]`, in nats, in at least float32.

    Raises:
        ValueError: if the shapes differ, or the logits are not floating.

    Example:
        >>> binary_cross_entropy(jnp.array([[0.0], [100.0]]), jnp.array([1, 1])).round(3)
        Array([0.693, 0.   ], dtype=float32)
    """
    logits, labels, real = pair("binary_cross_entropy", logits, labels)
    return over_examples(
        _free_where_certain(optax.sigmoid_binary_cross_entropy, logits, labels), real
    )


def binary_cross_entropy_from_probabilities(
    probabilities: Sequences, labels: Sequences
) -> Float[Array, " batch"]:
    """Binary cross-entropy of probabilities, `-y log p - (1 - y) log(1 - p)`, for a model that ends
    in a sigmoid.

    p is clipped to `[1e-7, 1 - 1e-7]`, as Keras does, so that loss and gradient stay finite at 0
    and 1. The price is that the loss never passes 16.1 and that beyond the clip its gradient is 0:
    prefer logits and `binary_cross_entropy`.

    Args:
        probabilities: p, `[batch, ...]` or `Padded`, floating, within 0 and 1.
        labels: y, 0 and 1 or probabilities, of the same shape; a trailing axis of length 1 may be
            missing on one side.

    Returns:
        One number an example, `[batch]`, in nats, in at least float32.

    Raises:
        ValueError: if the shapes differ, or the probabilities are not floating.
    """
    probabilities, labels, real = pair(
        "binary_cross_entropy_from_probabilities", probabilities, labels
    )
    p = jnp.clip(probabilities, PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    return over_examples(-labels * jnp.log(p) - (1 - labels) * jnp.log1p(-p), real)


def softmax_cross_entropy(
    logits: Sequences, labels: Sequences, *, label_smoothing: Setting = 0.0
) -> Float[Array, " batch"]:
    """Softmax cross-entropy, `H(y, softmax(x))`; smoothed by α, `(1 - α) H(y, softmax(x)) + α
    H(uniform, softmax(x))`.

    Args:
        logits: x, `[batch, ..., classes]` or `Padded`, floating, before any softmax. -inf rules a
            class out; where the label or its smoothing gives it a probability the loss is infinite.
        labels: y, class numbers `[batch, ...]` or `[batch, ..., 1]`, whole or Boolean; or one-hot
            or soft labels `[batch, ..., classes]` that sum to one.
        label_smoothing: α, within 0 and 1.

    Returns:
        One number an example, `[batch]`, in nats, in at least float32; axes between batch and
        classes are averaged.

    Raises:
        ValueError: if the shapes do not fit, class numbers are floating, or there are fewer than
            two classes.

    Source: Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2016, section
    7 (smoothing).

    Example:
        >>> softmax_cross_entropy(jnp.zeros((2, 4)), jnp.array([3, 0])).round(3)
        Array([1.386, 1.386], dtype=float32)
    """
    label_smoothing = check_setting(
        "softmax_cross_entropy", "label_smoothing", label_smoothing, 0, 1
    )
    logits, labels, real = without_padding("softmax_cross_entropy", logits, labels)
    logits = floating("softmax_cross_entropy", logits)
    loss = cross_entropies("softmax_cross_entropy", logits, labels)
    if isinstance(label_smoothing, Array) or label_smoothing:
        uniform = jnp.full_like(logits, 1 / logits.shape[-1])
        loss = (1 - label_smoothing) * loss + label_smoothing * _of_distributions(logits, uniform)
    return over_examples(loss, real)


def cross_entropies(
    name: str, logits: Float[Array, "..."], labels: AnyArray
) -> Float[Array, "batch ..."]:
    """Softmax cross-entropy of each position, `[batch, ...]`, from class numbers, or one-hot or
    soft labels.
    """
    if holds_classes(name, logits, labels):
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, class_numbers(logits, labels)
        )
    return _of_distributions(logits, jnp.asarray(labels).astype(logits.dtype))


@jax.custom_jvp
def _of_distributions(
    logits: Float[Array, "batch ..."], labels: Float[Array, "batch ..."]
) -> Float[Array, "batch ..."]:
    """`-Σ y log softmax(x)`, where a class that is ruled out and is not the label costs nothing.

    As `optax.safe_softmax_cross_entropy`, whose forward-mode derivative is NaN there: it adds 0 ·
    log 0.
    """
    return -jnp.where(labels == 0, 0, labels * jax.nn.log_softmax(logits)).sum(axis=-1)


@_of_distributions.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """`dL = (Σ y · softmax(x) - y) · dx - log softmax(x) · dy`."""
    logits, labels = primals
    by_logits = labels.sum(axis=-1, keepdims=True) * jax.nn.softmax(logits) - labels
    log_p = jax.nn.log_softmax(logits)
    by_labels = jnp.where(
        jnp.isneginf(log_p), 0, log_p
    )  # the tangent of labels that are constants is 0, not absent
    tangent = (by_logits * tangents[0] - by_labels * tangents[1]).sum(axis=-1)
    return _of_distributions(logits, labels), tangent


def _free_where_certain(
    loss: Callable[[Array, Array], Array],
    logits: Float[Array, "batch ..."],
    labels: Float[Array, "batch ..."],
) -> Float[Array, "batch ..."]:
    """A binary loss, where an infinite logit that is right costs nothing: arithmetic would make 0 ·
    ∞ of it.
    """
    certain = jnp.isinf(logits) & ((logits > 0).astype(labels.dtype) == labels)
    return jnp.where(certain, 0, loss(jnp.where(certain, 0, logits), labels))


def hinge(outputs: Sequences, targets: Sequences) -> Float[Array, " batch"]:
    """Hinge loss of a support vector machine, `max(0, 1 - y x)`.

    Args:
        outputs: x, signed distances, `[batch, ...]` or `Padded`, floating.
        targets: y, -1 and +1 as in optax (not 0 and 1), of the same shape; a trailing axis of
            length 1 may be missing on one side.

    Returns:
        One number an example, `[batch]`, in at least float32.

    Raises:
        ValueError: if the shapes differ, or the outputs are not floating.

    Source: Cortes and Vapnik, Support-Vector Networks, 1995.
    """
    outputs, targets, real = pair("hinge", outputs, targets)
    return over_examples(optax.hinge_loss(outputs, targets), real)


def focal(
    logits: Sequences,
    labels: Sequences,
    *,
    alpha: Setting | None = None,
    gamma: Setting = 2.0,
) -> Float[Array, " batch"]:
    """Sigmoid focal loss, `-α_y (1 - p_y)^γ log p_y` with `p_y` the probability given to the true
    label.

    Args:
        logits: `[batch, ...]` or `Padded`, floating, before any sigmoid. Infinite ones are certain.
        labels: 0 and 1 or probabilities, of the same shape; a trailing axis of length 1 may be
            missing on one side.
        alpha: α, the weight of label 1, label 0 having 1 - α; None weighs neither.
        gamma: γ, how much easy examples count for less; 0 gives binary cross-entropy.

    Returns:
        One number an example, `[batch]`, in nats, in at least float32.

    Raises:
        ValueError: if the shapes differ, or the logits are not floating.

    Source: Lin et al., Focal Loss for Dense Object Detection, 2017.
    """
    gamma = check_setting("focal", "gamma", gamma, least=0)
    if alpha is not None:
        alpha = check_setting("focal", "alpha", alpha, 0, 1)
    logits, labels, real = pair("focal", logits, labels)
    loss = functools.partial(optax.sigmoid_focal_loss, alpha=alpha, gamma=gamma)
    return over_examples(_free_where_certain(loss, logits, labels), real)


def kl_divergence(log_probabilities: Sequences, targets: Sequences) -> Float[Array, " batch"]:
    """Kullback-Leibler divergence of the prediction from the target, `Σ y (log y - log p)` over the
    last axis.

    Args:
        log_probabilities: log p, `[batch, ..., classes]` or `Padded`, floating, as
            `jax.nn.log_softmax` gives; -inf is allowed where y is 0.
        targets: y, probabilities that sum to one, of the same shape; 0 log 0 counts as 0.

    Returns:
        One number an example, `[batch]`, in nats, in at least float32; axes between batch and
        classes are averaged.

    Raises:
        ValueError: if the shapes differ or have no class axis, or the log-probabilities are not
            floating.

    Source: Kullback and Leibler, On Information and Sufficiency, 1951.
    """
    log_probabilities, targets, real = vectors("kl_divergence", log_probabilities, targets)
    log_probabilities = jnp.where(targets == 0, 0, log_probabilities)  # otherwise 0 · -inf is NaN
    return over_examples(optax.kl_divergence(log_probabilities, targets), real)
