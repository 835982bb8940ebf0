"""How targets must fit a model's outputs: shapes, dtypes and values, and a sentence for whatever
does not fit.

The first half is used while a program is traced and sees shapes and dtypes alone. The second half
runs on the host, once over the whole array of targets, before anything is traced; it looks at least
and greatest values first, so that good targets cost two passes and bad ones are counted only then.

Where outputs or targets are `Padded`, only the steps within the lengths count: `without_padding`
gives plain arrays and the mask of those steps, `over_examples` their mean.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from jaxdl.core.number import is_number
from jaxdl.core.padded import Padded
from jaxdl.losses.per_example import shown

AnyArray = Array | np.ndarray
Sequences = AnyArray | Padded
Steps = Bool[Array, "batch time"] | None
"""Which steps of each example count, or None where there is no padding."""
Struct = Array | np.ndarray | jax.ShapeDtypeStruct
Shape = tuple[int, ...]

SUM_TOLERANCE = 1e-2  # soft labels rounded to bfloat16 miss a sum of one by up to half of this


def check_setting(
    name: str, setting: str, value: Any, least: float = -math.inf, most: float = math.inf
) -> Any:
    """A setting as a float: it must be a finite number within bounds; one that is being traced is
    taken as it is.

    Raises:
        ValueError: if it is not.
    """
    if isinstance(value, Array):
        return value
    if is_number(value) and least <= value <= most:
        return float(value)
    within = (
        ""
        if least == -math.inf
        else f" of at least {least:g}"
        if most == math.inf
        else f" from {least:g} to {most:g}"
    )
    raise ValueError(f"{name}: {setting} is a finite number{within}, got {value!r}.")


def floating(name: str, outputs: AnyArray) -> Float[Array, "..."]:
    """Outputs in at least float32, because a loss rounded to bfloat16 hides what an optimizer step
    gains.

    Raises:
        ValueError: if the outputs are not floating, which targets given in their place seldom are.
    """
    check_floating(name, outputs)
    outputs = jnp.asarray(outputs)
    return outputs if jnp.finfo(outputs.dtype).bits >= 32 else outputs.astype(jnp.float32)


def without_padding(
    name: str, outputs: Sequences, targets: Sequences
) -> tuple[AnyArray, AnyArray, Steps]:
    """Outputs and targets as plain arrays, and which steps count: those within the lengths of
    whichever are `Padded`.

    What lies behind is zero in both, so that NaN or an infinity there reaches neither a value nor a
    gradient. Outputs of one value a step, `[batch, time]`, get a last axis of length 1.

    Raises:
        ValueError: if either is no array, or they differ in their numbers of examples or steps.
    """
    check_array(name, "outputs", outputs)
    check_array(name, "targets", targets)
    if not isinstance(outputs, Padded) and not isinstance(targets, Padded):
        return outputs, targets, None
    check_steps(name, outputs.shape, targets.shape)
    real = functools.reduce(
        jnp.logical_and, [x.mask for x in (outputs, targets) if isinstance(x, Padded)]
    )
    outputs, targets = (
        _zero_behind(x.values if isinstance(x, Padded) else x, real) for x in (outputs, targets)
    )
    return outputs[..., None] if outputs.ndim == 2 else outputs, targets, real


def _zero_behind(values: AnyArray, real: Bool[Array, "batch time"]) -> Array:
    mask = real.reshape(*real.shape, *[1] * (values.ndim - 2))
    return jnp.where(mask, values, jnp.zeros((), values.dtype))


def pair(
    name: str, outputs: Sequences, targets: Sequences
) -> tuple[Float[Array, "batch ..."], Float[Array, "batch ..."], Steps]:
    """Outputs and targets in one shape and one dtype, ready for arithmetic, and which steps count.

    Nothing is ever broadcast.
    """
    outputs, targets, real = without_padding(name, outputs, targets)
    outputs = floating(name, outputs)
    check_shapes(name, outputs.shape, targets.shape)
    check_numeric(name, targets)
    shape = max(outputs.shape, targets.shape, key=len)
    return outputs.reshape(shape), jnp.asarray(targets).astype(outputs.dtype).reshape(shape), real


def vectors(
    name: str, outputs: Sequences, targets: Sequences
) -> tuple[Float[Array, "batch ..."], Float[Array, "batch ..."], Steps]:
    """As `pair`, where the last axis is that of a vector and must be there in both."""
    outputs, targets, real = without_padding(name, outputs, targets)
    outputs = floating(name, outputs)
    check_vector_shapes(name, outputs.shape, targets.shape)
    check_numeric(name, targets)
    return outputs, jnp.asarray(targets).astype(outputs.dtype), real


def class_numbers(outputs: Struct, targets: AnyArray) -> Int[Array, "batch ..."]:
    """Labels that `holds_classes` found to be class numbers, as int32 of the outputs' shape less
    the class axis.
    """
    return jnp.asarray(targets).astype(jnp.int32).reshape(outputs.shape[:-1])


def over_examples(values: Num[Array, "batch ..."], real: Steps = None) -> Num[Array, " batch"]:
    """The mean over every axis but the first; of steps that count alone, and 0 where an example has
    none.
    """
    if real is None:
        return values.mean(axis=tuple(range(1, values.ndim)))
    each = values.mean(axis=tuple(range(2, values.ndim)))
    counts = jnp.maximum(real.sum(axis=1, dtype=jnp.int32), 1)
    return jnp.where(real, each, 0).sum(axis=1) / counts.astype(each.dtype)


def holds_classes(name: str, outputs: Struct, targets: Struct) -> bool:
    """Whether targets are class numbers `[batch, ...]`; otherwise they are one-hot or soft,
    `[batch, ..., classes]`.

    A trailing axis of length 1 after class numbers is allowed. The shape alone decides.

    Raises:
        ValueError: if the shapes fit neither reading, or class numbers are not whole.
    """
    if len(outputs.shape) < 2 or outputs.shape[-1] < 2:
        raise ValueError(
            f"{name}: outputs of shape {outputs.shape} have no axis of two or more classes — give "
            f"the last layer one "
            "output for each class, or use a binary loss for a single output."
        )
    check_numeric(name, targets)
    if targets.shape == outputs.shape:
        return False
    if targets.shape not in (outputs.shape[:-1], (*outputs.shape[:-1], 1)):
        raise ValueError(
            f"{name}: targets of shape {targets.shape} do not fit outputs of shape {outputs.shape} "
            f"— pass class "
            f"numbers of shape {outputs.shape[:-1]}, or one-hot or soft labels of shape "
            f"{outputs.shape}."
        )
    check_whole(name, targets)
    return True


def check_array(name: str, what: str, value: Any) -> None:
    """Outputs and targets must be one array each, or `Padded`.

    Raises:
        ValueError: if they are a dict of several, or another tree.
    """
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return
    raise ValueError(
        f"{name}: expected one array of {what}, got {shown(value)} — choose a part: a function as "
        f"lambda outputs, "
        f"targets: {name}(outputs['part'], targets), a Metric as metrics.Part(metric, 'part')."
    )


def check_steps(name: str, outputs: Shape, targets: Shape) -> None:
    """Where either is `Padded`, outputs and targets must have the same examples and steps.

    Raises:
        ValueError: if they do not.
    """
    if len(outputs) >= 2 and outputs[:2] == targets[:2]:
        return
    raise ValueError(
        f"{name}: outputs of shape {outputs} and targets of shape {targets} do not match — of "
        f"Padded sequences "
        "every step needs a target, [batch, time, ...]; for one target an example give the model a "
        "layer that "
        "reads whole sequences, such as GlobalAvgPool()."
    )


def check_floating(name: str, outputs: Struct) -> None:
    """Outputs must be floating.

    Raises:
        ValueError: if they are not.
    """
    if not jnp.issubdtype(outputs.dtype, jnp.floating):
        raise ValueError(
            f"{name}: outputs of shape {outputs.shape} are {outputs.dtype}, expected floating "
            f"numbers — outputs and "
            f"targets look swapped; the order is {name}(outputs, targets)."
        )


def check_numeric(name: str, targets: Struct) -> None:
    """Targets must be Booleans, whole numbers or floating ones.

    Raises:
        ValueError: if they are strings, objects or complex numbers.
    """
    if not any(
        jnp.issubdtype(targets.dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating)
    ):
        raise ValueError(
            f"{name}: targets are {targets.dtype}, expected real numbers — number the classes from "
            f"0 "
            "(np.unique(targets, return_inverse=True)), or convert the targets to float32."
        )


def check_whole(name: str, targets: Struct) -> None:
    """Class labels must be whole numbers or Booleans by dtype.

    Raises:
        ValueError: if they are floating.
    """
    if jnp.issubdtype(targets.dtype, jnp.floating):
        raise ValueError(
            f"{name}: targets of shape {targets.shape} are {targets.dtype}, expected class labels "
            f"as integers — cast "
            "labels with targets.astype(np.int32); for a regression use mean_squared_error as the "
            "loss and "
            "squared_error or R2() as the metric."
        )


def check_shapes(name: str, outputs: Shape, targets: Shape) -> None:
    """Two shapes must be equal, but that one trailing axis of length 1 may be missing on either
    side.

    Raises:
        ValueError: if they are not, or have no batch axis.
    """
    fits = outputs == targets or outputs == (*targets, 1) or targets == (*outputs, 1)
    if fits and outputs and targets:
        return
    hint = (
        "; targets that lack the outputs' last axis may be class labels: softmax_cross_entropy "
        "takes those"
        if outputs and targets == outputs[:-1]
        else ""
    )
    raise ValueError(
        f"{name}: outputs of shape {outputs} and targets of shape {targets} do not match — give "
        f"both one shape, batch "
        f"first (only a trailing axis of length 1 may be missing on one side){hint}."
    )


def check_vector_shapes(name: str, outputs: Shape, targets: Shape) -> None:
    """Two shapes must be equal, with a batch axis first and a vector's axis last.

    Raises:
        ValueError: if they are not.
    """
    if outputs != targets or len(outputs) < 2:
        raise ValueError(
            f"{name}: outputs of shape {outputs} and targets of shape {targets} do not match — "
            f"give both the same "
            "shape, [batch, ..., vector]: the last axis is summed over."
        )


def lengths_of(shape: Shape, *trees: Any) -> Int[np.ndarray, "sequences examples"]:
    """On the host: the lengths of every `Padded` in the trees that has as many examples and steps
    as that shape.
    """
    leaves = jax.tree.leaves(trees, is_leaf=lambda node: isinstance(node, Padded))
    found = [
        np.asarray(x.lengths)
        for x in leaves
        if isinstance(x, Padded) and tuple(x.shape[:2]) == tuple(shape[:2])
    ]
    return np.array(found, np.int64).reshape(len(found), shape[0])


def certain_steps(shape: Shape, *trees: Any) -> np.ndarray | None:
    """On the host: which steps of arrays `[examples, time, ...]` count for certain, `[examples,
    time]`.

    They are those within the lengths of every `Padded` in the trees that fits; None where none
    does.
    """
    lengths = lengths_of(shape, *trees)
    return np.arange(shape[1]) < lengths.min(axis=0)[:, None] if len(lengths) else None


def replaced_behind(
    targets: np.ndarray, real: np.ndarray | None, stand_in: np.ndarray | float = 0
) -> np.ndarray:
    """Targets whose steps that do not count hold something that is known to be good."""
    if real is None:
        return targets
    mask = real.reshape(*real.shape, *[1] * (targets.ndim - 2))
    return np.where(mask, targets, np.asarray(stand_in, targets.dtype))


def targets_that_count(targets: np.ndarray | Padded, inputs: Any) -> np.ndarray:
    """Targets as a plain array, with zeros where a step does not count by their own lengths or
    those of the inputs.
    """
    values = np.asarray(targets.values if isinstance(targets, Padded) else targets)
    real = certain_steps(values.shape, targets, inputs) if values.ndim >= 2 else None
    return replaced_behind(values, real)


def check_every_length(name: str, shape: Shape, trees: Any, weights: AnyArray | None) -> None:
    """Every example that has weight needs a step that counts: there is no mean over none.

    Raises:
        ValueError: how many have none in any of the `Padded` that fit, and which is the first.
    """
    lengths = lengths_of(shape, trees)
    if not len(lengths):
        return
    empty = (lengths.max(axis=0) == 0) & (True if weights is None else np.asarray(weights) != 0)
    if empty.any():
        raise ValueError(
            f"{name}: {counted(empty)} sequences have no step, the first at index "
            f"{int(np.argmax(empty))}, and a "
            "loss is the mean over an example's steps — leave them out, or give them a sample "
            "weight of 0."
        )


def check_finite(name: str, targets: np.ndarray) -> None:
    """Floating targets must be finite.

    Raises:
        ValueError: how many are NaN or infinite, and where the first is.
    """
    if targets.size == 0 or not jnp.issubdtype(targets.dtype, jnp.floating):
        return
    least, greatest = bounds(targets)
    if not (np.isfinite(least) and np.isfinite(greatest)):
        wrong = ~np.isfinite(targets)
        raise ValueError(
            f"{name}: {counted(wrong)} targets are NaN or infinite, {first(wrong, targets)} — "
            f"remove or repair those "
            "examples (a weight of 0 does not hide them from the gradient)."
        )


def check_within_unit(name: str, targets: np.ndarray) -> None:
    """Binary targets must be 0 or 1, or lie between where they are soft.

    Raises:
        ValueError: how many do not, and where the first is.
    """
    if targets.size == 0:
        return
    least, greatest = bounds(targets)
    if least >= 0 and greatest <= 1:
        return
    wrong = (targets < 0) | (targets > 1)
    if (least, greatest) == (-1, 1):
        fix = "turn labels -1 and +1 into 0 and 1 with (targets + 1) // 2"
    elif targets.dtype == np.uint8 and greatest > 9:
        fix = "divide bytes by 255"
    else:
        fix = (
            "pass labels 0 and 1, or probabilities; for more than two classes use "
            "softmax_cross_entropy"
        )
    raise ValueError(
        f"{name}: {counted(wrong)} targets lie outside 0…1, {first(wrong, targets)} — {fix}."
    )


def check_signs(name: str, targets: np.ndarray) -> None:
    """Targets must be -1 or +1.

    Raises:
        ValueError: how many are neither, and where the first is.
    """
    wrong = np.abs(targets.astype(np.float32)) != 1
    if wrong.any():
        raise ValueError(
            f"{name}: {counted(wrong)} targets are neither -1 nor +1, {first(wrong, targets)} — "
            f"turn labels 0 and 1 "
            "into -1 and +1 with 2 * targets.astype(np.int32) - 1."
        )


def check_classes(name: str, targets: np.ndarray, classes: int) -> None:
    """Class numbers must lie in 0…classes-1.

    Raises:
        ValueError: how many do not, and where the first is.
    """
    if targets.size == 0:
        return
    least, greatest = (int(value) for value in bounds(targets))
    if least >= 0 and greatest < classes:
        return
    wrong = (targets < 0) | (targets >= classes)
    if (least, greatest) == (1, classes):
        fix = "the labels seem to count from 1: subtract 1"
    elif least < 0:
        fix = (
            "classes are numbered from 0; leave out an example by a sample weight of 0 and any "
            "valid label"
        )
    else:
        fix = f"give the last layer {greatest + 1} outputs, or correct the labels"
    raise ValueError(
        f"{name}: {counted(wrong)} labels lie outside 0…{classes - 1}, {first(wrong, targets)} — "
        f"{fix}."
    )


def check_distributions(name: str, targets: np.ndarray) -> None:
    """One-hot and soft labels must lie in 0…1 and sum to one over the last axis.

    Raises:
        ValueError: how many do not, and where the first is.
    """
    if targets.size == 0:
        return
    least, greatest = bounds(targets)
    if least < 0 or greatest > 1:
        wrong = (targets < 0) | (targets > 1)
        raise ValueError(
            f"{name}: {counted(wrong)} one-hot or soft labels lie outside 0…1, "
            f"{first(wrong, targets)} — pass "
            "probabilities over the classes, not logits or log-probabilities."
        )
    sums = targets.sum(axis=-1, dtype=np.float32)
    wrong = np.abs(sums - 1) > SUM_TOLERANCE
    if wrong.any():
        raise ValueError(
            f"{name}: {counted(wrong)} label vectors do not sum to 1 over the classes, "
            f"{first(wrong, sums)} — divide "
            "them by their sums; where an example has several labels use binary_cross_entropy."
        )


def bounds(targets: np.ndarray) -> tuple[float | int, float | int]:
    """The least and the greatest value, NaN where any is NaN."""
    with np.errstate(invalid="ignore"):
        return targets.min().item(), targets.max().item()


def counted(wrong: np.ndarray) -> str:
    """`3 of 1000`, for a Boolean array that marks what is wrong."""
    return f"{np.count_nonzero(wrong)} of {wrong.size}"


def first(wrong: np.ndarray, values: np.ndarray) -> str:
    """`the first is 12 at index 17`, for the values that a Boolean array marks as wrong."""
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
    value = values[index].item()
    shown = f"{value:.6g}" if isinstance(value, float) else value
    return f"the first is {shown} at index {index[0] if len(index) == 1 else index}"


def wants_numbers(name: str, outputs: jax.ShapeDtypeStruct, targets: np.ndarray) -> None:
    """Refuses targets that are not finite numbers of the outputs' shape."""
    check_floating(name, outputs)
    check_numeric(name, targets)
    check_shapes(name, outputs.shape, targets.shape)
    check_finite(name, targets)


def wants_binary(name: str, outputs: jax.ShapeDtypeStruct, targets: np.ndarray) -> None:
    """Refuses targets outside 0…1, or of another shape than the outputs."""
    wants_numbers(name, outputs, targets)
    check_within_unit(name, targets)


def wants_signs(name: str, outputs: jax.ShapeDtypeStruct, targets: np.ndarray) -> None:
    """Refuses targets other than −1 and +1."""
    wants_numbers(name, outputs, targets)
    check_signs(name, targets)


def wants_vectors(name: str, outputs: jax.ShapeDtypeStruct, targets: np.ndarray) -> None:
    """Refuses targets that are not vectors of the outputs' shape."""
    check_floating(name, outputs)
    check_numeric(name, targets)
    check_vector_shapes(name, outputs.shape, targets.shape)
    check_finite(name, targets)


def wants_distributions(name: str, outputs: jax.ShapeDtypeStruct, targets: np.ndarray) -> None:
    """Refuses targets that are not distributions over the classes."""
    wants_vectors(name, outputs, targets)
    check_distributions(name, targets)


def wants_labels(name: str, outputs: jax.ShapeDtypeStruct, targets: np.ndarray) -> None:
    """Refuses labels outside the classes, or distributions that are none."""
    check_floating(name, outputs)
    if holds_classes(name, outputs, targets):
        check_classes(name, targets, outputs.shape[-1])
    else:
        wants_distributions(name, outputs, targets)
