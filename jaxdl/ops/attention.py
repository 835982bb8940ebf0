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
Keys = Float[Array, "#batch keys kv_heads width"]
Values = Float[Array, "#batch keys kv_heads value_width"]
Outputs = Float[Array, "batch queries heads value_width"]
Weights = Float[Array, "batch heads queries keys"]
Mask = Bool[Array, "#batch #heads #queries #keys"] | None
Bias = Float[Array, "#batch #heads #queries #keys"] | None

MAX_HEAD_WIDTH = 128
"""The maximum width of a head that cuDNN's kernel supports on every GPU that has it."""


def attention(
    query: Queries,
    key: Keys,
    value: Values,
    mask: Mask = None,
    *,
    bias: Bias = None,
    causal: bool = False,
    soft_cap: float | Array | None = None,
    dropout: float | Array = 0.0,
    dropout_key: Key[Array, ""] | None = None,
    flash: bool = False,
) -> Outputs:
    """y = softmax(z) v over the keys that a query attends to; 0 if there are none.

        z = s + bias,  s = q kᵀ / √width,  or with a soft cap  z = cap · tanh(s / cap) + bias

    The softmax is taken in at least float32. Source: Vaswani et al., 2017, section 3.2.1; Ainslie
    et al., 2023, for groups of heads that share keys and values; Gemma Team, 2024 (Gemma 2),
    section 2, for the soft cap.

    Args:
        query: q [batch, queries, heads, width].
        key: k [batch | 1, keys, kv_heads, width]; `kv_heads` divides `heads`, and head h attends
            to the keys of head h // (heads / kv_heads).
        value: v [batch | 1, keys, kv_heads, value_width].
        mask: bool [batch | 1, heads | 1, queries | 1, keys | 1], True where the query attends to
            the key; None is True everywhere.
        bias: of such a shape, added to the logits in at least float32; −∞ masks the key.
        causal: whether query i attends only to the keys 0 … i, in addition to the mask.
        soft_cap: the bound of the logits' absolute value before the bias; None is no bound.
        dropout: the probability that a weight is dropped.
        dropout_key: a typed key, if that is not 0.
        flash: whether a kernel that never forms the weights (Dao et al., 2022) may be used, which
            has only first derivatives in reverse mode: that of cuDNN on NVIDIA's GPUs, for float16
            and bfloat16 without mask, bias, soft cap and dropout, and with values as wide as
            queries. Elsewhere this changes nothing.

    Returns:
        y [batch, queries, heads, value_width], in q's dtype.
    """
    mask, bias = _finite_bias(mask, bias)
    if isinstance(dropout, Array):
        return _written_out(
            query,
            key,
            value,
            mask,
            bias=bias,
            causal=causal,
            soft_cap=soft_cap,
            dropout=dropout,
            dropout_key=dropout_key,
        )
    is_plain = mask is None and bias is None and _suits_jax(query, value, soft_cap)
    flash = flash and is_plain and _cudnn_supports(query)
    return _compiled(
        query,
        key,
        value,
        mask,
        bias=bias,
        causal=causal,
        soft_cap=soft_cap,
        dropout=dropout,
        dropout_key=dropout_key,
        flash=flash,
        platform=target().platform,
    )


def attention_and_weights(
    query: Queries,
    key: Keys,
    value: Values,
    mask: Mask = None,
    *,
    bias: Bias = None,
    causal: bool = False,
    soft_cap: float | Array | None = None,
    dropout: float | Array = 0.0,
    dropout_key: Key[Array, ""] | None = None,
) -> tuple[Outputs, Weights]:
    """`attention` and its weights softmax(z), 0 for the keys that a query does not attend to.

    Args:
        query, key, value, mask, bias, causal, soft_cap, dropout, dropout_key: as in `attention`.

    Returns:
        y [batch, queries, heads, value_width], and the weights before dropout [batch, heads,
        queries, keys], both in q's dtype.
    """
    mask, bias = _finite_bias(mask, bias)
    weights = _weights(query, key, mask, bias, causal=causal, soft_cap=soft_cap)
    return _weighted_sum(weights, value, dropout, dropout_key), weights


def _finite_bias(mask: Mask, bias: Bias) -> tuple[Mask, Bias]:
    """The mask without the keys whose bias is −∞, and the bias with 0 for them: a sum with −∞ has
    no softmax where all are, and no gradient.
    """
    if bias is None:
        return mask, None
    is_finite = bias > -jnp.inf
    mask = is_finite if mask is None else mask & is_finite
    return mask, jnp.where(is_finite, bias, jnp.zeros((), bias.dtype))


def _suits_jax(query: Array, value: Array, soft_cap: float | Array | None) -> bool:
    """Whether `jax.nn.dot_product_attention` computes it: it takes the softmax in float32, and has
    no soft cap.
    """
    is_narrow = query.dtype != jnp.float64
    return is_narrow and soft_cap is None and query.shape[-1] == value.shape[-1]


@functools.partial(jax.jit, static_argnames=("causal", "dropout", "flash", "platform"))
def _compiled(
    query: Array,
    key: Array,
    value: Array,
    mask: Mask,
    *,
    bias: Bias,
    causal: bool,
    soft_cap: float | Array | None,
    dropout: float,
    dropout_key: Array | None,
    flash: bool,
    platform: str | None,
) -> Array:
    if dropout or not _suits_jax(query, value, soft_cap):
        return _written_out(
            query,
            key,
            value,
            mask,
            bias=bias,
            causal=causal,
            soft_cap=soft_cap,
            dropout=dropout,
            dropout_key=dropout_key if dropout else None,
        )
    branches: dict[str, Callable[..., Array]] = {
        "cpu": functools.partial(_written_out, causal=causal)
    }
    if flash:
        branches["cuda"] = functools.partial(_by_jax, causal=causal, implementation="cudnn")
    default = functools.partial(_by_jax, causal=causal)
    return by_platform(platform, query, key, value, mask, bias, default=default, **branches)


def _cudnn_supports(query: Array) -> bool:
    """Whether the GPU that is compiled for has cuDNN's kernel, which takes such heads."""
    width = query.shape[-1]
    is_narrow = query.dtype in (jnp.bfloat16, jnp.float16)
    if not is_narrow or width % 8 or width > MAX_HEAD_WIDTH:
        return False
    return compute_capability() >= 8


def rotary(
    x: Queries,
    positions: Int[Array, " queries"],
    *,
    features: int | None = None,
    interleaved: bool = False,
    base: float = 10_000.0,
) -> Queries:
    """Rotary position embedding: rotates each pair of features (a, b) to (a cos − b sin, b cos +
    a sin), by an angle that grows with the position.

    Pair i is the features i and i + features / 2, or, interleaved, 2i and 2i + 1, and angle =
    position · base^(−2i / features), so that the product of a query and a key depends on their
    distance. Source: Su et al., 2021, section 3.2, with interleaved pairs, as in GPT-J; the others
    are those of GPT-NeoX and Llama.

    Args:
        x: queries or keys [batch, time, heads, width].
        positions: [time] int32.
        features: how many of the width are rotated, the first ones, an even number; None is all.
        interleaved: whether neighbours are paired.
        base: of the angles.

    Returns:
        The rotated x.
    """
    features = x.shape[-1] if features is None else features
    if features < x.shape[-1]:
        rotated = rotary(x[..., :features], positions, interleaved=interleaved, base=base)
        return jnp.concatenate([rotated, x[..., features:]], -1)
    half = features // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions.astype(jnp.float32)[:, None] * frequencies[None]
    cos = jnp.cos(angles)[None, :, None].astype(x.dtype)
    sin = jnp.sin(angles)[None, :, None].astype(x.dtype)
    a = x[..., 0::2] if interleaved else x[..., :half]
    b = x[..., 1::2] if interleaved else x[..., half:]
    turned = [a * cos - b * sin, b * cos + a * sin]
    if interleaved:
        return jnp.stack(turned, -1).reshape(x.shape)
    return jnp.concatenate(turned, -1)


def _allowed(mask: Mask, causal: bool, queries: int, keys: int) -> Array | None:
    """The mask and the causal one, [batch | 1, heads | 1, queries | 1, keys | 1] bool; None if all
    keys are attended to.
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
    bias: Bias = None,
    *,
    causal: bool,
    soft_cap: float | Array | None = None,
    dropout: float | Array = 0.0,
    dropout_key: Array | None = None,
) -> Array:
    weights = _weights(query, key, mask, bias, causal=causal, soft_cap=soft_cap)
    return _weighted_sum(weights, value, dropout, dropout_key)


def _weights(
    query: Array,
    key: Array,
    mask: Mask,
    bias: Bias,
    *,
    causal: bool,
    soft_cap: float | Array | None,
) -> Array:
    """The weights [batch, heads, queries, keys], in q's dtype."""
    batch, queries, heads, width = query.shape
    keys, kv_heads = key.shape[1:3]
    grouped = query.reshape(batch, queries, kv_heads, heads // kv_heads, width)
    wide = widest(query.dtype)
    logits = jnp.einsum("bqhgd,bkhd->bhgqk", grouped, key, preferred_element_type=wide)
    logits = logits.reshape(batch, heads, queries, keys) * (width**-0.5)
    if soft_cap is not None:
        cap = jnp.asarray(soft_cap, wide)
        logits = cap * jnp.tanh(logits / cap)
    if bias is not None:
        logits = logits + bias.astype(wide)
    allowed = _allowed(mask, causal, queries, keys)
    if allowed is not None:
        logits = jnp.where(allowed, logits, jnp.finfo(wide).min)
    weights = jax.nn.softmax(logits, -1)
    if mask is not None and allowed is not None:
        # The softmax of a query that attends to no key gives equal weights.
        weights = jnp.where(allowed, weights, 0)
    return weights.astype(query.dtype)


def _weighted_sum(
    weights: Array, value: Array, dropout: float | Array, dropout_key: Array | None
) -> Array:
    """The sum of the values with the weights that dropout leaves, [batch, queries, heads,
    value_width].
    """
    if dropout_key is not None:
        weights = ops_dropout.dropout(dropout_key, weights, dropout)
    batch, heads, queries, keys = weights.shape
    kv_heads, width = value.shape[2:]
    weights = weights.reshape(batch, kv_heads, heads // kv_heads, queries, keys)
    sums = jnp.einsum("bhgqk,bkhd->bqhgd", weights, value)
    return sums.reshape(batch, queries, heads, width)


def _by_jax(
    query: Array,
    key: Array,
    value: Array,
    mask: Mask,
    bias: Bias = None,
    *,
    causal: bool,
    implementation: Literal["cudnn"] | None = None,
) -> Array:
    key, value = (jnp.broadcast_to(x, (query.shape[0], *x.shape[1:])) for x in (key, value))
    # JAX's function relies on both promotions.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        y = jax.nn.dot_product_attention(
            query, key, value, bias, mask, is_causal=causal, implementation=implementation
        )
    if mask is None:
        return y
    allowed = _allowed(mask, causal, query.shape[1], key.shape[1])
    assert allowed is not None
    attends = jnp.swapaxes(allowed.any(-1, keepdims=True), 1, 2)
    return jnp.where(attends, y, 0)
