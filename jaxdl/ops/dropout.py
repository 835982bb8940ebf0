"""Random masks."""

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
    """Sets elements to zero with probability `rate` and scales the others by 1 / (1 − rate)
    (Srivastava et al., 2014).

    The coin is 8 or 16 random bits against a threshold, several times cheaper than a uniform draw:
    8 where they hold the rate exactly (0.5, 0.25), else 16. The rate is then rounded to 1/65536,
    and the scale is that of the rounded rate.

    Args:
        key: a typed key.
        x: inputs.
        rate: in [0, 1); one that is being traced, as in a sweep, drops what the number would, and
            draws 24 bits.
        shared_axes: axes along which one draw serves all; the spatial axes, to drop whole channels.
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
    scaled = (
        x * scale
        if scale <= float(jnp.finfo(x.dtype).max)
        else (x.astype(jnp.float32) * scale).astype(x.dtype)
    )
    return jnp.where(draws >= threshold, scaled, jnp.zeros((), x.dtype))


def _traced(key: Array, x: Array, rate: Array, shape: tuple[int, ...]) -> Array:
    rate = rate.astype(jnp.float32)
    whole = rate * 256 == jnp.floor(rate * 256)
    coarse, fine = (jax.random.bits(key, shape, kind) for kind in ("uint8", "uint16"))
    threshold = jnp.minimum(jnp.round(rate * 65536), 65535)
    kept = jnp.where(
        whole, coarse.astype(jnp.float32) >= rate * 256, fine.astype(jnp.float32) >= threshold
    )
    return jnp.where(
        kept, x * (1 / (1 - threshold / 65536)).astype(x.dtype), jnp.zeros((), x.dtype)
    )
