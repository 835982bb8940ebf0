"""What the recurrent layers share: projected inputs, dropout, directions, lengths and carried
states.
"""

import abc
import dataclasses
from typing import ClassVar, final

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl import ops
from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError
from jaxdl.core.layer import Cache, Layer, Params, Span, State
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.core.padded import Padded
from jaxdl.layers import arguments, inputs, parameters
from jaxdl.layers.dense import zeros
from jaxdl.layers.initializers import GlorotUniform, Initializer, Orthogonal
from jaxdl.ops.floating import DType
from jaxdl.ops.linear import add_bias, along_last
from jaxdl.ops.sharding import gathered, shard_batch_like

glorot_uniform: Initializer = GlorotUniform()
orthogonal: Initializer = Orthogonal()


@dataclasses.dataclass(frozen=True)
class Recurrent(Layer):
    """A recurrent layer, [batch, time, inputs] to the states of all steps, or to the last.

    A subclass is a frozen dataclass that defines its number of gates, its initial state and its
    recurrence. The arguments are explained in `SimpleRNN`.
    """

    gates: ClassVar[int]
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

    @abc.abstractmethod
    def first(self, batch: int, dtype: DType) -> PyTree:
        """The default initial state, zeros: [batch, features], for `LSTM` a pair of them."""

    @abc.abstractmethod
    def states(
        self, params: Params, projected: Array, first: PyTree, mask: Array | None
    ) -> PyTree:
        """The state after each step, [time, batch, features]; for `LSTM` a pair.

        Args:
            params: the parameters, in the dtype of the computation.
            projected: x W + b of all steps, [time, batch, gates · features].
            first: the initial state.
            mask: the dropout mask of the state in the product, [batch, features], or None.
        """

    def biases(self, key: Array) -> Params:
        """Draws the biases by name."""
        return {"bias": self.draw("bias_init", key, (self.gates * self.features,))}

    @final
    def draw(self, name: str, key: Array, shape: tuple[int, ...]) -> Array:
        """Draws a parameter with the initializer of that name."""
        initializer = getattr(self, name)
        return parameters.draw(
            type(self).__name__, name, initializer, key, shape, self.param_dtype
        )

    @final
    def init(self, key: Array, x: PyTree) -> tuple[Params, State]:
        values, _, _ = self._parts(x)
        inputs.check_floating(type(self).__name__, values, self.dtype)
        kernel_key, recurrent_key, bias_key = jax.random.split(key, 3)
        shape = (values.shape[-1], self.gates * self.features)
        params = {
            "kernel": self.draw("kernel_init", kernel_key, shape),
            "recurrent_kernel": _draw_recurrent_kernel(self, recurrent_key),
        }
        if self.use_bias:
            params |= self.biases(bias_key)
        return params, {}

    @final
    def apply(
        self, params: Params, state: State, x: PyTree, mode: Mode = Eval()
    ) -> tuple[PyTree, State]:
        values, lengths, first = self._parts(x)
        name = type(self).__name__
        self._check_parameters(params)
        inputs.check_features(name, values, params["kernel"].shape[0])
        values = inputs.as_computed(name, values, self.dtype)
        if lengths is not None:
            lengths = lengths.astype(jnp.int32)
            # The caller's padding may be infinite, and 0 · ∞ is NaN.
            values = _zero_padding(values, lengths)
        params = jax.tree.map(lambda leaf: gathered(leaf.astype(values.dtype)), params)
        first = self._initial_state(first, values)
        projected = self._project(params, values, lengths, mode)
        mask = self._recurrent_mask(values, mode)
        states = self.states(params, projected, first, mask)
        y = self._outputs(states, first, lengths)
        if not self.carry:
            return y, state
        final = jax.tree.map(
            lambda begin, all_steps: ops.recurrent.last_states(begin, all_steps, lengths),
            first,
            states,
        )
        return (y, final), state

    def _project(
        self, params: Params, values: Array, lengths: Array | None, mode: Mode
    ) -> Array:
        """x W + b of all steps, [time, batch, gates · features], in the order they are read in."""
        dropped = _drop(mode, "input", values, self.dropout, shared=(1,))
        steps = jnp.swapaxes(dropped, 0, 1)
        if self.backward:
            steps = ops.recurrent.reverse_sequences(steps, lengths)
        projected = along_last(steps, params["kernel"])
        return add_bias(projected, params["bias"]) if self.use_bias else projected

    def _recurrent_mask(self, values: Array, mode: Mode) -> Array | None:
        if arguments.is_zero(self.recurrent_dropout):
            return None
        ones = jnp.ones((values.shape[0], self.features), values.dtype)
        return _drop(mode, "recurrent", ones, self.recurrent_dropout)

    def _check_parameters(self, params: Params) -> None:
        gates = self.gates * self.features
        has_recurrent_bias = "recurrent_bias" in params
        parameters.check_shapes(
            type(self).__name__,
            params,
            kernel=(None, gates),
            recurrent_kernel=(self.features, gates),
            bias=(gates,) if self.use_bias else None,
            recurrent_bias=(self.features,) if has_recurrent_bias else None,
        )

    @final
    def decode(
        self, params: Params, state: State, cache: Cache, x: PyTree, span: Span
    ) -> tuple[PyTree, Cache]:
        """Reads the next steps; the cache has `carry`, the state.

        Raises:
            LayerError: the layer reads backwards, returns only its last state, or has carry=True.
        """
        del span
        if self.backward or self.carry or not self.sequence:
            raise LayerError(
                type(self).__name__,
                "it reads a sequence step by step only forwards, with sequence=True and "
                "carry=False — others need its end.",
            )
        carrying = dataclasses.replace(self, carry=True)
        (y, final), _ = carrying.apply(params, state, (x, cache.get("carry")))
        return y, {"carry": final}

    def _parts(self, x: PyTree) -> tuple[PyTree, PyTree, PyTree]:
        """The values, the lengths or None, and the initial state or None."""
        name = type(self).__name__
        first = None
        if self.carry:
            if not isinstance(x, tuple) or len(x) != 2:
                raise LayerError(
                    name,
                    f"with carry=True the input is a pair (sequences, first state or None), got "
                    f"{inputs.describe_shape(x)}.",
                )
            x, first = x
        if isinstance(x, Padded):
            inputs.check_sequences(name, x.values)
            return x.values, x.lengths, first
        inputs.check_sequences(name, x)
        return x, None, first

    def _initial_state(self, first: PyTree, values: Array) -> PyTree:
        default = self.first(values.shape[0], values.dtype)
        if first is None:
            return jax.tree.map(lambda leaf: shard_batch_like(values, leaf), default)
        expected = _shapes(default)
        got = _shapes(first)
        if expected != got:
            raise LayerError(
                type(self).__name__, f"expected a first state of shape {expected}, got {got}."
            )
        return jax.tree.map(
            lambda leaf: shard_batch_like(values, leaf.astype(values.dtype)), first
        )

    def _outputs(self, states: PyTree, first: PyTree, lengths: Array | None) -> PyTree:
        hiddens = jax.tree.leaves(states)[0]
        if not self.sequence:
            initial = jax.tree.leaves(first)[0]
            return ops.recurrent.last_states(initial, hiddens, lengths)
        if self.backward:
            hiddens = ops.recurrent.reverse_sequences(hiddens, lengths)
        y = jnp.swapaxes(hiddens, 0, 1)
        return y if lengths is None else Padded(_zero_padding(y, lengths), lengths)


def check_arguments(layer: Recurrent) -> None:
    """Checks the arguments that recurrent layers share."""
    name = type(layer).__name__
    rates = {"dropout": layer.dropout, "recurrent_dropout": layer.recurrent_dropout}
    arguments.check_positive(name, features=layer.features)
    arguments.check_probability(name, **rates)
    arguments.check_fields(layer)


def _draw_recurrent_kernel(layer: Recurrent, key: Array) -> Array:
    """One draw for all gates, [features, gates · features].

    It is drawn in at least float32, and rounded: an orthogonal matrix comes from a QR
    decomposition, which has no narrower form.
    """
    shape = (layer.features, layer.gates * layer.features)
    is_narrow = jnp.finfo(layer.param_dtype).bits < 32
    dtype = jnp.float32 if is_narrow else layer.param_dtype
    name = type(layer).__name__
    initializer = layer.recurrent_kernel_init
    kernel = parameters.draw(name, "recurrent_kernel_init", initializer, key, shape, dtype)
    return kernel.astype(layer.param_dtype)


def _drop(
    mode: Mode, name: str, x: Array, rate: float | Array, shared: tuple[int, ...] = ()
) -> Array:
    if not isinstance(mode, Train) or arguments.is_zero(rate):
        return x
    return ops.dropout.dropout(mode.for_part(name).key, x, rate, shared)


def _zero_padding(values: Array, lengths: Array) -> Array:
    steps = jnp.arange(values.shape[1], dtype=jnp.int32)
    mask = steps[None] < lengths[:, None]
    return jnp.where(mask[..., None], values, 0)


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: tuple(leaf.shape), tree)
