"""Values that targets may have, checked on the host over the whole array.

Each check first looks at the least and the greatest value, so that good targets cost two passes;
only bad ones are counted.
"""

import jax.numpy as jnp
import numpy as np

SUM_TOLERANCE = 1e-2
"""Soft labels rounded to bfloat16 miss a sum of one by up to half of this."""


def check_finite(name: str, targets: np.ndarray) -> None:
    """Checks that floating targets are finite.

    Raises:
        ValueError: how many are NaN or infinite, and where the first is.
    """
    floating = jnp.issubdtype(targets.dtype, jnp.floating)
    if targets.size == 0 or not floating:
        return
    if np.isfinite(bounds(targets)).all():
        return
    wrong = ~np.isfinite(targets)
    raise ValueError(
        f"{name}: {counted(wrong)} targets are NaN or "
        f"infinite, {first(wrong, targets)} — remove or "
        "repair those examples (a weight of 0 does not "
        "hide them from the gradient)."
    )


def check_within_unit(name: str, targets: np.ndarray) -> None:
    """Checks that binary targets are 0 or 1, or soft ones between.

    Raises:
        ValueError: how many are not, and where the first is.
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
            "pass labels 0 and 1, or probabilities; for "
            "more than two classes use "
            "softmax_cross_entropy"
        )
    raise ValueError(
        f"{name}: {counted(wrong)} targets lie outside 0…1, {first(wrong, targets)} — {fix}."
    )


def check_not_negative(name: str, targets: np.ndarray) -> None:
    """Checks that targets are at least 0.

    Raises:
        ValueError: how many are not, and where the first is.
    """
    if targets.size == 0 or bounds(targets)[0] >= 0:
        return
    wrong = targets < 0
    raise ValueError(
        f"{name}: {counted(wrong)} targets lie below 0, {first(wrong, targets)} — the loss is of "
        "counts and amounts; use mean_squared_error for targets of either sign."
    )


def check_not_zero(name: str, targets: np.ndarray) -> None:
    """Checks that targets are other than 0.

    Raises:
        ValueError: how many are 0, and where the first is.
    """
    wrong = targets == 0
    if not wrong.any():
        return
    raise ValueError(
        f"{name}: {counted(wrong)} targets are 0, {first(wrong, targets)} — there is no percentage "
        "of 0; use mean_absolute_error or log_cosh."
    )


def check_signs(name: str, targets: np.ndarray) -> None:
    """Checks that targets are -1 or +1.

    Raises:
        ValueError: how many are neither, and where the first is.
    """
    wrong = np.abs(targets.astype(np.float32)) != 1
    if not wrong.any():
        return
    raise ValueError(
        f"{name}: {counted(wrong)} targets are neither "
        f"-1 nor +1, {first(wrong, targets)} — turn "
        "labels 0 and 1 into -1 and +1 with "
        "2 * targets.astype(np.int32) - 1."
    )


def check_classes(name: str, targets: np.ndarray, classes: int) -> None:
    """Checks that class numbers lie in 0…classes-1.

    Raises:
        ValueError: how many do not, and where the first is.
    """
    if targets.size == 0:
        return
    least, greatest = map(int, bounds(targets))
    if least >= 0 and greatest < classes:
        return
    wrong = (targets < 0) | (targets >= classes)
    if (least, greatest) == (1, classes):
        fix = "the labels seem to count from 1: subtract 1"
    elif least < 0:
        fix = (
            "classes are numbered from 0; leave out an "
            "example by a sample weight of 0 and any "
            "valid label"
        )
    else:
        fix = f"give the last layer {greatest + 1} outputs, or correct the labels"
    raise ValueError(
        f"{name}: {counted(wrong)} labels lie outside "
        f"0…{classes - 1}, {first(wrong, targets)} — "
        f"{fix}."
    )


def check_distributions(name: str, targets: np.ndarray) -> None:
    """Checks that one-hot and soft labels lie in 0…1 and sum to one over the last axis.

    Raises:
        ValueError: how many do not, and where the first is.
    """
    if targets.size == 0:
        return
    least, greatest = bounds(targets)
    if least < 0 or greatest > 1:
        wrong = (targets < 0) | (targets > 1)
        raise ValueError(
            f"{name}: {counted(wrong)} one-hot or soft "
            "labels lie outside 0…1, "
            f"{first(wrong, targets)} — pass "
            "probabilities over the classes, not logits "
            "or log-probabilities."
        )
    sums = targets.sum(axis=-1, dtype=np.float32)
    wrong = np.abs(sums - 1) > SUM_TOLERANCE
    if not wrong.any():
        return
    raise ValueError(
        f"{name}: {counted(wrong)} label vectors do not "
        "sum to 1 over the classes, "
        f"{first(wrong, sums)} — divide them by their "
        "sums; where an example has several labels use "
        "binary_cross_entropy."
    )


def bounds(
    targets: np.ndarray,
) -> tuple[float | int, float | int]:
    """The least and the greatest value; NaN where any is NaN."""
    with np.errstate(invalid="ignore"):
        least = targets.min()
        greatest = targets.max()
    return least.item(), greatest.item()


def counted(wrong: np.ndarray) -> str:
    """`3 of 1000`, for a Boolean array that marks wrong values."""
    return f"{np.count_nonzero(wrong)} of {wrong.size}"


def first(wrong: np.ndarray, values: np.ndarray) -> str:
    """`the first is 12 at index 17`, for values that a Boolean array marks as wrong."""
    position = int(np.argmax(wrong))
    index = np.unravel_index(position, wrong.shape)
    index = tuple(map(int, index))
    value = values[index].item()
    if isinstance(value, float):
        value = f"{value:.6g}"
    where = index[0] if len(index) == 1 else index
    return f"the first is {value} at index {where}"
