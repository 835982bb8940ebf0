"""Losses of classes and of probability distributions."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxdl.losses.operands import (
    AnyArray,
    Sequences,
    Setting,
    check_setting,
    class_numbers,
    floating,
    over_examples,
    pair,
    vectors,
    without_padding,
)
from jaxdl.losses.shapes import are_class_numbers

Loss = Callable[..., Array]
"""`loss(outputs, targets) -> [batch]`, or a loss that `batchwise` declares."""

PROBABILITY_MARGIN = 1e-7
"""As Keras clips; about two float32 steps below one."""


def binary_cross_entropy(logits: Sequences, labels: Sequences) -> Float[Array, " batch"]:
    """Binary cross-entropy from logits, `-y log σ(x) - (1 - y) log σ(-x)`.

    Args:
        logits: x, `[batch, ...]` or `Padded`, floating, before any sigmoid. Infinite ones are
            certain.
        labels: y, 0 and 1 or probabilities, of the same shape; a trailing axis of length 1 may be
            missing on one side.

    Returns:
        The loss of each example, `[batch]`, in nats, in at least float32.

    Raises:
        ValueError: the shapes differ, or the logits are not floating.

    Source: Bishop, *Pattern recognition and machine learning* (2006), equation 4.90.

    Example:
        >>> binary_cross_entropy(jnp.array([[0.0], [100.0]]), jnp.array([1, 1])).round(3)
        Array([0.693, 0.   ], dtype=float32)
    """
    logits, labels, valid = pair("binary_cross_entropy", logits, labels)
    entropy = optax.sigmoid_binary_cross_entropy
    each = _zero_where_certain(entropy, logits, labels)
    return over_examples(each, valid)


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
        The loss of each example, `[batch]`, in nats, in at least float32.

    Raises:
        ValueError: the shapes differ, or the probabilities are not floating.

    Source: Bishop, *Pattern recognition and machine learning* (2006), equation 4.90.
    """
    name = "binary_cross_entropy_from_probabilities"
    p, y, valid = pair(name, probabilities, labels)
    p = jnp.clip(p, PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    each = -y * jnp.log(p) - (1 - y) * jnp.log1p(-p)
    return over_examples(each, valid)


def softmax_cross_entropy(
    logits: Sequences, labels: Sequences, *, label_smoothing: Setting = 0.0
) -> Float[Array, " batch"]:
    """Softmax cross-entropy, `H(y, softmax(x))`; smoothed by α, `(1 - α) H(y, softmax(x)) + α
    H(uniform, softmax(x))`.

    Args:
        logits: x, `[batch, ..., classes]` or `Padded`, floating, before any softmax. -inf rules a
            class out; where the label or its smoothing gives it a probability the loss is infinite.
        labels: y, class numbers `[batch, ...]` or `[batch, ..., 1]`, integer or Boolean; or one-hot
            or soft labels `[batch, ..., classes]` that sum to one.
        label_smoothing: α, within 0 and 1.

    Returns:
        The loss of each example, `[batch]`, in nats, in at least float32; axes between batch and
        classes are averaged.

    Raises:
        ValueError: the shapes do not fit, class numbers are floating, or there are fewer than
            two classes.

    Source: Bridle, *Probabilistic interpretation of feedforward classification network outputs*
    (1990); for the smoothing Szegedy et al., *Rethinking the Inception architecture for computer
    vision* (2016), section 7.

    Example:
        >>> softmax_cross_entropy(jnp.zeros((2, 4)), jnp.array([3, 0])).round(3)
        Array([1.386, 1.386], dtype=float32)
    """
    name = "softmax_cross_entropy"
    alpha = check_setting(name, "label_smoothing", label_smoothing, 0, 1)
    logits, labels, valid = without_padding(name, logits, labels)
    logits = floating(name, logits)
    each = cross_entropies(name, logits, labels)
    if isinstance(alpha, Array) or alpha:
        uniform = jnp.full_like(logits, 1 / logits.shape[-1])
        smoothing = _cross_entropies_of_distributions(logits, uniform)
        each = (1 - alpha) * each + alpha * smoothing
    return over_examples(each, valid)


def cross_entropies(
    name: str, logits: Float[Array, "..."], labels: AnyArray
) -> Float[Array, "batch ..."]:
    """Softmax cross-entropy of each position.

    Args:
        name: the loss or metric, for errors.
        logits: `[batch, ..., classes]`.
        labels: class numbers `[batch, ...]`, or one-hot or soft labels `[batch, ..., classes]`.

    Returns:
        `[batch, ...]`, in nats.
    """
    if are_class_numbers(name, logits, labels):
        numbers = class_numbers(logits, labels)
        return optax.softmax_cross_entropy_with_integer_labels(logits, numbers)
    distributions = jnp.asarray(labels).astype(logits.dtype)
    return _cross_entropies_of_distributions(logits, distributions)


@jax.custom_jvp
def _cross_entropies_of_distributions(
    logits: Float[Array, "batch ..."], labels: Float[Array, "batch ..."]
) -> Float[Array, "batch ..."]:
    """`-Σ y log softmax(x)`, where a class that is ruled out and is not the label costs nothing.

    As `optax.safe_softmax_cross_entropy`, whose forward-mode derivative is NaN there: it adds 0 ·
    log 0.
    """
    terms = labels * jax.nn.log_softmax(logits)
    return -jnp.where(labels == 0, 0, terms).sum(axis=-1)


@_cross_entropies_of_distributions.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """`dL = (Σ y · softmax(x) - y) · dx - log softmax(x) · dy`."""
    logits, labels = primals
    dx, dy = tangents
    total = labels.sum(axis=-1, keepdims=True)
    by_logits = total * jax.nn.softmax(logits) - labels
    log_p = jax.nn.log_softmax(logits)
    # The tangent of constant labels is 0, not absent, and 0 · -inf is NaN.
    by_labels = jnp.where(jnp.isneginf(log_p), 0, log_p)
    tangent = (by_logits * dx - by_labels * dy).sum(axis=-1)
    return _cross_entropies_of_distributions(logits, labels), tangent


def _zero_where_certain(
    loss: Callable[[Array, Array], Array],
    logits: Float[Array, "batch ..."],
    labels: Float[Array, "batch ..."],
) -> Float[Array, "batch ..."]:
    """A binary loss that is 0 where an infinite logit is right, for which it computes 0 · ∞."""
    predicted = (logits > 0).astype(labels.dtype)
    certain = jnp.isinf(logits) & (predicted == labels)
    finite = jnp.where(certain, 0, logits)
    return jnp.where(certain, 0, loss(finite, labels))


def hinge(outputs: Sequences, targets: Sequences) -> Float[Array, " batch"]:
    """Hinge loss of a support vector machine, `max(0, 1 - y x)`.

    Args:
        outputs: x, signed distances, `[batch, ...]` or `Padded`, floating.
        targets: y, -1 and +1 as in optax (not 0 and 1), of the same shape; a trailing axis of
            length 1 may be missing on one side.

    Returns:
        The loss of each example, `[batch]`, in at least float32.

    Raises:
        ValueError: the shapes differ, or the outputs are not floating.

    Source: Cortes, Vapnik, *Support-vector networks* (1995).
    """
    outputs, targets, valid = pair("hinge", outputs, targets)
    each = optax.hinge_loss(outputs, targets)
    return over_examples(each, valid)


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
        The loss of each example, `[batch]`, in nats, in at least float32.

    Raises:
        ValueError: the shapes differ, or the logits are not floating.

    Source: Lin et al., *Focal loss for dense object detection* (2017), equation 5.
    """
    gamma = check_setting("focal", "gamma", gamma, least=0)
    if alpha is not None:
        alpha = check_setting("focal", "alpha", alpha, 0, 1)
    logits, labels, valid = pair("focal", logits, labels)
    loss = functools.partial(optax.sigmoid_focal_loss, alpha=alpha, gamma=gamma)
    each = _zero_where_certain(loss, logits, labels)
    return over_examples(each, valid)


def kl_divergence(log_probabilities: Sequences, targets: Sequences) -> Float[Array, " batch"]:
    """Kullback-Leibler divergence of the prediction from the target, `Σ y (log y - log p)` over the
    last axis.

    Args:
        log_probabilities: log p, `[batch, ..., classes]` or `Padded`, floating, as
            `jax.nn.log_softmax` gives; -inf is allowed where y is 0.
        targets: y, probabilities that sum to one, of the same shape; 0 log 0 counts as 0.

    Returns:
        The loss of each example, `[batch]`, in nats, in at least float32; axes between batch and
        classes are averaged.

    Raises:
        ValueError: the shapes differ or have no class axis, or the log-probabilities are not
            floating.

    Source: Kullback, Leibler, *On information and sufficiency* (1951).
    """
    log_p, y, valid = vectors("kl_divergence", log_probabilities, targets)
    # Otherwise 0 · -inf is NaN.
    log_p = jnp.where(y == 0, 0, log_p)
    each = optax.kl_divergence(log_p, y)
    return over_examples(each, valid)
