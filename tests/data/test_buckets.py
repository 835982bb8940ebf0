"""Batches of few shapes: every sequence once an epoch, nothing but padding added, and one program a bucket."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxdl as dl
from jaxdl.data import Buckets, pad
from jaxdl.training import program


def sequences(lengths: Any, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(1, 50, length).astype(np.int32) for length in lengths]


LENGTHS = np.random.default_rng(1).integers(0, 30, 203)
ROWS = np.arange(203, dtype=np.int32)


def buckets(**options: Any) -> Buckets:
    return Buckets(
        sequences(LENGTHS), ROWS, **{"batch_size": 16, "boundaries": (5, 12, 20, 30)} | options
    )


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=40),
    st.integers(1, 7),
    st.lists(st.integers(1, 12), min_size=1, unique=True).map(sorted),
    st.sampled_from(["first", "last"]),
    st.data(),
)
def test_an_epoch_has_every_sequence_once_in_the_bucket_that_fits(
    lengths: list[int], batch_size: int, boundaries: list[int], keep: Any, draw: Any
):
    longest = draw.draw(st.integers(1, boundaries[-1]))
    whole = sequences(lengths)
    source = Buckets(
        whole,
        np.arange(len(whole)),
        batch_size,
        boundaries=boundaries,
        longest=longest,
        keep=keep,
    )
    batches = list(source)
    assert len(batches) == len(source)
    assert sorted(np.concatenate([rows for _, rows in batches])) == list(range(len(whole)))
    for padded, rows in batches:
        assert len(rows) <= batch_size
        for values, length, row in zip(padded.values, padded.lengths, rows, strict=True):
            start = max(0, len(whole[row]) - longest) if keep == "last" else 0
            expected = whole[row][start : start + longest]
            assert values.tolist() == expected.tolist() + [0] * (len(values) - len(expected))
            assert length == len(expected)
            assert len(values) == next(
                boundary for boundary in boundaries if boundary >= length
            )


def test_a_smaller_batch_follows_upon_a_whole_one_of_its_bucket():
    for number in range(20):
        before = None
        for padded, rows in buckets().epoch(number):
            if len(rows) < 16:
                assert before == (16, padded.shape[1])
            before = padded.shape


def test_each_epoch_has_its_own_order_and_a_seed_gives_it_again():
    def order(batches: Any) -> list[int]:
        return np.concatenate([rows for _, rows in batches]).tolist()

    source = buckets(seed=3)
    first, second = order(source), order(source)
    assert first != second
    assert [first, second] == [order(buckets(seed=3).epoch(number)) for number in range(2)]
    assert order(buckets(seed=4)) != first


def test_sequences_meet_others_in_each_epoch():
    source = buckets(batch_size=4)
    first, second = ({frozenset(rows.tolist()) for _, rows in source} for _ in range(2))
    assert len(first & second) < 3


def test_batches_of_all_buckets_are_mixed():
    shapes = [padded.shape[1] for padded, _ in buckets(batch_size=4)]
    changes = sum(one != other for one, other in pairwise(shapes))
    assert changes > len(shapes) / 2


def test_sequences_of_features_keep_their_dtype():
    frames = [np.ones((length, 3), np.float16) for length in (2, 0, 5)]
    padded = pad(frames, 4)
    assert (padded.values.shape, padded.values.dtype) == ((3, 4, 3), np.float16)
    np.testing.assert_array_equal(padded.values.sum((1, 2)), [6, 0, 12])
    np.testing.assert_array_equal(padded.lengths, [2, 0, 4])


def test_pad_keeps_the_end_that_it_is_told():
    assert pad([np.arange(5)], 3).values.tolist() == [[2, 3, 4]]
    assert pad([np.arange(5)], 3, keep="first").values.tolist() == [[0, 1, 2]]


def test_what_does_not_fit_is_refused(unchecked: None):
    words = sequences([3, 4])
    for options, sentence in [
        ({"boundaries": (4, 4)}, r"lengths of at least 1 that rise, got \(4, 4\)"),
        ({"boundaries": (0, 4)}, "lengths of at least 1 that rise"),
        ({"boundaries": ()}, "lengths of at least 1 that rise"),
        (
            {"boundaries": (4,), "longest": 5},
            "longest lies between 1 and the last boundary, got 5",
        ),
        ({"boundaries": (4,), "longest": 0}, "longest lies between 1"),
        ({"boundaries": (4,), "batch_size": 0}, "batch_size is at least 1, got 0"),
        ({"boundaries": (4,), "keep": "middle"}, "keep is 'first' or 'last', got 'middle'"),
    ]:
        with pytest.raises(ValueError, match=f"^Buckets: .*{sentence}"):
            Buckets(words, np.zeros(2), **{"batch_size": 2} | options)
    with pytest.raises(ValueError, match="got 2 sequences and 3 targets"):
        Buckets(words, np.zeros(3), 2, boundaries=(4,))
    with pytest.raises(ValueError, match=r"^pad: expected at least one sequence"):
        pad([], 3)
    with pytest.raises(
        ValueError, match=r"^pad: .* differ in their length alone, got float64\[3\], int32\[3\]"
    ):
        pad([*words[:1], np.zeros(3)], 3)
    with pytest.raises(ValueError, match=r"^pad: .* differ in their length alone"):
        pad([np.zeros((3, 2)), np.zeros((3, 4))], 3)
    with pytest.raises(ValueError, match=r"^pad: .* differ in their length alone"):
        pad([np.array(3)], 3)


@pytest.mark.slow
def test_fit_counts_every_sequence_once_and_compiles_each_bucket_once():
    model = dl.Sequential(dl.Embedding(50, 4), dl.SimpleRNN(4, sequence=False), dl.Dense(1))
    before = program.compiled_step._cache_size()
    run = dl.fit(
        model,
        buckets(),
        loss=lambda outputs, rows: outputs[:, 0] ** 2,
        optimizer=optax.sgd(0.1),
        metrics={"row": lambda outputs, rows: rows.astype(jnp.float32)},
        epochs=4,
        new_shapes=True,
        progress=False,
    )
    assert run.history["row"] == pytest.approx([np.mean(ROWS)] * 4, rel=1e-6)
    assert program.compiled_step._cache_size() == before + 4


@pytest.mark.slow
@pytest.mark.once
def test_evaluation_over_buckets_equals_that_over_one_padded_array():
    model = dl.Sequential(dl.Embedding(50, 4), dl.LSTM(4, sequence=False), dl.Dense(1))
    padded = pad(sequences(LENGTHS), 30)
    params, state = model.init(jax.random.key(0), padded)
    options: dict[str, Any] = {
        "loss": lambda outputs, rows: outputs[:, 0] * rows.astype(jnp.float32)
    }
    in_buckets = dl.evaluate(model, params, state, buckets(), **options)
    at_once = dl.evaluate(model, params, state, (padded, ROWS), **options)
    assert in_buckets["loss"] == pytest.approx(at_once["loss"], rel=1e-5)
