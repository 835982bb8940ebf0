"""Recurrent layers: the simple recurrence, the long short-term memory, the gated recurrent unit,
in either direction or both.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl import ops
from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError
from jaxdl.core.layer import Params
from jaxdl.layers import arguments
from jaxdl.layers.gated import Gated, check_arguments
from jaxdl.layers.recurrence import Recurrent
from jaxdl.layers.wiring import Composite, Wiring
from jaxdl.ops.floating import DType


@dataclasses.dataclass(frozen=True)
class SimpleRNN(Gated):
    """hₜ = φ(xₜ W + hₜ₋₁ R + b), [batch, time, inputs] to [batch, time, features] (Elman, 1990).

    `Padded` sequences give the states that each gives alone, as `Padded` with zeros for padding.

    Parameters: `kernel` W [inputs, features], `recurrent_kernel` R [features, features], `bias` b
    [features]. PyTorch has them as `weight_ih.T`, `weight_hh.T` and the sum of its two biases;
    Keras and Flax as they are.

    Args:
        features: the size of a state.
        sequence: whether the states of all steps are returned, or only the last, [batch, features].
        backward: whether the sequence is read from its end; the states stay in the order of the
            steps.
        carry: whether the input is a pair (sequences, initial state), whose state is [batch,
            features], or None for zeros, and the output a pair (states, final state).
        dropout: the probability that an input is dropped, the same in all steps (Gal and
            Ghahramani, 2016).
        recurrent_dropout: the probability that an element of hₜ₋₁ is dropped in the product,
            likewise.
        use_bias: whether b is added.
        kernel_init, recurrent_kernel_init, bias_init: from `dl.initializers`.
        dtype: of the computation; None is the input's own.
        param_dtype: of the stored parameters.
        activation: φ, elementwise.

    Raises:
        LayerError: an argument is invalid, an input is not [batch, time, features], or an initial
            state has another shape.
    """

    gates: ClassVar[int] = 1
    activation: Callable[[Array], Array] = jnp.tanh

    def __post_init__(self) -> None:
        check_arguments(self)
        arguments.check_function("SimpleRNN", activation=self.activation)

    def first(self, batch: int, dtype: DType) -> Array:
        return jnp.zeros((batch, self.features), dtype)

    def states(
        self, params: Params, projected: Array, first: Array, mask: Array | None
    ) -> Array:
        kernel = params["recurrent_kernel"]
        return ops.recurrent.recurrence(self.activation, projected, kernel, first, mask)


@dataclasses.dataclass(frozen=True)
class LSTM(Gated):
    """The long short-term memory, [batch, time, inputs] to [batch, time, features].

        i, f, o = σ(z),  g = tanh(z),  with z = xₜ W + hₜ₋₁ R + b in four parts i, f, g, o
        cₜ = f ⊙ cₜ₋₁ + i ⊙ g,  hₜ = o ⊙ tanh(cₜ)

    Source: Hochreiter and Schmidhuber, 1997; Gers et al., 2000, for the forget gate. `Padded`
    sequences give the states that each gives alone, as `Padded` with zeros for padding.

    With `projection`, hₜ = (o ⊙ tanh(cₜ)) P (Sak et al., 2014, without its non-recurrent
    projection; PyTorch's `proj_size`). With `peepholes`, the gates see the cell: p ⊙ cₜ₋₁ is added
    to the parts i and f of z, and p ⊙ cₜ to the part o (Gers and Schmidhuber, 2000). Both take the
    gradient of the recurrent kernel step by step, which is slower.

    Parameters: `kernel` W [inputs, 4 · features], `recurrent_kernel` R [features, 4 · features],
    `bias` b [4 · features], the gates in the order i, f, g, o: that of Keras and PyTorch (of the
    latter transposed, and its two biases added), and of Flax's cells, concatenated; with a
    projection, R has `projection` rows, and `projection_kernel` P is [features, projection];
    `peepholes` p [3 · features], in the order i, f, o.

    Args:
        features: the size of a state.
        sequence: whether the states h of all steps are returned, or only the last, [batch,
            features].
        backward: as in `SimpleRNN`.
        carry: whether the input is a pair (sequences, initial state), whose state is a pair (h, c),
            each [batch, features] (h [batch, projection]), or None for zeros, and the output a pair
            (states, final state).
        dropout, recurrent_dropout, use_bias: as in `SimpleRNN`.
        kernel_init, recurrent_kernel_init, bias_init: from `dl.initializers`; each draws all gates
            at once. P is drawn by kernel_init, and p by bias_init.
        dtype, param_dtype: as in `SimpleRNN`.
        forget_bias: is added to the initial bias of the forget gate (Jozefowicz et al., 2015,
            section 2.2).
        projection: the size of h; None is no projection, and a size of `features`.
        peepholes: whether the gates see the cell.

    Raises:
        LayerError: as in `SimpleRNN`.
    """

    gates: ClassVar[int] = 4
    forget_bias: float = 1.0
    projection: int | None = None
    peepholes: bool = False

    def __post_init__(self) -> None:
        check_arguments(self)
        if self.projection is not None:
            arguments.check_positive("LSTM", projection=self.projection)

    def biases(self, key: Array) -> Params:
        bias = self.draw("bias_init", key, (self.gates * self.features,))
        forget_gate = slice(self.features, 2 * self.features)
        return {"bias": bias.at[forget_gate].add(self.forget_bias)}

    def hidden_size(self) -> int:
        return self.features if self.projection is None else self.projection

    def others(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        others = {}
        if self.projection is not None:
            others["projection_kernel"] = ("kernel_init", (self.features, self.projection))
        if self.peepholes:
            others["peepholes"] = ("bias_init", (3 * self.features,))
        return others

    def first(self, batch: int, dtype: DType) -> tuple[Array, Array]:
        hidden = jnp.zeros((batch, self.hidden_size()), dtype)
        return hidden, jnp.zeros((batch, self.features), dtype)

    def states(
        self, params: Params, projected: Array, first: tuple[Array, Array], mask: Array | None
    ) -> tuple[Array, Array]:
        kernel = params["recurrent_kernel"]
        if not self.others():
            return ops.recurrent.lstm(projected, kernel, *first, mask)
        return ops.recurrent_variants.lstm(
            projected,
            kernel,
            *first,
            mask,
            peepholes=params.get("peepholes"),
            projection=params.get("projection_kernel"),
        )


@dataclasses.dataclass(frozen=True)
class GRU(Gated):
    """The gated recurrent unit, [batch, time, inputs] to [batch, time, features].

        r, z = σ(xₜ W + b + u),  n = tanh(xₜ W + b + r ⊙ (u + bᵣ)),  with u = hₜ₋₁ R, each in three
        parts,  hₜ = (1 − z) ⊙ n + z ⊙ hₜ₋₁

    Source: Cho et al., 2014; the reset comes after the product, as in cuDNN, PyTorch, Flax and
    Keras. With reset_after=False it comes before, as in the paper and in ONNX: n = tanh(xₜ W + b +
    (r ⊙ hₜ₋₁) R), of the third part of each. There is no bᵣ then, and the gradient of the recurrent
    kernel is taken step by step, which is slower. `Padded` sequences give the states that each
    gives alone, as `Padded` with zeros for padding.

    Parameters: `kernel` W [inputs, 3 · features], `recurrent_kernel` R [features, 3 · features],
    `bias` b [3 · features], `recurrent_bias` bᵣ [features], the gates in the order r, z, n. PyTorch
    has the gates in this order, transposed; of its recurrent biases the first two parts belong to b
    and the third is bᵣ. Keras has the order z, r, n.

    Args:
        features, sequence, backward, carry, dropout, recurrent_dropout: as in `SimpleRNN`.
        use_bias: whether b and bᵣ are added.
        kernel_init, recurrent_kernel_init, bias_init: from `dl.initializers`; each draws all gates
            at once.
        dtype, param_dtype: as in `SimpleRNN`.
        reset_after: whether r is multiplied with the product, or with the state before it.

    Raises:
        LayerError: as in `SimpleRNN`.
    """

    gates: ClassVar[int] = 3
    reset_after: bool = True

    def __post_init__(self) -> None:
        check_arguments(self)

    def biases(self, key: Array) -> Params:
        key, recurrent_key = jax.random.split(key)
        bias = self.draw("bias_init", key, (self.gates * self.features,))
        if not self.reset_after:
            return {"bias": bias}
        recurrent_bias = self.draw("bias_init", recurrent_key, (self.features,))
        return {"bias": bias, "recurrent_bias": recurrent_bias}

    def first(self, batch: int, dtype: DType) -> Array:
        return jnp.zeros((batch, self.features), dtype)

    def states(
        self, params: Params, projected: Array, first: Array, mask: Array | None
    ) -> Array:
        kernel = params["recurrent_kernel"]
        if not self.reset_after:
            return ops.recurrent_variants.gru_reset_before(projected, kernel, first, mask)
        bias = params.get("recurrent_bias", jnp.zeros(self.features, projected.dtype))
        return ops.recurrent.gru(projected, kernel, bias, first, mask)


@dataclasses.dataclass(frozen=True)
class Bidirectional(Composite):
    """y = [f(x), b(x)]: a recurrent layer f that reads forwards, and the same layer b backwards, on
    parameters of their own: [batch, time, inputs] to [batch, time, 2 · features], or, of a layer
    that returns only its last state, to [batch, 2 · features].

    Parameters: `forward` and `backward`. Source: Schuster and Paliwal, 1997.

    Args:
        layer: the recurrent layer that reads forwards.
        combine: "concatenate" the two along the features, or "add" them.

    Raises:
        LayerError: the layer is not a forward recurrent layer without carry.
    """

    layer: Recurrent
    combine: Literal["concatenate", "add"] = "concatenate"

    def __post_init__(self) -> None:
        if not isinstance(self.layer, Recurrent) or self.layer.backward or self.layer.carry:
            raise LayerError(
                "Bidirectional",
                f"expected a forward recurrent layer without carry, got {self.layer!r}.",
            )
        arguments.check_choice("Bidirectional", "combine", self.combine, ("concatenate", "add"))

    def wire(self, wiring: Wiring, x: PyTree) -> PyTree:
        forwards = wiring.part("forward", self.layer, x)
        backwards = wiring.part("backward", dataclasses.replace(self.layer, backward=True), x)
        combine = jnp.add if self.combine == "add" else _concatenate
        return wiring.math(combine, forwards, backwards)


def _concatenate(a: Array, b: Array) -> Array:
    return jnp.concatenate([a, b], -1)
