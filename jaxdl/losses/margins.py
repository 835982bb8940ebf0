"""Losses that are 0 beyond a margin: hinges, and distances between outputs.

Those of several outputs take them as a dict with the names of the parts as keys, as a tuple in
their order, or as one array `[batch, parts, ...]`, as `Map` returns it.
"""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.padded import Padded
from jaxdl.losses.operands import (
    AnyArray,
    Sequences,
    Setting,
    check_setting,
    class_numbers,
    floating,
    over_examples,
    pair,
    without_padding,
)
from jaxdl.losses.regression import NORM_MARGIN
from jaxdl.losses.several import PAIR, parts_of, sequences_of
from jaxdl.losses.shapes import Struct, are_class_numbers

TRIPLET = ("anchor", "positive", "negative")


def squared_hinge(outputs: Sequences, targets: Sequences) -> Float[Array, " batch"]:
    """Squared hinge loss, `max(0, 1 - y x)²`.

    Args:
        outputs: x, signed distances, `[batch, ...]` or `Padded`, floating.
        targets: y, -1 and +1, of the same shape; a trailing axis of length 1 may be missing on one
            side.

    Returns:
        The loss of each example, `[batch]`, in at least float32.

    Raises:
        ValueError: the shapes differ, or the outputs are not floating.

    Source: Lee, Mangasarian, *SSVM: a smooth support vector machine for classification* (2001).

    Example:
        >>> squared_hinge(jnp.array([[3.0], [0.0]]), jnp.array([[1], [-1]]))
        Array([0., 1.], dtype=float32)
    """
    outputs, targets, valid = pair("squared_hinge", outputs, targets)
    each = jnp.square(optax.hinge_loss(outputs, targets))
    return over_examples(each, valid)


def multiclass_hinge(outputs: Sequences, labels: Sequences) -> Float[Array, " batch"]:
    """Hinge loss of several classes, `max(0, 1 + max_{c≠y} x_c - x_y)`.

    Args:
        outputs: x, scores `[batch, ..., classes]` or `Padded`, floating.
        labels: y, class numbers `[batch, ...]` or `[batch, ..., 1]`, integer or Boolean.

    Returns:
        The loss of each example, `[batch]`, in at least float32; axes between batch and classes are
        averaged.

    Raises:
        ValueError: the shapes do not fit, labels are not class numbers, or there are fewer than two
            classes.

    Source: Crammer, Singer, *On the algorithmic implementation of multiclass kernel-based vector
    machines* (2001), equation 5.

    Example:
        >>> multiclass_hinge(jnp.array([[2.0, 0.0], [0.0, 0.5]]), jnp.array([0, 0]))
        Array([0. , 1.5], dtype=float32)
    """
    name = "multiclass_hinge"
    outputs, labels, valid = without_padding(name, outputs, labels)
    outputs = floating(name, outputs)
    check_class_numbers(name, outputs, labels)
    each = optax.losses.multiclass_hinge_loss(outputs, class_numbers(outputs, labels))
    return over_examples(each, valid)


def check_class_numbers(name: str, outputs: Struct, labels: AnyArray) -> None:
    """Checks that labels are class numbers.

    Raises:
        ValueError: they are one-hot or soft labels, or do not fit the outputs.
    """
    if are_class_numbers(name, outputs, labels):
        return
    raise ValueError(
        f"{name}: labels of shape {labels.shape} are one-hot or soft, expected class numbers of "
        f"shape {outputs.shape[:-1]} — take labels.argmax(-1)."
    )


def triplet_margin(
    outputs: PyTree, targets: object = None, *, margin: Setting = 1.0
) -> Float[Array, " batch"]:
    """Triplet margin loss, `max(0, d(a, p) - d(a, n) + margin)`, d the Euclidean distance.

    d is `√(|a - p|² + 1e-6)`, as in optax, so that it has a gradient at 0.

    Args:
        outputs: a, p and n, vectors `[batch, ..., features]` or `Padded`: a dict of "anchor",
            "positive" and "negative", a tuple in this order, or one array
            `[batch, 3, ..., features]`.
        targets: are not read; any array of data.
        margin: how much nearer than the negative the positive has to be.

    Returns:
        The loss of each example, `[batch]`, in at least float32; axes between are averaged.

    Raises:
        ValueError: there are no such parts, their shapes differ, or they are not floating.

    Source: Schroff, Kalenichenko, Philbin, *FaceNet: a unified embedding for face recognition and
    clustering* (2015), equation 3, of squared distances; Balntas et al., *Learning local feature
    descriptors with triplets and shallow convolutional neural networks* (2016).

    Example:
        >>> a, p, n = jnp.zeros((1, 2)), jnp.array([[0.0, 3.0]]), jnp.array([[2.5, 0.0]])
        >>> triplet_margin((a, p, n)).round(4)
        Array([1.5], dtype=float32)
    """
    del targets
    name = "triplet_margin"
    margin = check_setting(name, "margin", margin, least=0)
    (anchor, positive, negative), lengths = sequences_of(name, outputs, TRIPLET)
    each = optax.losses.triplet_margin_loss(anchor, positive, negative, margin=margin)
    valid = None if lengths is None else Padded(anchor, lengths).mask
    return over_examples(each, valid)


def cosine_embedding(
    outputs: PyTree, targets: Sequences, *, margin: Setting = 0.0
) -> Float[Array, " batch"]:
    """Cosine embedding loss: `1 - cos(x, z)` of pairs that belong together, and
    `max(0, cos(x, z) - margin)` of others.

    Args:
        outputs: x and z, vectors `[batch, ..., features]` or `Padded`: a dict of "first" and
            "second", a tuple in this order, or one array `[batch, 2, ..., features]`.
        targets: `[batch, ...]`, +1 for pairs that belong together and -1 for others.
        margin: the similarity below which others cost nothing, from -1 to 1.

    Returns:
        The loss of each example, `[batch]`, in at least float32; axes between are averaged.

    Raises:
        ValueError: there are no such parts, shapes differ, or the outputs are not floating.

    Source: Hadsell, Chopra, LeCun, *Dimensionality reduction by learning an invariant mapping*
    (2006), with the cosine as the similarity.
    """
    name = "cosine_embedding"
    margin = check_setting(name, "margin", margin, -1, 1)
    (first, second), lengths = sequences_of(name, outputs, PAIR)
    cosine = optax.cosine_similarity(first, second, epsilon=NORM_MARGIN)
    cosine, signs, valid = pair(name, _with_lengths(cosine, lengths), targets)
    each = jnp.where(signs > 0, 1 - cosine, jnp.maximum(0, cosine - margin))
    return over_examples(each, valid)


def contrastive(
    outputs: PyTree, targets: Sequences, *, margin: Setting = 1.0
) -> Float[Array, " batch"]:
    """Contrastive loss of pairs, `½ y d² + ½ (1 - y) max(0, margin - d)²`, d = |x - z|.

    Args:
        outputs: x and z, vectors `[batch, ..., features]` or `Padded`: a dict of "first" and
            "second", a tuple in this order, or one array `[batch, 2, ..., features]`.
        targets: y, `[batch, ...]`, 1 for pairs that belong together and 0 for others.
        margin: the distance beyond which others cost nothing.

    Returns:
        The loss of each example, `[batch]`, in at least float32; axes between are averaged.

    Raises:
        ValueError: there are no such parts, shapes differ, or the outputs are not floating.

    Source: Hadsell, Chopra, LeCun, *Dimensionality reduction by learning an invariant mapping*
    (2006), equation 4, where y is 1 for others.
    """
    name = "contrastive"
    margin = check_setting(name, "margin", margin, least=0)
    (first, second), lengths = sequences_of(name, outputs, PAIR)
    squares = jnp.square(first - second).sum(axis=-1)
    squares, together, valid = pair(name, _with_lengths(squares, lengths), targets)
    # The root has no slope at 0.
    distance = jnp.sqrt(jnp.maximum(squares, NORM_MARGIN))
    apart = jnp.square(jnp.maximum(0, margin - distance))
    each = 0.5 * (together * squares + (1 - together) * apart)
    return over_examples(each, valid)


def _with_lengths(values: Array, lengths: Int[Array, " batch"] | None) -> Sequences:
    """Values of each step as `Padded`, where there are lengths."""
    return values if lengths is None else Padded(values, lengths)


def margin_ranking(
    outputs: PyTree, targets: Sequences, *, margin: Setting = 0.0
) -> Float[Array, " batch"]:
    """Margin ranking loss, `max(0, margin - y (x - z))`.

    Args:
        outputs: x and z, scores `[batch, ...]`, floating: a dict of "first" and "second", a tuple
            in this order, or one array `[batch, 2, ...]`.
        targets: y, +1 where the first should rank above the second and -1 where below, of the
            scores' shape; a trailing axis of length 1 may be missing on one side.
        margin: by how much it should.

    Returns:
        The loss of each example, `[batch]`, in at least float32.

    Raises:
        ValueError: there are no such parts, shapes differ, or the outputs are not floating.

    Source: Herbrich, Graepel, Obermayer, *Large margin rank boundaries for ordinal regression*
    (2000).
    """
    name = "margin_ranking"
    margin = check_setting(name, "margin", margin, least=0)
    first, second = parts_of(name, outputs, PAIR)
    higher, signs, valid = pair(name, first, targets)
    lower, _, _ = pair(name, second, targets)
    each = jnp.maximum(0, margin - signs * (higher - lower))
    return over_examples(each, valid)
