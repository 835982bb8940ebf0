"""Examples for language models: every window is a piece of the text, and its targets lie one place further on."""

import itertools

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxdl as dl
from jaxdl.data import RandomWindows, windows


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 40))
def test_windows_are_the_pieces_that_slices_give(length: int, stride: int, more: int):
    ids = np.random.default_rng(more).integers(0, 100, length + 1 + more)
    inputs, targets = windows(ids, length, stride)
    starts = [start for start in range(0, len(ids), stride) if start + length + 1 <= len(ids)]
    assert inputs.tolist() == [ids[start : start + length].tolist() for start in starts]
    assert targets.tolist() == [
        ids[start + 1 : start + length + 1].tolist() for start in starts
    ]
    assert (inputs.dtype, targets.dtype) == (np.int32, np.int32)


def test_without_a_stride_each_token_is_predicted_once():
    _, targets = windows(np.arange(65), 8)
    assert targets.ravel().tolist() == list(range(1, 65))


def test_what_is_too_short_is_refused():
    with pytest.raises(
        ValueError, match="a window of 8 and its targets take 9 tokens, and the text has 8"
    ):
        windows(np.arange(8), 8)
    with pytest.raises(ValueError, match="length is at least 1, got 0"):
        windows(np.arange(8), 0)
    with pytest.raises(ValueError, match="stride is at least 1, got 0"):
        windows(np.arange(8), 2, 0)
    with pytest.raises(ValueError, match=r"RandomWindows: .* the text has 3"):
        RandomWindows(np.arange(3), 3, 4)
    with pytest.raises(ValueError, match="batch_size is at least 1, got 0"):
        RandomWindows(np.arange(9), 3, 0)


def test_random_windows_reach_every_place_equally_often():
    batches = list(itertools.islice(RandomWindows(np.arange(14), 4, 100, seed=1), 50))
    for inputs, targets in batches:
        np.testing.assert_array_equal(inputs, inputs[:, :1] + np.arange(4))
        np.testing.assert_array_equal(targets, inputs + 1)
    counts = np.bincount(np.concatenate([inputs[:, 0] for inputs, _ in batches]))
    assert (
        len(counts) == 10
    )  # the last place is 9: four inputs from there, and one target more, end the text
    np.testing.assert_allclose(counts, 500, atol=5 * np.sqrt(500 * 0.9))


def test_random_windows_are_the_same_for_one_seed_and_others_for_another():
    def first(seed: int) -> list[int]:
        return next(iter(RandomWindows(np.arange(1000), 4, 8, seed)))[0][:, 0].tolist()

    assert first(0) == first(0) != first(1)


@pytest.mark.slow
def test_fit_learns_from_random_windows_and_measures_on_windows():
    ids = np.arange(500) % 7
    model = dl.Sequential(dl.Embedding(7, 8), dl.Dense(7))
    run = dl.fit(
        model,
        RandomWindows(ids, length=5, batch_size=8),
        loss=lambda logits, targets: jnp.mean(
            optax.softmax_cross_entropy_with_integer_labels(logits, targets), -1
        ),
        optimizer=optax.adam(0.05),
        epochs=2,
        steps_per_epoch=30,
        validation=windows(ids, length=5),
        progress=False,
    )
    assert run.history["validation_loss"][-1] < 0.3 < run.history["loss"][0]
