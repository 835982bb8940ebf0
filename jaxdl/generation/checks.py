"""What `generate` checks before it compiles anything."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.arrays import host_array
from jaxdl.core.layer import Layer, Params, Span, State
from jaxdl.core.padded import Padded
from jaxdl.core.tree import Shapes, frozen_shapes, thawed_shapes
from jaxdl.layers.attend import Attend

Tokens = Array | np.ndarray
"""Integers."""


def tokens_and_lengths(prompt: object) -> tuple[Tokens, Tokens | None]:
    """The tokens of a prompt, and the lengths of one that is `Padded`, else None."""
    if isinstance(prompt, Padded):
        return _as_array(prompt.values), _as_array(prompt.lengths)
    return _as_array(prompt), None


def _as_array(value: object) -> Tokens:
    return value if isinstance(value, Array) else host_array(value)


def shortest_length(lengths: Tokens | None, time: int) -> int:
    """How many tokens every prompt has, as far as is known while tracing."""
    if lengths is None:
        return time
    return 1 if isinstance(lengths, Tracer) else int(lengths.min())


def check_lengths(lengths: Tokens, shape: tuple[int, ...]) -> None:
    """Checks the lengths of prompts.

    Raises:
        ValueError: they are not [batch] integers from 1 to the prompts' size.
    """
    batch, time = shape
    if lengths.shape != (batch,) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            f"generate: expected the lengths of {batch} prompts as integers [{batch}], got "
            f"{lengths.dtype}{list(lengths.shape)}."
        )
    if isinstance(lengths, Tracer):
        return
    least = int(lengths.min())
    greatest = int(lengths.max())
    if least < 1 or greatest > time:
        wrong = least if least < 1 else greatest
        raise ValueError(
            f"generate: each of these prompts has 1 … {time} tokens, and a length is {wrong}."
        )


def check_settings(
    steps: object,
    key: object,
    temperature: object,
    top_k: object,
    top_p: object,
    stop: object,
) -> None:
    """Checks the arguments of `generate` besides the model and the prompt.

    Raises:
        TypeError: one is of another type.
        ValueError: one is out of its range.
    """
    steps = _integer("steps", steps)
    top_k = 1 if top_k is None else _integer("top_k", top_k)
    if stop is not None:
        _integer("stop", stop)
    temperature = _finite("temperature", temperature)
    top_p = 1.0 if top_p is None else _finite("top_p", top_p)
    if key is not None and not _is_key(key):
        raise TypeError(f"generate: key is one typed key, jax.random.key(seed), got {key!r}.")
    if steps < 0:
        raise ValueError(f"generate: steps is how many tokens to add, at least 0, got {steps}.")
    if temperature < 0:
        raise ValueError(f"generate: temperature is at least 0, got {temperature}.")
    if temperature > 0 and key is None:
        raise ValueError(
            "generate: tokens are drawn at random — give key=jax.random.key(seed), or "
            "temperature=0."
        )
    if top_k < 1:
        raise ValueError(f"generate: top_k is at least 1, got {top_k}.")
    if not 0 < top_p <= 1:
        raise ValueError(f"generate: top_p is a probability in (0, 1], got {top_p}.")


def _integer(name: str, value: object) -> int | np.integer:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"generate: {name} is an integer, got {value!r}.")
    return value


def _finite(name: str, value: object) -> float | np.integer | np.floating:
    real = isinstance(value, (int, float, np.integer, np.floating))
    if isinstance(value, bool) or not real or not math.isfinite(value):
        raise TypeError(f"generate: {name} is a finite number, got {value!r}.")
    return value


def _is_key(key: object) -> bool:
    if not isinstance(key, Array) or key.shape != ():
        return False
    return jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def check_prompt(prompt: Array | np.ndarray) -> None:
    """Checks the shape and the dtype of a prompt.

    Raises:
        ValueError: it is not [batch, time] of integers with at least one token.
    """
    if prompt.ndim != 2 or 0 in prompt.shape or not jnp.issubdtype(prompt.dtype, jnp.integer):
        raise ValueError(
            f"generate: expected a prompt [batch, time] of integers with at least one token, got "
            f"{prompt.dtype}{list(prompt.shape)} — one sequence alone needs prompt[None]."
        )


def check_tokens(
    model: Layer,
    params: Params,
    state: State,
    prompt: Tokens,
    stop: int | None,
    memory: PyTree = None,
) -> None:
    """Checks that tokens are among those that the model knows.

    Raises:
        ValueError: one is not.
    """
    tokens = jax.ShapeDtypeStruct(prompt.shape, jnp.int32)
    x = tokens if memory is None else Attend(tokens, memory)
    vocabulary = _vocabulary(model, frozen_shapes((params, state, x)))
    if stop is not None and not 0 <= stop < vocabulary:
        raise ValueError(
            f"generate: stop is one of the tokens 0 … {vocabulary - 1} of the model, got {stop}."
        )
    if isinstance(prompt, Tracer):
        return
    least = int(prompt.min())
    greatest = int(prompt.max())
    if least < 0 or greatest >= vocabulary:
        wrong = least if least < 0 else greatest
        raise ValueError(
            f"generate: the prompt has token {wrong}, and the model knows 0 … {vocabulary - 1}."
        )


@functools.lru_cache(maxsize=64)
def _vocabulary(model: Layer, shapes: Shapes) -> int:
    params, state, x = thawed_shapes(shapes)
    tokens = x.queries if isinstance(x, Attend) else x

    def logits(params: Params, state: State, x: PyTree) -> PyTree:
        span = Span(jnp.zeros((), jnp.int32), tokens.shape[1])
        return model.decode(params, state, {}, x, span)[0]

    found = jax.eval_shape(logits, params, state, x)
    check_logits(found, tokens)
    return found.shape[-1]


def check_logits(logits: object, tokens: Array | jax.ShapeDtypeStruct) -> None:
    """Checks that a model gives logits for each token.

    Raises:
        ValueError: it does not.
    """
    shape = getattr(logits, "shape", None)
    if shape is None or len(shape) != 3 or shape[:2] != tokens.shape:
        given = "no array" if shape is None else list(shape)
        raise ValueError(
            f"generate: expected logits [batch, time, vocabulary] = [{tokens.shape[0]}, "
            f"{tokens.shape[1]}, …] for tokens {list(tokens.shape)}, and the model gives {given} — "
            f"a language model keeps the time axis."
        )
