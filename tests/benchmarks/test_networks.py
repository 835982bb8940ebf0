"""The networks of the benchmarks: shapes, weights and data."""

import numpy as np
import pytest

from benchmarks.compile_time import covered
from benchmarks.import_time import seconds_of
from benchmarks.networks import (
    NETWORKS,
    as_floats,
    dense_flops,
    examples,
    flattened_shapes,
    initial_weights,
    parameter_count,
    rows_channels_first,
)


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
    assert parameter_count(NETWORKS[name]) == parameters
    assert flattened_shapes(NETWORKS[name]) == flattened


def test_weights_come_from_the_seed() -> None:
    first, again, other = (initial_weights(NETWORKS["cifar"], seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first["conv_1"]["kernel"], again["conv_1"]["kernel"])
    assert not np.array_equal(first["conv_1"]["kernel"], other["conv_1"]["kernel"])
    assert first["conv_1"]["kernel"].shape == (3, 3, 32, 64)


def test_rows_channels_first_gives_the_same_product() -> None:
    generator = np.random.default_rng(0)
    image, kernel = generator.normal(size=(2, 3, 4)), generator.normal(size=(24, 5))
    rearranged = rows_channels_first(kernel, image.shape)
    np.testing.assert_allclose(image.transpose(2, 0, 1).ravel() @ rearranged, image.ravel() @ kernel)


def test_images_are_bytes_and_their_floats_are_the_same_values() -> None:
    images, labels = examples(NETWORKS["cifar"], 50)
    assert images.dtype == np.uint8
    assert images.shape == (50, 32, 32, 3)
    assert set(labels) <= set(range(10))
    floats = as_floats(images)
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats, images / 255, rtol=1e-6)


def test_the_performed_operations_are_fewer_than_the_counted() -> None:
    flops = dense_flops(NETWORKS["mlp"])
    assert flops == {"counted": 6 * 32 * 231, "performed": 6 * 32 * 210 - 2 * 32 * 100}


def test_overlapping_spans_are_counted_once() -> None:
    assert covered([(0.0, 4.0), (1.0, 2.0), (3.0, 5.0), (7.0, 8.0)]) == 6.0


def test_an_import_takes_time() -> None:
    assert 0 < seconds_of("import json, email.message") < 10
