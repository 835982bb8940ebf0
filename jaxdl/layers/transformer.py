"""The block that transformers are made of."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from jax import Array

from jaxdl import ops
from jaxdl.core.function import as_layer
from jaxdl.core.layer import Layer
from jaxdl.layers import arguments
from jaxdl.layers.attention import MultiHeadAttention
from jaxdl.layers.combine import Sequential
from jaxdl.layers.dense import Dense, lecun_normal
from jaxdl.layers.dropout import Dropout
from jaxdl.layers.initializers import Initializer
from jaxdl.layers.norm import LayerNorm
from jaxdl.layers.wiring import Composite, Wiring
from jaxdl.ops.activations import gelu

layer_norm: Layer = LayerNorm()


@dataclasses.dataclass(frozen=True)
class TransformerBlock(Composite):
    """Attention and then two dense layers at each step, both added to their input: [batch, time,
    features] to the same.

        norm="pre":   y = x + attention(norm(x)),    z = y + mlp(norm(y))
        norm="post":  y = norm(x + attention(x)),    z = norm(y + mlp(y))

    with mlp(y) = activation(y W + b) U + c. Of `Padded` sequences only what is within the lengths
    is read. Source: Vaswani et al., 2017, section 3.1, for post; Radford et al., 2019, section 2.3,
    for pre. Parts: `attention_norm`, `attention`, `mlp_norm` and `mlp`, the last with `hidden` and
    `out`.

    Args:
        heads: of the attention.
        hidden: the width between the two dense layers; None is four times the features.
        causal, kv_heads, rotary, flash: as in `MultiHeadAttention`.
        norm: where the normalisation stands.
        dropout: the rate at which the weights of the attention and the outputs of both parts are
            dropped in training.
        activation: a layer or a function.
        norm_layer: the normalisation.
        use_bias: whether attention and dense layers add biases.
        kernel_init: of their kernels, from `dl.initializers`.
        out_kernel_init: of the kernels whose outputs are added to x and to y.
    """

    heads: int
    hidden: int | None = None
    causal: bool = False
    norm: Literal["pre", "post"] = "pre"
    dropout: float | Array = 0.0
    activation: Layer | Callable[[Any], Any] = gelu
    norm_layer: Layer = layer_norm
    kv_heads: int | None = None
    rotary: bool = False
    flash: bool = False
    use_bias: bool = True
    kernel_init: Initializer = lecun_normal
    out_kernel_init: Initializer = lecun_normal

    def __post_init__(self) -> None:
        arguments.word("TransformerBlock", "norm", self.norm, ("pre", "post"))
        arguments.declared(self)
        as_layer(self.norm_layer)
        self._attention()
        self._mlp(1)

    def wire(self, wiring: Wiring, x: Any) -> Any:
        arguments.features("TransformerBlock", x, 3)
        norm_layer = as_layer(self.norm_layer)
        for name, layer in (("attention", self._attention()), ("mlp", self._mlp(x.shape[-1]))):
            y = wiring.part(f"{name}_norm", norm_layer, x) if self.norm == "pre" else x
            y = wiring.part(name, layer, y)
            y = (
                y
                if arguments.is_zero(self.dropout)
                else wiring.part(f"{name}_dropout", Dropout(self.dropout), y)
            )
            x = wiring.math(_added, x, y)
            x = wiring.part(f"{name}_norm", norm_layer, x) if self.norm == "post" else x
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


def _added(x: Array, y: Array) -> Array:
    return (ops.linear.rows(x) + ops.linear.rows(y.astype(x.dtype))).reshape(x.shape)
