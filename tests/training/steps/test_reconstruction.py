"""Autoencoders: training whose targets are its inputs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, models

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(23, 6)).astype(np.float32)
OPTIMIZER = optax.adam(1e-2)
MODEL = dl.Sequential(dl.Dense(3), jax.nn.relu, dl.Dropout(0.2), dl.Dense(6))
OPTIONS: dict[str, Any] = {"epochs": 3, "batch_size": 8, "progress": False}


def noisy(key: Any, x: Any) -> Any:
    return jnp.clip(x + 0.5 * jax.random.normal(key, x.shape), 0, 1)


@pytest.mark.slow
def test_it_is_fit_with_the_inputs_as_targets() -> None:
    step = dl.Reconstruction(MODEL, losses.binary_cross_entropy, OPTIMIZER)
    run = dl.train(step, X, validation=X[:5], **OPTIONS)
    peer = dl.fit(
        MODEL,
        (X, X),
        loss=losses.binary_cross_entropy,
        optimizer=OPTIMIZER,
        validation=(X[:5], X[:5]),
        **OPTIONS,
    )
    jax.tree.map(np.testing.assert_array_equal, run.params, peer.params)
    for name in ("loss", "validation_loss", "learning_rate"):
        np.testing.assert_allclose(run.history[name], peer.history[name], rtol=1e-6)


def test_the_corrupted_input_is_to_give_the_clean_one() -> None:
    seen = []

    def spy(x: Any) -> Any:
        jax.debug.callback(lambda v: seen.append(np.asarray(v)), x, ordered=True)
        return x

    def squared(outputs: Any, x: Any) -> Any:
        jax.debug.callback(lambda v: seen.append(np.asarray(v)), x, ordered=True)
        return jnp.square(outputs - x).mean(1)

    step = dl.Reconstruction(dl.Sequential(spy, dl.Dense(6)), squared, optax.sgd(0.0), noisy)
    run = dl.train(
        step, X[:8], validation=X[8:16], shuffle=False, **OPTIONS | {"batch_size": 4}
    )
    inputs, targets = (
        seen[0::2],
        seen[1::2],
    )  # after those of the shapes: two batches of training, two of validation an epoch
    inputs, targets = inputs[-12:], targets[-12:]
    np.testing.assert_array_equal(np.concatenate(targets[:4]), X[:16])
    training = np.stack(
        [np.concatenate(inputs[4 * epoch : 4 * epoch + 2]) for epoch in range(3)]
    )
    held = np.stack(
        [np.concatenate(inputs[4 * epoch + 2 : 4 * epoch + 4]) for epoch in range(3)]
    )
    assert not np.array_equal(training[0], training[1])
    assert np.abs(training[0] - X[:8]).mean() > 0.1
    np.testing.assert_array_equal(
        held[0], held[1]
    )  # the same noise after every epoch, and another for every batch
    noise = held[0] - X[8:16]
    assert not np.allclose(noise[:4], noise[4:], atol=0.05)
    assert len(set(run.history["validation_loss"])) == 1


def test_bytes_are_read_as_intensities() -> None:
    images = RNG.integers(0, 256, (20, 4, 4, 1), dtype=np.uint8)
    model = models.dense_autoencoder(3, shape=(4, 4, 1))
    step = dl.Reconstruction(model, losses.binary_cross_entropy, OPTIMIZER)
    a, b = (
        dl.train(step, x, **OPTIONS)
        for x in (images, images.astype(np.float32) * np.float32(1 / 255))
    )
    np.testing.assert_allclose(a.history["loss"], b.history["loss"], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("way", [pytest.param("eager", marks=pytest.mark.once), "step"])
def test_ways_give_the_same_numbers(way: Any) -> None:
    step = dl.Reconstruction(MODEL, losses.binary_cross_entropy, OPTIMIZER, noisy)
    a, b = (
        dl.train(step, X, validation=X[:9], compile=each, **OPTIONS) for each in ("epoch", way)
    )
    for name in ("loss", "validation_loss"):
        np.testing.assert_allclose(a.history[name], b.history[name], rtol=1e-4)
    jax.tree.map(
        lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-3, atol=1e-5), a.params, b.params
    )


@pytest.mark.slow
def test_data_that_the_loss_cannot_mean_are_refused() -> None:
    step = dl.Reconstruction(MODEL, losses.binary_cross_entropy, OPTIMIZER)
    with pytest.raises(
        ValueError, match=r"data inputs: binary_cross_entropy: .* lie outside 0…1"
    ):
        dl.train(step, 3 * X, progress=False)
    with pytest.raises(
        ValueError,
        match=r"data: batch 2 of epoch 1 inputs: binary_cross_entropy: .* lie outside 0…1",
    ):
        dl.train(step, [X[:8], 3 * X[8:16]], progress=False)
    with pytest.raises(
        ValueError,
        match="data inputs: expected floating-point numbers, or images in uint8, got int32",
    ):
        dl.train(step, np.ones((4, 6), np.int32), progress=False)
    with pytest.raises(ValueError, match="binary_cross_entropy"):
        dl.train(
            dl.Reconstruction(dl.Dense(5), losses.binary_cross_entropy, OPTIMIZER),
            X,
            progress=False,
        )


@pytest.mark.usefixtures("unchecked")
def test_an_optimizer_that_was_not_called_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"optimizer: expected an optax optimizer, got .* — call it"
    ):
        dl.Reconstruction(MODEL, losses.binary_cross_entropy, optax.adam)  # type: ignore[arg-type]
