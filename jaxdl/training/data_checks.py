"""Checks of data, on the host and before anything is compiled."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.arrays import host_arrays
from jaxdl.core.padded import Padded
from jaxdl.data.source import Batch
from jaxdl.losses.checks import check_targets
from jaxdl.losses.targets import targets_that_count
from jaxdl.training.class_weights import weights_of_labels
from jaxdl.training.feed import Feed, ResidentFeed, as_weights, lists_read, with_targets
from jaxdl.training.stream_feed import StreamFeed


def check_arrays(name: str, data: Any, labelled: bool = True) -> Batch:
    """`(inputs, targets)` or `(inputs, targets, weights)` as NumPy arrays of one length, finite and
    not empty.

    Where data need not be labelled, inputs may come alone.

    Raises:
        ValueError: lengths differ, there is nothing, or a number is not finite.
    """
    data = data if labelled else with_targets(data)
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        raise ValueError(
            f"{name}: expected a pair (inputs, targets), or with weights a triple, got "
            f"{type(data).__name__}."
        )
    inputs = host_arrays(f"{name} inputs", data[0])
    targets = host_arrays(f"{name} targets", data[1])
    batch = Batch(inputs, targets, as_weights(name, data[2]) if len(data) == 3 else None)
    check_lengths(name, batch, lists_read(data))
    check_finite(
        f"{name} inputs",
        [_that_count(leaf) for leaf in jax.tree.leaves(inputs, is_leaf=_is_padded)],
    )
    leaves = jax.tree.leaves(targets, is_leaf=_is_padded)
    check_finite(f"{name} targets", [targets_that_count(leaf, inputs) for leaf in leaves])
    return batch


def check_lengths(name: str, batch: Batch, advice: str = "") -> None:
    """Refuses arrays of different lengths, and empty ones; the sentence ends with the advice."""
    parts = {"inputs": batch.inputs, "targets": batch.targets, "weights": batch.weights}
    lengths = {
        part: {leaf.shape[:1] for leaf in jax.tree.leaves(tree)} for part, tree in parts.items()
    }
    for part, found in lengths.items():
        if () in found:
            raise ValueError(
                f"{name} {part}: expected arrays with one entry an example, got a scalar{advice}."
            )
    if not jax.tree.leaves(batch.inputs):
        raise ValueError(
            f"{name}: there are no inputs — expected arrays with one entry an example."
        )
    known = {part: sorted(n for (n,) in found) for part, found in lengths.items() if found}
    if len({n for found in known.values() for n in found}) > 1:
        told = ", ".join(
            f"{found[0] if len(found) == 1 else found} {part}" for part, found in known.items()
        )
        raise ValueError(f"{name}: every array needs one entry an example, got {told}{advice}.")
    if not known or 0 in known.get("inputs", []):
        raise ValueError(f"{name}: the set is empty — it has no examples.")


def check_finite(name: str, tree: Any) -> None:
    """Refuses NaN and infinity: how many, and where first."""
    for leaf in jax.tree.leaves(tree):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        wide = np.complex128 if np.iscomplexobj(leaf) else np.float64
        if np.isfinite(
            np.add.reduce(leaf, axis=None, dtype=wide)
        ):  # one pass; infinities and NaN carry through
            continue
        wrong = ~np.isfinite(leaf)
        if wrong.any():
            first = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(
                f"{name}: {int(wrong.sum())} of {leaf.size} numbers are not finite, the first is "
                f"{leaf[first]} at index "
                f"{list(first)} — remove or replace them."
            )


def check_split(validation: Any, size: int) -> int:
    """How many examples a share of the data is, at least one on either side."""
    if not 0 < validation < 1:
        raise ValueError(
            f"validation: a share of the data lies between 0 and 1, got {validation!r}."
        )
    count = max(1, math.floor(size * validation))
    if count >= size:
        raise ValueError(
            f"validation: {size} examples cannot be split, give more data or a validation set."
        )
    return count


def check_counts(name: str, feed: Feed, class_weights: tuple[float, ...] | None = None) -> None:
    """Refuses arrays of which no example counts; of a stream that cannot be known before."""
    if not isinstance(feed, ResidentFeed) or (
        feed.source.weights is None and class_weights is None
    ):
        return
    source = feed.source
    counts = np.ones(1, bool) if source.weights is None else np.asarray(source.weights) > 0
    counts = counts.reshape(len(counts), -1).any(axis=1)
    if class_weights is not None:
        counts = counts & (weights_of_labels(class_weights, source.targets) > 0)
    if not counts.any():
        of = "" if class_weights is None else ", with those of their classes,"
        raise ValueError(
            f"{name}: the weights of all examples{of} are 0, so that none counts — give some of "
            f"them more."
        )


def _that_count(leaf: Any) -> Any:
    """An array of inputs, of `Padded` sequences with zeros behind their ends, as the model reads
    them.
    """
    return targets_that_count(leaf, leaf) if _is_padded(leaf) else leaf


def _is_padded(node: Any) -> bool:
    return isinstance(node, Padded)


def check_intensities(name: str, inputs: Any) -> None:
    """Refuses inputs of a dtype whose scale cannot be known."""
    for leaf in jax.tree.leaves(inputs):
        if leaf.dtype != np.uint8 and not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"{name} inputs: expected floating-point numbers, or images in uint8, got "
                f"{leaf.dtype}."
            )


def check_read_again(validation: Feed | None, epochs: int) -> None:
    """Refuses a validation set that ends with the first epoch."""
    if isinstance(validation, StreamFeed) and validation.is_read_once and epochs > 1:
        raise ValueError(
            "validation: a generator is used up after the first epoch, and each epoch reads it — "
            "pass a function that returns "
            "a fresh generator, or a list of its batches."
        )


def check_as_targets(name: str, loss: Callable[..., Any], inputs: np.ndarray) -> None:
    """Refuses inputs that a loss cannot mean as targets, such as pixels outside 0…1 as
    probabilities.
    """
    try:
        check_targets(loss, jax.ShapeDtypeStruct(inputs.shape, inputs.dtype), inputs)
    except ValueError as error:
        raise ValueError(f"{name} inputs: {error}") from error
