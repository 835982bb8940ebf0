"""Refuses losses and metrics that mix the examples of a batch, found by calling them: on shapes
alone it cannot be seen.

On a CPU a probe of a loss of one's own takes some tens of milliseconds, of which a program is
compiled; jaxdl's own are known.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.compiling.jitted import jit_once
from jaxdl.core.tree import Shapes, frozen_shapes
from jaxdl.data.source import Batch
from jaxdl.losses.batchwise import is_batchwise
from jaxdl.losses.bound import rebound
from jaxdl.losses.by_output import ByOutput
from jaxdl.losses.per_example import function_name, innermost, probe_batch_size
from jaxdl.metrics.metric import Mean
from jaxdl.training.feed import Feed, ResidentFeed
from jaxdl.training.spread import parts
from jaxdl.training.state import TrainState
from jaxdl.training.step import TrainingStep
from jaxdl.training.steps.supervised import Evaluation, Supervised

MOST_NUMBERS = 2**22
"""That a probe may have; larger outputs are not probed."""

FILLED = "rows that only fill up a smaller batch would count"
CUT = "each part of a batch would be a batch to it"
DROP = "leave smaller batches out by drop_last=True"
AS_METRIC = (
    "write a Metric, which gathers what it needs with the weights, 0 for rows that only "
    "fill up a batch"
)
WHOLE = "declare one loss of all outputs by losses.batchwise"
PER_EXAMPLE = "let it give each example a number that no other changes"


def check_unmixed(
    name: str, step: Supervised | Evaluation, outputs: Any, example: Batch, feed: Feed
) -> None:
    """Refuses a loss or metrics that rows which only fill up a batch would reach, or the cut of a
    batch into parts.

    Args:
        name: what the data are called.
        step: the loss and the metrics.
        outputs: shapes of the model's.
        example: shapes of a batch as the model gets it.
        feed: the data.
    """
    filled = example.mask is not None
    spread = parts(step.mesh) > 1
    cut = spread or getattr(step, "accumulate", 1) > 1
    if not (filled or cut):
        return
    targets = _first_targets(feed, example.targets)
    why = FILLED if filled else CUT
    if step.loss is not None:
        droppable = isinstance(step, Supervised) and name == "data" and not cut
        ways = [DROP] * droppable
        _check_loss(f"{name}: loss", step.loss, [outputs, targets], why, ways)
    for metric_name, metric in step.metrics:
        if isinstance(metric, Mean) and (filled or spread):
            function = rebound(metric.function, metric.arguments, metric.keywords)
            pair = metric.operands(outputs, targets)
            _check_unmixed(f"{name}: metric {metric_name!r}", function, pair, why, [AS_METRIC])


def check_functions(name: str, step: TrainingStep, start: TrainState, feed: Feed) -> None:
    """Refuses functions of a step that rows which only fill up a batch would reach."""
    if feed.example.mask is None:
        return
    ways = [DROP] if name == "data" else []
    for what, function, *operands in step.per_example(start, feed.example):
        if what == "loss":
            _check_loss(f"{name}: loss", function, operands, FILLED, ways)
        else:
            _check_unmixed(f"{name}: {what}", function, operands, FILLED, [PER_EXAMPLE, *ways])


def _check_loss(
    place: str, loss: Any, operands: Sequence[Any], why: str, ways: list[str]
) -> None:
    """Refuses a loss that mixes examples undeclared, and a batchwise one that reads rows where its
    mask is False.
    """
    if isinstance(loss, ByOutput):
        for term in loss.terms:
            pair = term.operands(*operands)
            at = f"{place} '{function_name(term.function)}' of output {term.output!r}"
            _check_unmixed(at, term.loss, pair, why, [PER_EXAMPLE, WHOLE, *ways])
        return
    name = function_name(loss)
    if not is_batchwise(loss):
        declared = (
            f"declare it, losses.batchwise({name}), which is given the `mask` of the rows that "
            f"count"
        )
        _check_unmixed(f"{place} '{name}'", loss, operands, why, [declared, *ways])
    elif why == FILLED and mixes_examples(loss, *operands, masked=True):
        raise ValueError(
            f"{place} '{name}' is batchwise and changes with rows where its mask is False: they "
            f"only fill up the batch — leave "
            "them out of every sum, mean, maximum and comparison, as in jnp.mean(values, "
            "where=mask)."
        )


def _check_unmixed(
    place: str, function: Any, operands: Sequence[Any], why: str, ways: list[str]
) -> None:
    if mixes_examples(function, *operands):
        raise ValueError(
            f"{place} mixes the examples of a batch, so that {why} — {', or '.join(ways)}."
        )


def _first_targets(feed: Feed, shapes: Any) -> Any:
    """The targets of the first examples, on the host; shapes where augmentation makes other ones of
    them.
    """
    targets = (
        feed.source.targets
        if isinstance(feed, ResidentFeed)
        else getattr(feed, "first_targets", shapes)
    )
    alike = jax.tree.structure(targets) == jax.tree.structure(shapes) and all(
        (leaf.shape[1:], leaf.dtype) == (expected.shape[1:], expected.dtype)
        for leaf, expected in zip(
            jax.tree.leaves(targets), jax.tree.leaves(shapes), strict=True
        )
    )
    return jax.tree.map(np.asarray, targets) if alike else shapes


def mixes_examples(
    function: Callable[..., Any],
    outputs: Any,
    targets: Any,
    *others: Any,
    masked: bool = False,
) -> bool:
    """Whether the first rows' values change with the rows behind them: two calls that differ in
    these give other numbers.

    Outputs are drawn between 0 and 1, which logits may be as well as probabilities. Functions of
    jaxdl do not mix; of what is not finite, cannot be called so, or is too large, nothing is found.

    Args:
        function: `function(outputs, targets, *others) -> [batch]`.
        outputs: a pytree of shapes, [batch, ...].
        targets: real ones, NumPy arrays with one entry an example; or shapes, of which some are
            drawn.
        others: trees of arrays, such as parameters, that it is given as they are.
        masked: whether the function is given a `mask` that tells those rows apart, and may return
            one number.
    """
    if not masked and str(getattr(innermost(function), "__module__", "")).startswith("jaxdl."):
        return False
    shapes = frozen_shapes((outputs, targets))
    answer = _answer(function, masked, shapes, frozen_shapes(others))
    if answer.mixes is None:
        answer.mixes = _mixes(function, masked, outputs, targets, others)
    return answer.mixes


@dataclasses.dataclass
class _Answer:
    """What is known of a function and the shapes that it is given; None, nothing yet."""

    mixes: bool | None = None


@functools.lru_cache(maxsize=256)
def _answer(function: Callable[..., Any], masked: bool, *shapes: Shapes) -> _Answer:
    """What is known; the arrays of the first call answer for all, and are not kept."""
    del function, masked, shapes
    return _Answer()


def _mixes(
    function: Callable[..., Any], masked: bool, outputs: Any, targets: Any, others: Any
) -> bool:
    batch = _length(outputs, targets)
    if batch is None:
        return False
    kept = batch // 2
    given = targets if _is_concrete(targets) else _drawn(targets, batch, 0)
    first = (_drawn(outputs, batch, 1), _rows(given, np.arange(batch)))
    second = (_drawn(outputs, batch, 2), _rows(given, np.arange(batch)[::-1]))
    repeated = _rows(first, np.zeros(batch, np.int32))
    if masked:
        function = functools.partial(function, mask=jnp.arange(batch) < kept)
    call = jit_once(function)
    try:
        one, *again = (
            np.asarray(call(*_joined(first, rest, kept), *others))
            for rest in (first, second, repeated)
        )
    except Exception:  # what is wrong with it is told where it is called with what it is for
        return False
    rounding = max(float(jnp.finfo(leaf.dtype).eps) for leaf in _floating((one, outputs)))
    return any(
        _apart(one[:kept] if one.ndim else one, other[:kept] if one.ndim else other, rounding)
        for other in again
    )


def _length(outputs: Any, targets: Any) -> int | None:
    """How many rows the calls have; None where they would be too large."""
    row = sum(int(np.prod(leaf.shape[1:])) for leaf in jax.tree.leaves((outputs, targets)))
    batch = probe_batch_size(outputs, targets)
    if batch * row > MOST_NUMBERS:
        batch = 4
    return batch if batch * row <= MOST_NUMBERS else None


def _floating(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def _is_concrete(tree: Any) -> bool:
    return all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(tree))


def _drawn(shapes: Any, batch: int, seed: int) -> Any:
    """Arrays of such shapes: floating-point ones between 0 and 1, bytes, others of ones."""
    rng = np.random.default_rng(seed)

    def draw(leaf: Any) -> np.ndarray:
        shape = (batch, *leaf.shape[1:])
        if leaf.dtype == np.uint8:  # images, which no table is indexed by
            return rng.integers(0, 256, shape, np.uint8)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return np.ones(shape, leaf.dtype)
        return rng.uniform(0.05, 0.95, shape).astype(leaf.dtype)

    return jax.tree.map(draw, shapes)


def _rows(tree: Any, rows: np.ndarray) -> Any:
    return jax.tree.map(lambda leaf: leaf[rows % len(leaf)], tree)


def _joined(first: Any, rest: Any, kept: int) -> Any:
    """The first rows of one tree, and the others of another."""
    return jax.tree.map(lambda a, b: np.concatenate([a[:kept], b[kept:]]), first, rest)


def _apart(one: np.ndarray, other: np.ndarray, rounding: float) -> bool:
    """Whether two results differ by more than rounding, where both are finite."""
    one = one.astype(np.float64)
    other = other.astype(np.float64)
    both = np.isfinite(one) & np.isfinite(other)
    one = np.where(both, one, 0)
    other = np.where(both, other, 0)
    least = max(1e-3, 16 * rounding) * np.max(np.abs(one), initial=1e-30)
    return bool(np.any(np.abs(one - other) > least))
