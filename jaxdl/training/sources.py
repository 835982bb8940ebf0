"""From what a caller gives as data — arrays, or anything that yields batches — to what the loop
asks of data.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jaxdl.compiling import threefry
from jaxdl.core.keys import fold_in_name
from jaxdl.core.padded import Padded
from jaxdl.data.source import Batch, Resident
from jaxdl.training import arguments, checks, data_checks
from jaxdl.training.feed import Feed, ResidentFeed
from jaxdl.training.spread import parts, whole
from jaxdl.training.stream_feed import StreamFeed

Check = Callable[[str, Batch], None]
"""Refuses a batch that lies on the host, in a sentence that begins with the place it is told."""


def as_key(seed: int | Array) -> Array:
    """A typed key as it is, and the key of a seed."""
    if (
        isinstance(seed, Array)
        and jnp.issubdtype(seed.dtype, jax.dtypes.prng_key)
        and seed.shape == ()
    ):
        return seed
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(
            f"seed is a whole number or one typed key, jax.random.key(7), got {seed!r}."
        )
    if not -(2**31) <= seed < 2**32:
        raise ValueError(
            f"seed: JAX reads 32 bits of it, and {seed} has more — give a smaller one, such as "
            f"seed % 2**32."
        )
    return threefry.of_seed(int(seed))


def as_feed(
    name: str,
    data: Any,
    *,
    batch_size: int,
    key: Array,
    shuffle: bool = False,
    steps_per_epoch: int | None = None,
    new_shapes: bool = True,
    labelled: bool = True,
    check: Check | None = None,
    mesh: Mesh | None = None,
    drop_last: bool = False,
) -> Feed:
    """Arrays as data on the device, everything else as a stream of batches.

    Args:
        name: what errors call the data.
        data: arrays, or what yields batches.
        batch_size, key, shuffle: how arrays are cut into batches.
        steps_per_epoch, new_shapes: of a stream.
        labelled: whether there have to be targets; else inputs may come alone.
        check: is given the whole data, or each batch of a stream.
        mesh: the devices that batches are split over.
        drop_last: whether a smaller last batch is left out.
    """
    arguments.check_flag("shuffle", shuffle)
    arguments.check_flag("drop_last", drop_last)
    arguments.check_flag("new_shapes", new_shapes)
    if is_arrays(data, labelled):
        if steps_per_epoch is not None:
            raise ValueError(
                "steps_per_epoch: an epoch of arrays is one pass over them — use steps to end "
                "sooner."
            )
        batch = data_checks.check_arrays(name, data, labelled)
        if check is not None:
            check(name, batch)
        return resident(batch, batch_size, key, shuffle, mesh, drop_last)
    if not callable(data) and not hasattr(data, "__iter__"):
        expected = "(inputs, targets)" if labelled else "arrays"
        raise TypeError(
            f"{name}: expected {expected} or something that yields batches, got "
            f"{type(data).__name__}."
        )
    steps = (
        None
        if steps_per_epoch is None
        else checks.check_count("steps_per_epoch", steps_per_epoch)
    )
    stream: Any = data
    feed = StreamFeed(name, stream, steps, new_shapes, labelled, mesh, drop_last)
    feed.check = check
    return feed


def resident(
    batch: Batch,
    batch_size: int,
    key: Array,
    shuffle: bool,
    mesh: Mesh | None = None,
    drop_last: bool = False,
) -> ResidentFeed:
    """Arrays on the device, or all of them on each.

    Raises:
        ValueError: a batch cannot be split evenly over the devices, or none remains once smaller
            ones are dropped.
    """
    size = batch.size
    count = parts(mesh)
    if batch_size % count:
        raise ValueError(
            f"batch_size: {batch_size} examples cannot be split evenly over {count} devices — give "
            f"a multiple of {count}."
        )
    if drop_last and size < batch_size:
        raise ValueError(
            f"drop_last: {size} examples are fewer than a batch of {batch_size}, so that nothing "
            f"remains — give a smaller "
            "batch_size, or leave drop_last out."
        )
    inputs, targets, weights, order = jax.device_put(
        (*batch[:3], fold_in_name(key, "order")), whole(mesh)
    )
    batch_size = min(batch_size, -(-size // count) * count)
    return ResidentFeed(
        Resident(inputs, targets, weights, order, size, batch_size, shuffle, drop_last)
    )


def is_arrays(data: Any, labelled: bool = True) -> bool:
    """Whether data is the whole set, rather than something that yields batches."""
    if isinstance(data, tuple):
        return True
    if not labelled:
        return isinstance(data, (dict, Padded)) or hasattr(data, "shape")
    return (
        isinstance(data, list)
        and len(data) in (2, 3)
        and not isinstance(data[0], (tuple, list))
    )


def split(data: Any, validation: Any, key: Array, labelled: bool = True) -> tuple[Any, Any]:
    """The training set, and the validation set or None; a share is set aside at random."""
    if not isinstance(validation, float):
        return data, validation
    if not is_arrays(data, labelled):
        raise ValueError(
            "validation: a share can be set aside of arrays only — give a stream a validation set "
            "of its own."
        )
    batch = data_checks.check_arrays("data", data, labelled)
    parts = [
        jax.tree.map(lambda leaf, rows=rows: leaf[rows], tuple(batch[:3]))
        for rows in split_rows(validation, batch.size, key)
    ]
    return parts[0], parts[1]


def split_rows(share: float, size: int, key: Array) -> tuple[np.ndarray, np.ndarray]:
    """Which examples are for training, and which for validation."""
    count = data_checks.check_split(share, size)
    order = np.asarray(jax.random.permutation(fold_in_name(key, "split"), size))
    return order[count:], order[:count]
