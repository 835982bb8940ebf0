"""Joined recordings, greedy decoding, and the edit distance."""

import functools
import importlib

import hypothesis
import hypothesis.strategies as some
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl

pytest.importorskip("matplotlib")
ctc = importlib.import_module("experiments.spoken_digits_ctc")
WORDS = some.lists(some.integers(0, 2), max_size=5)


@hypothesis.given(WORDS, WORDS)
def test_the_edit_distance_is_that_of_its_recursion(
    first: list[int], second: list[int]
) -> None:
    @functools.cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        substituted = distance(i - 1, j - 1) + (first[i - 1] != second[j - 1])
        return min(substituted, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    assert ctc.edit_distance(first, second) == distance(len(first), len(second))


def test_decoding_leaves_out_repetitions_blanks_and_what_lies_behind_the_length() -> None:
    best = jnp.array([[3, 3, 0, 3, 1, 1], [0, 2, 2, 0, 2, 1], [0, 0, 0, 0, 0, 1]])
    logits = dl.Padded(jax.nn.one_hot(best, 4), jnp.array([6, 4, 5]))
    read = [ctc.written(row) for row in np.asarray(ctc.decoded(logits))]
    assert read == [[2, 2, 0], [1], []]


def test_recordings_are_joined_in_order_each_from_beginning_to_end() -> None:
    numbers = jnp.arange(4, dtype=jnp.float32)[:, None]
    shares = jnp.linspace(0, 1, 100)[None]
    recordings = jnp.stack(jnp.broadcast_arrays(numbers, shares), axis=-1)
    strings = jnp.array([[2, 0, 3, -1, -1], [1, 1, 2, 3, 0]])
    frames = ctc.joined(jax.random.key(0), recordings, strings)
    assert frames.shape == (2, 160, 2)
    for row, string in enumerate([[2, 0, 3], [1, 1, 2, 3, 0]]):
        heard = np.asarray(frames.values[row, : int(frames.lengths[row])])
        starts = np.flatnonzero(np.diff(heard[:, 1], prepend=2) < 0)
        assert heard[starts, 0].tolist() == string
        lengths = np.diff([*starts, len(heard)])
        assert ((lengths >= 16) & (lengths <= 32)).all()
        assert (heard[starts, 1] < 0.05).all()
        assert (heard[[*(starts[1:] - 1), -1], 1] > 0.95).all()


def test_strings_say_what_their_recordings_say() -> None:
    labels = np.array([7, 0, 9], np.int32)
    strings, targets = ctc.drawn_strings(np.random.default_rng(0), labels, 10, 50)
    present = strings != -1
    np.testing.assert_array_equal(targets[present], labels[strings[present] - 10] + 1)
    assert not targets[~present].any()
    assert set(present.sum(axis=1)) == {3, 4, 5}
    assert (present[:, :-1] >= present[:, 1:]).all()
