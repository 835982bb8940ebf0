"""The block of a transformer."""

import dataclasses
from collections.abc import Callable
from typing import Literal

from jax import Array

from jaxdl import ops
from jaxdl.compiling.pytree import PyTree
from jaxdl.core.function import as_layer
from jaxdl.core.layer import Layer
from jaxdl.layers import arguments, inputs
from jaxdl.layers.attention import MultiHeadAttention
from jaxdl.layers.dense import Dense, lecun_normal
from jaxdl.layers.dropout import Dropout
from jaxdl.layers.initializers import Initializer
from jaxdl.layers.norm import LayerNorm
from jaxdl.layers.sequential import Sequential
from jaxdl.layers.wiring import Composite, Wiring
from jaxdl.ops.activations import gelu

layer_norm: Layer = LayerNorm()


@dataclasses.dataclass(frozen=True)
class TransformerBlock(Composite):
    """Attention, and then two dense layers for each step, both added to their input: [batch, time,
    features] to the same.

        norm="pre":   y = x + attention(norm(x)),    z = y + mlp(norm(y))
        norm="post":  y = norm(x + attention(x)),    z = norm(y + mlp(y))

    with mlp(y) = activation(y W + b) U + c. Of `Padded` sequences only the steps within the lengths
    are read. Source: Vaswani et al., 2017, section 3.1, for post; Radford et al., 2019, section
    2.3, for pre.

    Parts: `attention_norm`, `attention`, `mlp_norm` and `mlp`, the last with `hidden` and `out`.

    Args:
        heads: the number of heads of the attention.
        hidden: the width between the two dense layers; None is four times the features.
        causal, kv_heads, rotary, flash: as in `MultiHeadAttention`.
        norm: whether the normalisation comes before each part, or after it.
        dropout: the probability that a weight of the attention, or an output of both parts, is
            dropped in training.
        activation: a layer or a function.
        norm_layer: the normalisation.
        use_bias: whether attention and dense layers add biases.
        kernel_init: of their kernels, from `dl.initializers`.
        out_kernel_init: of the kernels whose outputs are added to x and to y.

    Raises:
        LayerError: an argument is invalid, or an input is not [batch, time, features] with features
            that the heads divide.
    """

    heads: int
    hidden: int | None = None
    causal: bool = False
    norm: Literal["pre", "post"] = "pre"
    dropout: float | Array = 0.0
    activation: Layer | Callable[[Array], Array] = gelu
    norm_layer: Layer = layer_norm
    kv_heads: int | None = None
    rotary: bool = False
    flash: bool = False
    use_bias: bool = True
    kernel_init: Initializer = lecun_normal
    out_kernel_init: Initializer = lecun_normal

    def __post_init__(self) -> None:
        arguments.check_choice("TransformerBlock", "norm", self.norm, ("pre", "post"))
        arguments.check_fields(self)
        as_layer(self.norm_layer)
        self._attention()
        self._mlp(1)

    def wire(self, wiring: Wiring, x: PyTree) -> PyTree:
        inputs.features("TransformerBlock", x, 3)
        x = self._add(wiring, "attention", self._attention(), x)
        return self._add(wiring, "mlp", self._mlp(x.shape[-1]), x)

    def _add(self, wiring: Wiring, name: str, layer: Layer, x: PyTree) -> PyTree:
        """One part, with its normalisation, dropout and the sum with its input."""
        norm_layer = as_layer(self.norm_layer)
        y = x
        if self.norm == "pre":
            y = wiring.part(f"{name}_norm", norm_layer, y)
        y = wiring.part(name, layer, y)
        if not arguments.is_zero(self.dropout):
            y = wiring.part(f"{name}_dropout", Dropout(self.dropout), y)
        x = wiring.math(_sum_rows, x, y)
        if self.norm == "post":
            x = wiring.part(f"{name}_norm", norm_layer, x)
        return x

    def _attention(self) -> Layer:
        return MultiHeadAttention(
            self.heads,
            causal=self.causal,
            kv_heads=self.kv_heads,
            rotary=self.rotary,
            flash=self.flash,
            dropout=self.dropout,
            use_bias=self.use_bias,
            kernel_init=self.kernel_init,
            out_kernel_init=self.out_kernel_init,
        )

    def _mlp(self, features: int) -> Layer:
        hidden = 4 * features if self.hidden is None else self.hidden
        return Sequential(
            hidden=Dense(hidden, self.use_bias, self.kernel_init),
            activation=as_layer(self.activation),
            out=Dense(features, self.use_bias, self.out_kernel_init),
        )


def _sum_rows(x: Array, y: Array) -> Array:
    total = ops.linear.rows(x) + ops.linear.rows(y.astype(x.dtype))
    return total.reshape(x.shape)
