"""Sequences of different lengths in one array."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Padded:
    """Sequences of different lengths, laid into one array from its start and filled up behind.

    Layers that treat every step alike (`Dense`, `Embedding`, `Dropout`, activations) give back
    `Padded`; recurrent layers, attention and global pooling read what is within the lengths alone,
    so that what lies behind them changes nothing.

    Args:
        values: [batch, time, ...].
        lengths: [batch] int32, how many steps of each sequence count, 0 … time.
    """

    values: Any
    lengths: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    @property
    def ndim(self) -> int:
        return len(self.values.shape)

    @property
    def mask(self) -> Array:
        """[batch, time] bool: which steps count."""
        return (
            jnp.arange(self.values.shape[1], dtype=jnp.int32)[None]
            < jnp.asarray(self.lengths, jnp.int32)[:, None]
        )


def over_values(function: Callable[..., Any], *xs: Any) -> Any:
    """f(x, …) on the values of those that are `Padded`, given back with the lengths of the first of
    them.

    >>> y = over_values(jnp.negative, Padded(jnp.ones((1, 2)), jnp.array([1])))
    >>> y.values, y.lengths
    (Array([[-1., -1.]], dtype=float32), Array([1], dtype=int32))
    """
    padded = [x for x in xs if isinstance(x, Padded)]
    y = function(*(x.values if isinstance(x, Padded) else x for x in xs))
    return Padded(y, padded[0].lengths) if padded else y
