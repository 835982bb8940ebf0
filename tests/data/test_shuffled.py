"""A shuffle buffer: every example once a pass, in an order that the seed decides, and exact on resume."""

import jax
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdl as dl
from jaxdl import losses
from jaxdl.data import Buckets, RandomWindows, Shuffled

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 3)).astype(np.float32)
Y = X.sum(1, keepdims=True)


def numbers(count, size):
    return [(np.arange(i, min(i + size, count)), np.arange(i, min(i + size, count)) * 10)
            for i in range(0, count, size)]  # fmt: skip


def batches(size=8):
    return [(X[i : i + size], Y[i : i + size]) for i in range(0, 50, size)]


def order(stream):
    """The first arrays of a pass's batches, one after another."""
    return np.concatenate([batch[0] for batch in stream])


@pytest.mark.slow
@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 70), st.data())
def test_each_example_comes_once_a_pass_and_not_before_its_time(count, size, buffer_size, data):
    batch_size = data.draw(st.none() | st.integers(1, buffer_size))
    if batch_size is None and min(size, count) > buffer_size:
        return
    shuffled = Shuffled(numbers(count, size), buffer_size, batch_size=batch_size, seed=3)
    found = list(shuffled)
    sizes = [len(inputs) for inputs, _ in found]
    wanted = batch_size or min(size, count)
    assert sizes[:-1] == [wanted] * (len(sizes) - 1)
    assert sizes[-1] == count - wanted * (len(sizes) - 1)
    places = order(found)
    assert sorted(places.tolist()) == list(range(count))
    for inputs, targets in found:
        np.testing.assert_array_equal(targets, inputs * 10)
    first_of_batch = np.arange(count) // wanted * wanted
    assert (places < first_of_batch + buffer_size).all()


def test_the_seed_and_the_number_of_the_pass_decide_the_order():
    shuffled, again, other = (
        Shuffled(numbers(40, 8), buffer_size=16, seed=seed) for seed in (1, 1, 2)
    )
    first, second = order(shuffled), order(shuffled)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(order(again), first)
    np.testing.assert_array_equal(order(again), second)
    assert not np.array_equal(order(other), first)


@pytest.mark.slow
def test_a_buffer_of_a_whole_pass_permutes_it_evenly():
    shuffled = Shuffled(numbers(20, 5), buffer_size=20)
    places = np.stack([np.argsort(order(shuffled)) for _ in range(2000)])
    counts = np.stack([np.bincount(column, minlength=20) for column in places.T])
    np.testing.assert_allclose(counts, 100, atol=5.5 * np.sqrt(100 * 0.95))


def test_what_the_stream_yields_stays_as_it_is():
    stream = numbers(40, 8)
    before = [tuple(leaf.copy() for leaf in batch) for batch in stream]
    taken = list(Shuffled(stream, buffer_size=16))
    copies = [inputs.copy() for inputs, _ in taken]
    list(Shuffled(stream, buffer_size=16))
    jax.tree.map(np.testing.assert_array_equal, stream, before)
    jax.tree.map(np.testing.assert_array_equal, [inputs for inputs, _ in taken], copies)


@pytest.mark.parametrize("drawn", [0, 1, 4, 7])
def test_it_continues_where_its_state_says(drawn):
    sequences = [np.full((3, 1), i, np.float32) for i in range(28)]

    def made():
        buckets = Buckets(sequences, np.arange(28), batch_size=4, boundaries=(3,), seed=5)
        return Shuffled(buckets, buffer_size=8, seed=1)

    whole = made()
    targets = [[batch[1].tolist() for batch in whole] for _ in range(3)]
    part = made()
    list(part)
    iterator = iter(part)
    for _ in range(drawn):
        next(iterator)
    state = part.state_dict()
    resumed = made()
    resumed.load_state_dict(state)
    if drawn:
        assert [batch[1].tolist() for batch in resumed] == targets[1][drawn:]
        assert [batch[1].tolist() for batch in resumed] == targets[2]
    else:
        assert [batch[1].tolist() for batch in resumed] == targets[1]


STREAMS = {
    "list": lambda: Shuffled(batches(), buffer_size=20, seed=2),
    "buckets": lambda: Shuffled(
        Buckets(list(X[:, None]), Y, batch_size=8, boundaries=(1,)), buffer_size=20
    ),
}


@pytest.mark.sampled
@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("steps", [None, 5])
def test_a_run_resumes_exactly(kind, steps, tmp_path):
    model = dl.Dense(1)
    if kind == "buckets":
        model = dl.Sequential(dl.GlobalAvgPool(), dl.Dense(1))
    options = {
        "loss": losses.mean_squared_error,
        "optimizer": optax.adam(0.1),
        "steps_per_epoch": steps,
        "progress": False,
    }
    whole = dl.fit(model, STREAMS[kind](), epochs=4, **options)
    for epochs in (1, 3, 4):
        folder = dl.Checkpoints(tmp_path / "run")
        run = dl.fit(model, STREAMS[kind](), epochs=epochs, checkpoint=folder, **options)
    jax.tree.map(np.testing.assert_array_equal, run.params, whole.params)
    np.testing.assert_array_equal(run.history["loss"], whole.history["loss"])


def test_a_stream_that_cannot_be_read_again_trains_and_is_not_saved(tmp_path):
    options = {
        "loss": losses.mean_squared_error,
        "optimizer": optax.adam(0.1),
        "progress": False,
    }
    run = dl.fit(dl.Dense(1), Shuffled(batches, buffer_size=20), epochs=2, **options)
    assert len(run.history["loss"]) == 2
    with pytest.raises(
        ValueError, match="Shuffled: a run that saves itself has to take its data"
    ):
        dl.fit(
            dl.Dense(1),
            Shuffled(batches, buffer_size=20),
            checkpoint=dl.Checkpoints(tmp_path / "run"),
            **options,
        )


def test_an_endless_stream_is_shuffled_too():
    windows = RandomWindows(np.arange(100), length=4, batch_size=3)
    shuffled = iter(Shuffled(windows, buffer_size=30, batch_size=5))
    for _ in range(20):
        inputs, targets = next(shuffled)
        assert inputs.shape == (5, 4)
        np.testing.assert_array_equal(targets, inputs + 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Shuffled([], buffer_size=0), "buffer_size is at least 1, got 0"),
        (lambda: Shuffled([], buffer_size=1, batch_size=0), "batch_size is at least 1, got 0"),
        (lambda: Shuffled([], buffer_size=1, seed=-1), "seed is a whole number"),
        (
            lambda: list(Shuffled(numbers(9, 4), buffer_size=3)),
            "a batch of 4 examples does not fit",
        ),
        (lambda: list(Shuffled([X], buffer_size=3)), "batch 1 is ndarray; expected a tuple"),
        (
            lambda: list(Shuffled([(X, Y), (X[:, :2], Y)], buffer_size=99)),
            r"batch 2 has examples of float32\[2\], float32\[1\], where the first has float32\[3\]",
        ),
        (lambda: list(Shuffled([(X, Y[:3])], buffer_size=99)), "arrays of different lengths"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=f"Shuffled: .*{message}"):
        make()


def test_a_position_of_another_stream_is_refused():
    with pytest.raises(ValueError, match="the position is of a stream that says where it is"):
        Shuffled([], buffer_size=1).load_state_dict({"passes": 1, "drawn": 0, "stream": {}})
