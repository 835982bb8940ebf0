"""A token drawn from logits: temperature, top-k and top-p."""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int32, Key

ROUNDING = 8 * float(jnp.finfo(jnp.float32).eps)
"""The share by which a sum of probabilities in float32 may be too small."""


def draw(
    key: Key[Array, ""],
    logits: Float[Array, "batch vocabulary"],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Int32[Array, " batch"]:
    """Draws one token for each row of logits, from softmax(logits / temperature).

    Args:
        key: a typed key.
        logits: [batch, vocabulary].
        temperature: at 0 the likeliest token is taken.
        top_k: draws from the k likeliest tokens alone.
        top_p: draws from the fewest tokens that together have this probability.

    Returns:
        [batch] int32.
    """
    if temperature == 0:
        return jnp.argmax(logits, -1).astype(jnp.int32)
    logits = _below_greatest(logits.astype(jnp.float32))
    if top_k is None and top_p in (None, 1):
        return jax.random.categorical(key, _tempered(logits, temperature), -1).astype(jnp.int32)
    count = logits.shape[-1] if top_k is None else min(top_k, logits.shape[-1])
    falling, tokens = lax.top_k(logits, count)  # equal ones in their order
    falling = _tempered(falling, temperature)
    if top_p is not None and top_p != 1:
        falling = _nucleus(falling, top_p)
    rank = jax.random.categorical(key, falling, -1)
    return jnp.take_along_axis(tokens, rank[:, None], -1)[:, 0].astype(jnp.int32)


def _nucleus(falling: Array, top_p: float) -> Array:
    """Falling logits, with −∞ for those behind the fewest that have a probability."""
    before = _cumulative_before(jax.nn.softmax(falling, -1))
    kept = jnp.where(before < top_p * (1 - ROUNDING), falling, -jnp.inf)
    return kept.at[:, 0].set(0.0)


def _below_greatest(logits: Array) -> Array:
    """The logits minus the greatest of their row, so that no temperature scales the likeliest to
    infinity.
    """
    greatest = logits.max(-1, keepdims=True)
    return jnp.where(logits == greatest, 0.0, logits - greatest)


def _tempered(logits: Array, temperature: float) -> Array:
    """Logits / temperature, whose reciprocal float32 has: one of 0 or infinity would give NaN."""
    least = float(jnp.finfo(jnp.float32).tiny)
    return logits / min(max(temperature, least), 1 / least)


def _cumulative_before(probabilities: Array) -> Array:
    """The sum of the probabilities before each of them."""
    return jnp.cumsum(jnp.pad(probabilities, ((0, 0), (1, 0)))[:, :-1], -1)
