"""The sampler of the diffusion experiment, and its objective."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl

pytest.importorskip("matplotlib")
diffusion = importlib.import_module("experiments.diffusion_mnist")


@dataclasses.dataclass(frozen=True)
class Normal(dl.Layer):
    """The best v where pixels are N(mean of their digit, deviation²); that of class 10 is 0."""

    deviation: float

    def init(self, key, x):
        return {}, {}

    def apply(self, params, state, x, mode=dl.Eval()):
        means = jnp.append(jnp.linspace(-0.5, 0.5, 10), 0.0)
        alpha, sigma = diffusion.signal_and_noise(x["time"][:, None, None, None])
        mean = means[x["digit"]][:, None, None, None]
        variance = alpha**2 * self.deviation**2 + sigma**2
        gain = alpha * self.deviation**2 / variance
        image = mean + gain * (x["image"] - alpha * mean)
        noise = (x["image"] - alpha * image) / jnp.maximum(sigma, 1e-6)
        return alpha * noise - sigma * image, state


def test_the_best_denoiser_of_normal_pixels_draws_normal_pixels() -> None:
    digits = jnp.array([0, 4, 9], jnp.int32)
    model, key = Normal(0.1), jax.random.key(0)
    images = diffusion.sampled(model, {}, key, digits, jnp.float32(0), 200)
    pixels = 2 * np.asarray(images).reshape(3, -1) - 1
    np.testing.assert_allclose(pixels.mean(axis=1), [-0.5, -0.5 + 4 / 9, 0.5], atol=0.015)
    np.testing.assert_allclose(pixels.std(axis=1), 0.1, rtol=0.15)


def test_guidance_goes_on_from_no_digit_over_the_digit() -> None:
    digits = jnp.array([0, 9], jnp.int32)
    images = diffusion.sampled(
        Normal(0.1), {}, jax.random.key(0), digits, jnp.float32(0.5), 100
    )
    pixels = 2 * np.asarray(images).reshape(2, -1) - 1
    assert pixels[0].mean() < -0.6
    assert pixels[1].mean() > 0.6


def test_the_last_step_ends_at_the_image_and_the_first_begins_at_noise() -> None:
    z, image, noise = jax.random.normal(jax.random.key(0), (3, 2, 4))
    last = diffusion.earlier(z, image, noise, jnp.float32(0.01), jnp.float32(0))
    np.testing.assert_allclose(last, image, atol=1e-5)
    first = diffusion.earlier(z, image, noise, jnp.float32(1), jnp.float32(0.5))
    np.testing.assert_allclose(first, (image + noise) / np.sqrt(2), atol=1e-5)


def test_the_loss_of_the_best_denoiser_is_less_than_that_of_an_untold_one() -> None:
    rng = np.random.default_rng(0)
    digits = rng.integers(0, 10, 64).astype(np.int32)
    means = np.linspace(-0.5, 0.5, 10)[digits].reshape(64, 1, 1, 1)
    pixels = means + 0.1 * rng.normal(size=(64, 28, 28, 1))
    batch = dl.Batch(jnp.asarray((127.5 * (pixels + 1)).astype(np.float32)), digits)
    mode = dl.Eval(key=jax.random.key(0))
    told, untold = (
        diffusion.Denoising(Normal(0.1), rate).loss({}, {}, batch, mode)[0]
        for rate in (0.0, 1.0)
    )
    assert told.shape == (64,)
    assert float(told.mean()) < float(untold.mean())
