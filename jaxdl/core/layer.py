"""The contract that every model keeps, and the lift of stateless mathematics to it."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, final

import jax
from jax import Array

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError, describe, describe_tree
from jaxdl.core.inputs import as_arrays, scale_images, zero_padding
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.core.padded import Padded, map_values
from jaxdl.core.representation import call_repr
from jaxdl.core.values import Value
from jaxdl.ops.floating import DType

Params = dict[str, Any]
"""A nested dict of arrays: what the optimizer updates."""

State = dict[str, Any]
"""A nested dict of arrays: what training updates without a gradient, such as running statistics."""

Cache = dict[str, Any]
"""A nested dict of arrays by part: what a model keeps of the steps of a sequence it has read."""

Method = Callable[..., Any]
"""A method of a layer."""

OnPadded = Literal["unsupported", "pointwise", "sequence"]
"""How a stateless layer handles `Padded` sequences: it raises an error; it computes each step
alone, and is lifted to their values; or it takes them as they are.
"""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Span:
    """The position in their sequences of the steps that `Layer.decode` is given.

    Args:
        start: int32 scalar, the number of steps read before.
        max_length: the maximum length of the sequences; no shape depends on `start`.
    """

    start: Any
    max_length: int = dataclasses.field(metadata={"static": True})


LOSSES = "losses"
"""The name in a layer's next state under which it returns what training adds to the loss."""


class Layer(Value, abc.ABC):
    """A model, or a part of one: a value that holds hyperparameters and no arrays.

    A subclass is a frozen dataclass that implements `init` and `apply`. It prints as the call that
    built it; equal layers have equal hashes, so that a layer is a static argument of `jax.jit`; its
    pickle restores an equal layer, and its deep copy is itself.

    Its methods get their input prepared: NumPy arrays as JAX arrays; images in uint8 as x / 255,
    in the layer's `dtype` or float32, unless `takes_bytes`; `Padded` sequences with zeros for
    padding.
    """

    takes_bytes: ClassVar[bool] = False
    """Whether uint8 inputs are passed unchanged: for a layer that passes them on, or reads them as
    indices.
    """

    def __init_subclass__(cls) -> None:
        if "__repr__" not in cls.__dict__:
            setattr(cls, "__repr__", call_repr)  # noqa: B010 — an assignment is an override to type checkers
        wrappers: dict[str, Callable[[Method], Method]] = {
            "init": _prepare_init,
            "apply": _prepare_apply,
            "decode": _prepare_decode,
        }
        for name, wrapper in wrappers.items():
            if name in cls.__dict__:
                setattr(cls, name, wrapper(cls.__dict__[name]))

    @abc.abstractmethod
    def init(self, key: Array, x: PyTree) -> tuple[Params, State]:
        """Draws the parameters and the initial state.

        Args:
            key: a typed key, `jax.random.key(seed)`.
            x: an input [batch, ...], or its `jax.ShapeDtypeStruct`. Only its shape and dtype are
                read.

        Returns:
            The parameters and the state, two nested dicts of arrays; {} if there are none.

        Raises:
            LayerError: the input does not fit the layer.
        """

    @abc.abstractmethod
    def apply(
        self, params: Params, state: State, x: PyTree, mode: Mode = Eval()
    ) -> tuple[PyTree, State]:
        """Maps a batch to outputs and the next state; a pure function.

        Args:
            params: the parameters, as `init` returns them.
            state: the state, as `init` or the previous step returned it.
            x: an input [batch, ...].
            mode: `Train(key)` or `Eval()`.

        Returns:
            The outputs [batch, ...], and the next state, of the same structure, shapes and dtypes;
            in evaluation the same state. In training a layer may add losses to the objective, by
            name in its next state under `LOSSES`: numbers, or one for each example. They are taken
            out before the next step.

        Raises:
            LayerError: the input or the parameters do not fit the layer, or the mode is neither.
        """

    def decode(
        self, params: Params, state: State, cache: Cache, x: PyTree, span: Span
    ) -> tuple[PyTree, Cache]:
        """Reads the next steps of sequences in evaluation, and caches what later steps need; a
        pure function.

        Reading all steps at once, or in pieces, gives the same outputs. `generate` runs a language
        model with it.

        Args:
            params: the parameters.
            state: the state.
            cache: what the earlier steps left; {} before the first.
            x: [batch, time, ...], the next steps.
            span: their position.

        Returns:
            The outputs of these steps, and the cache after them.

        Raises:
            LayerError: the layer cannot read a sequence step by step.
        """
        del params, state, cache, x, span
        raise LayerError(
            type(self).__name__,
            "it does not define how it reads a sequence step by step — implement "
            "decode(params, state, cache, x, span), "
            "which returns (self.apply(params, state, x)[0], cache) if each step is computed "
            "alone.",
        )


def _prepare_init(method: Method) -> Method:
    """Wraps `Layer.init`: prepares the input, and checks the result."""

    @functools.wraps(method)
    def init(self: Layer, key: Array, x: PyTree) -> tuple[Params, State]:
        if not self.takes_bytes:
            x = scale_images(x, _dtype(self))
        result = method(self, key, x)
        if not (_is_pair(result) and all(isinstance(tree, Mapping) for tree in result)):
            raise LayerError(
                type(self).__name__,
                f"init returns two dicts, (params, state), got {describe_tree(result)} — return an "
                f"empty dict for a part without parameters or state.",
            )
        return result

    return init


def _prepare_apply(method: Method) -> Method:
    """Wraps `Layer.apply`: prepares the input, and checks the mode and the result."""

    @functools.wraps(method)
    def apply(
        self: Layer,
        params: Params,
        state: State,
        x: PyTree,
        mode: Mode = Eval(),
        *arguments: object,
        **keywords: object,
    ) -> tuple[PyTree, State]:
        if not isinstance(mode, (Train, Eval)):
            raise LayerError(
                type(self).__name__,
                f"the mode is dl.Train(key) or dl.Eval(), got {describe(mode)}.",
            )
        x = _prepared(self, x)
        if not mode.is_nested:
            x = zero_padding(x)
        result = method(self, params, state, x, mode.nested(), *arguments, **keywords)
        if not (_is_pair(result) and isinstance(result[1], Mapping)):
            raise LayerError(
                type(self).__name__,
                f"apply returns the pair (output, state), where state is a dict, got "
                f"{describe_tree(result)}.",
            )
        return result

    return apply


def _prepare_decode(method: Method) -> Method:
    """Wraps `Layer.decode`: prepares the input."""

    @functools.wraps(method)
    def decode(
        self: Layer, params: Params, state: State, cache: Cache, x: PyTree, span: Span
    ) -> tuple[PyTree, Cache]:
        return method(self, params, state, cache, _prepared(self, x), span)

    return decode


def _prepared(layer: Layer, x: PyTree) -> PyTree:
    """An input as the layer's methods get it."""
    try:
        x = as_arrays(x)
    except ValueError as error:
        raise LayerError(type(layer).__name__, str(error)) from None
    return x if layer.takes_bytes else scale_images(x, _dtype(layer))


def _dtype(layer: Layer) -> DType | None:
    return getattr(layer, "dtype", None)


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2


class Stateless(Layer):
    """A layer without state or randomness: a subclass implements `weights` and `forward`, which are
    lifted to `init` and `apply` here.

    `padded` is how it handles `Padded` sequences: "unsupported" raises an error, "pointwise" says
    that it computes each step alone, and lifts it to their values, and "sequence" that it takes
    them as they are.
    """

    padded: ClassVar[OnPadded] = "unsupported"

    @abc.abstractmethod
    def weights(self, key: Array, x: PyTree) -> Params:
        """Draws the parameters for inputs of x's shape.

        Args:
            key: a typed key.
            x: an input [batch, ...], or its `jax.ShapeDtypeStruct`.

        Returns:
            The parameters by name; {} if there are none.
        """

    @abc.abstractmethod
    def forward(self, params: Params, x: PyTree) -> PyTree:
        """y = f(params, x).

        Args:
            params: the parameters, as `weights` returns them.
            x: an input [batch, ...].

        Returns:
            The outputs [batch, ...].
        """

    @final
    def init(self, key: Array, x: PyTree) -> tuple[Params, State]:
        return self.weights(key, x.values if _is_lifted(self, x) else x), {}

    @final
    def apply(
        self, params: Params, state: State, x: PyTree, mode: Mode = Eval()
    ) -> tuple[PyTree, State]:
        del mode
        if _is_lifted(self, x):
            return map_values(lambda values: self.forward(params, values), x), state
        return self.forward(params, x), state

    def decode(
        self, params: Params, state: State, cache: Cache, x: PyTree, span: Span
    ) -> tuple[PyTree, Cache]:
        """Applies the layer to these steps; nothing is cached.

        Raises:
            LayerError: the layer is not `padded = "pointwise"`.
        """
        del span
        if self.padded != "pointwise":
            raise LayerError(
                type(self).__name__,
                "it mixes the steps of a sequence, or may do so, and cannot read them one by one.",
            )
        return self.apply(params, state, x)[0], cache


def _is_lifted(layer: Stateless, x: PyTree) -> bool:
    """Whether x is padded, and the layer runs on its values."""
    if layer.padded == "sequence":
        return False
    if layer.padded == "unsupported":
        refuse_padded(type(layer).__name__, x)
    return isinstance(x, Padded)


def refuse_padded(layer: str, x: PyTree) -> None:
    """Raises an error for `Padded` sequences, for a layer that does not support them.

    Raises:
        LayerError: x is `Padded`.
    """
    if isinstance(x, Padded):
        raise LayerError(
            layer,
            "it got padded sequences, and would mix their values with their padding — put a "
            "recurrent layer with "
            "sequence=False or a global pooling before it, or pass arrays.",
        )


class Parameterless(Stateless):
    """A layer that is a plain function of its input: a subclass implements `compute`."""

    @abc.abstractmethod
    def compute(self, x: PyTree) -> PyTree:
        """y = f(x), [batch, ...] to [batch, ...]."""

    @final
    def weights(self, key: Array, x: PyTree) -> Params:
        del key, x
        return {}

    @final
    def forward(self, params: Params, x: PyTree) -> PyTree:
        del params
        return self.compute(x)
