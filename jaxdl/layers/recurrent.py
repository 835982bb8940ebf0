"""Recurrent layers: the simple recurrence, the long short-term memory, the gated recurrent unit;
either way or both.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, final

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl import ops
from jaxdl.core.error import LayerError
from jaxdl.core.layer import Cache, Layer, Params, Span, State
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.core.padded import Padded
from jaxdl.layers import arguments
from jaxdl.layers.dense import zeros
from jaxdl.layers.initializers import GlorotUniform, Initializer, Orthogonal
from jaxdl.layers.wiring import Composite, Wiring
from jaxdl.ops.floating import DType
from jaxdl.ops.linear import add_bias
from jaxdl.ops.product import along_last
from jaxdl.ops.sharding import gathered, with_rows_of

glorot_uniform: Initializer = GlorotUniform()
orthogonal: Initializer = Orthogonal()

Carry = Any
"""The state that a recurrent layer begins or ends with: [batch, features], for `LSTM` a pair of
them.
"""


class Recurrent(Layer):
    """What the recurrent layers share: [batch, time, inputs] to the states of all steps, or to the
    last.

    A subclass is a frozen dataclass that says how many gates it has and how its states follow one
    another.
    """

    gates: ClassVar[int]
    features: int
    sequence: bool
    backward: bool
    carry: bool
    dropout: float | Array
    recurrent_dropout: float | Array
    use_bias: bool
    kernel_init: Initializer
    recurrent_kernel_init: Initializer
    bias_init: Initializer
    dtype: DType | None
    param_dtype: DType

    @abc.abstractmethod
    def first(self, batch: int, dtype: DType) -> Carry:
        """The state that stands for none: zeros."""

    @abc.abstractmethod
    def states(self, params: Params, projected: Array, first: Carry, mask: Array | None) -> Carry:
        """The state after each step, [time, batch, features]; for `LSTM` a pair."""

    def biases(self, key: Array) -> Params:
        """The biases by name."""
        return {"bias": self.drawn("bias_init", key, (self.gates * self.features,))}

    @final
    def drawn(self, name: str, key: Array, shape: tuple[int, ...]) -> Array:
        """What the initializer of that name gives."""
        return arguments.drawn(
            type(self).__name__, name, getattr(self, name), key, shape, self.param_dtype
        )

    @final
    def init(self, key: Array, x: Any) -> tuple[Params, State]:
        values, _, _ = self._parts(x)
        inputs = values.shape[-1]
        arguments.init_floating(type(self).__name__, values, self.dtype)
        kernel_key, recurrent_key, bias_key = jax.random.split(key, 3)
        params = {
            "kernel": self.drawn("kernel_init", kernel_key, (inputs, self.gates * self.features)),
            "recurrent_kernel": _recurrent_kernel(self, recurrent_key),
        }
        return params | (self.biases(bias_key) if self.use_bias else {}), {}

    @final
    def apply(self, params: Params, state: State, x: Any, mode: Mode = Eval()) -> tuple[Any, State]:
        values, lengths, first = self._parts(x)
        name = type(self).__name__
        self._check_parameters(params)
        arguments.same_features(name, values, params["kernel"].shape[0])
        values = arguments.floating(name, values, self.dtype)
        if lengths is not None:
            lengths = lengths.astype(jnp.int32)
            values = _zero_behind(
                values, lengths
            )  # what a caller left there may be infinite, and 0 · ∞ is no number
        params = jax.tree.map(lambda leaf: gathered(leaf.astype(values.dtype)), params)
        first = self._begin(first, values)
        inputs = _dropped(mode, "input", values, self.dropout, shared=(1,))
        steps = jnp.swapaxes(inputs, 0, 1)
        steps = ops.recurrent.reversed_within(steps, lengths) if self.backward else steps
        projected = along_last(steps, params["kernel"])
        projected = add_bias(projected, params["bias"]) if self.use_bias else projected
        ones = jnp.ones((values.shape[0], self.features), values.dtype)
        dropped = not arguments.is_zero(self.recurrent_dropout)
        mask = _dropped(mode, "recurrent", ones, self.recurrent_dropout) if dropped else None
        states = self.states(params, projected, first, mask)
        y = self._outputs(states, first, lengths)
        if not self.carry:
            return y, state
        last = jax.tree.map(
            lambda begun, every: ops.recurrent.last_within(begun, every, lengths), first, states
        )
        return (y, last), state

    def _check_parameters(self, params: Params) -> None:
        name, gates = type(self).__name__, self.gates * self.features
        arguments.parameters(
            name,
            params,
            kernel=(None, gates),
            recurrent_kernel=(self.features, gates),
            bias=(gates,) if self.use_bias else None,
            recurrent_bias=(self.features,) if "recurrent_bias" in params else None,
        )

    @final
    def extend(
        self, params: Params, state: State, cache: Cache, x: Any, span: Span
    ) -> tuple[Any, Cache]:
        """What it remembers is its state."""
        del span
        if self.backward or self.carry or not self.sequence:
            raise LayerError(
                type(self).__name__,
                "it reads a sequence step by step only forwards, with sequence=True and "
                "carry=False — others need its end.",
            )
        carrying: Any = dataclasses.replace(self, carry=True)  # type: ignore[type-var]
        (y, last), _ = carrying.apply(params, state, (x, cache.get("carry")))
        return y, {"carry": last}

    def _parts(self, x: Any) -> tuple[Any, Any, Carry | None]:
        """The values, the lengths or None, and the first state or None."""
        name, first = type(self).__name__, None
        if self.carry:
            if not isinstance(x, tuple) or len(x) != 2:
                raise LayerError(
                    name,
                    f"with carry=True the input is a pair (sequences, first state or None), got "
                    f"{_told(x)}.",
                )
            x, first = x
        values, lengths = (x.values, x.lengths) if isinstance(x, Padded) else (x, None)
        if not hasattr(values, "shape") or len(values.shape) != 3:
            raise LayerError(
                name,
                f"expected [batch, time, features], got {_told(values)} — one sequence alone needs "
                f"x[None].",
            )
        return values, lengths, first

    def _begin(self, first: Carry | None, values: Array) -> Carry:
        zeros = self.first(values.shape[0], values.dtype)
        if first is None:
            return jax.tree.map(lambda leaf: with_rows_of(values, leaf), zeros)
        expected, got = (
            jax.tree.map(lambda leaf: tuple(leaf.shape), tree) for tree in (zeros, first)
        )
        if expected != got:
            raise LayerError(
                type(self).__name__, f"expected a first state of shape {expected}, got {got}."
            )
        return jax.tree.map(lambda leaf: with_rows_of(values, leaf.astype(values.dtype)), first)

    def _outputs(self, states: Carry, first: Carry, lengths: Array | None) -> Any:
        hiddens, begun = jax.tree.leaves(states)[0], jax.tree.leaves(first)[0]
        if not self.sequence:
            return ops.recurrent.last_within(begun, hiddens, lengths)
        if self.backward:
            hiddens = ops.recurrent.reversed_within(hiddens, lengths)
        y = jnp.swapaxes(hiddens, 0, 1)
        return y if lengths is None else Padded(_zero_behind(y, lengths), lengths)


@dataclasses.dataclass(frozen=True)
class SimpleRNN(Recurrent):
    """hₜ = φ(xₜ W + hₜ₋₁ R + b), [batch, time, inputs] to [batch, time, features] (Elman, 1990).

    `Padded` sequences give what each gives alone, and `Padded` states with zeros behind the
    lengths. Parameters: `kernel` W [inputs, features], `recurrent_kernel` R [features, features],
    `bias` b [features]. Weights of PyTorch are laid over as `weight_ih.T`, `weight_hh.T` and the
    sum of its two biases; those of Keras and Flax as they are.

    Args:
        features: the length of a state.
        sequence: whether the states of all steps are given, or the last alone, [batch, features].
        backward: whether the sequence is read from its end; the states still lie in the order of
            the steps.
        carry: whether the input is a pair (sequences, first state), the first state being [batch,
            features] or None for zeros, and the output a pair (states, state after the last step).
        activation: φ, elementwise.
        dropout: the probability that an input is dropped, the same in all steps (Gal and
            Ghahramani, 2016).
        recurrent_dropout: the probability that an element of hₜ₋₁ is dropped on its way into the
            product, likewise.
        use_bias: whether b is added.
        kernel_init, recurrent_kernel_init, bias_init: from `dl.initializers`.
        dtype: of the computation; None computes in the input's own.
        param_dtype: of the stored parameters.
    """

    gates: ClassVar[int] = 1
    features: int
    sequence: bool = True
    backward: bool = False
    carry: bool = False
    activation: Callable[[Array], Array] = jnp.tanh
    dropout: float | Array = 0.0
    recurrent_dropout: float | Array = 0.0
    use_bias: bool = True
    kernel_init: Initializer = glorot_uniform
    recurrent_kernel_init: Initializer = orthogonal
    bias_init: Initializer = zeros
    dtype: DType | None = None
    param_dtype: DType = jnp.float32

    def __post_init__(self) -> None:
        _check(self)

    def first(self, batch: int, dtype: DType) -> Array:
        return jnp.zeros((batch, self.features), dtype)

    def states(self, params: Params, projected: Array, first: Array, mask: Array | None) -> Array:
        return ops.recurrent.recurrence(
            self.activation, projected, params["recurrent_kernel"], first, mask
        )


@dataclasses.dataclass(frozen=True)
class LSTM(Recurrent):
    """The long short-term memory, [batch, time, inputs] to [batch, time, features].

        i, f, o = σ(z),  g = tanh(z),  with z = xₜ W + hₜ₋₁ R + b in four parts i, f, g, o
        cₜ = f ⊙ cₜ₋₁ + i ⊙ g,  hₜ = o ⊙ tanh(cₜ)

    Source: Hochreiter and Schmidhuber, 1997; Gers et al., 2000, for the forget gate. `Padded`
    sequences give what each gives alone, and `Padded` states with zeros behind the lengths.
    Parameters: `kernel` W [inputs, 4 · features], `recurrent_kernel` R [features, 4 · features],
    `bias` b [4 · features], the gates in the order i, f, g, o, which is that of Keras and PyTorch
    (of the latter transposed, and its two biases added), and of Flax's cells with their parts side
    by side.

    Args:
        features: the length of a state.
        sequence: whether the states h of all steps are given, or the last alone, [batch, features].
        backward: whether the sequence is read from its end; the states still lie in the order of
            the steps.
        carry: whether the input is a pair (sequences, first state), the first state being a pair
            (h, c), each [batch, features], or None for zeros, and the output a pair (states, state
            after the last step).
        dropout: the probability that an input is dropped, the same in all steps (Gal and
            Ghahramani, 2016).
        recurrent_dropout: the probability that an element of hₜ₋₁ is dropped on its way into the
            product, likewise.
        forget_bias: is added to the forget gate's bias at the start (Jozefowicz et al., 2015,
            section 2.2).
        use_bias: whether b is added.
        kernel_init, recurrent_kernel_init, bias_init: from `dl.initializers`; each draws all gates
        at once.
        dtype: of the computation; None computes in the input's own.
        param_dtype: of the stored parameters.
    """

    gates: ClassVar[int] = 4
    features: int
    sequence: bool = True
    backward: bool = False
    carry: bool = False
    dropout: float | Array = 0.0
    recurrent_dropout: float | Array = 0.0
    forget_bias: float = 1.0
    use_bias: bool = True
    kernel_init: Initializer = glorot_uniform
    recurrent_kernel_init: Initializer = orthogonal
    bias_init: Initializer = zeros
    dtype: DType | None = None
    param_dtype: DType = jnp.float32

    def __post_init__(self) -> None:
        _check(self)

    def biases(self, key: Array) -> Params:
        bias = self.drawn("bias_init", key, (self.gates * self.features,))
        return {"bias": bias.at[self.features : 2 * self.features].add(self.forget_bias)}

    def first(self, batch: int, dtype: DType) -> tuple[Array, Array]:
        return jnp.zeros((batch, self.features), dtype), jnp.zeros((batch, self.features), dtype)

    def states(
        self, params: Params, projected: Array, first: tuple[Array, Array], mask: Array | None
    ) -> tuple[Array, Array]:
        return ops.recurrent.lstm(projected, params["recurrent_kernel"], *first, mask)


@dataclasses.dataclass(frozen=True)
class GRU(Recurrent):
    """The gated recurrent unit, [batch, time, inputs] to [batch, time, features].

        r, z = σ(xₜ W + b + u),  n = tanh(xₜ W + b + r ⊙ (u + bᵣ)),  with u = hₜ₋₁ R, all in three
        parts r, z, n hₜ = (1 − z) ⊙ n + z ⊙ hₜ₋₁

    Source: Cho et al., 2014; the reset lies behind the product, as in cuDNN, PyTorch, Flax and
    Keras. `Padded` sequences give what each gives alone, and `Padded` states with zeros behind the
    lengths. Parameters: `kernel` W [inputs, 3 · features], `recurrent_kernel` R [features, 3 ·
    features], `bias` b [3 · features], `recurrent_bias` bᵣ [features]. PyTorch has the gates in
    this order, transposed; of its recurrent biases the first two parts belong to b and the third is
    bᵣ. Keras has the order z, r, n.

    Args:
        features: the length of a state.
        sequence: whether the states of all steps are given, or the last alone, [batch, features].
        backward: whether the sequence is read from its end; the states still lie in the order of
            the steps.
        carry: whether the input is a pair (sequences, first state), the first state being [batch,
            features] or None for zeros, and the output a pair (states, state after the last step).
        dropout: the probability that an input is dropped, the same in all steps (Gal and
            Ghahramani, 2016).
        recurrent_dropout: the probability that an element of hₜ₋₁ is dropped on its way into the
            product, likewise.
        use_bias: whether b and bᵣ are added.
        kernel_init, recurrent_kernel_init, bias_init: from `dl.initializers`; each draws all gates
        at once.
        dtype: of the computation; None computes in the input's own.
        param_dtype: of the stored parameters.
    """

    gates: ClassVar[int] = 3
    features: int
    sequence: bool = True
    backward: bool = False
    carry: bool = False
    dropout: float | Array = 0.0
    recurrent_dropout: float | Array = 0.0
    use_bias: bool = True
    kernel_init: Initializer = glorot_uniform
    recurrent_kernel_init: Initializer = orthogonal
    bias_init: Initializer = zeros
    dtype: DType | None = None
    param_dtype: DType = jnp.float32

    def __post_init__(self) -> None:
        _check(self)

    def biases(self, key: Array) -> Params:
        key, recurrent_key = jax.random.split(key)
        return {
            "bias": self.drawn("bias_init", key, (self.gates * self.features,)),
            "recurrent_bias": self.drawn("bias_init", recurrent_key, (self.features,)),
        }

    def first(self, batch: int, dtype: DType) -> Array:
        return jnp.zeros((batch, self.features), dtype)

    def states(self, params: Params, projected: Array, first: Array, mask: Array | None) -> Array:
        bias = params.get("recurrent_bias", jnp.zeros(self.features, projected.dtype))
        return ops.recurrent.gru(projected, params["recurrent_kernel"], bias, first, mask)


@dataclasses.dataclass(frozen=True)
class Bidirectional(Composite):
    """A recurrent layer read from both ends, on parameters of their own: `forward` and `backward`.

    [batch, time, inputs] to [batch, time, 2 · features], or, where the layer gives its last state
    alone, [batch, 2 · features].
    Source: Schuster and Paliwal, 1997.

    Args:
        layer: the recurrent layer that reads forwards.
        combine: "concatenate" the two along the features, or "add" them.
    """

    layer: Recurrent
    combine: Literal["concatenate", "add"] = "concatenate"

    def __post_init__(self) -> None:
        if not isinstance(self.layer, Recurrent) or self.layer.backward or self.layer.carry:
            raise LayerError(
                "Bidirectional",
                f"expected a forward recurrent layer without carry, got {self.layer!r}.",
            )
        arguments.word("Bidirectional", "combine", self.combine, ("concatenate", "add"))

    def wire(self, wiring: Wiring, x: Any) -> Any:
        backward: Any = dataclasses.replace(self.layer, backward=True)  # type: ignore[type-var]
        forwards = wiring.part("forward", self.layer, x)
        backwards = wiring.part("backward", backward, x)
        return wiring.math(jnp.add if self.combine == "add" else _beside, forwards, backwards)


def _beside(a: Array, b: Array) -> Array:
    return jnp.concatenate([a, b], -1)


def _check(layer: Recurrent) -> None:
    name = type(layer).__name__
    arguments.positive(name, features=layer.features)
    arguments.probability(name, dropout=layer.dropout, recurrent_dropout=layer.recurrent_dropout)
    arguments.declared(layer)
    if isinstance(layer, SimpleRNN):
        arguments.function(name, activation=layer.activation)


def _recurrent_kernel(layer: Recurrent, key: Array) -> Array:
    """One draw for all gates, [features, gates · features].

    Drawn in float32 at the least, and rounded then: an orthogonal matrix comes from a QR
    decomposition, which has no narrower form.
    """
    shape = (layer.features, layer.gates * layer.features)
    drawn_in = jnp.float32 if jnp.finfo(layer.param_dtype).bits < 32 else layer.param_dtype
    name, initializer = type(layer).__name__, layer.recurrent_kernel_init
    return arguments.drawn(name, "recurrent_kernel_init", initializer, key, shape, drawn_in).astype(
        layer.param_dtype
    )


def _dropped(
    mode: Mode, name: str, x: Array, rate: float | Array, shared: tuple[int, ...] = ()
) -> Array:
    if not isinstance(mode, Train) or arguments.is_zero(rate):
        return x
    return ops.dropout.dropout(mode.within(name).key, x, rate, shared)


def _zero_behind(values: Array, lengths: Array) -> Array:
    within = jnp.arange(values.shape[1], dtype=jnp.int32)[None] < lengths[:, None]
    return jnp.where(within[..., None], values, 0)


def _told(x: Any) -> str:
    return f"shape {tuple(x.shape)}" if hasattr(x, "shape") else f"{type(x).__name__}"
