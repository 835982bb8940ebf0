"""Text from a language model: one compiled program that reads the prompt once, and then each token
that it draws.
"""

import functools
import math
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Float, Int32, Key

from jaxdl.core.arrays import host_array
from jaxdl.core.layer import Cache, Layer, Params, Span, State
from jaxdl.core.padded import Padded
from jaxdl.core.tree import Shapes, frozen_shapes, thawed_shapes

Tokens = Int32[Array, "batch time"]
Continued = Int32[Array, "batch length"]

ROUNDING = 8 * float(jnp.finfo(jnp.float32).eps)
"""By which share a sum of probabilities in float32 may miss what it is."""


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
    """Continues sequences of tokens by a language model: token t + 1 is drawn from softmax(logits_t
    / temperature).

    The model maps tokens [batch, time] to logits [batch, time, vocabulary] and reads a sequence
    step by step (`Layer.extend`): models of attention with causal=True, positions, recurrent layers
    and layers that compute each step alone do. What attention remembers has one size from the
    beginning, so that each token costs the same, however many went before.

    Args:
        model, params, state: the language model.
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

    Returns:
        [batch, time + steps] int32, the prompt included; of a `Padded` prompt, and with a stop
        token, `Padded`, whose lengths count up to the last token that was added, which may be the
        first stop token. What lies behind is the stop token, or 0.

    Raises:
        ValueError: an argument is out of its range, or the model gives no logits for each token.
        LayerError: a part of the model cannot read a sequence step by step, or has no more
            positions.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> model = dl.models.gpt(65, layers=2, heads=2, features=16, context=32)
    >>> prompt = jnp.zeros((3, 5), jnp.int32)
    >>> params, state = model.init(jax.random.key(0), prompt)
    >>> dl.generate(model, params, state, prompt, 10, key=jax.random.key(1), top_k=20).shape
    (3, 15)
    """
    prompt, lengths = _tokens_and_lengths(prompt)
    _check(prompt, steps, key, temperature, top_k, top_p, stop)
    if lengths is not None:
        _check_lengths(lengths, prompt.shape)
        lengths = jnp.asarray(lengths).astype(jnp.int32)
        prompt = jnp.where(Padded(prompt, lengths).mask, prompt, 0 if stop is None else stop)
    _check_tokens(model, params, state, prompt, stop)
    prompt = jnp.asarray(prompt).astype(jnp.int32)
    key = jax.random.key(0) if key is None else key
    shortest = _shortest(lengths, prompt.shape[1])
    tokens, ends = _generated(
        model, params, state, prompt, lengths, shortest, steps, key, temperature, top_k, top_p, stop
    )
    return tokens if lengths is None and stop is None else Padded(tokens, ends)


def draw(
    key: Key[Array, ""],
    logits: Float[Array, "batch vocabulary"],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Int32[Array, " batch"]:
    """One token for each row of logits; arguments as in `generate`."""
    if temperature == 0:
        return jnp.argmax(logits, -1).astype(jnp.int32)
    logits = _below_greatest(logits.astype(jnp.float32))
    if top_k is None and top_p in (None, 1):
        return jax.random.categorical(key, _tempered(logits, temperature), -1).astype(jnp.int32)
    count = logits.shape[-1] if top_k is None else min(top_k, logits.shape[-1])
    falling, tokens = lax.top_k(logits, count)  # equal ones in their order
    falling = _tempered(falling, temperature)
    if top_p not in (None, 1):
        falling = jnp.where(
            _before(jax.nn.softmax(falling, -1)) < top_p * (1 - ROUNDING), falling, -jnp.inf
        )
        falling = falling.at[:, 0].set(0.0)
    place = jax.random.categorical(key, falling, -1)
    return jnp.take_along_axis(tokens, place[:, None], -1)[:, 0].astype(jnp.int32)


def _below_greatest(logits: Array) -> Array:
    """The logits less the greatest of their row, so that no temperature scales the likeliest to
    infinity.
    """
    greatest = logits.max(-1, keepdims=True)
    return jnp.where(logits == greatest, 0.0, logits - greatest)


def _tempered(logits: Array, temperature: float) -> Array:
    """Logits / temperature, whose reciprocal float32 has: one of 0 or infinity would give NaN."""
    bounds = jnp.finfo(jnp.float32)
    return logits / min(max(temperature, float(bounds.tiny)), 1 / float(bounds.tiny))


def _before(probabilities: Array) -> Array:
    """The sum of the probabilities before each place."""
    return jnp.cumsum(jnp.pad(probabilities, ((0, 0), (1, 0)))[:, :-1], -1)


@functools.partial(
    jax.jit, static_argnames=("model", "shortest", "steps", "temperature", "top_k", "top_p", "stop")
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
) -> tuple[Continued, Int32[Array, " batch"]]:
    """The sequences and where they end, of prompts that are all at least as long as the
    shortest.
    """
    batch, time = prompt.shape
    longest = time + steps
    filling = 0 if stop is None else stop

    def read(cache: Cache, tokens: Array, start: Any) -> tuple[Array, Cache]:
        logits, cache = model.decode(params, state, cache, tokens, Span(start, longest))
        _check_logits(logits, tokens)
        return logits[:, -1], cache

    def chosen(logits: Array, place: Array, tokens: Array, ends: Array) -> tuple[Array, Array]:
        """The sequences with the token at a place, and where they end if it ends them."""
        token = draw(jax.random.fold_in(key, place), logits, temperature, top_k, top_p)
        if stop is not None or lengths is not None:
            token = jnp.where(place < ends, token, filling)
        if lengths is not None:
            given = lax.dynamic_slice(tokens, (0, place), (batch, 1))[:, 0]
            token = jnp.where(place < lengths, given, token)
        if stop is not None:
            added = place < ends if lengths is None else (place < ends) & (place >= lengths)
            ends = jnp.where(added & (token == stop), place + 1, ends)
        return lax.dynamic_update_slice(tokens, token[:, None], (0, place)), ends

    def step(carry: Any) -> Any:
        place, tokens, ends, cache = carry
        last = lax.dynamic_slice(tokens, (0, place - 1), (batch, 1))
        logits, cache = read(cache, last, place - 1)
        return place + 1, *chosen(logits, place, tokens, ends), cache

    def unfinished(carry: Any) -> Array:
        place, _, ends, _ = carry
        return (place < longest) & jnp.any(ends > place)

    ends = jnp.full(batch, longest, jnp.int32) if lengths is None else lengths + steps
    if not steps:
        return prompt, ends
    logits, cache = read({}, prompt[:, :shortest], jnp.zeros((), jnp.int32))
    place = jnp.asarray(shortest, jnp.int32)
    tokens = jnp.concatenate([prompt, jnp.full((batch, steps), filling, jnp.int32)], 1)
    tokens, ends = chosen(logits, place, tokens, ends)
    _, tokens, ends, _ = lax.while_loop(unfinished, step, (place + 1, tokens, ends, cache))
    return tokens, ends


def _tokens_and_lengths(prompt: Any) -> tuple[Any, Any]:
    """The tokens of a prompt, and the lengths of one that is `Padded`, else None."""
    if not isinstance(prompt, Padded):
        return prompt if isinstance(prompt, Array) else host_array(prompt), None
    tokens, lengths = (
        part if isinstance(part, Array) else host_array(part)
        for part in (prompt.values, prompt.lengths)
    )
    return tokens, lengths


def _shortest(lengths: Any, time: int) -> int:
    """How many tokens every prompt has, as far as is known outside of a program."""
    if lengths is None:
        return time
    return 1 if isinstance(lengths, Tracer) else int(lengths.min())


def _check_lengths(lengths: Any, shape: tuple[int, ...]) -> None:
    batch, time = shape
    if lengths.shape != (batch,) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            f"generate: expected the lengths of {batch} prompts as integers [{batch}], got "
            f"{lengths.dtype}"
            f"{list(lengths.shape)}."
        )
    if isinstance(lengths, Tracer):
        return
    least, greatest = int(lengths.min()), int(lengths.max())
    if least < 1 or greatest > time:
        wrong = least if least < 1 else greatest
        raise ValueError(
            f"generate: each of these prompts has 1 … {time} tokens, and a length is {wrong}."
        )


def _check(
    prompt: Any,
    steps: Any,
    key: Any,
    temperature: Any,
    top_k: int | None,
    top_p: float | None,
    stop: int | None,
) -> None:
    whole = {"steps": steps, "top_k": top_k, "stop": stop}
    for name, value in whole.items():
        if (value is None and name != "steps") or (
            isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        ):
            continue
        raise TypeError(f"generate: {name} is a whole number, got {value!r}.")
    for name, value in (("temperature", temperature), ("top_p", 1.0 if top_p is None else top_p)):
        real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(
            value, bool
        )
        if not (real and math.isfinite(value)):
            raise TypeError(f"generate: {name} is a finite number, got {value!r}.")
    if key is not None and not (
        isinstance(key, Array)
        and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        and key.shape == ()
    ):
        raise TypeError(f"generate: key is one typed key, jax.random.key(seed), got {key!r}.")
    if prompt.ndim != 2 or 0 in prompt.shape or not jnp.issubdtype(prompt.dtype, jnp.integer):
        raise ValueError(
            f"generate: expected a prompt [batch, time] of integers with at least one token, got "
            f"{prompt.dtype}"
            f"{list(prompt.shape)} — one sequence alone needs prompt[None]."
        )
    if steps < 0:
        raise ValueError(f"generate: steps is how many tokens to add, at least 0, got {steps}.")
    if temperature < 0:
        raise ValueError(f"generate: temperature is at least 0, got {temperature}.")
    if temperature > 0 and key is None:
        raise ValueError(
            "generate: tokens are drawn at random — give key=jax.random.key(seed), or "
            "temperature=0."
        )
    if top_k is not None and top_k < 1:
        raise ValueError(f"generate: top_k is at least 1, got {top_k}.")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"generate: top_p is a probability in (0, 1], got {top_p}.")


def _check_tokens(
    model: Layer, params: Params, state: State, prompt: Any, stop: int | None
) -> None:
    """Refuses tokens that are not among those the model draws from."""
    vocabulary = _vocabulary(
        model, frozen_shapes((params, state, jax.ShapeDtypeStruct(prompt.shape, jnp.int32)))
    )
    if stop is not None and not 0 <= stop < vocabulary:
        raise ValueError(
            f"generate: stop is one of the tokens 0 … {vocabulary - 1} of the model, got {stop}."
        )
    if isinstance(prompt, Tracer):
        return
    least, greatest = int(prompt.min()), int(prompt.max())
    if least < 0 or greatest >= vocabulary:
        wrong = least if least < 0 else greatest
        raise ValueError(
            f"generate: the prompt has token {wrong}, and the model knows 0 … {vocabulary - 1}."
        )


@functools.lru_cache(maxsize=64)
def _vocabulary(model: Layer, shapes: Shapes) -> int:
    params, state, tokens = thawed_shapes(shapes)

    def logits(params: Params, state: State, tokens: Tokens) -> Any:
        return model.decode(
            params, state, {}, tokens, Span(jnp.zeros((), jnp.int32), tokens.shape[1])
        )[0]

    found = jax.eval_shape(logits, params, state, tokens)
    _check_logits(found, tokens)
    return found.shape[-1]


def _check_logits(logits: Any, tokens: Any) -> None:
    shape = getattr(logits, "shape", None)
    if shape is None or len(shape) != 3 or shape[:2] != tokens.shape:
        raise ValueError(
            f"generate: expected logits [batch, time, vocabulary] = [{tokens.shape[0]}, "
            f"{tokens.shape[1]}, …] for tokens "
            f"{list(tokens.shape)}, and the model gives "
            f"{'no array' if shape is None else list(shape)} — a language model "
            "keeps the time axis."
        )
