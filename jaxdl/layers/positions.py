"""Positions: attention alone does not depend on the order of its steps. They are added to the
vectors of a sequence, or rotate the queries and keys of attention.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError
from jaxdl.core.layer import Cache, OnPadded, Params, Span, State, Stateless
from jaxdl.core.number import is_integer, is_number
from jaxdl.core.representation import call_repr
from jaxdl.core.values import Value
from jaxdl.layers import arguments, inputs, parameters
from jaxdl.layers.initializers import Initializer, Normal
from jaxdl.ops.attention import rotary
from jaxdl.ops.floating import DType, widest

embedding_normal: Initializer = Normal(0.02)


@dataclasses.dataclass(frozen=True)
class SinusoidalPositions(Stateless):
    """y = x + P, with P[t, 2i] = sin(t · 10000^(−2i / features)) and P[t, 2i + 1] the cosine of the
    same angle: [batch, time, features] to the same.

    Source: Vaswani et al., 2017, section 3.5.

    Raises:
        LayerError: an input is not [batch, time, features].
    """

    padded: ClassVar[OnPadded] = "pointwise"

    def weights(self, key: Array, x: PyTree) -> Params:
        del key
        _check_sequences("SinusoidalPositions", x)
        return {}

    def forward(self, params: Params, x: Array) -> Array:
        del params
        return self._add(x, jnp.zeros((), jnp.int32))

    def decode(
        self, params: Params, state: State, cache: Cache, x: PyTree, span: Span
    ) -> tuple[Array, Cache]:
        """Adds the positions from `span.start` on; nothing is cached."""
        del params, state
        return self._add(x, span.start), cache

    def _add(self, x: Array, start: Array) -> Array:
        _check_sequences("SinusoidalPositions", x)
        x = inputs.as_computed("SinusoidalPositions", x)
        waves = sinusoids(start + jnp.arange(x.shape[1], dtype=jnp.int32), x.shape[2])
        return x + waves[None].astype(x.dtype)


def sinusoids(positions: Int[Array, " time"], features: int) -> Float[Array, "time features"]:
    """P of `SinusoidalPositions` at some positions, in float32.

    Args:
        positions: [time] int32.
        features: the size of a vector.
    """
    pairs = jnp.arange((features + 1) // 2, dtype=jnp.float32)
    angles = positions.astype(jnp.float32)[:, None] * 10_000.0 ** (-2 * pairs / features)[None]
    waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1)
    return waves.reshape(len(positions), -1)[:, :features]


@dataclasses.dataclass(frozen=True)
class LearnedPositions(Stateless):
    """y[:, t] = x[:, t] + P[t], with a row of parameters for each position: [batch, time, features]
    to the same.

    Parameters: `embedding` P [max_length, features]. Source: Gehring et al., 2017, section 3.1.

    Args:
        max_length: the number of positions; None is the length of the input of init.
        embedding_init: from `dl.initializers`. GPT-2's N(0, 0.02²) suits embeddings, which are as
            small; it is lost in the outputs of a dense layer or a convolution, with which
            `Normal(1.0)` learns faster.
        dtype: of the output; None is the input's own.
        param_dtype: of the stored parameters.

    Raises:
        LayerError: an argument is invalid, or a sequence is longer than `max_length`.
    """

    max_length: int | None = None
    embedding_init: Initializer = embedding_normal
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    padded: ClassVar[OnPadded] = "pointwise"

    def __post_init__(self) -> None:
        if self.max_length is not None:
            arguments.check_positive("LearnedPositions", max_length=self.max_length)
        arguments.check_fields(self)

    def weights(self, key: Array, x: PyTree) -> Params:
        _check_sequences("LearnedPositions", x)
        inputs.check_floating("LearnedPositions", x, self.dtype)
        max_length = x.shape[1] if self.max_length is None else self.max_length
        _check_length(x.shape[1], max_length)
        shape = (max_length, x.shape[2])
        embedding = parameters.draw(
            "LearnedPositions",
            "embedding_init",
            self.embedding_init,
            key,
            shape,
            self.param_dtype,
        )
        return {"embedding": embedding}

    def forward(self, params: Params, x: Array) -> Array:
        return self._add(params, x, None)

    def decode(
        self, params: Params, state: State, cache: Cache, x: PyTree, span: Span
    ) -> tuple[Array, Cache]:
        """Adds the positions from `span.start` on; nothing is cached."""
        del state
        _check_length(span.max_length, params["embedding"].shape[0])
        return self._add(params, x, span.start), cache

    def _add(self, params: Params, x: Array, start: Array | None) -> Array:
        _check_sequences("LearnedPositions", x)
        parameters.check_shapes("LearnedPositions", params, embedding=(self.max_length, None))
        embedding = params["embedding"]
        steps = x.shape[1]
        inputs.check_features("LearnedPositions", x, embedding.shape[1])
        _check_length(steps, embedding.shape[0])
        x = inputs.as_computed("LearnedPositions", x, self.dtype)
        if start is None:
            rows = embedding[:steps]
        else:
            rows = jax.lax.dynamic_slice_in_dim(embedding, start, steps)
        # The gradient is summed over the batch in the wide dtype.
        wide = widest(x.dtype)
        return (x.astype(wide) + rows[None].astype(wide)).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Rotary(Value):
    """How the queries and keys of attention are rotated by their positions
    (`ops.attention.rotary`): the argument `rotary` of `MultiHeadAttention` and of the blocks of
    transformers.

    Source: Su et al., 2021, section 3.2.

    Args:
        features: how many features of each head are rotated, the first ones; None is all.
        interleaved: whether neighbours are paired, as in GPT-J, and not the two halves, as in
            GPT-NeoX and Llama.
        base: of the angles, position · base^(−2i / features).

    Raises:
        LayerError: an argument is invalid.

    >>> import jaxdl as dl
    >>> gpt_j = dl.MultiHeadAttention(16, causal=True, rotary=dl.Rotary(64, interleaved=True))
    """

    features: int | None = None
    interleaved: bool = False
    base: float = 10_000.0

    def __post_init__(self) -> None:
        arguments.check_flag("Rotary", interleaved=self.interleaved)
        features = self.features
        is_even = is_integer(features) and features > 0 and features % 2 == 0
        if features is not None and not is_even:
            raise LayerError(
                "Rotary",
                f"features is an even number of at least 2, since pairs are rotated, got "
                f"{features!r}.",
            )
        if not (is_number(self.base) and self.base > 0):
            raise LayerError("Rotary", f"base is a finite number above 0, got {self.base!r}.")

    def __call__(
        self, x: Float[Array, "batch time heads width"], positions: Int[Array, " time"]
    ) -> Float[Array, "batch time heads width"]:
        """The rotated queries or keys.

        Args:
            x: [batch, time, heads, width].
            positions: [time] int32.
        """
        return rotary(
            x,
            positions,
            features=self.features,
            interleaved=self.interleaved,
            base=float(self.base),
        )

    def check_width(self, layer: str, width: int) -> None:
        """Checks that heads of a width can be rotated.

        Raises:
            LayerError: they cannot.
        """
        if self.features is None and width % 2:
            raise LayerError(
                layer,
                f"rotary positions turn pairs of features, and the {width} features of a head "
                f"leave an odd number — choose another number of heads or features.",
            )
        if self.features is not None and self.features > width:
            raise LayerError(
                layer,
                f"rotary positions turn {self.features} features of each head, and a head has "
                f"{width}.",
            )

    def __repr__(self) -> str:
        return call_repr(self)


def as_rotary(layer: str, rotary: object) -> Rotary | None:
    """The argument `rotary` of a layer as a `Rotary`, or None.

    Raises:
        LayerError: it is neither a flag nor a `Rotary`.
    """
    if isinstance(rotary, Rotary):
        return rotary
    if not isinstance(rotary, (bool, np.bool_)):
        raise LayerError(layer, f"rotary is True or False, or a Rotary, got {rotary!r}.")
    return Rotary() if rotary else None


def _check_sequences(layer: str, x: PyTree) -> None:
    inputs.check_array(layer, x)
    inputs.check_sequences(layer, x)
    inputs.features(layer, x)


def _check_length(steps: int, max_length: int) -> None:
    if steps > max_length:
        raise LayerError(
            "LearnedPositions",
            f"a sequence of {steps} steps is longer than the {max_length} positions that are "
            f"learnt — cut it, learn more "
            "positions, or use SinusoidalPositions or rotary ones, which have no end.",
        )
