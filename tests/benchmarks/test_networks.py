"""The networks of the benchmarks: shapes, weights, data, losses, and the arithmetic they need."""

import jax
import numpy as np
import optax
import pytest

import jaxdl as dl
from benchmarks.compile_time import covered
from benchmarks.examples import as_floats, as_signed, examples, mean_loss
from benchmarks.import_time import seconds_of
from benchmarks.networks import NETWORKS, flattened_shapes, flops, products
from benchmarks.weights import initial_weights, parameter_count, rows_channels_first
from jaxdl import models, tree


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("name", "parameters", "flattened"),
    [
        ("mlp", 231, {}),
        ("wide", 1863690, {"dense_0": (28, 28, 1)}),
        ("mnist", 93322, {"dense_0": (3, 3, 64)}),
        ("cifar", 160202, {"dense_0": (2, 2, 128)}),
        ("lstm", 4 * 64 * (10 + 64 + 1) + 4 * 64 * (64 + 64 + 1) + 650, {}),
    ],
)
def test_layer_sizes(name: str, parameters: int, flattened: dict[str, tuple[int, ...]]) -> None:
    assert parameter_count(initial_weights(NETWORKS[name])) == parameters
    assert flattened_shapes(NETWORKS[name]) == flattened


@pytest.mark.parametrize(
    ("name", "model", "inputs"),
    [
        (
            "gpt",
            models.gpt(65, layers=4, heads=4, features=128, context=64),
            jax.ShapeDtypeStruct((1, 64), np.int32),
        ),
        ("resnet", models.resnet(16, 32, 64), jax.ShapeDtypeStruct((1, 32, 32, 3), np.uint8)),
    ],
)
def test_networks_are_those_of_the_models(
    name: str, model: dl.Sequential, inputs: jax.ShapeDtypeStruct
) -> None:
    params = jax.eval_shape(lambda key: model.init(key, inputs)[0], jax.random.key(0))
    assert parameter_count(initial_weights(NETWORKS[name])) == tree.parameter_count(params)


def test_weights_come_from_the_seed() -> None:
    first, again, other = (initial_weights(NETWORKS["cifar"], seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first["conv_1"]["kernel"], again["conv_1"]["kernel"])
    assert not np.array_equal(first["conv_1"]["kernel"], other["conv_1"]["kernel"])
    assert first["conv_1"]["kernel"].shape == (3, 3, 32, 64)


def test_rows_channels_first_gives_the_same_product() -> None:
    generator = np.random.default_rng(0)
    image, kernel = generator.normal(size=(2, 3, 4)), generator.normal(size=(24, 5))
    rearranged = rows_channels_first(kernel, image.shape)
    np.testing.assert_allclose(
        image.transpose(2, 0, 1).ravel() @ rearranged, image.ravel() @ kernel
    )


def test_images_are_bytes_and_their_floats_are_the_same_values() -> None:
    images, labels = examples(NETWORKS["cifar"], 50)
    assert images.dtype == np.uint8
    assert images.shape == (50, 32, 32, 3)
    assert set(labels) <= set(range(10))
    floats = as_floats(images)
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats, images / 255, rtol=1e-6)


def test_targets_are_the_inputs_one_token_on() -> None:
    inputs, targets = examples(NETWORKS["gpt"], 24)
    assert inputs.shape == targets.shape == (24, 64)
    np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])
    assert set(((targets - inputs) % 65).ravel()) == {0, 1, 2, 3}


def test_every_image_of_the_pair_has_a_code() -> None:
    images, codes = examples(NETWORKS["gan"], 5)
    assert (images.shape, codes.shape) == ((5, 784), (5, 128))
    signed = as_signed(images)
    assert -1 <= signed.min() < -0.9 < 0.9 < signed.max() <= 1


def test_losses_are_those_of_optax() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(6, 10)).astype(np.float32)
    labels = generator.integers(0, 10, 6)
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    np.testing.assert_allclose(
        mean_loss(NETWORKS["cifar"], logits, labels), expected, rtol=1e-6
    )
    binary = labels.astype(np.float32) % 2
    expected = optax.sigmoid_binary_cross_entropy(logits[:, 0], binary).mean()
    np.testing.assert_allclose(
        mean_loss(NETWORKS["mlp"], logits[:, :1], binary), expected, rtol=1e-6
    )


def test_operations_of_dense_layers_and_of_a_gpt() -> None:
    assert flops(NETWORKS["mlp"]) == 6 * 32 * 210 - 2 * 32 * 100
    assert flops(NETWORKS["mlp"], "inference") == 2 * 32 * 210
    gpt = NETWORKS["gpt124m"]
    by_tokens = 4 * 1024 * (6 * (12 * 12 * 768**2 + 50257 * 768) + 12 * 12 * 768 * 1024)
    assert flops(gpt) == pytest.approx(by_tokens)


@pytest.mark.slow
def test_operations_of_convolutions_are_those_that_xla_counts() -> None:
    kernels = initial_weights(NETWORKS["mnist"])

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    x = jax.ShapeDtypeStruct((1, 28, 28, 1), np.float32)
    cost = jax.jit(convolve).lower(x, kernels["conv_0"]["kernel"]).compile().cost_analysis()
    assert cost is not None
    assert 2 * products(NETWORKS["mnist"])[0] == cost["flops"]


def test_overlapping_spans_are_counted_once() -> None:
    assert covered([(0.0, 4.0), (1.0, 2.0), (3.0, 5.0), (7.0, 8.0)]) == 6.0


def test_an_import_takes_time() -> None:
    assert 0 < seconds_of("import json, email.message") < 10
