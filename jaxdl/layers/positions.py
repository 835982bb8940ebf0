"""Positions, added to the vectors of a sequence: attention without them does not know the order of
its steps.
"""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jaxdl.core.error import LayerError
from jaxdl.core.layer import Cache, OnPadded, Params, Span, State, Stateless
from jaxdl.layers import arguments
from jaxdl.layers.initializers import Initializer, Normal
from jaxdl.ops.floating import DType, widest

embedding_normal: Initializer = Normal(0.02)


@dataclasses.dataclass(frozen=True)
class SinusoidalPositions(Stateless):
    """y = x + P, with P[t, 2i] = sin(t · 10000^(−2i / features)) and P[t, 2i + 1] the cosine of the
    same angle.

    [batch, time, features] to the same. Source: Vaswani et al., 2017, section 3.5.
    """

    padded: ClassVar[OnPadded] = "each step"

    def weights(self, key: Array, x: Any) -> Params:
        del key
        _sequences("SinusoidalPositions", x)
        return {}

    def forward(self, params: Params, x: Array) -> Array:
        del params
        return self._added(x, jnp.zeros((), jnp.int32))

    def extend(
        self, params: Params, state: State, cache: Cache, x: Any, span: Span
    ) -> tuple[Array, Cache]:
        del params, state
        return self._added(x, span.start), cache

    def _added(self, x: Array, start: Array) -> Array:
        _sequences("SinusoidalPositions", x)
        x = arguments.floating("SinusoidalPositions", x)
        waves = sinusoids(start + jnp.arange(x.shape[1], dtype=jnp.int32), x.shape[2])
        return x + waves[None].astype(x.dtype)


def sinusoids(positions: Int[Array, " time"], features: int) -> Float[Array, "time features"]:
    """P of `SinusoidalPositions` at some positions, in float32."""
    pairs = jnp.arange((features + 1) // 2, dtype=jnp.float32)
    angles = positions.astype(jnp.float32)[:, None] * 10_000.0 ** (-2 * pairs / features)[None]
    waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1)
    return waves.reshape(len(positions), -1)[:, :features]


@dataclasses.dataclass(frozen=True)
class LearnedPositions(Stateless):
    """y[:, t] = x[:, t] + P[t], with a row of parameters for each position: [batch, time, features]
    to the same.

    Parameters: `embedding` P [longest, features]. Source: Gehring et al., 2017, section 3.1.

    Args:
        longest: how many positions there are; a longer sequence is refused. None is as many as the
            input of init has.
        embedding_init: from `dl.initializers`. GPT-2's N(0, 0.02²) suits embeddings, which are as
            small; what a dense layer or a convolution gives hides so small positions, and
            `Normal(1.0)` learns faster.
        dtype: of the output; None means the input's own.
        param_dtype: of the stored parameters.
    """

    longest: int | None = None
    embedding_init: Initializer = embedding_normal
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    padded: ClassVar[OnPadded] = "each step"

    def __post_init__(self) -> None:
        if self.longest is not None:
            arguments.positive("LearnedPositions", longest=self.longest)
        arguments.declared(self)

    def weights(self, key: Array, x: Any) -> Params:
        _sequences("LearnedPositions", x)
        arguments.init_floating("LearnedPositions", x, self.dtype)
        longest = x.shape[1] if self.longest is None else self.longest
        _fits(x.shape[1], longest)
        shape = (longest, x.shape[2])
        draw = functools.partial(arguments.drawn, "LearnedPositions", dtype=self.param_dtype)
        return {"embedding": draw("embedding_init", self.embedding_init, key, shape)}

    def forward(self, params: Params, x: Array) -> Array:
        return self._added(params, x, None)

    def extend(
        self, params: Params, state: State, cache: Cache, x: Any, span: Span
    ) -> tuple[Array, Cache]:
        del state
        _fits(span.longest, params["embedding"].shape[0])
        return self._added(params, x, span.start), cache

    def _added(self, params: Params, x: Array, start: Array | None) -> Array:
        _sequences("LearnedPositions", x)
        arguments.parameters("LearnedPositions", params, embedding=(self.longest, None))
        embedding, steps = params["embedding"], x.shape[1]
        arguments.same_features("LearnedPositions", x, embedding.shape[1])
        _fits(steps, embedding.shape[0])
        x = arguments.floating("LearnedPositions", x, self.dtype)
        rows = (
            embedding[:steps]
            if start is None
            else jax.lax.dynamic_slice_in_dim(embedding, start, steps)
        )
        wide = widest(x.dtype)  # in which the gradient is summed over the batch
        return (x.astype(wide) + rows[None].astype(wide)).astype(x.dtype)


def _sequences(layer: str, x: Any) -> None:
    arguments.array(layer, x)
    if len(x.shape) != 3:
        raise LayerError(
            layer,
            f"expected [batch, time, features], got shape {tuple(x.shape)} — one sequence alone "
            f"needs x[None].",
        )
    arguments.features(layer, x)


def _fits(steps: int, longest: int) -> None:
    if steps > longest:
        raise LayerError(
            "LearnedPositions",
            f"a sequence of {steps} steps is longer than the {longest} positions that are learnt — "
            f"cut it, learn more "
            "positions, or use SinusoidalPositions or rotary ones, which have no end.",
        )
