"""Routing of tokens to experts: gates, the losses of a router, and places in buffers of a fixed
capacity.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int

from jaxdl.ops.floating import widest
from jaxdl.ops.sharding import gathered

SLACK = 1e-3
"""How much of a token a capacity may exceed a whole number before it is rounded up: the product in
float32 of a factor and a number of tokens is inexact.
"""


class Routes(NamedTuple):
    """Where tokens go.

    Args:
        chosen: [tokens, k] int32, the experts of each token, the most probable first.
        gates: [tokens, k], their weights; 0 for tokens that do not count.
    """

    chosen: Array
    gates: Array


class Buffers(NamedTuple):
    """The places of tokens in the buffers of experts.

    Args:
        source: [experts, capacity] int32, the token in each place; the number of tokens where the
            place is empty.
        place: [tokens, k] int32, the place of each choice of a token, counted over all experts;
            experts · capacity where it is dropped.
    """

    source: Array
    place: Array


def logits(
    x: Float[Array, "tokens features"],
    kernel: Float[Array, "features experts"],
) -> Float[Array, "tokens experts"]:
    """x W in at least float32, also where the platform multiplies in less by default: a rounding
    error may send a token elsewhere (Fedus et al., 2022, section 2.4).

    Args:
        x: the tokens.
        kernel: W.
    """
    wide = widest(x.dtype, kernel.dtype)
    kernel = gathered(kernel.astype(wide))
    return jnp.matmul(x.astype(wide), kernel, precision=lax.Precision.HIGHEST)


def top_k(
    probabilities: Float[Array, "tokens experts"],
    k: int,
    mask: Bool[Array, " tokens"] | None,
) -> Routes:
    """The k most probable experts of each token; of equally probable ones, the first.

        g = p_e for k = 1,  g_e = p_e / Σ p over the chosen ones for more

    Args:
        probabilities: p, the softmax of the router's logits.
        k: the number of experts of a token.
        mask: the tokens that count, or None if all do.
    """
    _, chosen = lax.top_k(lax.stop_gradient(probabilities), k)
    gates = jnp.where(one_hot(chosen, probabilities.shape[1]), probabilities[:, None], 0).sum(2)
    if k > 1:
        gates = gates / gates.sum(1, keepdims=True)
    if mask is not None:
        gates = jnp.where(mask[:, None], gates, 0)
    return Routes(chosen, gates)


def one_hot(
    chosen: Int[Array, "tokens k"],
    experts: int,
    mask: Bool[Array, " tokens"] | None = None,
) -> Bool[Array, "tokens k experts"]:
    """Whether each choice of a token is the expert; False for tokens that do not count.

    Args:
        chosen: of `Routes`.
        experts: how many there are.
        mask: the tokens that count, or None if all do.
    """
    is_chosen = chosen[:, :, None] == jnp.arange(experts, dtype=chosen.dtype)[None, None]
    return is_chosen if mask is None else is_chosen & mask[:, None, None]


def load_balance(
    probabilities: Float[Array, "tokens experts"],
    chosen: Int[Array, "tokens k"],
    mask: Bool[Array, " tokens"] | None = None,
    across: str | None = None,
) -> Float[Array, ""]:
    """E Σ_e f_e P_e, where f_e is the fraction of choices that are expert e, and P_e the mean of
    its probability: 1 if both are uniform, and E if all tokens go to one expert with certainty.

    The gradient flows through P. Source: Fedus et al., *Switch Transformers* (2022), equations 4
    to 6, for k = 1.

    Args:
        probabilities: the softmax of the router's logits.
        chosen: of `Routes`.
        mask: the tokens that count, or None if all do.
        across: the mapped axis along which the batch is sharded; f and P are those of all shards.
    """
    experts = probabilities.shape[1]
    choices = one_hot(chosen, experts, mask).sum((0, 1), dtype=probabilities.dtype)
    if mask is not None:
        probabilities = jnp.where(mask[:, None], probabilities, 0)
    tokens = count(probabilities, mask, across)
    fractions = _over_shards(choices, across) / (tokens * chosen.shape[1])
    means = _over_shards(probabilities.sum(0), across) / tokens
    return experts * (fractions * means).sum()


def z_loss(
    logits: Float[Array, "tokens experts"],
    mask: Bool[Array, " tokens"] | None = None,
    across: str | None = None,
) -> Float[Array, ""]:
    """The mean over tokens of (log Σ_e exp l_e)², which keeps logits small (Zoph et al., *ST-MoE*,
    2022, equation 5).

    Args:
        logits: l, of the router.
        mask, across: as in `load_balance`.
    """
    squares = jnp.square(jax.nn.logsumexp(logits, axis=1))
    if mask is not None:
        squares = jnp.where(mask, squares, 0)
    return _over_shards(squares.sum(), across) / count(logits, mask, across)


def count(
    x: Float[Array, "tokens experts"],
    mask: Bool[Array, " tokens"] | None,
    across: str | None,
) -> Float[Array, ""]:
    """The number of tokens that count, at least 1, in x's dtype; arguments as in
    `load_balance`.
    """
    tokens = jnp.asarray(x.shape[0], x.dtype) if mask is None else mask.sum(dtype=x.dtype)
    return jnp.maximum(_over_shards(tokens, across), 1)


def _over_shards(x: Array, across: str | None) -> Array:
    return x if across is None else lax.psum(x, across)


def buffers(
    chosen: Int[Array, "tokens k"],
    experts: int,
    factor: float,
    mask: Bool[Array, " tokens"] | None = None,
) -> Buffers:
    """Places for tokens in buffers of ⌈factor · k · tokens / experts⌉ an expert.

    All first choices take their places before the second ones (Lepikhin et al., *GShard*, 2021,
    algorithm 1), each in the order of the tokens, and those that find none are dropped. The
    capacity is that of the tokens that count, so that the others change nothing. Source: Fedus et
    al., 2022, section 2.2.

    Args:
        chosen: of `Routes`.
        experts: how many there are.
        factor: 1 is just enough for tokens that spread evenly.
        mask: the tokens that count, or None if all do.
    """
    tokens, k = chosen.shape
    share = factor * k / experts
    capacity = min(max(math.ceil(share * tokens - SLACK), 1), tokens)
    limit = jnp.asarray(capacity, jnp.int32)
    if mask is not None:
        counted = mask.sum(dtype=jnp.float32)
        limit = jnp.minimum(jnp.ceil(share * counted - SLACK).astype(jnp.int32), limit)
        limit = jnp.maximum(limit, 1)
    is_chosen = one_hot(chosen, experts, mask).swapaxes(0, 1).reshape(k * tokens, experts)
    # XLA on a CPU would compute jnp.cumsum as a window over all tokens.
    before = lax.associative_scan(jnp.add, is_chosen.astype(jnp.int32)) - 1
    position = jnp.where(is_chosen, before, 0).sum(1, dtype=jnp.int32)
    is_kept = is_chosen.any(1) & (position < limit)
    expert = chosen.T.reshape(-1)
    place = jnp.where(is_kept, expert * capacity + position, experts * capacity)
    token = jnp.tile(jnp.arange(tokens, dtype=jnp.int32), k)
    source = jnp.full(experts * capacity, tokens, jnp.int32).at[place].set(token, mode="drop")
    return Buffers(source.reshape(experts, capacity), place.reshape(k, tokens).T)


def dispatch(
    x: Float[Array, "tokens features"],
    places: Buffers,
) -> Float[Array, "experts capacity features"]:
    """The tokens in the buffers of their experts, with zeros in empty places."""
    return x.at[places.source].get(mode="fill", fill_value=0)


def combine(
    y: Float[Array, "experts capacity features"],
    places: Buffers,
    gates: Float[Array, "tokens k"],
) -> Float[Array, "tokens features"]:
    """Σ g y over the choices of each token that were not dropped; the sum is taken in at least
    float32.

    Args:
        y: the outputs of the experts.
        places: of the tokens in their buffers.
        gates: g, of `Routes`.
    """
    wide = widest(y.dtype, gates.dtype)
    flat = y.reshape(-1, y.shape[-1]).astype(wide)
    each = flat.at[places.place].get(mode="fill", fill_value=0)
    return (each * gates[:, :, None].astype(wide)).sum(1).astype(y.dtype)


def combine_all(
    y: Float[Array, "experts tokens features"],
    routes: Routes,
) -> Float[Array, "tokens features"]:
    """Σ g y over the choices of each token, from the outputs of all experts for all tokens; the sum
    is taken in at least float32.

    Args:
        y: the outputs of the experts.
        routes: of the tokens.
    """
    wide = widest(y.dtype, routes.gates.dtype)
    is_chosen = one_hot(routes.chosen, y.shape[0])
    weights = jnp.where(is_chosen, routes.gates[:, :, None], 0).sum(1).T.astype(wide)
    return (y.astype(wide) * weights[:, :, None]).sum(0).astype(y.dtype)
