"""Generation: with a cache what it is without, draws from the right tokens, and ends where it should."""

from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl import models
from jaxdl.generation.sampling import draw

pytestmark = pytest.mark.usefixtures("quickly_compiled")
PROMPT = np.random.default_rng(0).integers(0, 11, (3, 4)).astype(np.int32)
KEY = jax.random.key(4)
MODELS = {
    "gpt": models.gpt(11, layers=2, heads=2, features=8, context=16, dropout=0.2),
    "rotary, grouped heads": dl.Sequential(
        dl.Embedding(11, 16),
        *[dl.TransformerBlock(4, causal=True, kv_heads=2, rotary=True, norm="post")] * 2,
        dl.Dense(11),
    ),
    "sinusoidal": dl.Sequential(
        dl.Embedding(11, 8),
        dl.SinusoidalPositions(),
        dl.Residual(dl.MultiHeadAttention(2, causal=True)),
        dl.Dense(11),
    ),
    "one block used twice": dl.Sequential(
        embed=dl.Embedding(11, 8),
        block=dl.TransformerBlock(2, causal=True),
        again=dl.Tied("block"),
        logits=dl.Dense(11),
    ),
}


def drawn(model: Any) -> tuple[Any, Any]:
    """Parameters far enough from zero that each token matters."""
    params, state = model.init(jax.random.key(0), PROMPT)
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0, 0.7, leaf.shape), leaf.dtype), params
    ), state


def without_a_cache(model: Any, params: Any, state: Any, steps: int, **how: Any) -> np.ndarray:
    """Each token from the logits of the whole sequence before it; what lies behind it is filled up, and seen by nothing."""
    tokens = np.pad(PROMPT, ((0, 0), (0, steps)))
    apply = jax.jit(lambda tokens: model.apply(params, state, tokens)[0])
    for place in range(PROMPT.shape[1], tokens.shape[1]):
        tokens[:, place] = draw(
            jax.random.fold_in(KEY, place), apply(tokens)[:, place - 1], **how
        )
    return tokens


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_a_cache_changes_nothing(model: Any) -> None:
    params, state = drawn(model)
    sampled = dl.generate(model, params, state, PROMPT, 6, key=KEY, temperature=1.3)
    np.testing.assert_array_equal(
        sampled, without_a_cache(model, params, state, 6, temperature=1.3)
    )
    np.testing.assert_array_equal(sampled[:, :4], PROMPT)

    expected, cache, decode = (
        jax.jit(model.apply)(params, state, sampled)[0],
        {},
        jax.jit(model.decode),
    )
    for start, end in [(0, 4), *[(place, place + 1) for place in range(4, 10)]]:
        logits, cache = decode(
            params,
            state,
            cache,
            sampled[:, start:end],
            dl.Span(jnp.asarray(start, jnp.int32), 12),
        )
        np.testing.assert_allclose(logits, expected[:, start:end], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_likeliest_token_needs_no_key() -> None:
    model = MODELS["gpt"]
    params, state = drawn(model)
    tokens = dl.generate(model, params, state, PROMPT, 5, temperature=0)
    np.testing.assert_array_equal(
        tokens, without_a_cache(model, params, state, 5, temperature=0)
    )


@pytest.mark.slow
def test_a_sequence_ends_at_the_stop_token() -> None:
    model = MODELS["gpt"]
    params, state = drawn(model)
    free = np.asarray(dl.generate(model, params, state, PROMPT, 12, key=KEY))
    stop = int(free[0, 6])
    ended = dl.generate(model, params, state, PROMPT, 12, key=KEY, stop=stop)
    assert isinstance(ended, dl.Padded)
    for row, values, length in zip(
        free, np.asarray(ended.values), np.asarray(ended.lengths), strict=True
    ):
        found = np.flatnonzero(row[4:] == stop)
        expected = 4 + int(found[0]) + 1 if len(found) else 16
        assert length == expected
        np.testing.assert_array_equal(values[:length], row[:length])
        assert (values[length:] == stop).all()


def test_the_program_ends_when_all_sequences_have() -> None:
    """A model that counts how often it is run, and says the stop token at once."""
    runs = []
    model = dl.Sequential(dl.Embedding(11, 8), count := counting(runs), dl.Dense(11))
    params, state = drawn(model)
    params["dense_0"] = {"kernel": jnp.zeros((8, 11)), "bias": jax.nn.one_hot(7, 11)}
    ended = dl.generate(model, params, state, PROMPT, 50, temperature=0, stop=7)
    jax.effects_barrier()
    assert (np.asarray(ended.lengths) == 5).all()
    assert (np.asarray(ended.values[:, 4:]) == 7).all()
    assert len(runs) == 1, count


def counting(runs: list[int]) -> Any:
    def count(x: Any) -> Any:
        jax.debug.callback(lambda: runs.append(1))
        return x

    return count


@pytest.mark.slow
def test_steps_are_as_many_as_asked_and_may_be_none() -> None:
    model = MODELS["gpt"]
    params, state = drawn(model)
    for steps in (0, 1):
        assert dl.generate(model, params, state, PROMPT, steps, key=KEY).shape == (3, 4 + steps)


LENGTHS = np.array([2, 4, 2])


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        MODELS["gpt"],
        MODELS["rotary, grouped heads"],
        dl.Sequential(dl.Embedding(11, 8), dl.GRU(8), dl.Dense(11)),
    ],
)
def test_padded_prompts_are_each_continued_from_their_end(model: Any) -> None:
    params, state = drawn(model)
    how = {"temperature": 1.3, "top_k": 5}
    garbage = np.where(np.arange(4) < LENGTHS[:, None], PROMPT, -7)
    made = dl.generate(model, params, state, dl.Padded(garbage, LENGTHS), 5, key=KEY, **how)
    np.testing.assert_array_equal(made.lengths, LENGTHS + 5)
    assert made.shape == (3, 9)
    for row, length in enumerate(LENGTHS):
        alike = dl.generate(model, params, state, PROMPT[:, :length], 5, key=KEY, **how)[row]
        np.testing.assert_array_equal(made.values[row, : length + 5], alike)
        assert (np.asarray(made.values[row, length + 5 :]) == 0).all()


@pytest.mark.slow
def test_padded_prompts_stop_each_at_their_own_place() -> None:
    model = MODELS["gpt"]
    params, state = drawn(model)
    free = dl.generate(model, params, state, PROMPT[:, :2], 8, key=KEY)
    stop = int(free[0, 4])
    prompt = PROMPT.copy()
    prompt[2, 1] = stop  # within the prompt it ends nothing
    made = dl.generate(model, params, state, dl.Padded(prompt, LENGTHS), 8, key=KEY, stop=stop)
    for row, length in enumerate(LENGTHS):
        alike = dl.generate(model, params, state, prompt[:, :length], 8, key=KEY, stop=stop)
        end = int(alike.lengths[row])
        assert made.lengths[row] == end
        np.testing.assert_array_equal(made.values[row, :end], alike.values[row, :end])
        assert (np.asarray(made.values[row, end:]) == stop).all()


@pytest.mark.slow
def test_padded_prompts_run_within_a_larger_program() -> None:
    model = MODELS["gpt"]
    params, state = drawn(model)
    padded = dl.Padded(jnp.asarray(PROMPT), jnp.asarray(LENGTHS, jnp.int32))
    program = jax.jit(lambda prompt: dl.generate(model, params, state, prompt, 3, key=KEY))
    expected = dl.generate(model, params, state, padded, 3, key=KEY)
    jax.tree.map(np.testing.assert_array_equal, program(padded), expected)
    none = dl.generate(model, params, state, padded, 0, key=KEY)
    np.testing.assert_array_equal(none.values, np.where(padded.mask, PROMPT, 0))
    np.testing.assert_array_equal(none.lengths, LENGTHS)


@pytest.mark.slow
def test_it_runs_within_a_larger_program() -> None:
    model = MODELS["gpt"]
    params, state = drawn(model)
    program = jax.jit(lambda params, key: dl.generate(model, params, state, PROMPT, 3, key=key))
    np.testing.assert_array_equal(
        program(params, KEY), dl.generate(model, params, state, PROMPT, 3, key=KEY)
    )


def test_draws_follow_the_softmax_of_the_logits() -> None:
    logits = jnp.asarray(np.random.default_rng(0).normal(size=5), jnp.float32)
    counts = np.bincount(draws(logits, temperature=0.5), minlength=5) / 20_000
    np.testing.assert_allclose(counts, jax.nn.softmax(2 * logits), atol=0.015)


def test_top_k_leaves_the_k_likeliest() -> None:
    logits = jnp.asarray([0.0, 3.0, 1.0, 2.0, -1.0])
    counts = np.bincount(draws(logits, top_k=2), minlength=5) / 20_000
    np.testing.assert_allclose(
        counts[[1, 3]], jax.nn.softmax(logits[jnp.array([1, 3])]), atol=0.015
    )
    assert counts[[0, 2, 4]].sum() == 0
    assert set(draws(logits, top_k=99)) == set(range(5))


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_top_k_leaves_k_where_more_are_equal(top_k: int) -> None:
    logits = jnp.asarray([0.0, 7.0, 7.0, -jnp.inf, 7.0])
    assert set(draws(logits, top_k=top_k)) == set([1, 2, 4][:top_k])
    assert set(draws(jnp.asarray([-0.0, 0.0, -0.0]), top_k=top_k)) == set(range(top_k))


@pytest.mark.slow
def test_top_p_leaves_the_fewest_that_have_the_probability() -> None:
    """Against fractions, at each sum of the likeliest tokens exactly and a little to either side."""
    rng = np.random.default_rng(0)
    for shares in [
        [5, 3, 1, 1],
        [9, 7, 3, 1],
        [1, 1, 1, 1],
        *rng.integers(1, 9, (6, 6)).tolist(),
    ]:
        falling = sorted(range(len(shares)), key=lambda token: -shares[token])
        logits = jnp.log(jnp.asarray(shares, jnp.float32) / sum(shares))
        for count in range(1, len(shares)):
            reached = Fraction(sum(shares[token] for token in falling[:count]), sum(shares))
            assert set(draws(logits, top_p=float(reached))) == set(falling[:count]), (
                shares,
                count,
            )
            assert set(draws(logits, top_p=float(reached) + 1e-4)) == set(
                falling[: count + 1]
            ), (
                shares,
                count,
            )
        assert set(draws(logits, top_p=1.0)) == set(falling)
        assert set(draws(logits, top_p=1e-300)) == {falling[0]}
        assert set(draws(logits, top_p=1e-8, temperature=2.0)) == {falling[0]}


@pytest.mark.sampled(6)
@pytest.mark.parametrize(
    "row",
    [
        [10.0, 40.0, 50.0, 20.0, 45.0],
        [-50.0, -40.0, -10.0, -20.0, -45.0],
        [0.0, 0.0, 1e-3, 0.0, 0.0],
    ],
)
@pytest.mark.parametrize("temperature", [1e-5, 1e-20, 1e-37, 1e-38, 1e-40, 1e-300])
@pytest.mark.parametrize("how", [{}, {"top_k": 3}, {"top_p": 0.9}])
def test_a_temperature_next_to_nothing_takes_the_likeliest(
    row: Any, temperature: float, how: dict[str, Any]
) -> None:
    assert set(draws(jnp.asarray(row), temperature=temperature, **how)) == {2}


@pytest.mark.sampled
@pytest.mark.parametrize("temperature", [1e38, 1e300])
def test_a_temperature_beyond_float32_draws_all_alike_but_those_of_no_probability(
    temperature: float,
) -> None:
    counts = (
        np.bincount(
            draws(jnp.asarray([-5.0, -jnp.inf, 3.0, 3e4]), temperature=temperature), minlength=4
        )
        / 20_000
    )
    np.testing.assert_allclose(counts, [1 / 3, 0, 1 / 3, 1 / 3], atol=0.02)
    assert set(draws(jnp.asarray([-5.0, 1.0, 3.0, 3e4]), temperature=temperature, top_k=2)) == {
        2,
        3,
    }


def test_a_logit_of_infinity_is_certain() -> None:
    assert set(draws(jnp.asarray([0.0, jnp.inf, 3.0]))) == {1}
    assert set(draws(jnp.asarray([0.0, jnp.inf, 3.0]), temperature=0.1, top_p=0.5)) == {1}


def draws(logits: Any, **how: Any) -> list[int]:
    return draw(KEY, jnp.broadcast_to(logits[None], (20_000, len(logits))), **how).tolist()


@pytest.mark.slow
def test_each_token_costs_the_same_however_many_went_before() -> None:
    """What reads a token is one program, whose shapes do not depend on the place."""
    model = models.gpt(11, layers=1, heads=2, features=16, context=600)
    params, state = model.init(KEY, PROMPT)

    def operations(start: int) -> Any:
        span = dl.Span(jnp.asarray(start, jnp.int32), 600)
        cache = jax.eval_shape(lambda: model.decode(params, state, {}, PROMPT, span)[1])
        return jax.jit(model.decode).lower(params, state, cache, PROMPT[:, :1], span).as_text()

    assert operations(4) == operations(500)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"prompt": PROMPT[0]},
            r"expected a prompt \[batch, time\] of integers .* prompt\[None\]",
        ),
        ({"prompt": PROMPT.astype(np.float32)}, "expected a prompt"),
        ({"prompt": PROMPT[:, :0]}, "at least one token"),
        (
            {"prompt": dl.Padded(PROMPT, np.array([0, 4, 4]))},
            r"each of these prompts has 1 … 4 tokens, and a length is 0",
        ),
        (
            {"prompt": dl.Padded(PROMPT, np.array([1, 4, 5]))},
            r"1 … 4 tokens, and a length is 5",
        ),
        (
            {"prompt": dl.Padded(PROMPT, np.array([1, 4]))},
            r"the lengths of 3 prompts as integers \[3\], got int32\[2\]",
        ),
        ({"prompt": dl.Padded(PROMPT + 10, np.array([1, 4, 1]))}, "the prompt has token"),
        ({"steps": -1}, "at least 0, got -1"),
        ({"key": None}, r"give key=jax\.random\.key\(seed\), or temperature=0"),
        ({"temperature": -1.0}, "temperature is at least 0"),
        ({"top_k": 0}, "top_k is at least 1"),
        ({"top_p": 0.0}, r"a probability in \(0, 1\]"),
        (
            {"steps": 13},
            "LearnedPositions at 'positions': a sequence of 17 steps is longer than the 16 positions",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], sentence: str) -> None:
    model = MODELS["gpt"]
    params, state = drawn(model)
    arguments = {"prompt": PROMPT, "steps": 3, "key": KEY} | changes
    with pytest.raises(ValueError, match=sentence):
        dl.generate(model, params, state, **arguments)


@pytest.mark.slow
def test_a_model_that_is_none_of_language_is_refused() -> None:
    wide = dl.Sequential(dl.Embedding(11, 8), lambda x: x.mean(1))
    with pytest.raises(
        ValueError,
        match=r"expected logits \[batch, time, vocabulary\] = \[3, 4, …\] for tokens",
    ):
        dl.generate(wide, *drawn(wide), PROMPT, 2, key=KEY)
    both = dl.Sequential(dl.Embedding(11, 8), dl.TransformerBlock(2), dl.Dense(11))
    with pytest.raises(
        dl.LayerError,
        match=r"^MultiHeadAttention at 'transformer_block_0\.attention': without causal=True",
    ):
        dl.generate(both, *drawn(both), PROMPT, 2, key=KEY)
