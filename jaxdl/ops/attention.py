"""Attention: each query takes the mean of the values, weighed by how well their keys fit it; and
rotary positions.

On a CPU the products are written out, which in a compiled loop takes two thirds of the time that
`jax.nn`'s form does. Other platforms use `jax.nn.dot_product_attention`, in the implementation that
JAX chooses there, or where asked for and there is one, in cuDNN's, whose kernel never forms the
weights.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.backend import get_backend
from jaxtyping import Bool, Float, Int, Key

from jaxdl.compiling.jitted import program_platform
from jaxdl.ops import dropout as ops_dropout
from jaxdl.ops.by_platform import by_platform
from jaxdl.ops.floating import widest

Queries = Float[Array, "batch queries heads width"]
Keys = Float[Array, "batch keys kv_heads width"]
Mask = Bool[Array, "#batch #heads #queries #keys"] | None

MOST_WIDTH = 128
"""How wide a head may be for cuDNN's kernel on every GPU that has it."""


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
    """y = softmax(q kᵀ / √width) v over the keys that a query may see; 0 where there is none.

    The softmax is taken in at least float32. Source: Vaswani et al., 2017, section 3.2.1; groups of
    heads that share a key and
    a value: Ainslie et al., 2023.

    Args:
        query, key, value: q, k, v; `kv_heads` divides `heads`, and head h reads the keys of h //
            (heads / kv_heads).
        mask: True where the query may see the key; None lets it see all.
        causal: whether query i may see the keys 0 … i alone, in addition to the mask.
        dropout: the probability that a weight is dropped.
        dropout_key: a typed key, where that is not 0.
        flash: whether a kernel that never forms the weights (Dao et al., 2022) may be used, which
            has first derivatives in reverse mode alone: on NVIDIA's GPUs cuDNN's, for float16 and
            bfloat16 without mask and dropout. Where there is none this changes nothing.
    """
    if isinstance(dropout, Array):
        return _written_out(
            query, key, value, mask, causal=causal, dropout=dropout, dropout_key=dropout_key
        )
    flash = flash and mask is None and _cudnn_takes(query)
    return _compiled(
        query,
        key,
        value,
        mask,
        causal=causal,
        dropout=dropout,
        dropout_key=dropout_key,
        flash=flash,
        platform=program_platform(),
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
    dropout_key: Any,
    flash: bool,
    platform: str | None,
) -> Array:
    if dropout:
        return _written_out(
            query, key, value, mask, causal=causal, dropout=dropout, dropout_key=dropout_key
        )
    if query.dtype == jnp.float64:  # JAX takes the softmax in float32
        return _written_out(query, key, value, mask, causal=causal)
    return by_platform(
        platform,
        query,
        key,
        value,
        mask,
        cpu=functools.partial(_written_out, causal=causal),
        **(
            {"cuda": functools.partial(_by_jax, causal=causal, implementation="cudnn")}
            if flash
            else {}
        ),
        default=functools.partial(_by_jax, causal=causal),
    )


def _cudnn_takes(query: Array) -> bool:
    """Whether there is a GPU with cuDNN's kernel, and it takes such heads; JAX asks the GPU while
    it traces.
    """
    if (
        query.dtype not in (jnp.bfloat16, jnp.float16)
        or query.shape[-1] % 8
        or query.shape[-1] > MOST_WIDTH
    ):
        return False
    backend = get_backend()
    return (
        "cuda" in backend.platform_version
        and float(backend.local_devices()[0].compute_capability) >= 8
    )


def rotary(x: Queries, positions: Int[Array, " queries"]) -> Queries:
    """Turns each pair of features by an angle that grows with the position: (a, b) to (a cos − b
    sin, b cos + a sin).

    Feature i is paired with feature i + width / 2, and angle = position · 10000^(−2i / width), so
    that the product of a query and a key depends on their distance. Source: Su et al., 2021,
    section 3.2; the pairing is that of GPT-NeoX and Llama.
    """
    half = x.shape[-1] // 2
    frequencies = 10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions.astype(jnp.float32)[:, None] * frequencies[None]
    cos, sin = (wave[None, :, None].astype(x.dtype) for wave in (jnp.cos(angles), jnp.sin(angles)))
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def _allowed(mask: Mask, causal: bool, queries: int, keys: int) -> Array | None:
    """[batch | 1, heads | 1, queries | 1, keys] bool, or None where all is allowed."""
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
    dropout_key: Any = None,
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
        weights = jnp.where(
            allowed, weights, 0
        )  # a query that sees no key has equal weights for all of them
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
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):  # JAX's function relies on both
        y = jax.nn.dot_product_attention(
            query, key, value, mask=mask, is_causal=causal, implementation=implementation
        )
    if mask is None:
        return y
    allowed = _allowed(mask, causal, query.shape[1], key.shape[1])
    assert allowed is not None
    seen = jnp.swapaxes(allowed.any(-1, keepdims=True), 1, 2)
    return jnp.where(seen, y, 0)
