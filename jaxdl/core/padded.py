"""Sequences of different lengths in one array."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdl.compiling.pytree import PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Padded:
    """Sequences of different lengths in one array, padded at their ends.

    Layers that compute each step alone (`Dense`, `Embedding`, `Dropout`, activations) return
    `Padded`; recurrent layers, attention and global pooling read only the steps within the lengths,
    so that the padding changes nothing.

    Args:
        values: [batch, time, ...].
        lengths: [batch] int32, the number of steps of each sequence, 0 … time.
    """

    values: Any
    lengths: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the values."""
        return self.values.dtype

    @property
    def ndim(self) -> int:
        """The rank of the values."""
        return len(self.values.shape)

    @property
    def mask(self) -> Array:
        """[batch, time] bool: True for the steps within the lengths."""
        steps = jnp.arange(self.values.shape[1], dtype=jnp.int32)
        lengths = jnp.asarray(self.lengths, jnp.int32)
        return steps[None] < lengths[:, None]

    def broadcast_mask(self) -> Array:
        """The mask, with an axis of size 1 for each further axis of the values."""
        return self.mask.reshape(self.shape[:2] + (1,) * (self.ndim - 2))

    def with_zero_padding(self) -> "Padded":
        """The same sequences, with zeros for padding."""
        zero = jnp.zeros((), self.dtype)
        return Padded(jnp.where(self.broadcast_mask(), self.values, zero), self.lengths)


def is_padded(x: object) -> TypeGuard[Padded]:
    """Whether x is `Padded`."""
    return isinstance(x, Padded)


def map_values(function: Callable[..., PyTree], *xs: PyTree) -> PyTree:
    """f(x, …) of the values of those that are `Padded`, with the lengths of the first of them.

    >>> y = map_values(jnp.negative, Padded(jnp.ones((1, 2)), jnp.array([1])))
    >>> y.values, y.lengths
    (Array([[-1., -1.]], dtype=float32), Array([1], dtype=int32))
    """
    padded = [x for x in xs if is_padded(x)]
    y = function(*(x.values if is_padded(x) else x for x in xs))
    return Padded(y, padded[0].lengths) if padded else y
