"""The input of attention to another sequence, with a mask or with a bias."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError
from jaxdl.core.padded import Padded
from jaxdl.layers import inputs


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Attend:
    """The input of attention to another sequence, with a mask or with a bias: of
    `MultiHeadAttention`, `TransformerBlock` and `TransformerDecoderBlock`.

    Masks and biases broadcast to [batch, heads, queries, keys], aligned at the last axis as NumPy
    aligns them: [queries, keys] is the same for all, and [batch, queries, keys] needs
    mask[:, None].

    Args:
        queries: [batch, queries, features], or `Padded`: the sequence that attends. Of
            `TransformerDecoderBlock` it may be an `Attend` itself, with the mask and the bias of
            the self-attention.
        keys_values: [batch, keys, features], or `Padded`: the sequence that is attended to; a batch
            of 1 is shared by all examples. None is the queries themselves.
        mask: bool, True where a query attends to a key; None is True everywhere. It applies in
            addition to `causal` and the lengths of `Padded`.
        bias: floating, added to the logits; −∞ masks the key. None is 0.
        values: [batch, keys, features], or `Padded`: the sequence whose steps are summed, if it is
            not that of the keys.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> layer = dl.MultiHeadAttention(2)
    >>> x = dl.Attend(jnp.ones((1, 3, 4)), keys_values=jnp.ones((1, 5, 6)))
    >>> params, state = layer.init(jax.random.key(0), x)
    >>> layer.apply(params, state, x)[0].shape
    (1, 3, 4)
    """

    queries: Any
    keys_values: Any = None
    mask: Any = None
    bias: Any = None
    values: Any = None

    @property
    def source(self) -> PyTree:
        """The sequence that is attended to."""
        return self.queries if self.keys_values is None else self.keys_values

    @property
    def value_source(self) -> PyTree:
        """The sequence whose steps are summed."""
        return self.source if self.values is None else self.values

    @property
    def is_plain(self) -> bool:
        """Whether a sequence attends to itself, without a mask or a bias."""
        others = (self.keys_values, self.mask, self.bias, self.values)
        return all(other is None for other in others)

    def with_queries(self, queries: PyTree) -> "Attend":
        """The same input with another sequence that attends."""
        return dataclasses.replace(self, queries=queries)


def as_attend(layer: str, x: PyTree) -> Attend:
    """The input as an `Attend`, whose sequences fit each other.

    Raises:
        LayerError: one is not [batch, time, features], or they differ in the batch, or keys and
            values in their number.
    """
    attend = x if isinstance(x, Attend) else Attend(x)
    for sequence in (attend.queries, attend.keys_values, attend.values):
        if sequence is not None:
            inputs.check_sequences(layer, sequence)
            inputs.features(layer, sequence)
    batch = attend.queries.shape[0]
    keys = attend.source.shape
    values = attend.value_source.shape
    if not {keys[0], values[0]} <= {1, batch} or values[1] != keys[1]:
        raise LayerError(
            layer,
            f"expected keys and values of one length, and of the queries' batch {batch} or a "
            f"batch of 1, got queries {list(attend.queries.shape)}, keys {list(keys)} and values "
            f"{list(values)}.",
        )
    return attend


def attended(layer: str, attend: Attend, heads: int) -> Array | None:
    """The mask and the lengths, [batch | 1, heads | 1, queries | 1, keys | 1] bool; None if all
    keys are attended to.

    Raises:
        LayerError: the mask is not bool, or does not broadcast to the weights.
    """
    mask = None
    if attend.mask is not None:
        if attend.mask.dtype != jnp.bool_:
            raise LayerError(layer, _describe_mask(attend, heads))
        mask = _broadcast(attend, attend.mask, heads)
        if mask is None:
            raise LayerError(layer, _describe_mask(attend, heads))
    for sequence in (attend.source, attend.values):
        if isinstance(sequence, Padded):
            within = sequence.mask[:, None, None]
            mask = within if mask is None else mask & within
    return mask


def added_bias(layer: str, attend: Attend, heads: int) -> Array | None:
    """The bias, [batch | 1, heads | 1, queries | 1, keys | 1].

    Raises:
        LayerError: it is not floating, or does not broadcast to the weights.
    """
    if attend.bias is None:
        return None
    bias = _broadcast(attend, attend.bias, heads)
    if bias is None or not jnp.issubdtype(bias.dtype, jnp.floating):
        raise LayerError(
            layer,
            f"expected a floating bias that broadcasts to {_weights_shape(attend, heads)}, got "
            f"{attend.bias.dtype}{list(attend.bias.shape)} — a mask of bool is Attend(mask=…).",
        )
    return bias


def _broadcast(attend: Attend, x: Array, heads: int) -> Array | None:
    """x with leading axes of size 1 up to a rank of 4; None if it does not broadcast to the
    weights.
    """
    batch, queries = attend.queries.shape[:2]
    full = (batch, heads, queries, attend.source.shape[1])
    if x.ndim > len(full):
        return None
    shape = (1,) * (len(full) - x.ndim) + x.shape
    fits = all(size in (1, length) for size, length in zip(shape, full, strict=True))
    return x.reshape(shape) if fits else None


def _describe_mask(attend: Attend, heads: int) -> str:
    fix = "a bias that is added is Attend(bias=…)."
    if attend.mask.dtype == jnp.bool_:
        fix = "one for each example is mask[:, None] of [batch, queries, keys]."
    return (
        f"expected a mask of bool, True where a query may see a key, that broadcasts to "
        f"{_weights_shape(attend, heads)}, got {attend.mask.dtype}{list(attend.mask.shape)} — {fix}"
    )


def _weights_shape(attend: Attend, heads: int) -> str:
    batch, queries = attend.queries.shape[:2]
    keys = attend.source.shape[1]
    return f"[batch, heads, queries, keys] = [{batch}, {heads}, {queries}, {keys}]"
