"""Autoencoders, and the variational autoencoder."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Key

from jaxdl.core.error import LayerError, located
from jaxdl.core.function import as_layer
from jaxdl.core.keys import fold_in_name
from jaxdl.core.layer import Layer, Params, State
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.layers.arguments import is_zero
from jaxdl.layers.combine import Sequential
from jaxdl.layers.conv import Conv, ConvTranspose
from jaxdl.layers.dense import Dense
from jaxdl.layers.dropout import Dropout
from jaxdl.layers.shape import Flatten, Reshape
from jaxdl.models.mlp import Activation, mlp
from jaxdl.ops.activations import relu

Posterior = tuple[Float[Array, "batch latent"], Float[Array, "batch latent"]]


def dense_autoencoder(
    *features: int,
    shape: int | Sequence[int],
    activation: Activation = relu,
    dropout: float | Array = 0.0,
) -> Sequential:
    """Dense layers down to a linear code, and back up to the input's shape: [batch, *shape] to
    logits [batch, *shape].

    Source: Hinton and Salakhutdinov, *Reducing the dimensionality of data with neural networks*
    (2006).

    Args:
        features: the width of each layer of the encoder, the last that of the code; the decoder has
            the same in reverse.
        shape: of one example.
        activation: after every layer but the code and the last.
        dropout: the rate at which hidden units, the code among them, are dropped in training.

    >>> dense_autoencoder(32, shape=784)
    Sequential(encoder=Sequential(Flatten(), Dense(32)),
               decoder=Sequential(Dense(784), Reshape((784,))))
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    drop = [] if is_zero(dropout) else [Dropout(dropout)]
    code = mlp(*features, activation=activation, dropout=dropout)
    widths = (*features[-2::-1], math.prod(shape))
    return Sequential(
        encoder=Sequential(Flatten(), *code, *drop),
        decoder=Sequential(*mlp(*widths, activation=activation, dropout=dropout), Reshape(shape)),
    )


def conv_autoencoder(
    *features: int, channels: int = 1, kernel_size: int = 3, activation: Activation = relu
) -> Sequential:
    """Convolutions that halve the image, and transposed ones that double it: [batch, *space,
    channels] to logits of that shape.

    Every size of an image has to be divisible by 2 to the number of stages.

    Args:
        features: the channels of each stage of the encoder; the decoder has the same in reverse.
        channels: of the images.
        kernel_size: of every convolution.
        activation: after every layer but the last.

    >>> conv_autoencoder(16)["decoder"]
    Sequential(ConvTranspose(16, 3, stride=2), relu, Conv(1, 3))
    """
    down = [part for width in features for part in (Conv(width, kernel_size, stride=2), activation)]
    up = [
        part
        for width in reversed(features)
        for part in (ConvTranspose(width, kernel_size, stride=2), activation)
    ]
    return Sequential(
        encoder=Sequential(*down), decoder=Sequential(*up, Conv(channels, kernel_size))
    )


@dataclasses.dataclass(frozen=True)
class VariationalAutoencoder(Layer):
    """An encoder to a normal distribution over codes, and a decoder from a code: [batch, ...] to
    what the decoder gives.

        h = encoder(x),  (μ, log σ²) = h W + b,  z = μ + σ · ε,  y = decoder(z)

    In training ε is drawn from N(0, I); in evaluation z = μ. Parameters: `encoder`, `posterior` (of
    W and b) and `decoder`. Trained by `dl.Variational`. Source: Kingma and Welling, *Auto-encoding
    variational Bayes* (2014), section 3.

    Args:
        encoder: a layer, or plain function, from inputs to features [batch, features].
        decoder: from codes [batch, latent] to what the likelihood reads: logits of the inputs'
            shape for a Bernoulli.
        latent: the length of a code.

    >>> import jaxdl as dl
    >>> encoder = dl.Sequential(dl.Flatten(), dl.Dense(400), dl.activations.relu)
    >>> output = dl.Dense(784), dl.Reshape((28, 28, 1))
    >>> decoder = dl.Sequential(dl.Dense(400), dl.activations.relu, *output)
    >>> model = VariationalAutoencoder(encoder, decoder, latent=20)
    >>> images = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.uint8)
    >>> params, state = model.init(jax.random.key(0), images)
    >>> model.sample(params, state, jax.random.key(1), 16).shape
    (16, 28, 28, 1)
    """

    encoder: Layer
    decoder: Layer
    latent: int
    takes_bytes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoder", as_layer(self.encoder))
        object.__setattr__(self, "decoder", as_layer(self.decoder))
        if (
            isinstance(self.latent, bool)
            or not isinstance(self.latent, (int, np.integer))
            or self.latent < 1
        ):
            raise LayerError(
                "VariationalAutoencoder",
                f"latent is the length of a code, at least 1, got {self.latent!r}.",
            )

    @property
    def _posterior(self) -> Dense:
        return Dense(2 * self.latent)

    def init(self, key: Array, x: Any) -> tuple[Params, State]:
        with located("encoder"):
            encoder, encoder_state = self.encoder.init(fold_in_name(key, "encoder"), x)
            h = jax.eval_shape(
                lambda p, s, v: self.encoder.apply(p, s, v)[0], encoder, encoder_state, x
            )
        if h.ndim != 2:
            raise LayerError(
                "VariationalAutoencoder",
                f"the encoder gives shape {h.shape}, expected [batch, features].",
            )
        posterior, _ = self._posterior.init(fold_in_name(key, "posterior"), h)
        with located("decoder"):
            z = jax.ShapeDtypeStruct((h.shape[0], self.latent), h.dtype)
            decoder, decoder_state = self.decoder.init(fold_in_name(key, "decoder"), z)
        state = {"encoder": encoder_state, "decoder": decoder_state}
        params = {"encoder": encoder, "posterior": posterior, "decoder": decoder}
        return {n: tree for n, tree in params.items() if tree}, {
            n: tree for n, tree in state.items() if tree
        }

    def apply(self, params: Params, state: State, x: Any, mode: Mode = Eval()) -> tuple[Any, State]:
        (mean, log_variance), state = self.encode(params, state, x, mode)
        z = draw(mode.within("code").key, mean, log_variance) if isinstance(mode, Train) else mean
        return self.decode(params, state, z, mode)

    def encode(
        self, params: Params, state: State, x: Any, mode: Mode = Eval()
    ) -> tuple[Posterior, State]:
        """μ and log σ² of the code's distribution for each input, and the next state."""
        h, state = self._run("encoder", self.encoder, params, state, x, mode)
        moments, _ = self._posterior.apply(params["posterior"], {}, h)
        return (moments[:, : self.latent], moments[:, self.latent :]), state

    def decode(
        self, params: Params, state: State, z: Float[Array, "batch latent"], mode: Mode = Eval()
    ) -> tuple[Any, State]:
        """What codes stand for, and the next state."""
        return self._run("decoder", self.decoder, params, state, z, mode)

    def sample(self, params: Params, state: State, key: Key[Array, ""], count: int) -> Any:
        """So many new examples: what the decoder gives for codes drawn from N(0, I)."""
        dtype = params["posterior"]["kernel"].dtype
        return self.decode(params, state, jax.random.normal(key, (count, self.latent), dtype))[0]

    def _run(
        self, name: str, layer: Layer, params: Params, state: State, x: Any, mode: Mode
    ) -> tuple[Any, State]:
        with located(name):
            y, new = layer.apply(params.get(name, {}), state.get(name, {}), x, mode.within(name))
        return y, {**state, name: new} if new else state


def draw(
    key: Key[Array, ""],
    mean: Float[Array, "batch latent"],
    log_variance: Float[Array, "batch latent"],
) -> Float[Array, "batch latent"]:
    """z = μ + σ · ε with ε from N(0, I): a draw through which gradients pass (Kingma and Welling,
    2014, section 2.4).
    """
    return mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape, mean.dtype)
