"""The generative pre-trained transformer: a language model of causal transformer blocks."""

import dataclasses
from typing import ClassVar

from jax import Array

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError
from jaxdl.core.layer import Layer, OnPadded, Params, Stateless
from jaxdl.layers.arguments import is_zero
from jaxdl.layers.dense import Dense, Embedding
from jaxdl.layers.dropout import Dropout
from jaxdl.layers.initializers import Normal
from jaxdl.layers.norm import LayerNorm
from jaxdl.layers.positions import LearnedPositions
from jaxdl.layers.sequential import Sequential, Tied
from jaxdl.layers.transformer import TransformerBlock
from jaxdl.ops.linear import linear


@dataclasses.dataclass(frozen=True)
class TokenLogits(Stateless):
    """y = x Eᵀ with the matrix E of an embedding, [batch, …, features] to [batch, …, count]:
    `Tied("tokens", TokenLogits())`.

    Raises:
        LayerError: it is not tied to an embedding.
    """

    padded: ClassVar[OnPadded] = "pointwise"

    def weights(self, key: Array, x: PyTree) -> Params:
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

    It has learned positions, blocks that begin with the normalisation, and one more normalisation
    after them. Kernels are drawn from N(0, 0.02²); those whose outputs are summed over the blocks
    have a standard deviation that is smaller by √(2 · layers).

    Source: Radford et al., *Language models are unsupervised multitask learners* (2019), section
    2.3; without biases, as nanoGPT has it (Karpathy, 2022).

    Args:
        vocabulary: the number of tokens.
        layers: the number of blocks.
        heads: the number of heads of each block's attention.
        features: the width.
        context: the maximum length of a sequence.
        dropout: the rate of the blocks, and of the input of the first.
        bias: whether dense layers, attention and normalisations have biases.
        tied: whether the logits are products with the matrix of the embedding, or of a dense layer.
        flash: as in `MultiHeadAttention`.

    Returns:
        A `Sequential` of `tokens`, `positions`, `block_0`, …, `norm` and `logits`.

    Raises:
        LayerError: an argument of a layer is invalid.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> model = gpt(65, layers=4, heads=4, features=128, context=64)
    >>> tokens = jax.ShapeDtypeStruct((1, 64), jnp.int32)
    >>> params, _ = jax.eval_shape(lambda key: model.init(key, tokens), jax.random.key(0))
    >>> dl.tree.parameter_count(params)
    804096
    """
    kernel = Normal(0.02)
    norm = LayerNorm(epsilon=1e-5, use_bias=bias)
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
    parts: dict[str, Layer | Tied] = {
        "tokens": Embedding(vocabulary, features, kernel),
        "positions": LearnedPositions(context, kernel),
    }
    if not is_zero(dropout):
        parts["dropout"] = Dropout(dropout)
    parts |= {f"block_{index}": block for index in range(layers)}
    parts["norm"] = norm
    if tied:
        parts["logits"] = Tied("tokens", TokenLogits())
    else:
        parts["logits"] = Dense(vocabulary, use_bias=False, kernel_init=kernel)
    return Sequential(**parts)
