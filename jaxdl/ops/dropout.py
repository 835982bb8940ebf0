"""Dropout: multiplication by a random mask."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key


def dropout(
    key: Key[Array, ""],
    x: Float[Array, "..."],
    rate: float | Float[Array, ""],
    shared_axes: Sequence[int] = (),
) -> Float[Array, "..."]:
    """y = x · m / (1 − rate): sets elements to zero with probability `rate`, and scales the others.

    m is 8 or 16 random bits compared with a threshold, several times cheaper than a uniform draw:
    8 bits if they represent the rate exactly (0.5, 0.25), else 16. The rate is then rounded to
    1/65536, and the scale is that of the rounded rate. Source: Srivastava et al., 2014.

    Args:
        key: a typed key.
        x: of any shape.
        rate: in [0, 1); a tracer, as in a sweep, drops the same elements as its value would, and
            draws 24 bits.
        shared_axes: axes along which elements are dropped together; the spatial axes, to drop whole
            channels.

    Returns:
        y, in x's shape and dtype.
    """
    shape = tuple(1 if axis in shared_axes else n for axis, n in enumerate(x.shape))
    if isinstance(rate, Array):
        return _traced(key, x, rate, shape)
    bits = 8 if rate * 256 == int(rate * 256) else 16
    threshold = round(rate * 2**bits)
    if threshold == 0:
        return x
    if threshold == 2**bits:
        threshold -= 1
    draws = jax.random.bits(key, shape, f"uint{bits}")
    scale = 1 / (1 - threshold / 2**bits)
    if scale <= float(jnp.finfo(x.dtype).max):
        scaled = x * scale
    else:
        scaled = (x.astype(jnp.float32) * scale).astype(x.dtype)
    return jnp.where(draws >= threshold, scaled, jnp.zeros((), x.dtype))


def _traced(key: Array, x: Array, rate: Array, shape: tuple[int, ...]) -> Array:
    """`dropout` with a rate that is a tracer."""
    rate = rate.astype(jnp.float32)
    is_exact = rate * 256 == jnp.floor(rate * 256)
    coarse = jax.random.bits(key, shape, "uint8").astype(jnp.float32)
    fine = jax.random.bits(key, shape, "uint16").astype(jnp.float32)
    threshold = jnp.minimum(jnp.round(rate * 65536), 65535)
    kept = jnp.where(is_exact, coarse >= rate * 256, fine >= threshold)
    scale = 1 / (1 - threshold / 65536)
    return jnp.where(kept, x * scale.astype(x.dtype), jnp.zeros((), x.dtype))
