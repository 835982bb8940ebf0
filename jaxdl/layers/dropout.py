"""Dropout, of elements or of whole channels."""

import dataclasses
from typing import ClassVar

from jax import Array

from jaxdl import ops
from jaxdl.compiling.pytree import PyTree
from jaxdl.core.layer import Cache, Layer, Params, Span, State
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.core.padded import map_values
from jaxdl.layers import arguments, inputs


@dataclasses.dataclass(frozen=True)
class Dropout(Layer):
    """In training y = x · m / (1 − rate), where m is a random mask of zeros (with probability
    `rate`) and ones; in evaluation y = x.

    Source: Srivastava et al., 2014, section 4, scaled in training rather than in evaluation.

    Args:
        rate: the probability that an element is dropped, in [0, 1); a tracer in a sweep.
        channels: whether whole channels of [batch, *space, channels] are dropped (Tompson et al.,
            2015).

    Raises:
        LayerError: the rate is not in [0, 1).
    """

    rate: float | Array
    channels: bool = False
    takes_bytes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        arguments.check_probability("Dropout", rate=self.rate)
        arguments.check_fields(self)

    def init(self, key: Array, x: PyTree) -> tuple[Params, State]:
        del key, x
        return {}, {}

    def apply(
        self, params: Params, state: State, x: PyTree, mode: Mode = Eval()
    ) -> tuple[PyTree, State]:
        del params
        if not isinstance(mode, Train) or arguments.is_zero(self.rate):
            return x, state
        return map_values(lambda values: self._drop(mode.key, values), x), state

    def decode(
        self, params: Params, state: State, cache: Cache, x: PyTree, span: Span
    ) -> tuple[PyTree, Cache]:
        """Returns the steps unchanged."""
        del params, state, span
        return x, cache

    def _drop(self, key: Array, x: Array) -> Array:
        x = inputs.as_computed("Dropout", x)
        shared = tuple(range(1, x.ndim - 1)) if self.channels else ()
        return ops.dropout.dropout(key, x, self.rate, shared)
