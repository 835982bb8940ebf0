"""Autoencoders, and the variational autoencoder."""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError, located
from jaxdl.core.function import as_layer
from jaxdl.core.keys import fold_in_name
from jaxdl.core.layer import Layer, Params, State
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.core.number import is_integer
from jaxdl.layers.conv import Conv, ConvTranspose
from jaxdl.layers.dense import Dense
from jaxdl.layers.sequential import Sequential
from jaxdl.layers.shape import Flatten, Reshape
from jaxdl.models.mlp import Activation, dropout_layers, mlp
from jaxdl.ops.activations import relu

Posterior = tuple[Float[Array, "batch latent"], Float[Array, "batch latent"]]
"""μ and log σ²."""


def dense_autoencoder(
    *features: int,
    shape: int | Sequence[int],
    activation: Activation = relu,
    dropout: float | Array = 0.0,
) -> Sequential:
    """Dense layers to a linear code, and back to the shape of the input: [batch, *shape] to logits
    [batch, *shape].

    Source: Hinton and Salakhutdinov, *Reducing the dimensionality of data with neural networks*
    (2006).

    Args:
        features: the width of each layer of the encoder, the last that of the code; the decoder has
            the same in reverse.
        shape: of one example.
        activation: after every layer but the code and the last.
        dropout: the probability that a hidden unit, or an element of the code, is dropped in
            training.

    Returns:
        A `Sequential` of `encoder` and `decoder`.

    Raises:
        LayerError: an argument of a layer is invalid.

    >>> dense_autoencoder(32, shape=784)
    Sequential(encoder=Sequential(Flatten(), Dense(32)),
               decoder=Sequential(Dense(784), Reshape((784,))))
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    code = mlp(*features, activation=activation, dropout=dropout)
    encoder = Sequential(Flatten(), *code, *dropout_layers(dropout))
    widths = (*features[-2::-1], math.prod(shape))
    output = mlp(*widths, activation=activation, dropout=dropout)
    return Sequential(encoder=encoder, decoder=Sequential(*output, Reshape(shape)))


def conv_autoencoder(
    *features: int, channels: int = 1, kernel_size: int = 3, activation: Activation = relu
) -> Sequential:
    """Convolutions that halve the size of an image, and transposed ones that double it: [batch,
    *space, channels] to logits of that shape.

    Each spatial size has to be divisible by 2 to the power of the number of stages. Source: Masci
    et al., *Stacked convolutional auto-encoders* (2011).

    Args:
        features: the channels of each stage of the encoder; the decoder has the same in reverse.
        channels: of the images.
        kernel_size: of every convolution.
        activation: after every layer but the last.

    Returns:
        A `Sequential` of `encoder` and `decoder`.

    Raises:
        LayerError: an argument of a layer is invalid.

    >>> conv_autoencoder(16)["decoder"]
    Sequential(ConvTranspose(16, 3, stride=2), relu, Conv(1, 3))
    """
    down: list[Activation] = []
    for width in features:
        down += [Conv(width, kernel_size, stride=2), activation]
    up: list[Activation] = []
    for width in reversed(features):
        up += [ConvTranspose(width, kernel_size, stride=2), activation]
    decoder = Sequential(*up, Conv(channels, kernel_size))
    return Sequential(encoder=Sequential(*down), decoder=decoder)


@dataclasses.dataclass(frozen=True)
class VariationalAutoencoder(Layer):
    """An encoder to a normal distribution over codes, and a decoder from a code: [batch, ...] to
    the outputs of the decoder.

        h = encoder(x),  (μ, log σ²) = h W + b,  z = μ + σ · ε,  y = decoder(z)

    In training ε is drawn from N(0, I); in evaluation z = μ. It is trained by `dl.Variational`.
    Source: Kingma and Welling, *Auto-encoding variational Bayes* (2014), section 3.

    Parameters: `encoder`, `posterior` (W and b) and `decoder`.

    Args:
        encoder: a layer, or plain function, from inputs to features [batch, features].
        decoder: from codes [batch, latent] to the parameters of the likelihood: logits of the
            inputs' shape for a Bernoulli distribution.
        latent: the size of a code.

    Raises:
        LayerError: `latent` is invalid, or the encoder's outputs are not [batch, features].

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
        if not is_integer(self.latent) or self.latent < 1:
            raise LayerError(
                "VariationalAutoencoder",
                f"latent is the length of a code, at least 1, got {self.latent!r}.",
            )

    @property
    def _posterior(self) -> Dense:
        return Dense(2 * self.latent)

    def init(self, key: Array, x: PyTree) -> tuple[Params, State]:
        def encode(params: Params, state: State, x: PyTree) -> PyTree:
            return self.encoder.apply(params, state, x)[0]

        with located("encoder"):
            encoder, encoder_state = self.encoder.init(fold_in_name(key, "encoder"), x)
            h = jax.eval_shape(encode, encoder, encoder_state, x)
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
        return _without_empty(params), _without_empty(state)

    def apply(
        self, params: Params, state: State, x: PyTree, mode: Mode = Eval()
    ) -> tuple[PyTree, State]:
        (mean, log_variance), state = self.encode(params, state, x, mode)
        z = mean
        if isinstance(mode, Train):
            z = draw(mode.for_part("code").key, mean, log_variance)
        return self.decode_latent(params, state, z, mode)

    def encode(
        self, params: Params, state: State, x: PyTree, mode: Mode = Eval()
    ) -> tuple[Posterior, State]:
        """The distribution over codes for each input.

        Args:
            params: the parameters.
            state: the state.
            x: an input [batch, ...].
            mode: `Train(key)` or `Eval()`.

        Returns:
            μ and log σ² [batch, latent], and the next state.
        """
        h, state = self._run("encoder", self.encoder, params, state, x, mode)
        moments, _ = self._posterior.apply(params["posterior"], {}, h)
        return (moments[:, : self.latent], moments[:, self.latent :]), state

    def decode_latent(
        self, params: Params, state: State, z: Float[Array, "batch latent"], mode: Mode = Eval()
    ) -> tuple[PyTree, State]:
        """The outputs of the decoder.

        Args:
            params: the parameters.
            state: the state.
            z: codes [batch, latent].
            mode: `Train(key)` or `Eval()`.

        Returns:
            The outputs, and the next state.
        """
        return self._run("decoder", self.decoder, params, state, z, mode)

    def sample(self, params: Params, state: State, key: Key[Array, ""], count: int) -> PyTree:
        """New examples: the outputs of the decoder for codes drawn from N(0, I).

        Args:
            params: the parameters.
            state: the state.
            key: a typed key.
            count: the number of examples.
        """
        dtype = params["posterior"]["kernel"].dtype
        z = jax.random.normal(key, (count, self.latent), dtype)
        return self.decode_latent(params, state, z)[0]

    def _run(
        self, name: str, layer: Layer, params: Params, state: State, x: PyTree, mode: Mode
    ) -> tuple[PyTree, State]:
        with located(name):
            y, new = layer.apply(
                params.get(name, {}), state.get(name, {}), x, mode.for_part(name)
            )
        if new:
            state = {**state, name: new}
        return y, state


def _without_empty(trees: dict[str, PyTree]) -> dict[str, PyTree]:
    return {name: tree for name, tree in trees.items() if tree}


def draw(
    key: Key[Array, ""],
    mean: Float[Array, "batch latent"],
    log_variance: Float[Array, "batch latent"],
) -> Float[Array, "batch latent"]:
    """z = μ + σ · ε with ε from N(0, I), the reparameterized draw (Kingma and Welling, 2014,
    section 2.4).

    Args:
        key: a typed key.
        mean: μ.
        log_variance: log σ².
    """
    return mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape, mean.dtype)
