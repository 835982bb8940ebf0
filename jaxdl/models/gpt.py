"""The generative pre-trained transformer: a language model of causal transformer blocks."""

import dataclasses
from typing import Any, ClassVar

from jax import Array

from jaxdl.core.error import LayerError
from jaxdl.core.layer import OnPadded, Params, Stateless
from jaxdl.layers.arguments import is_zero
from jaxdl.layers.combine import Sequential, Tied
from jaxdl.layers.dense import Dense, Embedding
from jaxdl.layers.dropout import Dropout
from jaxdl.layers.initializers import Normal
from jaxdl.layers.norm import LayerNorm
from jaxdl.layers.positions import LearnedPositions
from jaxdl.layers.transformer import TransformerBlock
from jaxdl.ops.linear import linear


@dataclasses.dataclass(frozen=True)
class TokenLogits(Stateless):
    """y = x Eᵀ with the rows E of an embedding, [batch, …, features] to [batch, …, count]:
    `Tied("tokens", TokenLogits())`.
    """

    padded: ClassVar[OnPadded] = "each step"

    def weights(self, key: Array, x: Any) -> Params:
        raise LayerError(
            "TokenLogits",
            "it has no parameters of its own — tie it to an embedding: Tied(name, TokenLogits()).",
        )

    def forward(self, params: Params, x: Array) -> Array:
        return linear(x, params["embedding"].T, None)


def gpt(
    vocabulary: int,
    *,
    layers: int,
    heads: int,
    features: int,
    context: int,
    dropout: float | Array = 0.0,
    bias: bool = False,
    tied: bool = True,
    flash: bool = False,
) -> Sequential:
    """GPT-2 in any size: tokens [batch, time] to the logits of the token after each, [batch, time,
    vocabulary].

    Learned positions, blocks with the normalisation in front, and one more behind them. Kernels are
    drawn from normal(0.02); those whose outputs are added up over the blocks are narrower by √(2 ·
    layers).

    Source: Radford et al., *Language models are unsupervised multitask learners* (2019), section
    2.3; without biases, as nanoGPT has it (Karpathy, 2022).

    Args:
        vocabulary: the number of tokens.
        layers: the number of blocks.
        heads: of each block's attention.
        features: the width.
        context: the longest sequence.
        dropout: the rate of the blocks, and of what enters the first.
        bias: whether dense layers, attention and normalisations have biases.
        tied: whether the logits are products with the rows of the embedding, or a dense layer's.
        flash: as in `MultiHeadAttention`.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> model = gpt(65, layers=4, heads=4, features=128, context=64)
    >>> tokens = jax.ShapeDtypeStruct((1, 64), jnp.int32)
    >>> params, _ = jax.eval_shape(lambda key: model.init(key, tokens), jax.random.key(0))
    >>> dl.tree.parameter_count(params)
    804096
    """
    kernel, norm = Normal(0.02), LayerNorm(epsilon=1e-5, use_bias=bias)
    block = TransformerBlock(
        heads,
        causal=True,
        dropout=dropout,
        norm_layer=norm,
        use_bias=bias,
        flash=flash,
        kernel_init=kernel,
        out_kernel_init=Normal(0.02 / (2 * layers) ** 0.5),
    )
    return Sequential(
        tokens=Embedding(vocabulary, features, kernel),
        positions=LearnedPositions(context, kernel),
        **({} if is_zero(dropout) else {"dropout": Dropout(dropout)}),
        **{f"block_{index}": block for index in range(layers)},
        norm=norm,
        logits=Tied("tokens", TokenLogits())
        if tied
        else Dense(vocabulary, use_bias=False, kernel_init=kernel),
    )
