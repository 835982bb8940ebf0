"""Autoencoders: shapes, sizes, and what the variational one computes in either mode."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl import models

pytestmark = pytest.mark.usefixtures("quickly_compiled")

X = np.random.default_rng(0).uniform(size=(5, 4, 6, 1)).astype(np.float32)
MODEL = models.VariationalAutoencoder(
    dl.Sequential(dl.Flatten(), dl.Dense(7), dl.BatchNorm(), jax.nn.tanh),
    dl.Sequential(dl.Dense(24), dl.Dropout(0.5), dl.Reshape((4, 6, 1))),
    latent=3,
)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (models.dense_autoencoder(2, shape=(4, 6, 1)), 24 * 2 + 2 + 2 * 24 + 24),
        (
            models.dense_autoencoder(8, 2, shape=(4, 6, 1)),
            24 * 8 + 8 + 8 * 2 + 2 + 2 * 8 + 8 + 8 * 24 + 24,
        ),
        (models.conv_autoencoder(3), 9 * 3 + 3 + 9 * 3 * 3 + 3 + 9 * 3 + 1),
        (
            models.conv_autoencoder(3, 2),
            9 * 3 + 3 + 9 * 6 + 2 + 9 * 4 + 2 + 9 * 6 + 3 + 9 * 3 + 1,
        ),
    ],
)
def test_what_goes_in_comes_out(model: Any, parameters: int) -> None:
    x = X[:, :, :4] if "conv" in repr(model).lower() else X
    params, state = model.init(jax.random.key(0), x)
    y, _ = model.apply(params, state, x)
    assert y.shape == x.shape
    assert dl.tree.parameter_count(params) == parameters


def test_a_dense_autoencoder_is_dense_layers_around_a_linear_code() -> None:
    model = models.dense_autoencoder(8, 2, shape=(4, 6, 1), activation=jnp.tanh)
    params, state = model.init(jax.random.key(0), X)
    h = X.reshape(5, 24)
    encoder, decoder = (
        jax.tree.map(np.asarray, params["encoder"]),
        jax.tree.map(np.asarray, params["decoder"]),
    )
    h = np.tanh(h @ encoder["dense_0"]["kernel"] + encoder["dense_0"]["bias"])
    h = h @ encoder["dense_1"]["kernel"] + encoder["dense_1"]["bias"]
    h = np.tanh(h @ decoder["dense_0"]["kernel"] + decoder["dense_0"]["bias"])
    h = h @ decoder["dense_1"]["kernel"] + decoder["dense_1"]["bias"]
    np.testing.assert_allclose(
        model.apply(params, state, X)[0], h.reshape(X.shape), rtol=1e-5, atol=1e-6
    )


def test_dropout_reaches_hidden_units_and_the_code() -> None:
    model = models.dense_autoencoder(8, 2, shape=24, dropout=0.5)
    assert repr(model).count("Dropout(0.5)") == 3
    assert repr(model["encoder"]).endswith("Dense(2), Dropout(0.5))")


@pytest.mark.slow
def test_in_evaluation_the_code_is_the_mean_and_in_training_a_draw() -> None:
    params, state = MODEL.init(jax.random.key(0), X)
    assert set(params) == {"encoder", "posterior", "decoder"}
    assert set(state) == {"encoder"}
    (mean, log_variance), same = MODEL.encode(params, state, X)
    assert mean.shape == log_variance.shape == (5, 3)
    jax.tree.map(np.testing.assert_array_equal, same, state)
    y, same = MODEL.apply(params, state, X)
    np.testing.assert_array_equal(y, MODEL.decode_latent(params, state, mean)[0])
    jax.tree.map(np.testing.assert_array_equal, same, state)
    one, moved = MODEL.apply(params, state, X, dl.Train(jax.random.key(1)))
    again, _ = MODEL.apply(params, state, X, dl.Train(jax.random.key(1)))
    other, _ = MODEL.apply(params, state, X, dl.Train(jax.random.key(2)))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)
    assert not np.allclose(moved["encoder"]["batch_norm_0"]["mean"], 0)


def test_draws_have_the_posteriors_moments() -> None:
    from jaxdl.models.autoencoder import draw

    mean, log_variance = jnp.asarray([[1.0, -2.0]]), jnp.log(jnp.asarray([[0.25, 4.0]]))
    z = jax.vmap(lambda key: draw(key, mean, log_variance)[0])(
        jax.random.split(jax.random.key(0), 20_000)
    )
    np.testing.assert_allclose(z.mean(0), [1, -2], atol=0.05)
    np.testing.assert_allclose(z.std(0), [0.5, 2], rtol=0.03)


def test_samples_are_decoded_from_standard_normal_codes() -> None:
    params, state = MODEL.init(jax.random.key(0), X)
    samples = MODEL.sample(params, state, jax.random.key(3), 9)
    expected, _ = MODEL.decode_latent(
        params, state, jax.random.normal(jax.random.key(3), (9, 3))
    )
    np.testing.assert_array_equal(samples, expected)
    assert samples.shape == (9, 4, 6, 1)


def test_the_model_is_a_value() -> None:
    same = models.VariationalAutoencoder(MODEL.encoder, MODEL.decoder, latent=3)
    assert same == MODEL
    assert hash(same) == hash(MODEL)
    assert (
        repr(models.VariationalAutoencoder(dl.Flatten(), dl.Dense(2), 1))
        == "VariationalAutoencoder(Flatten(), Dense(2), 1)"
    )


@pytest.mark.slow
def test_what_does_not_fit_is_refused_where_it_is() -> None:
    with pytest.raises(
        dl.LayerError, match="latent is the length of a code, at least 1, got 0"
    ):
        models.VariationalAutoencoder(dl.Flatten(), dl.Dense(2), 0)
    with pytest.raises(
        dl.LayerError,
        match=r"the encoder gives shape \(5, 4, 6, 1\), expected \[batch, features\]",
    ):
        models.VariationalAutoencoder(dl.Conv(1, 3), dl.Dense(2), 2).init(jax.random.key(0), X)
    params, state = MODEL.init(jax.random.key(0), X)
    with pytest.raises(
        dl.LayerError,
        match=r"Dense at 'encoder.dense_0': expected 24 features, as at init, got 16",
    ):
        MODEL.apply(params, state, X[:, :, :4])
