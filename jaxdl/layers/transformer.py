"""The blocks of transformers."""

import dataclasses
from collections.abc import Callable
from typing import Literal

from jax import Array

from jaxdl import ops
from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError
from jaxdl.core.function import as_layer
from jaxdl.core.layer import Layer
from jaxdl.layers import arguments, inputs
from jaxdl.layers.attend import Attend
from jaxdl.layers.attention import MultiHeadAttention
from jaxdl.layers.dense import Dense, lecun_normal
from jaxdl.layers.dropout import Dropout
from jaxdl.layers.initializers import Initializer
from jaxdl.layers.norm import LayerNorm
from jaxdl.layers.positions import Rotary
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
    are read. With a mask or a bias the input is an `Attend`, and so is the output, with z for its
    queries, so that the next block reads the same mask. Source: Vaswani et al., 2017, section 3.1,
    for post; Radford et al., 2019, section 2.3, for pre.

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
        head_features, logit_soft_cap: as in `MultiHeadAttention`.

    Raises:
        LayerError: an argument is invalid, an input is not [batch, time, features] with features
            that the heads divide, or an `Attend` to another sequence.
    """

    heads: int
    hidden: int | None = None
    causal: bool = False
    norm: Literal["pre", "post"] = "pre"
    dropout: float | Array = 0.0
    activation: Layer | Callable[[Array], Array] = gelu
    norm_layer: Layer = layer_norm
    kv_heads: int | None = None
    rotary: bool | Rotary = False
    flash: bool = False
    use_bias: bool = True
    kernel_init: Initializer = lecun_normal
    out_kernel_init: Initializer = lecun_normal
    head_features: int | None = None
    logit_soft_cap: float | Array | None = None

    def __post_init__(self) -> None:
        _check_arguments(self)

    def wire(self, wiring: Wiring, x: PyTree) -> PyTree:
        attend = x if isinstance(x, Attend) else Attend(x)
        if attend.keys_values is not None or attend.values is not None:
            raise LayerError(
                "TransformerBlock",
                "its sequence attends to itself, and it got another one in an Attend — use "
                "TransformerDecoderBlock.",
            )
        y = attend.queries
        inputs.features("TransformerBlock", y, 3)
        y = _add(self, wiring, "attention", _attention(self, self.causal), y, attend)
        y = _add(self, wiring, "mlp", _mlp(self, y.shape[-1]), y)
        return attend.with_queries(y) if isinstance(x, Attend) else y


@dataclasses.dataclass(frozen=True)
class TransformerDecoderBlock(Composite):
    """Attention of a sequence to itself, then to another one, such as the output of an encoder,
    and then two dense layers for each step, each added to its input: an `Attend` of x [batch, time,
    features] to the memory m [batch, keys, features] to the `Attend` of z to m.

        norm="pre":   y = x + attention(norm(x)),   u = y + cross_attention(norm(y), m),
                      z = u + mlp(norm(u))
        norm="post":  y = norm(x + attention(x)),   u = norm(y + cross_attention(y, m)),
                      z = norm(u + mlp(u))

    with mlp(u) = activation(u W + b) U + c. The output has the same memory and masks as the input,
    so that blocks follow one another in a `Sequential`; `.queries` is z. Of `Padded` sequences, x
    and m, only the steps within the lengths are read. The mask and the bias of the `Attend` are
    those of the cross-attention; for a mask or a bias of the self-attention, its queries are an
    `Attend` themselves: `Attend(Attend(x, mask=…), m)`. `decode` projects the memory once, and
    reads x step by step. Source: Vaswani et al., 2017, section 3.1, for post.

    Parts: `attention_norm`, `attention`, `cross_attention_norm`, `cross_attention`, `mlp_norm` and
    `mlp`, the last with `hidden` and `out`.

    Args:
        heads: the number of heads of both attentions.
        hidden: the width between the two dense layers; None is four times the features.
        causal: whether step i of x attends only to its steps 0 … i.
        norm: whether the normalisation comes before each part, or after it.
        dropout: the probability that a weight of an attention, or an output of a part, is dropped
            in training.
        activation, norm_layer: as in `TransformerBlock`.
        kv_heads, flash, head_features, logit_soft_cap: of both attentions, as in
            `MultiHeadAttention`.
        rotary: of the self-attention, as in `MultiHeadAttention`.
        use_bias, kernel_init, out_kernel_init: as in `TransformerBlock`.

    Raises:
        LayerError: an argument is invalid, the input is not an `Attend` to another sequence, or
            sequences are not [batch, time, features].

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> decoder = dl.Sequential(dl.TransformerDecoderBlock(2), dl.TransformerDecoderBlock(2))
    >>> x = dl.Attend(jnp.ones((1, 3, 8)), jnp.ones((1, 5, 6)))
    >>> params, state = decoder.init(jax.random.key(0), x)
    >>> decoder.apply(params, state, x)[0].queries.shape
    (1, 3, 8)
    """

    heads: int
    hidden: int | None = None
    causal: bool = True
    norm: Literal["pre", "post"] = "pre"
    dropout: float | Array = 0.0
    activation: Layer | Callable[[Array], Array] = gelu
    norm_layer: Layer = layer_norm
    kv_heads: int | None = None
    rotary: bool | Rotary = False
    flash: bool = False
    use_bias: bool = True
    kernel_init: Initializer = lecun_normal
    out_kernel_init: Initializer = lecun_normal
    head_features: int | None = None
    logit_soft_cap: float | Array | None = None

    def __post_init__(self) -> None:
        _check_arguments(self)

    def wire(self, wiring: Wiring, x: PyTree) -> PyTree:
        if not isinstance(x, Attend) or x.keys_values is None:
            raise LayerError(
                "TransformerDecoderBlock",
                "it reads another sequence, such as the output of an encoder, and got none — give "
                "it dl.Attend(x, memory).",
            )
        own = x.queries if isinstance(x.queries, Attend) else Attend(x.queries)
        if own.keys_values is not None or own.values is not None:
            raise LayerError(
                "TransformerDecoderBlock",
                "the Attend of its queries is of one sequence to itself, with a mask or a bias.",
            )
        y = own.queries
        inputs.features("TransformerDecoderBlock", y, 3)
        y = _add(self, wiring, "attention", _attention(self, self.causal), y, own)
        cross = dataclasses.replace(_attention(self, False), rotary=False)
        y = _add(self, wiring, "cross_attention", cross, y, x)
        y = _add(self, wiring, "mlp", _mlp(self, y.shape[-1]), y)
        is_nested = isinstance(x.queries, Attend)
        return x.with_queries(own.with_queries(y) if is_nested else y)


Block = TransformerBlock | TransformerDecoderBlock


def _check_arguments(block: Block) -> None:
    arguments.check_choice(type(block).__name__, "norm", block.norm, ("pre", "post"))
    arguments.check_fields(block)
    as_layer(block.norm_layer)
    _attention(block, block.causal)
    _mlp(block, 1)


def _add(
    block: Block,
    wiring: Wiring,
    name: str,
    layer: Layer,
    x: PyTree,
    attend: Attend | None = None,
) -> PyTree:
    """One part, with its normalisation, dropout and the sum with its input.

    Args:
        block: whose part it is.
        wiring: of the block.
        name: of the part.
        layer: the part.
        x: its input.
        attend: whose queries x are, if it is an attention.
    """
    norm_layer = as_layer(block.norm_layer)
    y = x
    if block.norm == "pre":
        y = wiring.part(f"{name}_norm", norm_layer, y)
    if attend is not None and not attend.is_plain:
        y = attend.with_queries(y)
    y = wiring.part(name, layer, y)
    if not arguments.is_zero(block.dropout):
        y = wiring.part(f"{name}_dropout", Dropout(block.dropout), y)
    x = wiring.math(_sum_rows, x, y)
    if block.norm == "post":
        x = wiring.part(f"{name}_norm", norm_layer, x)
    return x


def _attention(block: Block, causal: bool) -> MultiHeadAttention:
    return MultiHeadAttention(
        block.heads,
        causal=causal,
        kv_heads=block.kv_heads,
        rotary=block.rotary,
        flash=block.flash,
        dropout=block.dropout,
        use_bias=block.use_bias,
        kernel_init=block.kernel_init,
        out_kernel_init=block.out_kernel_init,
        head_features=block.head_features,
        logit_soft_cap=block.logit_soft_cap,
    )


def _mlp(block: Block, features: int) -> Layer:
    hidden = 4 * features if block.hidden is None else block.hidden
    return Sequential(
        hidden=Dense(hidden, block.use_bias, block.kernel_init),
        activation=as_layer(block.activation),
        out=Dense(features, block.use_bias, block.out_kernel_init),
    )


def _sum_rows(x: Array, y: Array) -> Array:
    total = ops.linear.rows(x) + ops.linear.rows(y.astype(x.dtype))
    return total.reshape(x.shape)
