"""Layers that only move numbers."""

import dataclasses
import math
from typing import ClassVar

from jax import Array

from jaxdl.core.error import LayerError
from jaxdl.core.layer import Parameterless
from jaxdl.layers import arguments
from jaxdl.ops.sharding import reshape


@dataclasses.dataclass(frozen=True)
class Flatten(Parameterless):
    """[batch, a, b, …] to [batch, a · b · …], in row order."""

    takes_bytes: ClassVar[bool] = True

    def compute(self, x: Array) -> Array:
        arguments.array("Flatten", x)
        if x.ndim < 1:
            raise LayerError("Flatten", "expected a batch axis, got a scalar.")
        return reshape(x, (x.shape[0], math.prod(x.shape[1:])))


@dataclasses.dataclass(frozen=True)
class Reshape(Parameterless):
    """[batch, …] to [batch, *shape]; one entry may be −1, and is then found from the others.

    Args:
        shape: of one example; an int means one axis.
    """

    shape: int | tuple[int, ...]
    takes_bytes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        entries = [n for n in self._entries() if not (isinstance(n, int) and n == -1)]
        if len(self._entries()) - len(entries) > 1:
            raise LayerError("Reshape", f"one entry of the shape may be -1, got {self.shape!r}.")
        if entries:
            arguments.sizes("Reshape", shape=tuple(entries))

    def _entries(self) -> tuple[int, ...]:
        return self.shape if isinstance(self.shape, tuple) else (self.shape,)

    def compute(self, x: Array) -> Array:
        arguments.array("Reshape", x)
        if x.ndim < 1:
            raise LayerError("Reshape", "expected a batch axis, got a scalar.")
        shape = self._entries()
        known = math.prod(n for n in shape if n != -1)
        size = math.prod(x.shape[1:])
        if size != known if -1 not in shape else size % known:
            raise LayerError(
                "Reshape",
                f"{size} elements an example (input of shape {x.shape}) do not fill shape {shape}.",
            )
        return reshape(x, (x.shape[0], *(size // known if n == -1 else n for n in shape)))
