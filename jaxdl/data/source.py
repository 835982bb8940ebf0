"""Arrays and streams of batches, as compiled programs take them: pytrees with a method
`batch(orders, start, index)`.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Int

from jaxdl.compiling import threefry
from jaxdl.ops.shuffle import drawn, permuted, permuted_by_program

Tree = Any

MOST_EPOCHS = 64
"""How many epochs one run of a program may touch."""
ORDERED_PLACES = 2**20
"""How many places the orders of one run hold, where those of two epochs have not more."""


class Batch(NamedTuple):
    """What one step is given.

    Args:
        inputs, targets: trees of arrays, [batch, ...].
        weights: [batch] float32, how much each example counts, or None where all count alike.
        mask: [batch] bool, False for rows that only fill up a smaller batch, or None where there
            are none.
    """

    inputs: Tree
    targets: Tree
    weights: Any = None
    mask: Any = None

    @property
    def size(self) -> int:
        return jax.tree.leaves(self.inputs)[0].shape[0]

    def example_weights(self) -> Array:
        """[batch] float32: the weights, zero where the mask is False."""
        weights = jnp.ones(self.size, jnp.float32) if self.weights is None else self.weights
        return weights if self.mask is None else jnp.where(self.mask, weights, 0)


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
        return self.size // self.batch_size if self.drop_last else -(-self.size // self.batch_size)

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
        """How many examples an epoch has."""
        return min(self.size, self.places)

    @property
    def epochs(self) -> int:
        """How many epochs one run of a program may touch; it may always end in the epoch after its
        first.
        """
        return max(2, min(MOST_EPOCHS, ORDERED_PLACES // math.prod((self.places, *self.members))))

    def ahead(self, places: int) -> int:
        """Of how many epochs, up to `epochs`, the orders have so many places in all; at least of
        one.
        """
        return max(1, min(self.epochs, places // math.prod((self.places, *self.members))))

    @property
    def orders_shape(self) -> tuple[int, ...]:
        """Of orders one after another: of all those epochs, or of one that serves for all, where
        nothing is shuffled.
        """
        return (self.places * (self.epochs if self.shuffle else 1), *self.members)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Resident(_Cut):
    """A whole data set on the device, cut into batches inside the program.

    Batch i of epoch e takes the places i·b … (i + 1)·b − 1 of that epoch's order, a permutation
    drawn from the key and e; the last batch is filled up with masked rows, or left out, where a
    smaller one is dropped.

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
        """The examples at all places of the batches of so many epochs from a first, one epoch after
        another.

        There is room for `epochs` of them; of unshuffled data there is one order for all.
        """
        epochs = (
            epochs_drawn(self.key, first, count, self.size)
            if self.shuffle
            else np.arange(self.size, dtype=np.int32)[None]
        )
        return _laid_out(epochs, self)

    def batch(self, orders: Int[Array, " places"], start: Any, index: Any) -> Batch:
        """Batch `index` of an epoch that begins `start` batches after the first of those orders."""
        rows = _batch_of(orders, start, index, self)
        inputs, targets, weights = jax.tree.map(
            lambda leaf: leaf.at[rows].get(mode="promise_in_bounds"),
            (self.inputs, self.targets, self.weights),
        )
        return Batch(inputs, targets, weights, _mask(index, self))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ResidentMembers(_Cut):
    """A data set on the device, cut into batches for each member of a population as `Resident` cuts
    it for a single run.

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
        """The examples at all places of the batches of so many epochs from a first, for each
        member; as `Resident` has them.
        """
        if self.shuffle:
            draws = _draws(self.keys, first, count, self.size)
            room = np.zeros((self.epochs, *draws.shape[1:]), np.uint32)
            room[:count] = draws
            return _members_orders(self, room, np.int32(count))
        epochs = np.broadcast_to(
            np.arange(self.size, dtype=np.int32)[None, :, None], (1, self.size, *self.members)
        )
        if self.rows is not None:
            epochs = np.take_along_axis(np.asarray(self.rows)[None], epochs, 1)
        return _laid_out(epochs, self)

    def order(self, draws: Any) -> Int[Array, "places members"]:
        """One epoch's orders, of each member's draw."""
        return jax.vmap(self._order, (0, -1), -1)(draws, self.rows)

    def _order(self, draw: Any, rows: Any) -> Array:
        order = permuted_by_program(draw, self.size)
        order = order if rows is None else rows[order]
        return jnp.pad(order[: self.places], (0, self.places - self.examples))

    def batch(self, orders: Int[Array, "places members"], start: Any, index: Any) -> Batch:
        """Batch `index` of an epoch that begins `start` batches after the first of those orders.

        Arrays are [members, batch, ...] or [batch, ..., members], and there is one mask.
        """
        rows = _batch_of(orders, start, index, self)
        data = (self.inputs, self.targets, self.weights)
        inputs, targets, weights = jax.vmap(
            lambda rows: jax.tree.map(
                lambda leaf: leaf.at[rows].get(mode="promise_in_bounds"), data
            ),
            -1,
            self.axis,
        )(rows)
        return Batch(inputs, targets, weights, _mask(index, self))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stack:
    """Several batches of a stream, one after another along a first axis.

    Args:
        batches: a `Batch` whose arrays are [steps, batch, ...]; places past the end of the stream
            are never read.
    """

    batches: Any

    @property
    def steps(self) -> int:
        return jax.tree.leaves(self.batches.inputs)[0].shape[0]

    @property
    def batch_size(self) -> int:
        return jax.tree.leaves(self.batches.inputs)[0].shape[1]

    @property
    def epochs(self) -> int:
        """A stack ends with its epoch, or before."""
        return 2

    def ahead(self, places: int) -> int:
        """One: a stream has its own order."""
        del places
        return 1

    @property
    def orders_shape(self) -> tuple[int, ...]:
        return (0,)

    def orders(self, first: int, count: int) -> Any:
        """None: a stream has its own."""
        del first, count
        return jax.device_put(np.zeros(0, np.int32))

    def batch(self, orders: Int[Array, " none"], start: Any, index: Any) -> Batch:
        """The batch at that place of the stack."""
        del orders, start
        return jax.tree.map(
            lambda leaf: lax.dynamic_index_in_dim(leaf, index, 0, keepdims=False), self.batches
        )


def _laid_out(epochs: np.ndarray, source: Resident | ResidentMembers) -> Array:
    """Orders [epochs, size, ...] one after another on the devices of the data, filled up to whole
    batches and all epochs.
    """
    orders = np.zeros(
        (source.epochs if source.shuffle else 1, source.places, *source.members), np.int32
    )
    orders[: len(epochs), : source.examples] = epochs[:, : source.examples]
    leaf = jax.tree.leaves(source.inputs)[0]
    same = leaf.committed and leaf.sharding.is_fully_replicated
    return jax.device_put(orders.reshape(source.orders_shape), leaf.sharding if same else None)


@jax.jit
def _members_orders(source: ResidentMembers, draws: Any, count: Any) -> Array:
    """The orders of the first `count` epochs of those draws: a program, since the members of each
    device have a core for it.
    """

    def put(row: Array, orders: Array) -> Array:
        order = source.order(lax.dynamic_index_in_dim(draws, row, 0, keepdims=False))
        return lax.dynamic_update_index_in_dim(orders, order, row, 0)

    orders = jnp.zeros((source.epochs, source.places, *source.members), jnp.int32)
    return lax.fori_loop(0, count, put, orders).reshape(source.orders_shape)


def _batch_of(orders: Array, start: Any, index: Any, source: Resident | ResidentMembers) -> Array:
    """The places of a batch."""
    batches = start + index if source.shuffle else index
    return lax.dynamic_slice_in_dim(orders, batches * source.batch_size, source.batch_size)


def _mask(index: Any, source: Resident | ResidentMembers) -> Array | None:
    """Which places of a batch are examples: all, but for the last batch of an epoch."""
    if source.full:
        return None
    return index * source.batch_size + jnp.arange(source.batch_size, dtype=jnp.int32) < source.size


def epochs_drawn(
    keys: Any, first: int, count: int, size: int
) -> Int[np.ndarray, "epochs *keys size"]:
    """Orders of `size` examples in so many epochs from a first, for a key or an array of them.

    Epoch e of a key draws from `fold_in(key, e)`.
    """
    return permuted(_draws(keys, first, count, size), size)


def _draws(keys: Any, first: int, count: int, size: int) -> np.ndarray:
    """What those orders are made of."""
    epochs, words = np.arange(first, first + count, dtype=np.int32), threefry.words_of(keys)
    if words is None:
        return np.stack([drawn(_folded(keys, epoch), size) for epoch in epochs])
    return drawn(threefry.folded(words[None], epochs.reshape(-1, *(1,) * len(keys.shape))), size)


@jax.jit
def _folded(keys: Any, epoch: Any) -> Any:
    return jax.vmap(lambda key: jax.random.fold_in(key, epoch))(keys.reshape(-1)).reshape(
        keys.shape
    )


Source = Resident | ResidentMembers | Stack
