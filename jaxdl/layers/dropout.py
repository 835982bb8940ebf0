"""Dropout, of elements or of whole channels."""

import dataclasses
from typing import Any, ClassVar

from jax import Array

from jaxdl import ops
from jaxdl.core.layer import Cache, Layer, Params, Span, State
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.core.padded import over_values
from jaxdl.layers import arguments


@dataclasses.dataclass(frozen=True)
class Dropout(Layer):
    """In training y = x · m / (1 − rate), with m a fresh mask of zeros (probability `rate`) and
    ones; else y = x.

    Source: Srivastava et al., 2014, section 4, scaled in training rather than in evaluation.

    Args:
        rate: the probability that an element is dropped, in [0, 1); inside of a sweep one that is
            being traced.
        channels: whether whole channels of [batch, *space, channels] are dropped (Tompson et al.,
            2015).
    """

    rate: float | Array
    channels: bool = False
    takes_bytes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        arguments.probability("Dropout", rate=self.rate)
        arguments.declared(self)

    def init(self, key: Array, x: Any) -> tuple[Params, State]:
        del key, x
        return {}, {}

    def apply(self, params: Params, state: State, x: Any, mode: Mode = Eval()) -> tuple[Any, State]:
        del params
        if not isinstance(mode, Train) or arguments.is_zero(self.rate):
            return x, state
        return over_values(lambda values: self._dropped(mode.key, values), x), state

    def extend(
        self, params: Params, state: State, cache: Cache, x: Any, span: Span
    ) -> tuple[Any, Cache]:
        del params, state, span
        return x, cache

    def _dropped(self, key: Array, x: Array) -> Array:
        x = arguments.floating("Dropout", x)
        shared = tuple(range(1, x.ndim - 1)) if self.channels else ()
        return ops.dropout.dropout(key, x, self.rate, shared)
