"""Checks of a loss and of its targets, on the host and before anything is traced."""

from collections.abc import Callable

import jax
import numpy as np

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.padded import Padded
from jaxdl.losses.batchwise import check_differentiable
from jaxdl.losses.by_output import ByOutput, Term, check_targets_of_outputs
from jaxdl.losses.by_position import FILLER, check_ignorable, loss_of_positions
from jaxdl.losses.classification import (
    Loss,
    binary_cross_entropy,
    binary_cross_entropy_from_probabilities,
    focal,
    hinge,
    kl_divergence,
    softmax_cross_entropy,
)
from jaxdl.losses.ctc import check_ctc, ctc
from jaxdl.losses.likelihood import (
    GAUSSIAN,
    gaussian_negative_log_likelihood,
    poisson_negative_log_likelihood,
)
from jaxdl.losses.margins import (
    check_class_numbers,
    contrastive,
    cosine_embedding,
    margin_ranking,
    multiclass_hinge,
    squared_hinge,
)
from jaxdl.losses.operands import AnyArray
from jaxdl.losses.per_example import (
    format_operands,
    format_shapes,
    function_name,
    innermost,
    probe_batch_size,
    returned_shapes,
    with_batch_size,
)
from jaxdl.losses.regression import (
    cosine_distance,
    huber,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
)
from jaxdl.losses.segmentation import dice, has_one_column
from jaxdl.losses.several import PAIR, parts_of
from jaxdl.losses.shapes import (
    Shape,
    Struct,
    are_class_numbers,
    check_array,
    check_floating,
    check_numeric,
    check_shapes,
    check_steps,
    check_vector_shapes,
)
from jaxdl.losses.targets import (
    certain_steps,
    check_every_length,
    has_padded,
    is_padded,
    plain_values,
    replaced_behind,
    targets_that_count,
)
from jaxdl.losses.values import (
    check_classes,
    check_distributions,
    check_finite,
    check_not_negative,
    check_not_zero,
    check_signs,
    check_within_unit,
)

Check = Callable[[str, jax.ShapeDtypeStruct, np.ndarray], None]
"""`check(name, outputs, targets)`: what one loss needs of its targets."""


def check_loss(loss: object, outputs: PyTree, targets: PyTree) -> None:
    """Checks that a loss returns one value for each example, by shapes alone.

    Args:
        loss: any function `loss(outputs, targets)`.
        outputs: of the model, a pytree of arrays or `jax.ShapeDtypeStruct`, `[batch, ...]`.
        targets: the same of the targets.

    Raises:
        TypeError: the loss is not a function.
        ValueError: what it returned instead. What the loss itself raises comes through with a note.
    """
    if not callable(loss):
        raise TypeError(
            f"loss is {loss!r}, expected a function loss(outputs, targets) -> [batch] — pass one "
            "such as losses.mean_squared_error."
        )
    if isinstance(loss, ByOutput):
        _check_terms(loss, outputs, targets, lambda term, *pair: check_loss(term.loss, *pair))
        return
    batch = probe_batch_size(outputs, targets)
    outputs = with_batch_size(outputs, batch)
    targets = with_batch_size(targets, batch)
    returned = returned_shapes(loss, outputs, targets)
    name = f"loss '{function_name(loss)}'"
    shape = getattr(returned, "shape", None)
    if shape != (batch,):
        raise ValueError(
            f"{name} returned {format_shapes(returned)} for a batch of {batch} "
            f"({format_operands(outputs, targets)}): return one value for each example ([batch]); "
            "fit weighs and averages them. One that mixes examples is declared by "
            "losses.batchwise."
        )
    check_differentiable(name, returned)


def check_targets(
    loss: Loss,
    outputs: PyTree,
    targets: PyTree,
    inputs: PyTree = (),
    weights: AnyArray | None = None,
) -> None:
    """Checks all targets against what a loss needs of them, once, before anything is traced.

    For a loss of `jaxdl.losses` shapes, dtypes and values are checked; for any other only that
    targets are finite. Where outputs or targets are `Padded`, only the steps that certainly count
    are checked.

    Args:
        loss: a loss, or a `functools.partial` or `jax.jit` of one.
        outputs: of the model, a `jax.ShapeDtypeStruct` `[batch, ...]` of any batch size.
        targets: all targets, a NumPy array `[examples, ...]`; for a loss of one's own, any pytree
            of such arrays.
        inputs: all inputs, whose lengths `Padded` outputs have.
        weights: of all examples, or of their positions; one of weight 0 may have no step that
            counts.

    Raises:
        ValueError: how many targets are wrong, which is the first, and what to do.
    """
    if isinstance(loss, ByOutput):

        def check_term(term: Term, output: PyTree, target: PyTree) -> None:
            check_targets(term.loss, output, target, inputs, weights)

        _check_terms(loss, outputs, targets, check_term)
        return
    found = loss_of_positions(loss)
    if found is not None and found[1] is not None:
        targets = _without_ignored(function_name(loss), targets, found[1])
    if found is not None or (weights is not None and weights.ndim > 1):
        # The mean over the positions of all examples needs no position of each.
        weights = np.zeros(len(jax.tree.leaves(targets)[0]))
    name = function_name(loss)
    function = innermost(loss)
    known = (check for each, check in _CHECKS if innermost(each) is function)
    check = next(known, None)
    sources = inputs if has_padded(outputs) else ()
    if function is innermost(ctc):
        check_ctc(loss, outputs, targets, weights)
        return
    if check is None:
        for leaf in jax.tree.leaves(targets, is_leaf=is_padded):
            counted = targets_that_count(leaf, sources)
            check_finite(f"loss '{name}'", counted)
        return
    outputs = _operand(name, function, outputs)
    check_array(name, "outputs", outputs)
    _check_one_array(name, targets)
    if is_padded(outputs) or is_padded(targets):
        _check_sequences(name, check, outputs, targets, sources, weights)
        return
    values = np.asarray(targets)
    if values.ndim == 0:
        raise ValueError(
            f"{name}: targets are a single number, expected an array, batch first."
        )
    shape = (len(values), *outputs.shape[1:])
    check(name, jax.ShapeDtypeStruct(shape, outputs.dtype), values)


def _check_terms(
    loss: ByOutput,
    outputs: PyTree,
    targets: PyTree,
    check: Callable[[Term, PyTree, PyTree], None],
) -> None:
    """Checks each term of a loss by output.

    Raises:
        ValueError: that of the term, with the name of its output.
    """
    check_targets_of_outputs(outputs, targets)
    for term in loss.terms:
        pair = term.operands(outputs, targets)
        try:
            check(term, *pair)
        except ValueError as error:
            raise ValueError(f"output {term.output!r}: {error}") from error


def _without_ignored(name: str, targets: PyTree, ignore: float) -> AnyArray | Padded:
    """Targets with one that any loss takes for those that are ignored."""
    _check_one_array(name, targets)
    values = plain_values(targets)
    check_ignorable(name, values, ignore)
    replaced = np.where(values == ignore, np.asarray(FILLER, values.dtype), values)
    if isinstance(targets, Padded):
        return Padded(replaced, targets.lengths)
    return replaced


def _operand(name: str, function: object, outputs: PyTree) -> PyTree:
    """What of the outputs the targets are compared with: all, or of several outputs the first."""
    several = (each for each in _SEVERAL if innermost(each[0]) is function)
    _, names, of_vectors = next(several, (None, (), False))
    if not names:
        return outputs
    first = jax.eval_shape(lambda outputs: parts_of(name, outputs, names), outputs)[0]
    if not of_vectors:
        return first
    struct = jax.ShapeDtypeStruct(first.shape[:-1], first.dtype)
    return Padded(struct, first.lengths) if is_padded(first) else struct


def _check_one_array(name: str, targets: PyTree) -> None:
    """Checks that targets are not several; a list of numbers is one array."""
    if isinstance(targets, (dict, tuple)):
        check_array(name, "targets", targets)


def _check_sequences(
    name: str,
    check: Check,
    outputs: Struct | Padded,
    targets: AnyArray | Padded,
    sources: PyTree,
    weights: AnyArray | None,
) -> None:
    """Checks the targets of the steps that count, where outputs or targets are `Padded`."""
    shape = (*targets.shape[:1], *outputs.shape[1:])
    check_steps(name, shape, targets.shape)
    trees = (targets, sources)
    check_every_length(name, targets.shape, trees, weights)
    if len(shape) == 2:
        shape = (*shape, 1)
    values = _with_valid_padding(check, shape, targets, sources)
    check(name, jax.ShapeDtypeStruct(shape, outputs.dtype), values)


def _with_valid_padding(
    check: Check, shape: Shape, targets: AnyArray | Padded, sources: PyTree
) -> np.ndarray:
    """Targets with values that no check refuses, at the steps that do not certainly count."""
    values = plain_values(targets)
    valid = certain_steps(values.shape, targets, sources)
    if valid is None:
        valid = np.zeros(values.shape[:2], bool)
    one_hot = check in (_check_labels, _check_dice) and values.shape == shape
    accepted = np.ones(values.shape[2:])
    if one_hot or check is _check_distributions:
        accepted[..., 1:] = 0
    return replaced_behind(values, valid, accepted)


def _check_real(name: str, outputs: jax.ShapeDtypeStruct, targets: np.ndarray) -> None:
    """Checks that targets are finite, and of the outputs' shape."""
    check_floating(name, outputs)
    check_numeric(name, targets)
    check_shapes(name, outputs.shape, targets.shape)
    check_finite(name, targets)


def _check_binary(name: str, outputs: jax.ShapeDtypeStruct, targets: np.ndarray) -> None:
    """Checks that targets lie in 0…1, and have the outputs' shape."""
    _check_real(name, outputs, targets)
    check_within_unit(name, targets)


def _check_not_negative(name: str, outputs: jax.ShapeDtypeStruct, targets: np.ndarray) -> None:
    """Checks that targets are at least 0, and have the outputs' shape."""
    _check_real(name, outputs, targets)
    check_not_negative(name, targets)


def _check_not_zero(name: str, outputs: jax.ShapeDtypeStruct, targets: np.ndarray) -> None:
    """Checks that targets are other than 0, and have the outputs' shape."""
    _check_real(name, outputs, targets)
    check_not_zero(name, targets)


def _check_signs(name: str, outputs: jax.ShapeDtypeStruct, targets: np.ndarray) -> None:
    """Checks that targets are −1 or +1, and have the outputs' shape."""
    _check_real(name, outputs, targets)
    check_signs(name, targets)


def _check_vectors(name: str, outputs: jax.ShapeDtypeStruct, targets: np.ndarray) -> None:
    """Checks that targets are vectors of the outputs' shape."""
    check_floating(name, outputs)
    check_numeric(name, targets)
    check_vector_shapes(name, outputs.shape, targets.shape)
    check_finite(name, targets)


def _check_distributions(name: str, outputs: jax.ShapeDtypeStruct, targets: np.ndarray) -> None:
    """Checks that targets are probability distributions over the classes."""
    _check_vectors(name, outputs, targets)
    check_distributions(name, targets)


def _check_labels(name: str, outputs: jax.ShapeDtypeStruct, targets: np.ndarray) -> None:
    """Checks that targets are class numbers, or distributions over the classes."""
    check_floating(name, outputs)
    if are_class_numbers(name, outputs, targets):
        check_classes(name, targets, outputs.shape[-1])
        return
    _check_distributions(name, outputs, targets)


def _check_numbers(name: str, outputs: jax.ShapeDtypeStruct, targets: np.ndarray) -> None:
    """Checks that targets are class numbers."""
    check_floating(name, outputs)
    check_class_numbers(name, outputs, targets)
    check_classes(name, targets, outputs.shape[-1])


def _check_dice(name: str, outputs: jax.ShapeDtypeStruct, targets: np.ndarray) -> None:
    """Checks that targets are labels of one column, or of classes."""
    if has_one_column(outputs.shape):
        _check_binary(name, outputs, targets)
        return
    _check_labels(name, outputs, targets)


_CHECKS: tuple[tuple[Loss, Check], ...] = (
    (mean_squared_error, _check_real),
    (mean_absolute_error, _check_real),
    (huber, _check_real),
    (log_cosh, _check_real),
    (gaussian_negative_log_likelihood, _check_real),
    (poisson_negative_log_likelihood, _check_not_negative),
    (mean_squared_logarithmic_error, _check_not_negative),
    (mean_absolute_percentage_error, _check_not_zero),
    (binary_cross_entropy, _check_binary),
    (binary_cross_entropy_from_probabilities, _check_binary),
    (focal, _check_binary),
    (contrastive, _check_binary),
    (hinge, _check_signs),
    (squared_hinge, _check_signs),
    (cosine_embedding, _check_signs),
    (margin_ranking, _check_signs),
    (multiclass_hinge, _check_numbers),
    (dice, _check_dice),
    (kl_divergence, _check_distributions),
    (cosine_distance, _check_vectors),
    (softmax_cross_entropy, _check_labels),
)

_SEVERAL: tuple[tuple[Loss, tuple[str, ...], bool], ...] = (
    (gaussian_negative_log_likelihood, GAUSSIAN, False),
    (margin_ranking, PAIR, False),
    (cosine_embedding, PAIR, True),
    (contrastive, PAIR, True),
)
"""Losses of several outputs: the names of these, and whether they are vectors with one target."""
