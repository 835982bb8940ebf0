"""The players of an adversarial pair: shapes, ranges, sizes."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl import models

pytestmark = pytest.mark.usefixtures("quickly_compiled")

Z = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
PAIRS = {
    "dense": (
        models.dense_generator(8, 12, shape=(8, 8, 1)),
        models.dense_discriminator(12, 8),
    ),
    "convolutional": (
        models.conv_generator(6, 4, size=2),
        models.conv_discriminator(4, 6, dropout=0.3),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_a_generator_draws_images_that_its_discriminator_judges(name: str) -> None:
    generator, discriminator = PAIRS[name]
    params, state = generator.init(jax.random.key(0), Z)
    images, _ = generator.apply(params, state, 1e5 * Z)
    assert images.shape == (3, 8, 8, 1)
    assert 0 <= float(images.min()) < 0.1
    assert 0.9 < float(images.max()) <= 1
    params, state = discriminator.init(jax.random.key(1), images)
    scores, _ = discriminator.apply(params, state, images)
    assert scores.shape == (3, 1)


def test_the_dense_pair_has_the_sizes_of_its_layers() -> None:
    generator = models.dense_generator(256, 512, 1024, shape=(28, 28, 1))
    discriminator = models.dense_discriminator(1024, 512, 256, 128)
    for model, widths, x in (
        (generator, (128, 256, 512, 1024, 784), jnp.zeros((1, 128))),
        (discriminator, (784, 1024, 512, 256, 128, 1), jnp.zeros((1, 28, 28, 1))),
    ):
        params, _ = jax.eval_shape(
            lambda key, model=model, x=x: model.init(key, x), jax.random.key(0)
        )
        expected = sum(a * b + b for a, b in itertools.pairwise(widths))
        assert dl.tree.parameter_count(params) == expected


def test_images_are_read_between_minus_one_and_one() -> None:
    from jaxdl.models.gan import from_unit, to_unit

    y = jnp.linspace(-3, 3, 7)
    np.testing.assert_allclose(from_unit(to_unit(y)), np.tanh(y), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(from_unit(jnp.array([0, 255], jnp.uint8)), [-1, 1], rtol=1e-6)


def test_a_discriminator_reads_bytes_as_it_reads_their_intensities() -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 1), np.uint8)
    discriminator = PAIRS["convolutional"][1]
    params, state = discriminator.init(jax.random.key(0), images)
    as_bytes, as_floats = (
        discriminator.apply(params, state, x)[0]
        for x in (images, images.astype(np.float32) / 255)
    )
    np.testing.assert_allclose(as_bytes, as_floats, rtol=1e-4, atol=1e-6)


def parts(model: Any) -> list[str]:
    return [type(part).__name__ for part in model]


@pytest.mark.slow
def test_a_critic_has_no_batch_norm() -> None:
    assert parts(models.conv_discriminator(4, 6)).count("BatchNorm") == 1
    assert "BatchNorm" not in parts(models.conv_discriminator(4, 6, normalise=False))
    assert all(
        part.use_bias
        for part in models.conv_discriminator(4, 6, normalise=False)
        if isinstance(part, dl.Conv)
    )
