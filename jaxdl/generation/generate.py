"""Text from a language model: one compiled program that reads the prompt once, and then each token
that it draws.
"""

import functools
from typing import overload

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Int32, Key

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.layer import Cache, Layer, Params, Span, State
from jaxdl.core.padded import Padded
from jaxdl.generation.checks import (
    check_lengths,
    check_logits,
    check_prompt,
    check_settings,
    check_tokens,
    shortest_length,
    tokens_and_lengths,
)
from jaxdl.generation.sampling import draw
from jaxdl.layers.attend import Attend

Tokens = Int32[Array, "batch time"]
Continued = Int32[Array, "batch length"]

_Carry = tuple[Array, Array, Array, Cache]
"""The position, the sequences, their lengths, and what the model remembers."""


@overload
def generate(
    model: Layer,
    params: Params,
    state: State,
    prompt: Padded,
    steps: int,
    *,
    key: Key[Array, ""] | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | None = None,
    memory: PyTree = None,
) -> Padded:
    """Prompts of different lengths: each continued from its own end."""


@overload
def generate(
    model: Layer,
    params: Params,
    state: State,
    prompt: ArrayLike,
    steps: int,
    *,
    key: Key[Array, ""] | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: None = None,
    memory: PyTree = None,
) -> Continued:
    """Without a token to stop at: all sequences continued by so many steps."""


@overload
def generate(
    model: Layer,
    params: Params,
    state: State,
    prompt: ArrayLike,
    steps: int,
    *,
    key: Key[Array, ""] | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int,
    memory: PyTree = None,
) -> Padded:
    """With one: each ends behind it, so that their lengths differ."""


def generate(
    model: Layer,
    params: Params,
    state: State,
    prompt: object,
    steps: int,
    *,
    key: Key[Array, ""] | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | None = None,
    memory: PyTree = None,
) -> Array | Padded:
    """Continues sequences of tokens by a language model: token t + 1 is drawn from softmax(logits_t
    / temperature).

    The model maps tokens [batch, time] to logits [batch, time, vocabulary] and reads a sequence
    step by step (`Layer.decode`): models of attention with causal=True, positions, recurrent layers
    and layers that compute each step alone do. What attention remembers has one size from the
    beginning, so that each token costs the same, however many went before.

    Args:
        model: the language model.
        params: of the model.
        state: of the model.
        prompt: [batch, time] integers, at least one token each; or `Padded` ones of different
            lengths, of which each is continued from its own end. They are read at once up to the
            end of the shortest, and token by token from there.
        steps: how many tokens to add to each.
        key: a typed key; none is needed where temperature is 0.
        temperature: below 1 the likelier tokens become likelier still; at 0 the likeliest is taken.
        top_k: draws from the k likeliest tokens alone; among equally likely ones, from the first.
        top_p: draws from the fewest tokens that together have this probability, the likeliest
            (Holtzman et al., 2020, section 3.1); after temperature and top_k. A sum that is less by
            no more than its rounding counts as reached.
        stop: the token that ends a sequence. Behind it the sequence is filled with it, and the
            program ends when all have.
        memory: the sequence that a decoder attends to, such as the output of an encoder, [batch,
            keys, features] or `Padded`: the model maps `Attend(tokens, memory)` to logits.

    Returns:
        [batch, time + steps] int32, the prompt included; of a `Padded` prompt, and with a stop
        token, `Padded`, whose lengths count up to the last token that was added, which may be the
        first stop token. What lies behind is the stop token, or 0.

    Raises:
        ValueError: an argument is out of its range, or the model gives no logits for each token.
        LayerError: a part of the model cannot read a sequence step by step, or has no more
            positions.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> model = dl.models.gpt(65, layers=1, heads=2, features=16, context=32)
    >>> prompt = jnp.zeros((3, 5), jnp.int32)
    >>> params, state = model.init(jax.random.key(0), prompt)
    >>> dl.generate(model, params, state, prompt, 10, key=jax.random.key(1), top_k=20).shape
    (3, 15)
    """
    tokens, lengths = tokens_and_lengths(prompt)
    check_settings(steps, key, temperature, top_k, top_p, stop)
    check_prompt(tokens)
    if lengths is not None:
        check_lengths(lengths, tokens.shape)
        lengths = jnp.asarray(lengths).astype(jnp.int32)
        tokens = jnp.where(Padded(tokens, lengths).mask, tokens, 0 if stop is None else stop)
    check_tokens(model, params, state, tokens, stop, memory)
    tokens = jnp.asarray(tokens).astype(jnp.int32)
    if key is None:
        key = jax.random.key(0)
    shortest = shortest_length(lengths, tokens.shape[1])
    tokens, ends = _generated(
        model,
        params,
        state,
        tokens,
        lengths,
        shortest,
        steps,
        key,
        temperature,
        top_k,
        top_p,
        stop,
        memory,
    )
    return tokens if lengths is None and stop is None else Padded(tokens, ends)


@functools.partial(
    jax.jit,
    static_argnames=("model", "shortest", "steps", "temperature", "top_k", "top_p", "stop"),
)
def _generated(
    model: Layer,
    params: Params,
    state: State,
    prompt: Tokens,
    lengths: Int32[Array, " batch"] | None,
    shortest: int,
    steps: int,
    key: Array,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    stop: int | None,
    memory: PyTree,
) -> tuple[Continued, Int32[Array, " batch"]]:
    """The sequences and where they end, of prompts that are all at least as long as the
    shortest.
    """
    batch, time = prompt.shape
    max_length = time + steps
    fill = 0 if stop is None else stop

    read = functools.partial(_read, model, (params, state), memory, max_length)

    def chosen(
        logits: Array, position: Array, tokens: Array, ends: Array
    ) -> tuple[Array, Array]:
        """The sequences with the token at a position, and their lengths if it ends them."""
        token = draw(jax.random.fold_in(key, position), logits, temperature, top_k, top_p)
        if stop is not None or lengths is not None:
            token = jnp.where(position < ends, token, fill)
        if lengths is not None:
            given = lax.dynamic_slice(tokens, (0, position), (batch, 1))[:, 0]
            token = jnp.where(position < lengths, given, token)
        if stop is not None:
            added = position < ends
            if lengths is not None:
                added = added & (position >= lengths)
            ends = jnp.where(added & (token == stop), position + 1, ends)
        return lax.dynamic_update_slice(tokens, token[:, None], (0, position)), ends

    def step(carry: _Carry) -> _Carry:
        position, tokens, ends, cache = carry
        last = lax.dynamic_slice(tokens, (0, position - 1), (batch, 1))
        logits, cache = read(cache, last, position - 1)
        tokens, ends = chosen(logits, position, tokens, ends)
        return position + 1, tokens, ends, cache

    def unfinished(carry: _Carry) -> Array:
        position, _, ends, _ = carry
        return (position < max_length) & jnp.any(ends > position)

    ends = jnp.full(batch, max_length, jnp.int32) if lengths is None else lengths + steps
    if not steps:
        return prompt, ends
    logits, cache = read({}, prompt[:, :shortest], jnp.zeros((), jnp.int32))
    position = jnp.asarray(shortest, jnp.int32)
    tokens = jnp.concatenate([prompt, jnp.full((batch, steps), fill, jnp.int32)], 1)
    tokens, ends = chosen(logits, position, tokens, ends)
    _, tokens, ends, _ = lax.while_loop(unfinished, step, (position + 1, tokens, ends, cache))
    return tokens, ends


def _read(
    model: Layer,
    given: tuple[Params, State],
    memory: PyTree,
    max_length: int,
    cache: Cache,
    tokens: Array,
    start: Array,
) -> tuple[Array, Cache]:
    """The logits that follow some tokens, the first of which is at `start`, and the cache after
    them.
    """
    x = tokens if memory is None else Attend(tokens, memory)
    logits, cache = model.decode(*given, cache, x, Span(start, max_length))
    check_logits(logits, tokens)
    return logits[:, -1], cache
