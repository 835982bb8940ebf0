"""What `SimpleRNN`, `LSTM` and `GRU` share: gates of projected inputs and a recurrent product, and
the dropout of the latter.
"""

import abc
import dataclasses
from typing import ClassVar, final

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.keys import fold_in_name
from jaxdl.core.layer import Params
from jaxdl.core.mode import Mode
from jaxdl.layers import arguments, inputs, parameters
from jaxdl.layers.dense import zeros
from jaxdl.layers.initializers import GlorotUniform, Initializer, Orthogonal
from jaxdl.layers.parameters import PartialShape
from jaxdl.layers.recurrence import Recurrent, drop
from jaxdl.ops.floating import DType
from jaxdl.ops.linear import add_bias, along_last

glorot_uniform: Initializer = GlorotUniform()
orthogonal: Initializer = Orthogonal()


@dataclasses.dataclass(frozen=True)
class Gated(Recurrent):
    """A recurrent layer of gates, [batch, time, inputs] to [batch, time, features].

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

    def hidden_size(self) -> int:
        """The size of the output, and of the state in the recurrent product."""
        return self.features

    def others(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The further parameters by name: the name of their initializer, and their shape."""
        return {}

    @final
    def draw(self, name: str, key: Array, shape: tuple[int, ...]) -> Array:
        """Draws a parameter with the initializer of that name."""
        initializer = getattr(self, name)
        return parameters.draw(
            type(self).__name__, name, initializer, key, shape, self.param_dtype
        )

    @final
    def draw_parameters(self, key: Array, x: PyTree) -> Params:
        kernel_key, recurrent_key, bias_key = jax.random.split(key, 3)
        shape = (x.shape[-1], self.gates * self.features)
        params = {
            "kernel": self.draw("kernel_init", kernel_key, shape),
            "recurrent_kernel": self._draw_recurrent_kernel(recurrent_key),
        }
        if self.use_bias:
            params |= self.biases(bias_key)
        for name, (initializer, shape) in self.others().items():
            params[name] = self.draw(initializer, fold_in_name(key, name), shape)
        return params

    @final
    def check_parameters(self, params: Params, x: Array) -> None:
        name = type(self).__name__
        gates = self.gates * self.features
        has_recurrent_bias = "recurrent_bias" in params
        others: dict[str, PartialShape] = {
            other: shape for other, (_, shape) in self.others().items()
        }
        parameters.check_shapes(
            name,
            params,
            kernel=(None, gates),
            recurrent_kernel=(self.hidden_size(), gates),
            bias=(gates,) if self.use_bias else None,
            recurrent_bias=(self.features,) if has_recurrent_bias else None,
            **others,
        )
        inputs.check_features(name, x, params["kernel"].shape[0])

    @final
    def default_state(self, x: Array) -> PyTree:
        return self.first(x.shape[0], x.dtype)

    @final
    def run(self, params: Params, steps: Array, first: PyTree, mode: Mode) -> PyTree:
        projected = along_last(steps, params["kernel"])
        if self.use_bias:
            projected = add_bias(projected, params["bias"])
        mask = self._recurrent_mask(steps, mode)
        return self.states(params, projected, first, mask)

    def _recurrent_mask(self, steps: Array, mode: Mode) -> Array | None:
        if arguments.is_zero(self.recurrent_dropout):
            return None
        ones = jnp.ones((steps.shape[1], self.hidden_size()), steps.dtype)
        return drop(mode, "recurrent", ones, self.recurrent_dropout)

    def _draw_recurrent_kernel(self, key: Array) -> Array:
        """One draw for all gates, [features, gates · features].

        It is drawn in at least float32, and rounded: an orthogonal matrix comes from a QR
        decomposition, which has no narrower form.
        """
        shape = (self.hidden_size(), self.gates * self.features)
        is_narrow = jnp.finfo(self.param_dtype).bits < 32
        dtype = jnp.float32 if is_narrow else self.param_dtype
        name = type(self).__name__
        initializer = self.recurrent_kernel_init
        kernel = parameters.draw(name, "recurrent_kernel_init", initializer, key, shape, dtype)
        return kernel.astype(self.param_dtype)


def check_arguments(layer: Gated) -> None:
    """Checks the arguments that recurrent layers share."""
    name = type(layer).__name__
    rates = {"dropout": layer.dropout, "recurrent_dropout": layer.recurrent_dropout}
    arguments.check_positive(name, features=layer.features)
    arguments.check_probability(name, **rates)
    arguments.check_fields(layer)
