"""The vision transformer."""

from jax import Array

from jaxdl.core.layer import Layer
from jaxdl.layers.arguments import is_zero
from jaxdl.layers.conv import Conv
from jaxdl.layers.dense import Dense
from jaxdl.layers.dropout import Dropout
from jaxdl.layers.initializers import Normal
from jaxdl.layers.norm import LayerNorm
from jaxdl.layers.pool import GlobalAvgPool
from jaxdl.layers.positions import LearnedPositions
from jaxdl.layers.sequential import Sequential
from jaxdl.layers.shape import Reshape
from jaxdl.layers.transformer import TransformerBlock


def vit(
    classes: int,
    *,
    patch: int,
    layers: int,
    heads: int,
    features: int,
    hidden: int | None = None,
    dropout: float | Array = 0.0,
    flash: bool = False,
) -> Sequential:
    """A transformer over the patches of an image: [batch, height, width, channels] to logits
    [batch, classes].

    Patches are projected to vectors, learned positions are added, and blocks that begin with the
    normalisation follow; a dense layer takes the mean over all patches, instead of a class token.
    Initial positions are of the magnitude of the projected patches, N(0, 1).

    Source: Dosovitskiy et al., *An image is worth 16x16 words* (2021), section 3.1; the mean: Beyer
    et al., *Better plain ViT baselines for ImageNet-1k* (2022).

    Args:
        classes: the number of outputs.
        patch: height and width of a patch; the remainder at the lower and right edges is dropped.
        layers: the number of blocks.
        heads: the number of heads of each block's attention.
        features: the width.
        hidden: the width between the two dense layers of a block; None is four times the features.
        dropout: the rate of the blocks, and of the input of the first.
        flash: as in `MultiHeadAttention`.

    Returns:
        A `Sequential` of `patches`, `positions`, `block_0`, …, `norm` and `logits`.

    Raises:
        LayerError: an argument of a layer is invalid, or an image is smaller than a patch.

    >>> import jax, jax.numpy as jnp
    >>> model = vit(10, patch=7, layers=2, heads=4, features=32)
    >>> images = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.uint8)
    >>> params, state = jax.eval_shape(model.init, jax.random.key(0), images)
    >>> params["positions"]["embedding"].shape
    (16, 32)
    """
    block = TransformerBlock(heads, hidden, dropout=dropout, flash=flash)
    # Beside patches GPT-2's 0.02 is lost (`benchmarks/README.md`, "Initial values").
    positions = LearnedPositions(embedding_init=Normal(1.0))
    parts: dict[str, Layer] = {
        "patches": Conv(features, patch, patch, padding="VALID"),
        "sequence": Reshape((-1, features)),
        "positions": positions,
    }
    if not is_zero(dropout):
        parts["dropout"] = Dropout(dropout)
    parts |= {f"block_{index}": block for index in range(layers)}
    parts |= {"norm": LayerNorm(), "pool": GlobalAvgPool(), "logits": Dense(classes)}
    return Sequential(**parts)
