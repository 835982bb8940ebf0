"""Scaled dot-product attention, and rotary positions.

On a CPU the products are written out, which in a compiled loop takes two thirds of the time of
`jax.nn.dot_product_attention`. Other platforms use that, in JAX's default implementation, or, if
`flash` asks for it and it is supported, in that of cuDNN, which never forms the weights.
"""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from jaxdl.compiling.target import compute_capability, target
from jaxdl.ops import dropout as ops_dropout
from jaxdl.ops.by_platform import by_platform
from jaxdl.ops.floating import widest

Queries = Float[Array, "batch queries heads width"]
Keys = Float[Array, "batch keys kv_heads width"]
Mask = Bool[Array, "#batch #heads #queries #keys"] | None

MAX_HEAD_WIDTH = 128
"""The maximum width of a head that cuDNN's kernel supports on every GPU that has it."""


def attention(
    query: Queries,
    key: Keys,
    value: Keys,
    mask: Mask = None,
    *,
    causal: bool = False,
    dropout: float | Array = 0.0,
    dropout_key: Key[Array, ""] | None = None,
    flash: bool = False,
) -> Queries:
    """y = softmax(q kᵀ / √width) v over the keys that a query attends to; 0 if there are none.

    The softmax is taken in at least float32. Source: Vaswani et al., 2017, section 3.2.1; Ainslie
    et al., 2023, for groups of heads that share keys and values.

    Args:
        query: q [batch, queries, heads, width].
        key, value: k and v [batch, keys, kv_heads, width]; `kv_heads` divides `heads`, and head h
            attends to the keys of head h // (heads / kv_heads).
        mask: True where the query attends to the key; None is True everywhere.
        causal: whether query i attends only to the keys 0 … i, in addition to the mask.
        dropout: the probability that a weight is dropped.
        dropout_key: a typed key, if that is not 0.
        flash: whether a kernel that never forms the weights (Dao et al., 2022) may be used, which
            has only first derivatives in reverse mode: that of cuDNN on NVIDIA's GPUs, for float16
            and bfloat16 without mask and dropout. Elsewhere this changes nothing.

    Returns:
        y [batch, queries, heads, width], in q's dtype.
    """
    if isinstance(dropout, Array):
        return _written_out(
            query, key, value, mask, causal=causal, dropout=dropout, dropout_key=dropout_key
        )
    flash = flash and mask is None and _cudnn_supports(query)
    return _compiled(
        query,
        key,
        value,
        mask,
        causal=causal,
        dropout=dropout,
        dropout_key=dropout_key,
        flash=flash,
        platform=target().platform,
    )


@functools.partial(jax.jit, static_argnames=("causal", "dropout", "flash", "platform"))
def _compiled(
    query: Array,
    key: Array,
    value: Array,
    mask: Mask,
    *,
    causal: bool,
    dropout: float,
    dropout_key: Array | None,
    flash: bool,
    platform: str | None,
) -> Array:
    if dropout:
        return _written_out(
            query, key, value, mask, causal=causal, dropout=dropout, dropout_key=dropout_key
        )
    # JAX takes the softmax in float32.
    if query.dtype == jnp.float64:
        return _written_out(query, key, value, mask, causal=causal)
    branches: dict[str, Callable[..., Array]] = {
        "cpu": functools.partial(_written_out, causal=causal)
    }
    if flash:
        branches["cuda"] = functools.partial(_by_jax, causal=causal, implementation="cudnn")
    default = functools.partial(_by_jax, causal=causal)
    return by_platform(platform, query, key, value, mask, default=default, **branches)


def _cudnn_supports(query: Array) -> bool:
    """Whether the GPU that is compiled for has cuDNN's kernel, which takes such heads."""
    width = query.shape[-1]
    is_narrow = query.dtype in (jnp.bfloat16, jnp.float16)
    if not is_narrow or width % 8 or width > MAX_HEAD_WIDTH:
        return False
    return compute_capability() >= 8


def rotary(x: Queries, positions: Int[Array, " queries"]) -> Queries:
    """Rotary position embedding: rotates each pair of features (a, b) to (a cos − b sin, b cos +
    a sin), by an angle that grows with the position.

    Feature i is paired with feature i + width / 2, and angle = position · 10000^(−2i / width), so
    that the product of a query and a key depends on their distance. Source: Su et al., 2021,
    section 3.2; the pairing is that of GPT-NeoX and Llama.

    Args:
        x: queries or keys [batch, time, heads, width].
        positions: [time] int32.

    Returns:
        The rotated x.
    """
    half = x.shape[-1] // 2
    frequencies = 10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions.astype(jnp.float32)[:, None] * frequencies[None]
    cos = jnp.cos(angles)[None, :, None].astype(x.dtype)
    sin = jnp.sin(angles)[None, :, None].astype(x.dtype)
    a = x[..., :half]
    b = x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def _allowed(mask: Mask, causal: bool, queries: int, keys: int) -> Array | None:
    """The mask and the causal one, [batch | 1, heads | 1, queries | 1, keys] bool; None if all keys
    are attended to.
    """
    if not causal:
        return mask
    before = jnp.tril(jnp.ones((queries, keys), bool))[None, None]
    return before if mask is None else mask & before


def _written_out(
    query: Array,
    key: Array,
    value: Array,
    mask: Mask,
    *,
    causal: bool,
    dropout: float | Array = 0.0,
    dropout_key: Array | None = None,
) -> Array:
    batch, queries, heads, width = query.shape
    keys, kv_heads = key.shape[1:3]
    grouped = query.reshape(batch, queries, kv_heads, heads // kv_heads, width)
    wide = widest(query.dtype)
    logits = jnp.einsum("bqhgd,bkhd->bhgqk", grouped, key, preferred_element_type=wide)
    logits = logits.reshape(batch, heads, queries, keys) * (width**-0.5)
    allowed = _allowed(mask, causal, queries, keys)
    if allowed is not None:
        logits = jnp.where(allowed, logits, jnp.finfo(wide).min)
    weights = jax.nn.softmax(logits, -1)
    if mask is not None and allowed is not None:
        # The softmax of a query that attends to no key gives equal weights.
        weights = jnp.where(allowed, weights, 0)
    weights = weights.astype(query.dtype)
    if dropout_key is not None:
        weights = ops_dropout.dropout(dropout_key, weights, dropout)
    weights = weights.reshape(batch, kv_heads, heads // kv_heads, queries, keys)
    return jnp.einsum("bhgqk,bkhd->bqhgd", weights, value).reshape(query.shape)


def _by_jax(
    query: Array,
    key: Array,
    value: Array,
    mask: Mask,
    *,
    causal: bool,
    implementation: Literal["cudnn"] | None = None,
) -> Array:
    # JAX's function relies on both promotions.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        y = jax.nn.dot_product_attention(
            query, key, value, mask=mask, is_causal=causal, implementation=implementation
        )
    if mask is None:
        return y
    allowed = _allowed(mask, causal, query.shape[1], key.shape[1])
    assert allowed is not None
    attends = jnp.swapaxes(allowed.any(-1, keepdims=True), 1, 2)
    return jnp.where(attends, y, 0)
