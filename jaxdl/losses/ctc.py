"""Connectionist temporal classification: labels of a sequence whose times are not known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxdl.core.number import is_integer
from jaxdl.core.padded import Padded, is_padded
from jaxdl.losses.operands import AnyArray, Sequences, as_native, floating
from jaxdl.losses.shapes import Struct, check_array, check_floating
from jaxdl.losses.values import check_classes, counted, first

RULED_OUT = -1e5
"""The log-probability of what is impossible, as in optax."""


def ctc(logits: Sequences, labels: Sequences, *, blank: int = 0) -> Float[Array, " batch"]:
    """CTC loss, `-log Σ_a Π_t softmax(x_t)_{a_t}` over all alignments a of the labels.

    An alignment has one class for each step; without repeated classes, and then without blanks, it
    is the labels. The loss is of the whole sequence, not of a step or a label.

    An example with fewer steps than its labels need, one for each and one more between equal
    neighbours, has no alignment: its loss is infinite and its gradient 0, so that it does no harm
    at a sample weight of 0. So has one with a label that no class has.

    Args:
        logits: x, `[batch, time, classes]` or `Padded`, floating, before any softmax, the blank one
            of the classes.
        labels: `[batch, labels]` or `Padded`, class numbers, integer, none of them the blank. In an
            array the blank stands behind the labels of an example that has fewer.
        blank: the number of the class that is no label; 0 as in optax and PyTorch (TensorFlow
            counts from the last).

    Returns:
        The loss of each example, `[batch]`, in nats, in at least float32.

    Raises:
        ValueError: the shapes do not fit, the labels are not integer, or there is no such blank.

    Source: Graves et al., *Connectionist temporal classification: labelling unsegmented sequence
    data with recurrent neural networks* (2006).

    Example:
        >>> ctc(jnp.zeros((1, 2, 3)), jnp.array([[1]])).round(4)
        Array([1.0986], dtype=float32)
    """
    _check_shapes(logits, labels)
    blank = _checked_blank(logits.shape[-1], blank)
    x, steps = _logits(logits)
    numbers, counts = _labels(labels, blank)
    with jax.default_matmul_precision("highest"), jax.numpy_dtype_promotion("standard"):
        loss = optax.ctc_loss(
            x,
            (~steps).astype(x.dtype),
            numbers,
            (~counts).astype(x.dtype),
            blank_id=blank,
        )
    possible = _has_alignment(numbers, counts, steps, x.shape[-1])
    return jnp.where(possible, loss.astype(x.dtype), jnp.inf)


def _logits(
    logits: Sequences,
) -> tuple[Float[Array, "batch time classes"], Bool[Array, "batch time"]]:
    """The logits, finite, and which steps count."""
    logits = as_native("ctc", logits)
    if isinstance(logits, Padded):
        steps = logits.mask
        x = floating("ctc", logits.with_zero_padding().values)
    else:
        x = floating("ctc", logits)
        steps = jnp.ones(x.shape[:2], jnp.bool_)
    # optax multiplies by one-hot labels, and 0 · -inf is NaN.
    return jnp.maximum(x, RULED_OUT), steps


def _labels(
    labels: Sequences, blank: int
) -> tuple[Int[Array, "batch labels"], Bool[Array, "batch labels"]]:
    """The labels, with blanks behind, and which count."""
    labels = as_native("ctc", labels)
    if isinstance(labels, Padded):
        numbers = jnp.asarray(labels.values).astype(jnp.int32)
        counts = labels.mask
    else:
        numbers = jnp.asarray(labels).astype(jnp.int32)
        counts = numbers != blank
    return jnp.where(counts, numbers, blank), counts


def _has_alignment(
    numbers: Int[Array, "batch labels"],
    counts: Bool[Array, "batch labels"],
    steps: Bool[Array, "batch time"],
    classes: int,
) -> Bool[Array, " batch"]:
    """Which examples have steps enough, and only labels that are classes."""
    repeated = (numbers[:, 1:] == numbers[:, :-1]) & counts[:, 1:]
    needed = counts.sum(axis=1, dtype=jnp.int32) + repeated.sum(axis=1, dtype=jnp.int32)
    known = ((numbers >= 0) & (numbers < classes)).all(axis=1)
    return (needed <= steps.sum(axis=1, dtype=jnp.int32)) & known


def _check_shapes(logits: Sequences | Struct, labels: Sequences | Struct) -> None:
    check_array("ctc", "outputs", logits)
    check_array("ctc", "targets", labels)
    shape = tuple(logits.shape)
    fits = len(shape) == 3 and len(labels.shape) == 2 and shape[0] == labels.shape[0]
    if not fits:
        raise ValueError(
            f"ctc: outputs of shape {shape} and targets of shape {tuple(labels.shape)} do not "
            "match — give logits [batch, time, classes] and class numbers [batch, labels]."
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"ctc: targets are {labels.dtype}, expected class labels as integers — cast them with "
            "targets.astype(np.int32)."
        )


def _checked_blank(classes: int, blank: object) -> int:
    if is_integer(blank) and 0 <= blank < classes:
        return int(blank)
    raise ValueError(
        f"ctc: blank is {blank!r}, expected the number of one of the {classes} classes, from 0."
    )


def check_ctc(
    loss: object,
    outputs: Struct | Padded,
    targets: AnyArray | Padded,
    weights: AnyArray | None = None,
) -> None:
    """Checks all targets against what `ctc` needs of them, on the host.

    Args:
        loss: `ctc`, or a partial of it that says the blank.
        outputs: of the model, shapes and dtype of any batch size.
        targets: of all examples.
        weights: of all examples; one of weight 0 may have too few steps.

    Raises:
        ValueError: how many labels are wrong, which is the first, and what to do.
    """
    check_array("ctc", "outputs", outputs)
    check_array("ctc", "targets", targets)
    shape = (targets.shape[0], *outputs.shape[1:])
    struct = jax.ShapeDtypeStruct(shape, outputs.dtype)
    _check_shapes(struct, targets)
    check_floating("ctc", struct)
    blank = _checked_blank(shape[-1], _blank_of(loss))
    values = np.asarray(targets.values if isinstance(targets, Padded) else targets)
    counts = values != blank
    if isinstance(targets, Padded):
        counts = np.arange(values.shape[1]) < np.asarray(targets.lengths)[:, None]
    check_classes("ctc", np.where(counts, values, blank), shape[-1])
    _check_blanks(values, counts, blank)
    if not is_padded(outputs):
        _check_steps(values, counts, shape[1], weights)


def _blank_of(loss: object) -> object:
    """The blank that a partial of `ctc` binds, also under `jax.jit`, or the default."""
    if isinstance(loss, functools.partial):
        return loss.keywords.get("blank", _blank_of(loss.func))
    wrapped = getattr(loss, "__wrapped__", None)
    return 0 if wrapped is None else _blank_of(wrapped)


def _check_blanks(values: np.ndarray, counts: np.ndarray, blank: int) -> None:
    """Checks that no label is the blank, and that none stands behind one."""
    wrong = counts & (values == blank)
    wrong[:, :-1] |= ~counts[:, :-1] & counts[:, 1:]
    if not wrong.any():
        return
    raise ValueError(
        f"ctc: {counted(wrong)} labels are the blank, {first(wrong, values)} — the blank is the "
        "class of no label; in an array it stands behind the labels alone: number the labels "
        "around it, or name another class by functools.partial(losses.ctc, blank=…)."
    )


def _check_steps(
    values: np.ndarray, counts: np.ndarray, steps: int, weights: AnyArray | None
) -> None:
    """Checks that each example has steps enough for its labels."""
    repeated = (values[:, 1:] == values[:, :-1]) & counts[:, 1:]
    needed = counts.sum(axis=1) + repeated.sum(axis=1)
    wrong = needed > steps
    if weights is not None:
        wrong &= np.asarray(weights) != 0
    if not wrong.any():
        return
    raise ValueError(
        f"ctc: {counted(wrong)} examples have more labels than {steps} steps can hold, one step a "
        f"label and one more between equal neighbours; how many they need, {first(wrong, needed)} "
        "— leave them out, or let the model keep more steps."
    )
