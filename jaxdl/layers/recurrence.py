"""How recurrent layers read sequences: dropout, directions, lengths and carried states."""

import abc
import dataclasses
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl import ops
from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError
from jaxdl.core.layer import Cache, Layer, Params, Span, State
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.core.padded import Padded
from jaxdl.layers import arguments, inputs
from jaxdl.ops.floating import DType
from jaxdl.ops.sharding import gathered, shard_batch_like


class Recurrent(Layer):
    """A recurrent layer, [batch, time, ...] to the states of all steps, or to the last.

    A subclass is a frozen dataclass that has these fields, and defines its parameters, its initial
    state and its recurrence. A state is a tree of arrays [batch, ...], of which the first leaf is
    the output. The fields are explained in `SimpleRNN`.
    """

    sequence: bool
    backward: bool
    carry: bool
    dropout: float | Array
    dtype: DType | None
    __dataclass_fields__: ClassVar[dict[str, Any]]
    reads_vectors: ClassVar[bool] = True
    """Whether a step of a sequence is a vector, or an array of any shape."""

    @abc.abstractmethod
    def draw_parameters(self, key: Array, x: PyTree) -> Params:
        """The initial parameters, for sequences [batch, time, ...] of x's shape."""

    @abc.abstractmethod
    def check_parameters(self, params: Params, x: Array) -> None:
        """Checks that parameters and sequences fit each other."""

    @abc.abstractmethod
    def default_state(self, x: Array) -> PyTree:
        """The initial state for sequences x [batch, time, ...], in their dtype: zeros."""

    @abc.abstractmethod
    def run(self, params: Params, steps: Array, first: PyTree, mode: Mode) -> PyTree:
        """The state after each step, [time, batch, ...].

        Args:
            params: the parameters, in the dtype of the computation.
            steps: [time, batch, ...], in the order they are read in.
            first: the initial state.
            mode: of the pass.
        """

    @final
    def init(self, key: Array, x: PyTree) -> tuple[Params, State]:
        values, _, _ = self._parts(x)
        inputs.check_floating(type(self).__name__, values, self.dtype)
        return self.draw_parameters(key, values), {}

    @final
    def apply(
        self, params: Params, state: State, x: PyTree, mode: Mode = Eval()
    ) -> tuple[PyTree, State]:
        values, lengths, first = self._parts(x)
        self.check_parameters(params, values)
        values = inputs.as_computed(type(self).__name__, values, self.dtype)
        if lengths is not None:
            lengths = lengths.astype(jnp.int32)
            # The caller's padding may be infinite, and 0 · ∞ is NaN.
            values = _zero_padding(values, lengths)
        params = jax.tree.map(lambda leaf: gathered(leaf.astype(values.dtype)), params)
        first = self._initial_state(first, values)
        states = self.run(params, self._steps(values, lengths, mode), first, mode)
        y = self._outputs(states, first, lengths)
        if not self.carry:
            return y, state
        final = jax.tree.map(
            lambda begin, all_steps: ops.recurrent.last_states(begin, all_steps, lengths),
            first,
            states,
        )
        return (y, final), state

    def _steps(self, values: Array, lengths: Array | None, mode: Mode) -> Array:
        """[time, batch, ...] in the order they are read in."""
        dropped = drop(mode, "input", values, self.dropout, shared=(1,))
        steps = jnp.swapaxes(dropped, 0, 1)
        return ops.recurrent.reverse_sequences(steps, lengths) if self.backward else steps

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
        first = None
        if self.carry:
            if not isinstance(x, tuple) or len(x) != 2:
                raise LayerError(
                    type(self).__name__,
                    f"with carry=True the input is a pair (sequences, first state or None), got "
                    f"{inputs.describe_shape(x)}.",
                )
            x, first = x
        lengths = x.lengths if isinstance(x, Padded) else None
        values = x.values if isinstance(x, Padded) else x
        inputs.check_sequences(type(self).__name__, values, self.reads_vectors)
        return values, lengths, first

    def _initial_state(self, first: PyTree, values: Array) -> PyTree:
        default = self.default_state(values)
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


def drop(
    mode: Mode, name: str, x: Array, rate: float | Array, shared: tuple[int, ...] = ()
) -> Array:
    """An array with dropout in training, drawn by the key of a name.

    Args:
        mode: of the pass.
        name: of the draw.
        x: any shape.
        rate: the probability that an element is dropped.
        shared: the axes along which all elements are dropped alike.
    """
    if not isinstance(mode, Train) or arguments.is_zero(rate):
        return x
    return ops.dropout.dropout(mode.for_part(name).key, x, rate, shared)


def _zero_padding(values: Array, lengths: Array) -> Array:
    steps = jnp.arange(values.shape[1], dtype=jnp.int32)
    mask = steps[None] < lengths[:, None]
    return jnp.where(mask.reshape(mask.shape + (1,) * (values.ndim - 2)), values, 0)


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: tuple(leaf.shape), tree)
