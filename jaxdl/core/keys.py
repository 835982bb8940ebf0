"""Random keys by the name of a part."""

import zlib
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxdl.compiling import threefry


def fold_in_name(key: Array, name: str) -> Array:
    """A key for the part of that name: it does not depend on what other parts there are, nor on
    their order.
    """
    return fold_in(key, name_hash(name))


def fold_in(key: Array, number: Any) -> Array:
    """`jax.random.fold_in(key, number)`, without a program where both are known."""
    words = None if isinstance(number, Tracer) else threefry.words_of(key)
    return (
        jax.random.fold_in(key, number)
        if words is None
        else threefry.key_of(threefry.folded(words, number))
    )


def name_hash(name: str) -> np.uint32:
    return np.uint32(zlib.crc32(name.encode()))
