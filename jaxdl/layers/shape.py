"""Layers that reshape their input, or pass it on."""

import dataclasses
import math
from typing import ClassVar

from jax import Array

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError
from jaxdl.core.layer import OnPadded, Parameterless
from jaxdl.layers import arguments, inputs
from jaxdl.ops.sharding import reshape


@dataclasses.dataclass(frozen=True)
class Identity(Parameterless):
    """y = x, of any input: a part that does nothing, such as where a model has a part only
    sometimes.

    >>> import jax.numpy as jnp, jaxdl as dl
    >>> normalization = dl.Identity()
    >>> model = dl.Sequential(dl.Dense(3), normalization)
    >>> dl.Identity().apply({}, {}, jnp.arange(3))[0]
    Array([0, 1, 2], dtype=int32)
    """

    padded: ClassVar[OnPadded] = "pointwise"
    takes_bytes: ClassVar[bool] = True

    def compute(self, x: PyTree) -> PyTree:
        return x


@dataclasses.dataclass(frozen=True)
class Flatten(Parameterless):
    """[batch, a, b, …] to [batch, a · b · …], in row-major order.

    Raises:
        LayerError: an input is a scalar, or not an array.
    """

    takes_bytes: ClassVar[bool] = True

    def compute(self, x: Array) -> Array:
        _check_batch("Flatten", x)
        return reshape(x, (x.shape[0], math.prod(x.shape[1:])))


@dataclasses.dataclass(frozen=True)
class Reshape(Parameterless):
    """[batch, …] to [batch, *shape].

    Args:
        shape: of one example; an int is one axis. One entry may be −1, and is inferred from the
            others.

    Raises:
        LayerError: the shape is invalid, or an input has another number of elements.
    """

    shape: int | tuple[int, ...]
    takes_bytes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        entries = self._entries()
        known = tuple(n for n in entries if not (isinstance(n, int) and n == -1))
        if len(entries) - len(known) > 1:
            raise LayerError(
                "Reshape", f"one entry of the shape may be -1, got {self.shape!r}."
            )
        if known:
            arguments.check_sizes("Reshape", shape=known)

    def _entries(self) -> tuple[int, ...]:
        return self.shape if isinstance(self.shape, tuple) else (self.shape,)

    def compute(self, x: Array) -> Array:
        _check_batch("Reshape", x)
        shape = self._entries()
        size = math.prod(x.shape[1:])
        known = math.prod(n for n in shape if n != -1)
        fits = size % known == 0 if -1 in shape else size == known
        if not fits:
            raise LayerError(
                "Reshape",
                f"{size} elements an example (input of shape {x.shape}) do not fill shape {shape}.",
            )
        return reshape(x, (x.shape[0], *(size // known if n == -1 else n for n in shape)))


def _check_batch(layer: str, x: Array) -> None:
    inputs.check_array(layer, x)
    if x.ndim < 1:
        raise LayerError(layer, "expected a batch axis, got a scalar.")
