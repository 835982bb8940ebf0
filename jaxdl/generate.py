"""Text from a language model: one compiled program that reads the prompt once, and then each token that it draws."""

import functools
import math
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jaxtyping import Float, Int32, Key

from jaxdl.layer import Cache, Layer, Params, Span, State
from jaxdl.padded import Padded
from jaxdl.train.feed import host_array
from jaxdl.tree import Shapes, frozen_shapes, thawed_shapes

Tokens = Int32[Array, "batch time"]
Continued = Int32[Array, "batch length"]


@overload
def generate(
    model: Layer,
    params: Params,
    state: State,
    prompt: Any,
    steps: int,
    *,
    key: Key[Array, ""] | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: None = None,
) -> Continued:
    """Without a token to stop at: all sequences continued by so many steps."""


@overload
def generate(
    model: Layer,
    params: Params,
    state: State,
    prompt: Any,
    steps: int,
    *,
    key: Key[Array, ""] | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int,
) -> Padded:
    """With one: each ends behind it, so that their lengths differ."""


def generate(
    model: Layer,
    params: Params,
    state: State,
    prompt: Any,
    steps: int,
    *,
    key: Key[Array, ""] | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | None = None,
) -> Any:
    """Continues sequences of tokens by a language model: token t + 1 is drawn from softmax(logits_t / temperature).

    The model maps tokens [batch, time] to logits [batch, time, vocabulary] and reads a sequence step by step (`Layer.extend`):
    models of attention with causal=True, positions, recurrent layers and layers that compute each step alone do. What
    attention remembers has one size from the beginning, so that each token costs the same, however many went before.

    Args:
        model, params, state: the language model.
        prompt: [batch, time] integers, at least one token each.
        steps: how many tokens to add.
        key: a typed key; none is needed where temperature is 0.
        temperature: below 1 the likelier tokens become likelier still; at 0 the likeliest is taken.
        top_k: draws from the k likeliest tokens alone.
        top_p: draws from the likeliest tokens that together have this probability, and no fewer than one (Holtzman et al.,
            2020, section 3.1); after temperature and top_k.
        stop: the token that ends a sequence. Behind it the sequence is filled with it, and the program ends when all have.

    Returns:
        [batch, time + steps] int32, the prompt included; with a stop token `Padded`, whose lengths count up to the first stop
        token that was added, and include it.

    Raises:
        ValueError: an argument is out of its range, or the model gives no logits for each token.
        LayerError: a part of the model cannot read a sequence step by step, or has no more positions.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> model = dl.models.gpt(65, layers=2, heads=2, features=16, context=32)
    >>> prompt = jnp.zeros((3, 5), jnp.int32)
    >>> params, state = model.init(jax.random.key(0), prompt)
    >>> dl.generate(model, params, state, prompt, 10, key=jax.random.key(1), top_k=20).shape
    (3, 15)
    """
    prompt = prompt if isinstance(prompt, Array) else host_array(prompt)
    _check(prompt, steps, key, temperature, top_k, top_p, stop)
    _check_tokens(model, params, state, prompt, stop)
    prompt = jnp.asarray(prompt)
    key = jax.random.key(0) if key is None else key
    tokens, lengths = _generated(model, params, state, prompt.astype(jnp.int32), steps, key, temperature, top_k, top_p, stop)
    return tokens if stop is None else Padded(tokens, lengths)


def draw(
    key: Key[Array, ""],
    logits: Float[Array, "batch vocabulary"],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Int32[Array, " batch"]:
    """One token for each row of logits; arguments as in `generate`. Where several tie for the last place, all of them stay."""
    if temperature == 0:
        return jnp.argmax(logits, -1).astype(jnp.int32)
    logits = logits.astype(jnp.float32) / temperature
    if top_k is not None:
        least = lax.top_k(logits, min(top_k, logits.shape[-1]))[0][:, -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if top_p is not None:
        falling = -jnp.sort(-logits, -1)
        probabilities = jax.nn.softmax(falling, -1)
        before = jnp.cumsum(probabilities, -1) - probabilities
        least = jnp.where(before < top_p, falling, jnp.inf).min(-1, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return jax.random.categorical(key, logits, -1).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("model", "steps", "temperature", "top_k", "top_p", "stop"))
def _generated(
    model: Layer,
    params: Params,
    state: State,
    prompt: Tokens,
    steps: int,
    key: Array,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    stop: int | None,
) -> tuple[Continued, Int32[Array, " batch"]]:
    """The sequences and their lengths."""
    batch, before = prompt.shape
    longest = before + steps

    def read(cache: Cache, tokens: Array, start: Any) -> tuple[Array, Cache]:
        logits, cache = model.extend(params, state, cache, tokens, Span(start, longest))
        _check_logits(logits, tokens)
        return logits[:, -1], cache

    def chosen(logits: Array, place: Array, lengths: Array) -> tuple[Array, Array]:
        """The tokens at a place, and the lengths of the sequences if they end there."""
        token = draw(jax.random.fold_in(key, place), logits, temperature, top_k, top_p)
        if stop is None:
            return token, lengths
        ended = lengths <= place
        return jnp.where(ended, stop, token), jnp.where(~ended & (token == stop), place + 1, lengths)

    def step(carry: Any) -> Any:
        place, tokens, lengths, cache = carry
        last = lax.dynamic_slice(tokens, (0, place - 1), (batch, 1))
        logits, cache = read(cache, last, place - 1)
        token, lengths = chosen(logits, place, lengths)
        return place + 1, lax.dynamic_update_slice(tokens, token[:, None], (0, place)), lengths, cache

    def unfinished(carry: Any) -> Array:
        place, _, lengths, _ = carry
        return (place < longest) & jnp.any(lengths > place)

    lengths = jnp.full(batch, longest, jnp.int32)
    if not steps:
        return prompt, lengths
    logits, cache = read({}, prompt, jnp.zeros((), jnp.int32))
    place = jnp.asarray(before, jnp.int32)
    token, lengths = chosen(logits, place, lengths)
    filling = jnp.full((batch, steps), 0 if stop is None else stop, jnp.int32)
    tokens = jnp.concatenate([prompt, filling], 1).at[:, before].set(token)
    _, tokens, lengths, _ = lax.while_loop(unfinished, step, (place + 1, tokens, lengths, cache))
    return tokens, lengths


def _check(
    prompt: Any, steps: Any, key: Any, temperature: Any, top_k: int | None, top_p: float | None, stop: int | None
) -> None:
    whole = {"steps": steps, "top_k": top_k, "stop": stop}
    for name, value in whole.items():
        if (value is None and name != "steps") or (isinstance(value, (int, np.integer)) and not isinstance(value, bool)):
            continue
        raise TypeError(f"generate: {name} is a whole number, got {value!r}.")
    for name, value in (("temperature", temperature), ("top_p", 1.0 if top_p is None else top_p)):
        real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if not (real and math.isfinite(value)):
            raise TypeError(f"generate: {name} is a finite number, got {value!r}.")
    if key is not None and not (isinstance(key, Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()):
        raise TypeError(f"generate: key is one typed key, jax.random.key(seed), got {key!r}.")
    if prompt.ndim != 2 or 0 in prompt.shape or not jnp.issubdtype(prompt.dtype, jnp.integer):
        raise ValueError(
            f"generate: expected a prompt [batch, time] of integers with at least one token, got {prompt.dtype}"
            f"{list(prompt.shape)} — one sequence alone needs prompt[None]."
        )
    if steps < 0:
        raise ValueError(f"generate: steps is how many tokens to add, at least 0, got {steps}.")
    if temperature < 0:
        raise ValueError(f"generate: temperature is at least 0, got {temperature}.")
    if temperature > 0 and key is None:
        raise ValueError("generate: tokens are drawn at random — give key=jax.random.key(seed), or temperature=0.")
    if top_k is not None and top_k < 1:
        raise ValueError(f"generate: top_k is at least 1, got {top_k}.")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"generate: top_p is a probability in (0, 1], got {top_p}.")


def _check_tokens(model: Layer, params: Params, state: State, prompt: Any, stop: int | None) -> None:
    """Refuses tokens that are not among those the model draws from."""
    vocabulary = _vocabulary(model, frozen_shapes((params, state, jax.ShapeDtypeStruct(prompt.shape, jnp.int32))))
    if stop is not None and not 0 <= stop < vocabulary:
        raise ValueError(f"generate: stop is one of the tokens 0 … {vocabulary - 1} of the model, got {stop}.")
    if isinstance(prompt, Tracer):
        return
    least, greatest = int(prompt.min()), int(prompt.max())
    if least < 0 or greatest >= vocabulary:
        wrong = least if least < 0 else greatest
        raise ValueError(f"generate: the prompt has token {wrong}, and the model knows 0 … {vocabulary - 1}.")


@functools.lru_cache(maxsize=64)
def _vocabulary(model: Layer, shapes: Shapes) -> int:
    params, state, tokens = thawed_shapes(shapes)

    def logits(params: Params, state: State, tokens: Tokens) -> Any:
        return model.extend(params, state, {}, tokens, Span(jnp.zeros((), jnp.int32), tokens.shape[1]))[0]

    found = jax.eval_shape(logits, params, state, tokens)
    _check_logits(found, tokens)
    return found.shape[-1]


def _check_logits(logits: Any, tokens: Any) -> None:
    shape = getattr(logits, "shape", None)
    if shape is None or len(shape) != 3 or shape[:2] != tokens.shape:
        raise ValueError(
            f"generate: expected logits [batch, time, vocabulary] = [{tokens.shape[0]}, {tokens.shape[1]}, …] for tokens "
            f"{list(tokens.shape)}, and the model gives {'no array' if shape is None else list(shape)} — a language model "
            "keeps the time axis."
        )
