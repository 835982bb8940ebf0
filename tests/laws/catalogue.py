"""Every public layer with a small input, in the forms that differ; the laws run over all of them."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdl as dl
from jaxdl import activations
from jaxdl.core.function import as_layer
from jaxdl.core.tree import map_named

leaky = functools.partial(activations.leaky_relu, negative_slope=0.2)
ACTIVATIONS: dict[str, Callable[..., Any]] = {
    name: getattr(activations, name) for name in ("glu", "relu", "softmax", "step", "tanh")
}


def attend(params: Any, x: Any) -> Any:
    """Logits of every index, by the rows of an embedding."""
    return x @ params["embedding"].T.astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Gated(dl.Composite):
    """A composite such as a user writes."""

    features: int

    def wire(self, wiring: Any, x: Any) -> Any:
        gate = wiring.part("gate", dl.Dense(self.features), x)
        value = wiring.part("value", dl.Sequential(dl.BatchNorm(), dl.Dense(self.features)), x)
        return wiring.math(lambda g, v: jax.nn.sigmoid(g) * v, gate, value)


@dataclasses.dataclass(frozen=True)
class Decoder(dl.Composite):
    """A decoder of a sequence to itself, whose memory is wider."""

    blocks: dl.Layer

    def wire(self, wiring: Any, x: Any) -> Any:
        memory = wiring.part("memory", dl.Dense(8), x)
        return wiring.part("blocks", self.blocks, dl.Attend(x, memory)).queries


@dataclasses.dataclass(frozen=True)
class Leaky(dl.Cell):
    """A cell such as a user writes, whose state has two parts."""

    features: int

    def weights(self, key: Any, x: Any) -> Any:
        shape = (x.shape[-1], self.features)
        kernel = jax.nn.initializers.lecun_normal()(key, shape, jnp.float32)
        return {"kernel": kernel, "scale": jnp.ones(self.features, jnp.float32)}

    def first(self, x: Any) -> Any:
        zeros = jnp.zeros((x.shape[0], self.features), x.dtype)
        return zeros, zeros

    def project(self, params: Any, steps: Any) -> Any:
        return steps @ params["kernel"]

    def step(self, params: Any, state: Any, x: Any) -> Any:
        hidden, mean = state
        mean = 0.5 * mean + 0.5 * x
        return jnp.tanh(mean + params["scale"][None] * hidden), mean


@dataclasses.dataclass(frozen=True)
class Entry:
    """A layer and an input of it.

    Args:
        layer: the layer.
        shape: of the input, batch first.
        indices: how many there are, where the input is indices.
        stochastic: whether training draws random numbers.
        covers: the kind of a part that the entry is about, if its input is no array.
        has_constants: whether the gradient in training holds some of what it computes constant.
    """

    layer: Any
    shape: tuple[int, ...]
    indices: int | None = None
    stochastic: bool = False
    covers: type | None = None
    has_constants: bool = False

    def input(self, seed: int = 0, dtype: Any = jnp.float32) -> jax.Array:
        rng = np.random.default_rng(seed)
        if self.indices is not None:
            return jnp.asarray(rng.integers(0, self.indices, self.shape), jnp.int32)
        return jnp.asarray(rng.normal(size=self.shape), dtype)

    def drawn(self, seed: int = 0) -> tuple[Any, Any]:
        """Parameters and state as training may leave them: no bias is 0, no scale 1, and variances and counts are positive."""
        rng = np.random.default_rng(seed)

        def draw(name: str, leaf: Any) -> jax.Array:
            values = (
                rng.uniform(0.5, 1.5, leaf.shape)
                if name.endswith(("scale", "var", "counts"))
                else rng.normal(0, 0.5, leaf.shape)
            )
            return jnp.asarray(values, leaf.dtype)

        return map_named(
            draw, jax.eval_shape(lambda: self.layer.init(jax.random.key(0), self.input()))
        )


VECTORS, SEQUENCES, IMAGES, VOLUMES = (4, 6), (4, 5, 6), (4, 5, 6, 4), (4, 3, 4, 3, 2)

CATALOGUE: dict[str, Entry] = {
    "dense": Entry(dl.Dense(3), VECTORS),
    "dense of sequences, no bias": Entry(dl.Dense(3, use_bias=False), SEQUENCES),
    "conv 1d": Entry(dl.Conv(3, 3), SEQUENCES),
    "conv 2d": Entry(dl.Conv(3, 3), IMAGES),
    "conv 3d": Entry(dl.Conv(3, 2, padding="VALID"), VOLUMES),
    "conv strided, dilated": Entry(
        dl.Conv(3, (2, 3), stride=2, dilation=(2, 1), use_bias=False), IMAGES
    ),
    "conv padded by hand": Entry(dl.Conv(3, 3, stride=2, padding=((2, 1), (0, 3))), IMAGES),
    "conv grouped": Entry(dl.Conv(6, 3, groups=2), IMAGES),
    "conv depthwise": Entry(dl.Conv(8, 3, groups=4), IMAGES),
    "conv transpose 1d": Entry(dl.ConvTranspose(3, 3, stride=2, padding="VALID"), SEQUENCES),
    "conv transpose 2d": Entry(dl.ConvTranspose(3, 3, stride=(2, 3)), IMAGES),
    "conv transpose dilated": Entry(
        dl.ConvTranspose(3, 2, padding=((2, 1), (1, 1)), dilation=2), IMAGES
    ),
    "conv transpose grouped": Entry(
        dl.ConvTranspose(6, 3, stride=2, padding=1, groups=2, output_padding=1), IMAGES
    ),
    "max pool": Entry(dl.MaxPool(2), IMAGES),
    "max pool overlapping": Entry(dl.MaxPool(3, 2, "SAME"), IMAGES),
    "max pool 1d": Entry(dl.MaxPool(2, padding=((1, 0),)), SEQUENCES),
    "average pool": Entry(dl.AvgPool((2, 3)), IMAGES),
    "average pool overlapping": Entry(dl.AvgPool(3, 2, "SAME", count_padding=False), IMAGES),
    "max pool dilated": Entry(dl.MaxPool(2, 1, "SAME", dilation=(2, 3)), IMAGES),
    "average pool dilated": Entry(
        dl.AvgPool(2, 1, padding=((1, 1), (0, 2)), dilation=2), IMAGES
    ),
    "adaptive max pool": Entry(dl.AdaptiveMaxPool((3, 2)), IMAGES),
    "adaptive average pool": Entry(dl.AdaptiveAvgPool(2), VOLUMES),
    "global max pool": Entry(dl.GlobalMaxPool(), IMAGES),
    "global average pool": Entry(dl.GlobalAvgPool(), IMAGES),
    "batch norm": Entry(dl.BatchNorm(momentum=0.9), VECTORS),
    "batch norm of images": Entry(dl.BatchNorm(use_bias=False), IMAGES),
    "layer norm": Entry(dl.LayerNorm(), SEQUENCES),
    "layer norm, plain": Entry(dl.LayerNorm(use_scale=False, use_bias=False), VECTORS),
    "rms norm": Entry(dl.RMSNorm(), SEQUENCES),
    "group norm": Entry(dl.GroupNorm(2), IMAGES),
    "group norm of vectors": Entry(dl.GroupNorm(3, use_bias=False), VECTORS),
    "instance norm": Entry(dl.InstanceNorm(epsilon=1e-3), IMAGES),
    "spectral norm": Entry(
        dl.SpectralNorm(dl.Conv(3, 3), iterations=2), IMAGES, has_constants=True
    ),
    "weight norm": Entry(dl.WeightNorm(dl.Dense(3)), VECTORS),
    "dropout": Entry(dl.Dropout(0.4), SEQUENCES, stochastic=True),
    "dropout of channels": Entry(dl.Dropout(0.5, channels=True), IMAGES, stochastic=True),
    "embedding": Entry(dl.Embedding(7, 3), (4, 5), indices=7),
    "simple rnn": Entry(dl.SimpleRNN(3), SEQUENCES),
    "simple rnn, relu, last step": Entry(
        dl.SimpleRNN(3, sequence=False, activation=activations.silu), SEQUENCES
    ),
    "lstm": Entry(dl.LSTM(3), SEQUENCES),
    "lstm backward, last step, no bias": Entry(
        dl.LSTM(3, sequence=False, backward=True, use_bias=False), SEQUENCES
    ),
    "lstm with dropout": Entry(
        dl.LSTM(3, dropout=0.4, recurrent_dropout=0.5), SEQUENCES, stochastic=True
    ),
    "gru": Entry(dl.GRU(3), SEQUENCES),
    "gru with dropout": Entry(
        dl.GRU(3, recurrent_dropout=0.5, use_bias=False), SEQUENCES, stochastic=True
    ),
    "gru, reset before the product": Entry(
        dl.GRU(3, reset_after=False, recurrent_dropout=0.5), SEQUENCES, stochastic=True
    ),
    "lstm, projection, peepholes": Entry(dl.LSTM(4, projection=3, peepholes=True), SEQUENCES),
    "rnn": Entry(dl.RNN(Leaky(3)), SEQUENCES),
    "rnn backward, last step, dropout": Entry(
        dl.RNN(Leaky(3), sequence=False, backward=True, dropout=0.4), SEQUENCES, stochastic=True
    ),
    "bidirectional rnn": Entry(dl.Bidirectional(dl.RNN(Leaky(3))), SEQUENCES),
    "masked": Entry(dl.Masked(dl.LSTM(3)), SEQUENCES),
    "bidirectional": Entry(dl.Bidirectional(dl.GRU(3)), SEQUENCES),
    "bidirectional, added": Entry(
        dl.Bidirectional(dl.SimpleRNN(3, sequence=False), combine="add"), SEQUENCES
    ),
    "attention": Entry(dl.MultiHeadAttention(2), SEQUENCES),
    "attention, causal, rotary, grouped heads": Entry(
        dl.MultiHeadAttention(
            4, causal=True, kv_heads=2, rotary=True, use_bias=False, features=8
        ),
        SEQUENCES,
    ),
    "attention with dropout": Entry(
        dl.MultiHeadAttention(3, dropout=0.4), SEQUENCES, stochastic=True
    ),
    "attention, wide heads and values, soft cap, partly rotary": Entry(
        dl.MultiHeadAttention(
            2,
            causal=True,
            rotary=dl.Rotary(2),
            head_features=4,
            value_features=5,
            logit_soft_cap=1.5,
        ),
        SEQUENCES,
    ),
    "sinusoidal positions": Entry(dl.SinusoidalPositions(), SEQUENCES),
    "learned positions": Entry(dl.LearnedPositions(7), SEQUENCES),
    "transformer block": Entry(dl.TransformerBlock(2, 8, causal=True), SEQUENCES),
    "transformer block, post, dropout": Entry(
        dl.TransformerBlock(
            2, norm="post", dropout=0.4, activation=activations.silu, norm_layer=dl.RMSNorm()
        ),
        SEQUENCES,
        stochastic=True,
    ),
    "transformer decoder block": Entry(
        Decoder(
            dl.TransformerDecoderBlock(
                2, 8, rotary=dl.Rotary(2, interleaved=True), head_features=4, logit_soft_cap=2.0
            )
        ),
        SEQUENCES,
        covers=dl.TransformerDecoderBlock,
    ),
    "transformer decoder blocks, post, dropout": Entry(
        Decoder(
            dl.Sequential(*[dl.TransformerDecoderBlock(2, 8, norm="post", dropout=0.4)] * 2)
        ),
        SEQUENCES,
        stochastic=True,
    ),
    "mixture of experts": Entry(
        dl.MixtureOfExperts(dl.Dense(3), experts=4, z_loss=0.1), SEQUENCES
    ),
    "mixture of experts, one for each, capacity": Entry(
        dl.MixtureOfExperts(
            dl.Sequential(dl.Dense(6), activations.tanh, dl.Dense(2)),
            experts=3,
            top_k=1,
            capacity_factor=0.75,
        ),
        SEQUENCES,
    ),
    "mixture of experts, jitter, dropout, state": Entry(
        dl.MixtureOfExperts(
            dl.Sequential(dl.Dense(3), dl.BatchNorm(), dl.Dropout(0.4)),
            experts=3,
            capacity_factor=1.5,
            jitter=0.1,
        ),
        VECTORS,
        stochastic=True,
    ),
    "vector quantizer": Entry(dl.VectorQuantizer(5), SEQUENCES, has_constants=True),
    "vector quantizer, moving averages": Entry(
        dl.VectorQuantizer(4, decay=0.9), IMAGES, has_constants=True
    ),
    "pad": Entry(dl.Pad(((1, 0), (0, 2))), IMAGES),
    "pad, reflect": Entry(dl.Pad(2, "reflect"), IMAGES),
    "pad, replicate": Entry(dl.Pad(1, "replicate"), VOLUMES),
    "pad, circular": Entry(dl.Pad(2, "circular"), SEQUENCES),
    "upsample": Entry(dl.Upsample(2), IMAGES),
    "upsample, cubic": Entry(dl.Upsample((2, 1), "cubic"), IMAGES),
    "resize, nearest": Entry(dl.Resize((3, 4), "nearest"), IMAGES),
    "resize, antialiased": Entry(dl.Resize(3, antialias=True), VOLUMES),
    "identity": Entry(dl.Identity(), IMAGES),
    "activity penalty": Entry(dl.ActivityPenalty(0.1, 0.2), IMAGES),
    "weight penalty": Entry(
        dl.WeightPenalty(
            dl.Sequential(dl.Dense(3), dl.BatchNorm(), dl.Dropout(0.5)), l1=0.1, l2=0.2
        ),
        VECTORS,
        stochastic=True,
    ),
    "flatten": Entry(dl.Flatten(), IMAGES),
    "reshape": Entry(dl.Reshape((3, -1)), IMAGES),
    "prelu": Entry(dl.PReLU(), IMAGES),
    "prelu shared": Entry(dl.PReLU(0.1, shared=True), VECTORS),
    "partial": Entry(as_layer(leaky), VECTORS),
    **{name: Entry(as_layer(function), VECTORS) for name, function in ACTIVATIONS.items()},
    "sequential": Entry(
        dl.Sequential(
            dl.Conv(4, 3),
            dl.BatchNorm(),
            activations.relu,
            dl.MaxPool(2),
            dl.Dropout(0.25),
            dl.Flatten(),
            head=dl.Dense(3),
        ),
        IMAGES,
        stochastic=True,
    ),
    "tied": Entry(
        dl.Sequential(
            embed=dl.Embedding(7, 6),
            dense=dl.Dense(6),
            again=dl.Tied("dense"),
            logits=dl.Tied("embed", attend),
        ),
        (4, 5),
        indices=7,
    ),
    "residual": Entry(
        dl.Residual(dl.Sequential(dl.Conv(4, 3), dl.BatchNorm(), activations.tanh)), IMAGES
    ),
    "residual, shortcut": Entry(dl.Residual(dl.Conv(3, 3, 2), dl.Conv(3, 1, 2)), IMAGES),
    "parallel": Entry(
        dl.Parallel(dl.Dense(3), narrow=dl.Sequential(dl.Dense(2), activations.tanh)), SEQUENCES
    ),
    "parallel on axis 1": Entry(dl.Parallel(dl.LayerNorm(), dl.Dense(6), axis=1), SEQUENCES),
    "parallel, added": Entry(
        dl.Parallel(dl.Dense(3), dl.Dense(3, use_bias=False), combine="add"), VECTORS
    ),
    "map": Entry(
        dl.Map(dl.Sequential(dl.Dense(3), dl.BatchNorm(), activations.tanh)), SEQUENCES
    ),
    "map over the last axis": Entry(
        dl.Map(dl.Sequential(dl.Flatten(), dl.Dense(3)), axis=-1), IMAGES
    ),
    "map with dropout": Entry(dl.Map(dl.Dropout(0.5), axis=2), SEQUENCES, stochastic=True),
    "frozen": Entry(
        dl.Frozen(dl.Sequential(dl.Dense(3), dl.BatchNorm(), dl.Dropout(0.5))), VECTORS
    ),
    "partly frozen": Entry(
        dl.Sequential(dl.Frozen(dl.Dense(5)), activations.tanh, dl.Dense(2)), VECTORS
    ),
    "composite": Entry(Gated(3), VECTORS),
}


def missing(public: Mapping[str, Any], entries: Iterable[Entry]) -> list[str]:
    """The public layers that are in no entry, by name."""
    covered = {entry.covers or type(entry.layer) for entry in entries}
    layers = {
        name: kind
        for name, kind in public.items()
        if isinstance(kind, type)
        and issubclass(kind, dl.Layer)
        and not inspect.isabstract(kind)
    }
    return sorted(name for name, kind in layers.items() if kind not in covered)
