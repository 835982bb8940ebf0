"""Arrays and streams of batches as arguments of compiled programs.

They are pytrees with a method `batch(orders, start, index)`.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Int

from jaxdl.compiling import threefry
from jaxdl.compiling.pytree import PyTree
from jaxdl.ops.shuffle import drawn, permuted, permuted_by_program

Tree = PyTree

MOST_EPOCHS = 64
"""The number of epochs that one run of a program may touch."""
ORDERED_PLACES = 2**20
"""The length of the orders of one run, where those of two epochs are not longer."""


class Batch(NamedTuple):
    """A batch, the argument of one step.

    Args:
        inputs, targets: trees of arrays, [batch, ...].
        weights: [batch] float32, how much each example counts, or [batch, time], how much each of
            its positions does; None where all count alike.
        mask: [batch] bool, False for rows that only fill up a smaller batch, or None where there
            are none.
    """

    inputs: Tree
    targets: Tree
    weights: PyTree = None
    mask: PyTree = None

    @property
    def size(self) -> int:
        return jax.tree.leaves(self.inputs)[0].shape[0]

    def example_weights(self) -> Array:
        """[batch] float32, or [batch, time]: the weights, zero where the mask is False."""
        weights = self.weights
        if weights is None:
            weights = jnp.ones(self.size, jnp.float32)
        if self.mask is None:
            return weights
        mask = self.mask.reshape(-1, *[1] * (weights.ndim - 1))
        return jnp.where(mask, weights, 0)


class _Cut:
    """Data on the device that is cut into batches, for each of `members` in an order of its own."""

    size: int
    batch_size: int
    shuffle: bool
    drop_last: bool

    @property
    def members(self) -> tuple[int, ...]:
        """The axis of the members, or none."""
        return ()

    @property
    def steps(self) -> int:
        return (
            self.size // self.batch_size if self.drop_last else -(-self.size // self.batch_size)
        )

    @property
    def places(self) -> int:
        """The length of an order."""
        return self.steps * self.batch_size

    @property
    def full(self) -> bool:
        """Whether every batch is."""
        return self.places <= self.size

    @property
    def examples(self) -> int:
        """The number of examples of an epoch."""
        return min(self.size, self.places)

    @property
    def epochs(self) -> int:
        """The number of epochs that one run of a program may touch, at least two."""
        return max(
            2, min(MOST_EPOCHS, ORDERED_PLACES // math.prod((self.places, *self.members)))
        )

    def ahead(self, places: int) -> int:
        """The number of epochs, from one to `epochs`, whose orders together have that length."""
        return max(1, min(self.epochs, places // math.prod((self.places, *self.members))))

    @property
    def orders_shape(self) -> tuple[int, ...]:
        """The shape of all orders in one array; without shuffling one serves for all epochs."""
        return (self.places * (self.epochs if self.shuffle else 1), *self.members)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Resident(_Cut):
    """A whole data set on the device, cut into batches inside the program.

    Batch i of epoch e takes the indices i·b … (i + 1)·b − 1 of that epoch's order, a permutation
    drawn from the key and e. A last, smaller batch is filled up with masked rows, or left out.

    Args:
        inputs, targets: trees of arrays, [size, ...].
        weights: [size] float32 or None.
        key: of the orders.
        size, batch_size: numbers of examples.
        shuffle: whether orders are drawn; else examples come as they lie.
        drop_last: whether a last, smaller batch is left out.
    """

    inputs: Tree
    targets: Tree
    weights: Any
    key: Any
    size: int = dataclasses.field(metadata={"static": True})
    batch_size: int = dataclasses.field(metadata={"static": True})
    shuffle: bool = dataclasses.field(metadata={"static": True})
    drop_last: bool = dataclasses.field(default=False, metadata={"static": True})

    def orders(self, first: int, count: int) -> Any:
        """The indices of the examples of some epochs' batches, one epoch after another.

        The array has the length of `epochs` of them; of unshuffled data there is one order for all.

        Args:
            first: the first epoch.
            count: the number of epochs.

        Returns:
            `orders_shape` int32, on the devices of the data.
        """
        if self.shuffle:
            epochs = epochs_drawn(self.key, first, count, self.size)
        else:
            epochs = np.arange(self.size, dtype=np.int32)[None]
        return _laid_out(epochs, self)

    def batch(self, orders: Int[Array, " places"], start: Any, index: Any) -> Batch:
        """Batch `index` of an epoch that begins `start` batches after the first of those orders."""
        rows = _batch_of(orders, start, index, self)
        data = (self.inputs, self.targets, self.weights)
        inputs, targets, weights = _taken(data, rows)
        return Batch(inputs, targets, weights, _mask(index, self))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ResidentMembers(_Cut):
    """A data set on the device, cut into batches for each member of a population, as in `Resident`.

    Args:
        inputs, targets: trees of arrays, [examples, ...], which all members share.
        weights: [examples] float32 or None.
        keys: [members] typed keys of the orders.
        rows: [size, members] int32, each member's own part of the examples, or None where all have
            all.
        size, batch_size: numbers of examples.
        shuffle: whether orders are drawn.
        axis: where batches have their members: 0 or -1.
        drop_last: whether a last, smaller batch is left out.
    """

    inputs: Tree
    targets: Tree
    weights: Any
    keys: Any
    rows: Any
    size: int = dataclasses.field(metadata={"static": True})
    batch_size: int = dataclasses.field(metadata={"static": True})
    shuffle: bool = dataclasses.field(metadata={"static": True})
    axis: int = dataclasses.field(metadata={"static": True})
    drop_last: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def members(self) -> tuple[int, ...]:
        return self.keys.shape

    def orders(self, first: int, count: int) -> Any:
        """The indices of the examples of some epochs' batches for each member, as in `Resident`."""
        if self.shuffle:
            draws = _draws(self.keys, first, count, self.size)
            room = np.zeros((self.epochs, *draws.shape[1:]), np.uint32)
            room[:count] = draws
            return _members_orders(self, room, np.int32(count))
        order = np.arange(self.size, dtype=np.int32)
        epochs = np.broadcast_to(order[None, :, None], (1, self.size, *self.members))
        if self.rows is not None:
            epochs = np.take_along_axis(np.asarray(self.rows)[None], epochs, 1)
        return _laid_out(epochs, self)

    def order(self, draws: Any) -> Int[Array, "places members"]:
        """One epoch's orders, of each member's draw."""
        return jax.vmap(self._order, (0, -1), -1)(draws, self.rows)

    def _order(self, draw: Any, rows: Any) -> Array:
        order = permuted_by_program(draw, self.size)
        if rows is not None:
            order = rows[order]
        return jnp.pad(order[: self.places], (0, self.places - self.examples))

    def batch(self, orders: Int[Array, "places members"], start: Any, index: Any) -> Batch:
        """Batch `index` of an epoch that begins `start` batches after the first of those orders.

        Arrays are [members, batch, ...] or [batch, ..., members], and there is one mask.
        """
        rows = _batch_of(orders, start, index, self)
        data = (self.inputs, self.targets, self.weights)
        taken = jax.vmap(functools.partial(_taken, data), -1, self.axis)
        inputs, targets, weights = taken(rows)
        return Batch(inputs, targets, weights, _mask(index, self))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stack:
    """Several batches of a stream, one after another along a first axis.

    Args:
        batches: a `Batch` whose arrays are [steps, batch, ...]; rows past the end of the stream are
            never read.
    """

    batches: PyTree

    @property
    def steps(self) -> int:
        return jax.tree.leaves(self.batches.inputs)[0].shape[0]

    @property
    def batch_size(self) -> int:
        return jax.tree.leaves(self.batches.inputs)[0].shape[1]

    @property
    def epochs(self) -> int:
        """Two, since a stack ends with its epoch, or before."""
        return 2

    def ahead(self, places: int) -> int:
        """One: a stream has its own order."""
        del places
        return 1

    @property
    def orders_shape(self) -> tuple[int, ...]:
        return (0,)

    def orders(self, first: int, count: int) -> Any:
        """An empty array: a stream has its own order."""
        del first, count
        return jax.device_put(np.zeros(0, np.int32))

    def batch(self, orders: Int[Array, " none"], start: Any, index: Any) -> Batch:
        """Batch `index` of the stack."""
        del orders, start
        return jax.tree.map(
            lambda leaf: lax.dynamic_index_in_dim(leaf, index, 0, keepdims=False), self.batches
        )


def _taken(data: PyTree, rows: Array) -> PyTree:
    """The rows of the arrays of a pytree."""
    return jax.tree.map(lambda leaf: leaf.at[rows].get(mode="promise_in_bounds"), data)


def _laid_out(epochs: np.ndarray, source: Resident | ResidentMembers) -> Array:
    """Orders [epochs, size, ...] one after another, on the devices of the data.

    They are filled up to whole batches and to all epochs.
    """
    count = source.epochs if source.shuffle else 1
    orders = np.zeros((count, source.places, *source.members), np.int32)
    orders[: len(epochs), : source.examples] = epochs[:, : source.examples]
    leaf = jax.tree.leaves(source.inputs)[0]
    sharding = None
    if leaf.committed and leaf.sharding.is_fully_replicated:
        sharding = leaf.sharding
    return jax.device_put(orders.reshape(source.orders_shape), sharding)


@jax.jit
def _members_orders(source: ResidentMembers, draws: Any, count: Any) -> Array:
    """The orders of the first `count` epochs of those draws.

    It is a program, since the members of each device have a core for it.
    """

    def put(row: Array, orders: Array) -> Array:
        order = source.order(lax.dynamic_index_in_dim(draws, row, 0, keepdims=False))
        return lax.dynamic_update_index_in_dim(orders, order, row, 0)

    orders = jnp.zeros((source.epochs, source.places, *source.members), jnp.int32)
    return lax.fori_loop(0, count, put, orders).reshape(source.orders_shape)


def _batch_of(
    orders: Array, start: Any, index: Any, source: Resident | ResidentMembers
) -> Array:
    """The indices of the examples of a batch."""
    batches = index
    if source.shuffle:
        batches = start + index
    return lax.dynamic_slice_in_dim(orders, batches * source.batch_size, source.batch_size)


def _mask(index: Any, source: Resident | ResidentMembers) -> Array | None:
    """Which rows of a batch are examples: all, but for the last batch of an epoch."""
    if source.full:
        return None
    rows = jnp.arange(source.batch_size, dtype=jnp.int32)
    return index * source.batch_size + rows < source.size


def epochs_drawn(
    keys: Any, first: int, count: int, size: int
) -> Int[np.ndarray, "epochs *keys size"]:
    """Permutations of `size` examples for some epochs, for a key or an array of keys.

    Epoch e of a key draws from `fold_in(key, e)`.

    Args:
        keys: typed keys.
        first: the first epoch.
        count: the number of epochs.
        size: the number of examples.
    """
    return permuted(_draws(keys, first, count, size), size)


def _draws(keys: Any, first: int, count: int, size: int) -> np.ndarray:
    """The random numbers of those permutations."""
    epochs = np.arange(first, first + count, dtype=np.int32)
    words = threefry.words_of(keys)
    if words is None:
        draws = [drawn(_folded(keys, epoch), size) for epoch in epochs]
        return np.stack(draws)
    column = epochs.reshape(-1, *[1] * len(keys.shape))
    return drawn(threefry.folded(words[None], column), size)


@jax.jit
def _folded(keys: Any, epoch: Any) -> Any:
    folded = jax.vmap(lambda key: jax.random.fold_in(key, epoch))
    return folded(keys.reshape(-1)).reshape(keys.shape)


Source = Resident | ResidentMembers | Stack
