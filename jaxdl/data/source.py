"""Arrays and streams of batches, as compiled programs take them: pytrees with a method `batch(order, index)`."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Int

from jaxdl import threefry
from jaxdl.ops.shuffle import drawn, permuted

Tree = Any


class Batch(NamedTuple):
    """What one step is given.

    Args:
        inputs, targets: trees of arrays, [batch, ...].
        weights: [batch] float32, how much each example counts, or None where all count alike.
        mask: [batch] bool, False for rows that only fill up a smaller batch, or None where there are none.
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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Resident:
    """A whole data set on the device, cut into batches inside the program.

    Batch i of epoch e takes the places i·b … (i + 1)·b − 1 of that epoch's order, a permutation drawn from the key and e; the
    last batch is filled up with masked rows.

    Args:
        inputs, targets: trees of arrays, [size, ...].
        weights: [size] float32 or None.
        key: of the orders.
        size, batch_size: numbers of examples.
        shuffle: whether orders are drawn; else examples come as they lie.
    """

    inputs: Tree
    targets: Tree
    weights: Any
    key: Any
    size: int = dataclasses.field(metadata={"static": True})
    batch_size: int = dataclasses.field(metadata={"static": True})
    shuffle: bool = dataclasses.field(metadata={"static": True})

    @property
    def steps(self) -> int:
        return -(-self.size // self.batch_size)

    @property
    def places(self) -> int:
        """The length of an order."""
        return self.steps * self.batch_size

    @property
    def order_shape(self) -> tuple[int, ...]:
        return (self.places,)

    @property
    def full(self) -> bool:
        """Whether every batch is."""
        return self.places == self.size

    def draws(self, first: int, count: int) -> Any:
        """What the orders of so many epochs from a first are made of, [count, ...]."""
        return epochs_drawn(self.key, first, count, self.size, self.shuffle)

    def order(self, draw: Any) -> Int[Array, " places"]:
        """The examples at all places of an epoch's batches, of that epoch's draw."""
        return jnp.pad(_places(draw, self.size, self.shuffle), (0, self.places - self.size))

    def batch(self, order: Int[Array, " places"], index: Any) -> Batch:
        """Batch `index` of the epoch with that order."""
        first = index * self.batch_size
        rows = lax.dynamic_slice_in_dim(order, first, self.batch_size)
        inputs, targets, weights = jax.tree.map(
            lambda leaf: leaf.at[rows].get(mode="promise_in_bounds"), (self.inputs, self.targets, self.weights)
        )
        mask = None if self.full else first + jnp.arange(self.batch_size, dtype=jnp.int32) < self.size
        return Batch(inputs, targets, weights, mask)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ResidentMembers:
    """A data set on the device, cut into batches for each member of a population as `Resident` cuts it for a single run.

    Args:
        inputs, targets: trees of arrays, [examples, ...], which all members share.
        weights: [examples] float32 or None.
        keys: [members] typed keys of the orders.
        rows: [size, members] int32, each member's own part of the examples, or None where all have all.
        size, batch_size: numbers of examples.
        shuffle: whether orders are drawn.
        axis: where batches have their members: 0 or -1.
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

    @property
    def steps(self) -> int:
        return -(-self.size // self.batch_size)

    @property
    def order_shape(self) -> tuple[int, ...]:
        return (self.steps * self.batch_size, self.keys.shape[0])

    @property
    def full(self) -> bool:
        """Whether every batch is."""
        return self.size % self.batch_size == 0

    def draws(self, first: int, count: int) -> Any:
        """What the members' orders of so many epochs from a first are made of, [count, members, ...]."""
        return epochs_drawn(self.keys, first, count, self.size, self.shuffle)

    def order(self, draw: Any) -> Int[Array, "places members"]:
        """The examples at all places of an epoch's batches, for each member, of that epoch's draw."""
        return jax.vmap(self._order, (0, -1), -1)(draw, self.rows)

    def batch(self, order: Int[Array, "places members"], index: Any) -> Batch:
        """Batch `index` of the epoch with that order: arrays [members, batch, ...] or [batch, ..., members], and one mask."""
        first = index * self.batch_size
        rows = lax.dynamic_slice_in_dim(order, first, self.batch_size)
        data = (self.inputs, self.targets, self.weights)
        inputs, targets, weights = jax.vmap(
            lambda rows: jax.tree.map(lambda leaf: leaf.at[rows].get(mode="promise_in_bounds"), data), -1, self.axis
        )(rows)
        mask = None if self.full else first + jnp.arange(self.batch_size, dtype=jnp.int32) < self.size
        return Batch(inputs, targets, weights, mask)

    def _order(self, draw: Any, rows: Any) -> Array:
        places = _places(draw, self.size, self.shuffle)
        places = places if rows is None else rows[places]
        return jnp.pad(places, (0, self.steps * self.batch_size - self.size))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stack:
    """Several batches of a stream, one after another along a first axis.

    Args:
        batches: a `Batch` whose arrays are [steps, batch, ...]; places past the end of the stream are never read.
    """

    batches: Any

    @property
    def steps(self) -> int:
        return jax.tree.leaves(self.batches.inputs)[0].shape[0]

    @property
    def batch_size(self) -> int:
        return jax.tree.leaves(self.batches.inputs)[0].shape[1]

    @property
    def order_shape(self) -> tuple[int, ...]:
        return (0,)

    def draws(self, first: int, count: int) -> Any:
        """A stream has its own order."""
        del first
        return np.zeros((count, 0), np.uint32)

    def order(self, draw: Any) -> Int[Array, " none"]:
        """None: a stream has its own."""
        del draw
        return jnp.zeros(0, jnp.int32)

    def batch(self, order: Int[Array, " none"], index: Any) -> Batch:
        """The batch at that place of the stack."""
        del order
        return jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, index, 0, keepdims=False), self.batches)


def _places(draw: Any, size: int, shuffle: bool) -> Int[Array, " size"]:
    return permuted(draw, size) if shuffle else jnp.arange(size, dtype=jnp.int32)


def epochs_drawn(keys: Any, first: int, count: int, size: int, shuffle: bool = True) -> Any:
    """What orders of `size` examples are made of in so many epochs from a first, for a key or an array of them: [count, ...].

    Epoch e of a key draws from `fold_in(key, e)`; nothing is drawn where nothing is shuffled.
    """
    if not shuffle:
        return np.zeros((count, *keys.shape, 0), np.uint32)
    words = threefry.words_of(keys)
    if words is None:
        return _epochs_drawn(keys, np.arange(first, first + count, dtype=np.int32), size)
    return _epochs_drawn_here(words.tobytes(), keys.shape, first, count, size)


@functools.lru_cache(maxsize=16)
def _epochs_drawn_here(words: bytes, shape: tuple[int, ...], first: int, count: int, size: int) -> Any:
    epochs = np.arange(first, first + count).reshape(-1, *(1,) * len(shape))
    return drawn(threefry.key_of(threefry.folded(np.frombuffer(words, np.uint32).reshape(*shape, 2)[None], epochs)), size)


@functools.partial(jax.jit, static_argnums=2)
def _epochs_drawn(keys: Any, epochs: Array, size: int) -> Any:
    return jax.vmap(lambda epoch: drawn(_folded(keys, epoch), size))(epochs)


def _folded(keys: Any, epoch: Any) -> Any:
    return jax.vmap(lambda key: jax.random.fold_in(key, epoch))(keys.reshape(-1)).reshape(keys.shape)


Source = Resident | ResidentMembers | Stack
