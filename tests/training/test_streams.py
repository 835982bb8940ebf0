"""Batches from generators, lists and data loaders."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, metrics

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RNG = np.random.default_rng(2)
X = RNG.normal(size=(50, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 50).astype(np.int32)
MODEL = dl.Sequential(dl.Dense(6, use_bias=False), dl.BatchNorm(), jax.nn.relu, dl.Dense(3))
fit = functools.partial(
    dl.fit,
    MODEL,
    loss=losses.softmax_cross_entropy,
    optimizer=optax.adam(1e-2),
    metrics={"accuracy": metrics.accuracy},
    progress=False,
)


def batches(size=8, arrays=(X, Y)):
    for i in range(0, len(X), size):
        yield tuple(a[i : i + size] for a in arrays)


@pytest.mark.slow
@pytest.mark.parametrize(
    "way", [pytest.param("eager", marks=pytest.mark.once), "step", "epoch", "auto"]
)
def test_a_stream_trains_as_the_same_arrays_do(way):
    whole = fit((X, Y), batch_size=8, epochs=3, shuffle=False)
    stream = fit(batches, epochs=3, compile=way)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(stream.history[name], whole.history[name], rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        (stream.params, stream.state),
        (whole.params, whole.state),
    )


@pytest.mark.sampled
@pytest.mark.parametrize("way", ["step", "epoch"])
@pytest.mark.parametrize("count", [16, 32, 40])
def test_an_epoch_of_many_stacks_counts_all_of_them(way, count):
    ones = [
        (np.ones((2, 4), np.float32), np.full(2, 1.0 if i < 8 else 0.0, np.float32))
        for i in range(count)
    ]
    run = dl.fit(
        dl.Dense(1, kernel_init=jax.nn.initializers.zeros),
        ones,
        loss=lambda outputs, targets: targets + 0 * outputs[:, 0],
        optimizer=optax.sgd(0.1),
        epochs=2,
        compile=way,
        validation=ones,
        progress=False,
    )
    assert (
        run.history["loss"] == run.history["validation_loss"] == pytest.approx([8 / count] * 2)
    )


@pytest.mark.slow
@pytest.mark.parametrize("way", ["step", "epoch"])
def test_a_smaller_last_batch_is_dropped(way):
    whole = fit((X, Y), batch_size=8, epochs=3, shuffle=False, drop_last=True)
    stream = fit(batches, epochs=3, compile=way, drop_last=True)
    assert int(stream.train_state.step) == int(whole.train_state.step) == 18
    np.testing.assert_allclose(stream.history["loss"], whole.history["loss"], rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        stream.params,
        whole.params,
    )


@pytest.mark.slow
def test_smaller_batches_of_each_shape_are_dropped():
    """As of buckets, of which each has a smaller batch at its end; an epoch of so many steps counts what is left."""
    sizes = [(4, 3), (4, 5), (2, 3), (4, 3), (3, 5), (4, 5)]
    data = [
        (np.ones((rows, length, 1), np.float32), np.full(rows, rows, np.float32))
        for rows, length in sizes
    ]
    model = dl.Sequential(dl.GlobalAvgPool(), dl.Dense(1))
    options = {
        "loss": lambda outputs, targets: targets + 0 * outputs[:, 0],
        "optimizer": optax.sgd(0.1),
        "progress": False,
    }
    run = dl.fit(model, data, new_shapes=True, drop_last=True, epochs=2, **options)
    assert run.history["loss"] == [4, 4]
    assert int(run.train_state.step) == 8
    assert int(dl.fit(model, data, new_shapes=True, epochs=2, **options).train_state.step) == 12


@pytest.mark.slow
def test_what_fills_up_a_batch_has_a_gradient_that_is_finite():
    """The root's slope at 0 is infinite, and where rows of zeros met targets of zero it was multiplied by a weight of zero."""
    options = {
        "loss": lambda o, t: jnp.sqrt(((o - t) ** 2).sum(-1)),
        "optimizer": optax.sgd(0.01),
        "progress": False,
    }
    data = (X, X @ np.ones((4, 2), np.float32))
    start = dl.Dense(2, use_bias=False).init(jax.random.key(0), X)
    stream, whole = (
        dl.fit(
            dl.Dense(2, use_bias=False),
            given,
            initial=start,
            epochs=2,
            batch_size=8,
            shuffle=False,
            **options,
        )
        for given in (list(batches(arrays=data)), data)
    )
    assert stream.stopped == "finished"
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), stream.params, whole.params
    )


@pytest.mark.slow
def test_a_list_of_batches_and_weights():
    weights = RNG.uniform(0, 1, 50).astype(np.float32)
    whole = fit((X, Y, weights), batch_size=8, epochs=2, shuffle=False)
    stream = fit(list(batches(arrays=(X, Y, weights))), epochs=2)
    np.testing.assert_allclose(stream.history["loss"], whole.history["loss"], rtol=1e-4)


@pytest.mark.slow
def test_a_torch_data_loader():
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(
        TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=8, shuffle=True
    )
    run = fit(loader, epochs=4, validation=loader)
    assert len(run.history["validation_loss"]) == 4
    assert int(run.train_state.step) == 28
    assert run.history["loss"][-1] < run.history["loss"][0]


def test_an_endless_generator_has_epochs_of_so_many_steps():
    def endless():
        while True:
            yield from batches()

    run = fit(endless(), epochs=3, steps_per_epoch=20)
    assert int(run.train_state.step) == 60
    assert len(run.history["loss"]) == 3
    run = fit(endless(), steps=50, steps_per_epoch=20)
    assert int(run.train_state.step) == 50
    assert len(run.history["loss"]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("way", ["step", "epoch"])
def test_a_generator_that_ends_ends_the_run_and_keeps_what_was_trained(way):
    whole = fit(batches, compile=way)
    with pytest.warns(
        RuntimeWarning,
        match="after 7 steps: data: the batch source yields nothing for epoch 2, as a generator",
    ):
        run = fit(batches(), epochs=2, compile=way)
    assert run.stopped.startswith(
        "the data ended: data: the batch source yields nothing for epoch 2"
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        (run.params, run.history["loss"]),
        (whole.params, whole.history["loss"]),
    )
    with pytest.warns(RuntimeWarning, match="ended after 3 of the 4 batches of epoch 2"):
        run = fit(batches(), epochs=3, steps_per_epoch=4, validation=(X, Y), compile=way)
    jax.tree.map(np.testing.assert_array_equal, run.params, whole.params)
    assert len(run.history["loss"]) == len(run.history["validation_loss"]) == 2
    two = [run.history["loss"][0] * 32, run.history["loss"][1] * 18]
    np.testing.assert_allclose(sum(two) / 50, whole.history["loss"][0], rtol=1e-5)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("steps", [2, 10])
@pytest.mark.parametrize("kind", ["list", "function", "loader"])
def test_what_can_be_read_again_is_begun_again_wherever_an_epoch_is(kind, steps):
    torch = pytest.importorskip("torch") if kind == "loader" else None
    if torch is not None:
        from torch.utils.data import DataLoader, TensorDataset

        data = DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=8)
    else:
        data = batches if kind == "function" else list(batches())

    def repeated():
        while True:
            yield from batches()

    run = fit(data, epochs=5, steps_per_epoch=steps)
    expected = fit(repeated(), epochs=5, steps_per_epoch=steps)
    assert int(run.train_state.step) == 5 * steps
    assert run.stopped == "finished"
    jax.tree.map(np.testing.assert_array_equal, run.params, expected.params)
    np.testing.assert_array_equal(run.history["loss"], expected.history["loss"])


@pytest.mark.slow
def test_a_run_goes_on_in_whichever_pass_it_was(tmp_path):
    options = {"steps_per_epoch": 3, "seed": 1}
    whole = fit(list(batches()), epochs=8, **options)
    for epochs in (
        2,
        5,
        8,
    ):  # the second pass begins in the third epoch, the third in the fifth
        run = fit(
            list(batches()),
            epochs=epochs,
            checkpoint=dl.Checkpoints(tmp_path / "run"),
            **options,
        )
    jax.tree.map(np.testing.assert_array_equal, run.params, whole.params)


def test_a_generator_validates_one_epoch_alone():
    assert len(fit(batches, validation=batches()).history["validation_loss"]) == 1
    with pytest.raises(
        ValueError, match=r"validation: a generator is used up after the first epoch"
    ):
        fit(batches, validation=batches(), epochs=2)


def test_an_empty_stream_says_so():
    with pytest.raises(ValueError, match="the batch source is empty"):
        fit(lambda: iter(()))


def test_an_item_that_is_no_batch_says_so():
    with pytest.raises(
        ValueError, match=r"batch 1 is ndarray; expected a tuple \(inputs, targets\)"
    ):
        fit([X])


def test_lengths_within_a_batch_are_compared():
    with pytest.raises(ValueError, match="batch 1 has arrays of different lengths"):
        fit([(X[:8], Y[:7])])


@pytest.mark.slow
def test_a_changed_shape_is_refused_or_compiled_anew():
    model = dl.Sequential(dl.GlobalAvgPool(), dl.Dense(3))
    stream = [(RNG.normal(size=(4, n, 2)).astype(np.float32), Y[:4]) for n in (5, 5, 7, 7, 5)]
    options = {
        "loss": losses.softmax_cross_entropy,
        "optimizer": optax.sgd(0.1),
        "progress": False,
    }
    with pytest.raises(ValueError, match=r"batch 3 of epoch 1 has shapes float32\[4, 7, 2\]"):
        dl.fit(model, stream, **options)
    for way in ("step", "epoch"):
        run = dl.fit(model, stream, new_shapes=True, compile=way, **options)
        assert int(run.train_state.step) == 5


def test_labels_of_every_batch_are_checked():
    spoiled = [(X[:8], Y[:8]), (X[8:16], np.where(Y[8:16] == 2, -1, Y[8:16]))]
    with pytest.raises(
        ValueError,
        match=r"data: batch 2 of epoch 1 targets: softmax_cross_entropy: .* labels lie outside 0…2",
    ):
        fit(spoiled)


def test_an_error_in_the_source_comes_through():
    def broken():
        yield X[:8], Y[:8]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        fit(broken)


def test_the_source_is_read_while_the_device_works():
    import threading

    threads = set()

    def watched():
        for batch in batches():
            threads.add(threading.current_thread().name)
            yield batch

    fit(watched)
    assert any(name.startswith("jaxdl-reader") for name in threads)
