"""The contract every model keeps, and the lift that turns mathematics into a layer."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, final

import jax
from jax import Array

from jaxdl.core.entry import as_arrays, as_intensities, zero_behind
from jaxdl.core.error import LayerError, describe, describe_tree
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.core.padded import Padded, over_values
from jaxdl.core.representation import call_repr
from jaxdl.core.values import Value

Params = dict[str, Any]
"""A nested dict of arrays: what the optimizer changes."""


State = dict[str, Any]
"""A nested dict of arrays: what training updates without a gradient, such as running statistics."""


Cache = dict[str, Any]
"""A nested dict of arrays by part: what a model remembers of the steps of a sequence that it has
read.
"""


OnPadded = Literal["refused", "each step", "whole"]
"""What a stateless layer does with `Padded` sequences."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Span:
    """Where in their sequences the steps lie that `Layer.extend` is given.

    Args:
        start: int32 scalar, how many steps were read before.
        longest: how many steps the sequences will have at most; no shape depends on `start`.
    """

    start: Any
    longest: int = dataclasses.field(metadata={"static": True})


class Layer(Value, abc.ABC):
    """A model, or a part of one: a value that holds hyperparameters and no arrays.

    A subclass is a frozen dataclass. It prints as the call that built it, and equal values hash
    alike, so that a layer is a static argument of `jax.jit`. What its pickle gives is equal to it,
    and its deep copy is itself.

    Whatever calls it, its methods see an input as it enters a model: NumPy arrays as arrays of JAX;
    images in uint8 as x / 255, in the layer's `dtype` or float32, unless it `takes_bytes`; zeros
    behind the lengths of `Padded` sequences.
    """

    takes_bytes: ClassVar[bool] = False
    """Whether inputs in uint8 come as they are, for a layer that passes them on, or reads them as
    indices.
    """

    def __init_subclass__(cls) -> None:
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = call_repr  # type: ignore[method-assign]
        for name, enters in {
            "init": _init_enters,
            "apply": _apply_enters,
            "extend": _extend_enters,
        }.items():
            if name in cls.__dict__:
                setattr(cls, name, enters(cls.__dict__[name]))

    @abc.abstractmethod
    def init(self, key: Array, x: Any) -> tuple[Params, State]:
        """Draws the parameters and the first state.

        Args:
            key: a typed key.
            x: an input, or its `jax.ShapeDtypeStruct`; batch first. Only shape and dtype are read.
        """

    @abc.abstractmethod
    def apply(self, params: Params, state: State, x: Any, mode: Mode = Eval()) -> tuple[Any, State]:
        """Maps a batch to outputs and the next state; a pure function."""

    def extend(
        self, params: Params, state: State, cache: Cache, x: Any, span: Span
    ) -> tuple[Any, Cache]:
        """Reads the next steps of sequences in evaluation, and remembers what the steps after them
        need; a pure function.

        All steps at once, and the same steps piece by piece, give the same outputs. `generate` runs
        a language model so.

        Args:
            cache: what earlier steps left; {} before the first.
            x: [batch, time, ...], the next steps.
            span: where they lie.

        Returns:
            The outputs of these steps, and the cache after them.
        """
        del params, state, cache, x, span
        raise LayerError(
            type(self).__name__,
            "it does not say how it reads a sequence step by step — give it a method "
            "extend(params, state, cache, x, span), "
            "which returns (self.apply(params, state, x)[0], cache) where each step is computed "
            "alone.",
        )


def _init_enters(method: Callable[..., Any]) -> Callable[..., Any]:
    """`Layer.init` of an input that enters."""

    @functools.wraps(method)
    def init(self: Layer, key: Array, x: Any) -> tuple[Params, State]:
        x = x if self.takes_bytes else as_intensities(x, getattr(self, "dtype", None))
        drawn = method(self, key, x)
        if not (
            _is_pair(drawn) and isinstance(drawn[0], Mapping) and isinstance(drawn[1], Mapping)
        ):
            raise LayerError(
                type(self).__name__,
                f"init gives two dicts, (params, state), got {describe_tree(drawn)} — of a part "
                f"without parameters or state, an "
                "empty dict.",
            )
        return drawn

    return init


def _apply_enters(method: Callable[..., Any]) -> Callable[..., Any]:
    """`Layer.apply` of an input that enters."""

    @functools.wraps(method)
    def apply(
        self: Layer,
        params: Params,
        state: State,
        x: Any,
        mode: Mode = Eval(),
        *more: Any,
        **named: Any,
    ) -> Any:
        if not isinstance(mode, (Train, Eval)):
            raise LayerError(
                type(self).__name__,
                f"the mode is dl.Train(key) or dl.Eval(), got {describe(mode)}.",
            )
        x = _entered(self, x)
        x = x if mode.is_inside else zero_behind(x)
        result = method(self, params, state, x, mode.inside(), *more, **named)
        if not (_is_pair(result) and isinstance(result[1], Mapping)):
            raise LayerError(
                type(self).__name__,
                f"apply gives the pair (output, state), state being a dict, got "
                f"{describe_tree(result)}.",
            )
        return result

    return apply


def _extend_enters(method: Callable[..., Any]) -> Callable[..., Any]:
    """`Layer.extend` of an input that enters."""

    @functools.wraps(method)
    def extend(
        self: Layer, params: Params, state: State, cache: Cache, x: Any, span: Span
    ) -> tuple[Any, Cache]:
        return method(self, params, state, cache, _entered(self, x), span)

    return extend


def _entered(layer: Layer, x: Any) -> Any:
    """An input as the layer's methods see it."""
    try:
        x = as_arrays(x)
    except ValueError as error:
        raise LayerError(type(layer).__name__, str(error)) from None
    return x if layer.takes_bytes else as_intensities(x, getattr(layer, "dtype", None))


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2


class Stateless(Layer):
    """A layer without state or randomness; it writes only mathematics, and is lifted to the
    contract here.

    `padded` says what it does with `Padded` sequences: they are refused, or it is lifted to them
    because it does the same at every step, or it takes them whole.
    """

    padded: ClassVar[OnPadded] = "refused"

    @abc.abstractmethod
    def weights(self, key: Array, x: Any) -> Params:
        """Draws the parameters for inputs of x's shape."""

    @abc.abstractmethod
    def forward(self, params: Params, x: Any) -> Any:
        """y = f(params, x)."""

    @final
    def init(self, key: Array, x: Any) -> tuple[Params, State]:
        return self.weights(key, x.values if _lifted(self, x) else x), {}

    @final
    def apply(self, params: Params, state: State, x: Any, mode: Mode = Eval()) -> tuple[Any, State]:
        del mode
        if _lifted(self, x):
            return over_values(lambda values: self.forward(params, values), x), state
        return self.forward(params, x), state

    def extend(
        self, params: Params, state: State, cache: Cache, x: Any, span: Span
    ) -> tuple[Any, Cache]:
        del span
        if self.padded != "each step":
            raise LayerError(
                type(self).__name__,
                "it mixes the steps of a sequence, or may do so, and cannot read them one by one.",
            )
        return self.apply(params, state, x)[0], cache


def _lifted(layer: Stateless, x: Any) -> bool:
    """Whether x is padded and the layer is to run on its values."""
    if not isinstance(x, Padded) or layer.padded == "whole":
        return False
    if layer.padded == "refused":
        refuse_padded(type(layer).__name__, x)
    return True


def refuse_padded(layer: str, x: Any) -> None:
    """An error for `Padded` sequences that come to a layer that is not made for them."""
    if isinstance(x, Padded):
        raise LayerError(
            layer,
            "it got padded sequences, and would mix what they hold with their padding — put a "
            "recurrent layer with "
            "sequence=False or a global pooling before it, or give it arrays.",
        )


class Parameterless(Stateless):
    """A layer that is a plain function of its input."""

    @abc.abstractmethod
    def compute(self, x: Any) -> Any:
        """y = f(x)."""

    @final
    def weights(self, key: Array, x: Any) -> Params:
        del key, x
        return {}

    @final
    def forward(self, params: Params, x: Any) -> Any:
        del params
        return self.compute(x)
