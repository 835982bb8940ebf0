"""Shapes and dtypes that a loss or metric needs, checked while it is traced."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdl.losses.per_example import format_shapes

Struct = Array | np.ndarray | jax.ShapeDtypeStruct
Shape = tuple[int, ...]


def check_array(name: str, what: str, value: object) -> None:
    """Checks that outputs or targets are one array, or `Padded`.

    Raises:
        ValueError: they are a dict of several arrays, or another pytree.
    """
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return
    raise ValueError(
        f"{name}: expected one array of {what}, got "
        f"{format_shapes(value)} — choose a part: a "
        "function as lambda outputs, targets: "
        f"{name}(outputs['part'], targets), a Metric as "
        "metrics.Part(metric, 'part')."
    )


def check_steps(name: str, outputs: Shape, targets: Shape) -> None:
    """Checks that outputs and targets, one of them `Padded`, have the same examples and steps.

    Raises:
        ValueError: they differ.
    """
    has_steps = len(outputs) >= 2
    if has_steps and outputs[:2] == targets[:2]:
        return
    raise ValueError(
        f"{name}: outputs of shape {outputs} and targets "
        f"of shape {targets} do not match — of Padded "
        "sequences every step needs a target, "
        "[batch, time, ...]; for one target an example "
        "give the model a layer that reads whole "
        "sequences, such as GlobalAvgPool()."
    )


def check_floating(name: str, outputs: Struct) -> None:
    """Checks that outputs are floating.

    Raises:
        ValueError: they are not, as when outputs and targets are swapped.
    """
    if jnp.issubdtype(outputs.dtype, jnp.floating):
        return
    raise ValueError(
        f"{name}: outputs of shape {outputs.shape} are "
        f"{outputs.dtype}, expected floating-point — "
        "outputs and targets look swapped; the order is "
        f"{name}(outputs, targets)."
    )


def check_numeric(name: str, targets: Struct) -> None:
    """Checks that targets are Boolean, integer or floating.

    Raises:
        ValueError: they are strings, objects or complex.
    """
    kinds = (jnp.bool_, jnp.integer, jnp.floating)
    dtype = targets.dtype
    if any(jnp.issubdtype(dtype, kind) for kind in kinds):
        return
    raise ValueError(
        f"{name}: targets are {dtype}, expected real "
        "numbers — number the classes from 0 "
        "(np.unique(targets, return_inverse=True)), or "
        "convert the targets to float32."
    )


def check_integral(name: str, targets: Struct) -> None:
    """Checks that class labels are integer or Boolean by dtype.

    Raises:
        ValueError: they are floating.
    """
    if not jnp.issubdtype(targets.dtype, jnp.floating):
        return
    raise ValueError(
        f"{name}: targets of shape {targets.shape} are "
        f"{targets.dtype}, expected class labels as "
        "integers — cast labels with "
        "targets.astype(np.int32); for a regression use "
        "mean_squared_error as the loss and "
        "squared_error or R2() as the metric."
    )


def check_shapes(name: str, outputs: Shape, targets: Shape) -> None:
    """Checks that two shapes are equal; one side may lack a trailing axis of length 1.

    Raises:
        ValueError: they differ, or have no batch axis.
    """
    fits = outputs == targets or outputs == (*targets, 1) or targets == (*outputs, 1)
    if fits and outputs and targets:
        return
    hint = ""
    if outputs and targets == outputs[:-1]:
        hint = (
            "; targets that lack the outputs' last axis "
            "may be class labels: softmax_cross_entropy "
            "takes those"
        )
    raise ValueError(
        f"{name}: outputs of shape {outputs} and targets "
        f"of shape {targets} do not match — give both "
        "one shape, batch first (only a trailing axis "
        "of length 1 may be missing on one side)"
        f"{hint}."
    )


def check_vector_shapes(name: str, outputs: Shape, targets: Shape) -> None:
    """Checks that two shapes are equal, with a batch axis first and a vector's axis last.

    Raises:
        ValueError: they are not.
    """
    if outputs == targets and len(outputs) >= 2:
        return
    raise ValueError(
        f"{name}: outputs of shape {outputs} and targets "
        f"of shape {targets} do not match — give both "
        "the same shape, [batch, ..., vector]: the last "
        "axis is summed over."
    )


def are_class_numbers(name: str, outputs: Struct, targets: Struct) -> bool:
    """Whether targets are class numbers `[batch, ...]`, by their shape alone.

    Otherwise they are one-hot or soft labels `[batch, ..., classes]`. Class numbers may have a
    trailing axis of length 1.

    Raises:
        ValueError: the shapes fit neither, or class numbers are floating.
    """
    shape = outputs.shape
    if len(shape) < 2 or shape[-1] < 2:
        raise ValueError(
            f"{name}: outputs of shape {shape} have no "
            "axis of two or more classes — give the last "
            "layer one output for each class, or use a "
            "binary loss for a single output."
        )
    check_numeric(name, targets)
    if targets.shape == shape:
        return False
    numbers = shape[:-1]
    if targets.shape not in (numbers, (*numbers, 1)):
        raise ValueError(
            f"{name}: targets of shape {targets.shape} "
            f"do not fit outputs of shape {shape} — pass "
            f"class numbers of shape {numbers}, or "
            f"one-hot or soft labels of shape {shape}."
        )
    check_integral(name, targets)
    return True
