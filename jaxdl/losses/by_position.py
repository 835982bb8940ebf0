"""Losses and metrics of positions: every step of a sequence, or target of a map, as an example.

A loss of examples becomes one of positions by reshaping alone: `[batch, time, ...]` is read as
`[batch · time, ...]`. What weighs 0 is left out: positions behind the end of `Padded` sequences,
those whose target is ignored, and those whose own weight is 0.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.number import is_number
from jaxdl.core.padded import Padded, is_padded
from jaxdl.losses.batchwise import is_batchwise
from jaxdl.losses.bound import Arguments, Keywords, check_bound, format_bound, unbound
from jaxdl.losses.ctc import ctc
from jaxdl.losses.operands import AnyArray, PositionWeights, as_native
from jaxdl.losses.per_example import format_shapes, function_name, innermost
from jaxdl.losses.segmentation import dice
from jaxdl.losses.weighted import weighted_sum

Function = Callable[..., Array]
Positions = tuple[PyTree, PyTree, Float[Array, " positions"]]
"""Outputs, targets and weights, `[positions, ...]`."""

FILLER = 1
"""The target that stands for an ignored one: any loss and any check takes it."""


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class ByPosition:
    """A loss averaged over the positions of a batch: `Σ_p w_p f(x_p, y_p) / Σ_p w_p`.

    The losses of this package are the mean over an example's positions, and training takes the
    mean of these over the examples: a step of a short sequence counts for more than one of a long
    sequence. Here every position that counts counts alike, as PyTorch averages with
    `ignore_index`; an epoch's figure is the mean over all its positions. w is the weight of the
    position, or of its example, and 0 behind the end of `Padded` sequences and where y is `ignore`.

    Metrics take `ignore` too, as in `Perplexity(ignore=-1)` and `Mean(accuracy, ignore=-1)`.

    Called by itself it returns the mean over each example's positions, 0 where none counts; so it
    is summed as a term of `ByOutput`.

    Args:
        loss: `loss(outputs, targets) -> [batch]`, of positions as examples; a `functools.partial`
            with hashable arguments is one too.
        ignore: the target that does not count, such as -1; None counts all. With it every element
            of the targets is a position, else every step, `[batch, time]`.

    Raises:
        TypeError: the loss is not a function, is batchwise, or binds an argument that cannot be
            hashed.
        ValueError: the loss has no value at a position, or `ignore` is not a finite number.

    Source: PyTorch's `torch.nn.CrossEntropyLoss`, with `ignore_index` and the mean.

    Example:
        >>> from jaxdl import losses
        >>> loss = ByPosition(losses.softmax_cross_entropy, ignore=-1)
        >>> loss(jnp.zeros((2, 3, 4)), jnp.array([[0, 3, -1], [-1, -1, -1]])).round(3)
        Array([1.386, 0.   ], dtype=float32)
    """

    function: Function
    arguments: Arguments
    keywords: Keywords
    ignore: float | None

    def __init__(self, loss: Function, *, ignore: float | None = None) -> None:
        _check_loss(loss)
        function, arguments, keywords = unbound(loss)
        check_bound("loss", function, arguments, keywords)
        check_ignore("ByPosition", ignore)
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "arguments", arguments)
        object.__setattr__(self, "keywords", keywords)
        object.__setattr__(self, "ignore", ignore)

    @property
    def __wrapped__(self) -> Function:
        """The loss, whose name and signature are shown."""
        return self.function

    def loss(self, outputs: PyTree, targets: PyTree, **settings: object) -> Array:
        """The loss of positions as examples, `[positions]`."""
        keywords = dict(self.keywords) | settings
        return self.function(*self.arguments, outputs, targets, **keywords)

    def __call__(
        self, outputs: PyTree, targets: PyTree, **settings: object
    ) -> Float[Array, " batch"]:
        """The mean over the positions of each example that count.

        Args:
            outputs: `[batch, time, ...]` or `Padded`.
            targets: `[batch, time, ...]` or `Padded`.
            **settings: further keywords of the loss.

        Returns:
            `[batch]`; 0 for an example without a position that counts.
        """
        batch = jax.tree.leaves(outputs)[0].shape[0]
        ones = jnp.ones(batch, jnp.float32)
        loss = functools.partial(self.loss, **settings)
        shape = positions_of("ByPosition", outputs, targets, ones, self.ignore, True)
        weights = position_weights("ByPosition", shape, outputs, targets, ones, self.ignore)
        flat, wanted, each = flattened(outputs, targets, weights, self.ignore)
        values = jnp.asarray(loss(flat, wanted))
        values = jnp.where(each == 0, 0, values).reshape(batch, -1)
        total = jnp.sum(each.reshape(batch, -1), axis=1)
        return values.sum(axis=1) / jnp.maximum(total, 1).astype(values.dtype)

    def __repr__(self) -> str:
        shown = format_bound(self.function, self.arguments, self.keywords)
        if self.ignore is None:
            return f"ByPosition({shown})"
        return f"ByPosition({shown}, ignore={self.ignore!r})"


def loss_of_positions(loss: object) -> tuple[Function, float | None] | None:
    """The loss of positions in a `ByPosition`, and what it ignores; also under partials and other
    wrappers. None of any other loss.
    """
    if isinstance(loss, ByPosition):
        return loss.loss, loss.ignore
    if isinstance(loss, functools.partial):
        found = loss_of_positions(loss.func)
        if found is None:
            return None
        return functools.partial(found[0], *loss.args, **loss.keywords), found[1]
    wrapped = getattr(loss, "__wrapped__", None)
    return None if wrapped is None else loss_of_positions(wrapped)


def loss_weights(
    loss: Function,
    outputs: Callable[[], PyTree],
    targets: PyTree,
    weights: PositionWeights,
) -> Float[Array, "batch ..."]:
    """The weights that a loss is summed with: of examples, or of positions.

    Args:
        loss: of examples, or a `ByPosition`.
        outputs: returns those of the model, of which only the shapes and the lengths are read, so
            that a compiler leaves out what else it computes.
        targets: of the batch.
        weights: `[batch]`, or `[batch, time]`.
    """
    found = loss_of_positions(loss)
    if found is None and weights.ndim == 1:
        return jnp.asarray(weights)
    ignore = None if found is None else found[1]
    known = jax.eval_shape(outputs)
    if any(map(is_padded, jax.tree.leaves(known, is_leaf=is_padded))):
        known = outputs()
    name = f"loss '{function_name(loss)}'"
    shape = positions_of(name, known, targets, weights, ignore, found is not None)
    return position_weights(name, shape, known, targets, weights, ignore)


def loss_sum(
    loss: Function, outputs: PyTree, targets: PyTree, weights: PositionWeights
) -> Float[Array, ""]:
    """`Σ w f(x, y)` over examples, or over positions.

    Args:
        loss: f, of examples, or a `ByPosition`.
        outputs: x, `[batch, ...]`.
        targets: y, `[batch, ...]`.
        weights: w, as `loss_weights` returns them.
    """
    found = loss_of_positions(loss)
    if found is None and weights.ndim == 1:
        return weighted_sum(loss(outputs, targets), weights)
    if found is None and innermost(loss) in _OF_WHOLE:
        raise ValueError(_of_whole(loss))
    function, ignore = (loss, None) if found is None else found
    flat, wanted, each = flattened(outputs, targets, weights, ignore)
    return weighted_sum(function(flat, wanted), each)


def by_position(
    name: str, outputs: PyTree, targets: PyTree, weights: PositionWeights, ignore: float | None
) -> Positions:
    """Positions as examples, for a metric.

    Args:
        name: the metric, for errors.
        outputs: `[batch, time, ...]`, or a pytree of such.
        targets: the same; with `ignore` one array.
        weights: `[batch]`, or `[batch, time]`.
        ignore: the target that does not count, or None.

    Raises:
        ValueError: outputs, targets and weights have no such positions in common.
    """
    shape = positions_of(name, outputs, targets, weights, ignore, False)
    each = position_weights(name, shape, outputs, targets, weights, ignore)
    return flattened(outputs, targets, each, ignore)


def positions_of(
    name: str,
    outputs: PyTree,
    targets: PyTree,
    weights: PositionWeights,
    ignore: float | None,
    every: bool,
) -> tuple[int, ...]:
    """The shape of the positions: of the targets that may be ignored, of the steps, or of weights.

    Raises:
        ValueError: outputs, targets and weights do not begin with that shape.
    """
    shape = tuple(weights.shape)
    if ignore is not None:
        shape = _shape_of_targets(name, outputs, targets)
    elif every and weights.ndim == 1:
        shape = tuple(jax.tree.leaves(outputs, is_leaf=is_padded)[0].shape[:2])
    leaves = jax.tree.leaves((outputs, targets), is_leaf=is_padded)
    fit = all(tuple(leaf.shape[: len(shape)]) == shape for leaf in leaves)
    if fit and shape[: weights.ndim] == tuple(weights.shape):
        return shape
    raise ValueError(
        f"{name}: positions {shape} with weights of shape {tuple(weights.shape)} do not fit "
        f"outputs of {format_shapes(outputs)} and targets of {format_shapes(targets)} — weights by "
        "position are [examples, time], where outputs and targets are [examples, time, ...]; of "
        "one output and one target an example they are [examples]."
    )


def position_weights(
    name: str,
    shape: tuple[int, ...],
    outputs: PyTree,
    targets: PyTree,
    weights: PositionWeights,
    ignore: float | None,
) -> Float[Array, "batch ..."]:
    """The weight of each position: 0 behind the ends of sequences, and where the target is ignored.

    Args:
        name: the loss or metric, for errors.
        shape: of the positions.
        outputs, targets, weights, ignore: as for `by_position`.
    """
    each = jnp.asarray(as_native("weights", weights))
    each = jnp.broadcast_to(_with_rank(each, len(shape)), shape)
    if len(shape) > 1:
        for leaf in jax.tree.leaves((outputs, targets), is_leaf=is_padded):
            if isinstance(leaf, Padded):
                each = jnp.where(_with_rank(leaf.mask, len(shape)), each, 0)
    if ignore is None:
        return each
    return jnp.where(_is_ignored(name, targets, ignore).reshape(shape), 0, each)


def flattened(
    outputs: PyTree, targets: PyTree, weights: PositionWeights, ignore: float | None = None
) -> Positions:
    """Outputs, targets and weights `[batch, time, ...]` as `[positions, ...]`.

    `Padded` sequences become ones of a single step, or of none behind their ends, so that what lies
    there reaches neither value nor gradient.

    Args:
        outputs: a pytree of arrays or `Padded` that begin with the shape of the weights.
        targets: the same.
        weights: of the positions.
        ignore: a target that `FILLER` stands for.
    """
    if ignore is not None:
        targets = _without_ignored(targets, ignore)
    rank = weights.ndim
    count = math.prod(weights.shape)
    leaves = jax.tree.leaves((outputs, targets), is_leaf=is_padded)
    masks = [leaf.mask for leaf in leaves if isinstance(leaf, Padded)]
    step = (1,) if masks else ()

    def flat(leaf: PyTree) -> PyTree:
        values = leaf.values if isinstance(leaf, Padded) else leaf
        values = jnp.asarray(as_native("values", values))
        values = values.reshape(count, *step, *values.shape[rank:])
        if not isinstance(leaf, Padded):
            return values
        valid = functools.reduce(jnp.logical_and, masks)
        valid = jnp.broadcast_to(_with_rank(valid, rank), weights.shape)
        return Padded(values, valid.reshape(count).astype(jnp.int32))

    outputs, targets = jax.tree.map(flat, (outputs, targets), is_leaf=is_padded)
    return outputs, targets, jnp.asarray(weights).reshape(count)


def check_ignore(name: str, ignore: object) -> None:
    """Checks that what is ignored is a finite number, or None.

    Raises:
        ValueError: it is something else.
    """
    if ignore is None or is_number(ignore):
        return
    raise ValueError(f"{name}: ignore is the target that does not count, got {ignore!r}.")


_OF_WHOLE = (innermost(ctc), innermost(dice))
"""Losses of an example as a whole."""


def _of_whole(loss: object) -> str:
    name = function_name(loss)
    return (
        f"{name}: it is of an example as a whole and has no value at a position — weigh examples, "
        "by weights of shape [examples]."
    )


def _check_loss(loss: object) -> None:
    if isinstance(loss, type) or not callable(loss):
        raise TypeError(
            f"ByPosition: expected a function loss(outputs, targets) -> [batch], got {loss!r}."
        )
    if is_batchwise(loss):
        raise TypeError(
            f"ByPosition: {loss!r} is batchwise, and has no value at a position — weigh examples."
        )
    if innermost(loss) in _OF_WHOLE:
        raise ValueError(f"ByPosition: {_of_whole(loss)}")


def _with_rank(values: Array, rank: int) -> Array:
    return values.reshape(*values.shape, *[1] * (rank - values.ndim))


def _shape_of_targets(name: str, outputs: PyTree, targets: PyTree) -> tuple[int, ...]:
    """The shape of the targets, without a last axis of length 1 that the outputs do not have."""
    both = (outputs, targets)
    if not all(hasattr(each, "shape") for each in both):
        raise ValueError(
            f"{name}: ignore is of one array of targets, got outputs of {format_shapes(outputs)} "
            f"and targets of {format_shapes(targets)} — name one of several outputs."
        )
    shape = tuple(targets.shape)
    if shape != tuple(outputs.shape[: len(shape)]) and shape[-1:] == (1,):
        return shape[:-1]
    return shape


def _is_ignored(name: str, targets: AnyArray | Padded, ignore: float) -> Array:
    values = targets.values if isinstance(targets, Padded) else targets
    check_ignorable(name, values, ignore)
    values = jnp.asarray(as_native("targets", values))
    return values == jnp.asarray(ignore, values.dtype)


def _without_ignored(targets: AnyArray | Padded, ignore: float) -> AnyArray | Padded:
    values = targets.values if isinstance(targets, Padded) else targets
    values = jnp.asarray(as_native("targets", values))
    ignored = values == jnp.asarray(ignore, values.dtype)
    values = jnp.where(ignored, jnp.asarray(FILLER, values.dtype), values)
    return Padded(values, targets.lengths) if isinstance(targets, Padded) else values


def check_ignorable(name: str, values: AnyArray, ignore: float) -> None:
    """Checks that targets can hold what is ignored.

    Raises:
        ValueError: their dtype has no such number.
    """
    if jnp.issubdtype(values.dtype, jnp.floating):
        return
    if jnp.issubdtype(values.dtype, jnp.integer) and ignore == int(ignore):
        bounds = jnp.iinfo(values.dtype)
        if bounds.min <= ignore <= bounds.max:
            return
    raise ValueError(
        f"{name}: ignore is {ignore!r}, which targets of {values.dtype} cannot be — give targets "
        "a dtype that holds it, or ignore another number."
    )
