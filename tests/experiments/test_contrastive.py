"""The views of the contrastive experiment, its loss and its labelled sets."""

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl

pytest.importorskip("matplotlib")
contrastive = importlib.import_module("experiments.contrastive")


def test_images_are_warped_as_scipy_does_it() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(3, 9, 9, 1)).astype(np.float32)
    matrix = (np.eye(2) + 0.3 * rng.normal(size=(3, 2, 2))).astype(np.float32)
    shift = rng.normal(size=(3, 2)).astype(np.float32)
    matrix[0] = np.eye(2)
    shift[0] = 0
    found = contrastive.warped(jnp.asarray(images), jnp.asarray(matrix), jnp.asarray(shift))
    np.testing.assert_array_equal(found[0], images[0])
    for row in range(3):
        offset = 4 - matrix[row] @ [4, 4] + shift[row]
        wanted = ndimage.affine_transform(
            images[row, ..., 0], matrix[row], offset, order=1, mode="grid-constant"
        )
        np.testing.assert_allclose(found[row, ..., 0], wanted, atol=1e-5)


def test_two_views_of_an_image_differ_and_stay_within_its_values() -> None:
    images = np.full((2, 28, 28, 1), 255, np.uint8)
    first, second = (contrastive.view(jax.random.key(seed), images) for seed in range(2))
    for each in (first, second):
        assert each.shape == (2, 28, 28, 1)
        assert 0 <= float(each.min()) < float(each.max()) <= 1
    assert not np.allclose(first, second)


def test_the_loss_reads_the_mask_and_trains_all_parts() -> None:
    model = dl.Sequential(dl.Flatten(), dl.Dense(4))
    objective = contrastive.SimCLR(model, 0.5)
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), np.uint8)
    params, state = objective.init(jax.random.key(0), dl.Batch(images, ()))
    mode = dl.Train(jax.random.key(1))

    def loss(rows: np.ndarray) -> jax.Array:
        mask = jnp.array([True, True, True, False])
        return objective.loss(params, state, dl.Batch(rows, (), mask=mask), mode)[0]

    other = images.copy()
    other[3] = 0
    np.testing.assert_allclose(loss(images), loss(other), rtol=1e-6)
    assert float(loss(images)[3]) == 0
    assert objective.mixes


def test_labels_are_drawn_alike_of_each_class() -> None:
    labels = np.array(list(itertools.chain.from_iterable([each] * 9 for each in range(3))))
    rows = contrastive.labelled(np.random.default_rng(0), labels, 4)
    assert len(set(rows.tolist())) == 12
    assert np.bincount(labels[rows]).tolist() == [4, 4, 4]
