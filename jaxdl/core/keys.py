"""Random keys by the name of a part."""

import zlib

import jax
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxdl.compiling import threefry


def fold_in_name(key: Array, name: str) -> Array:
    """The key of the part of that name, which does not depend on the other parts or their order.

    Args:
        key: a typed key.
        name: the name of the part.
    """
    return fold_in(key, name_hash(name))


def fold_in(key: Array, data: ArrayLike) -> Array:
    """`jax.random.fold_in(key, data)`, computed on the host where both are concrete."""
    if isinstance(data, Tracer):
        return jax.random.fold_in(key, data)
    key_data = threefry.words_of(key)
    if key_data is None:
        return jax.random.fold_in(key, data)
    return threefry.key_of(threefry.folded(key_data, data))


def name_hash(name: str) -> np.uint32:
    """CRC-32 of a name, which is the same in every process."""
    return np.uint32(zlib.crc32(name.encode()))
