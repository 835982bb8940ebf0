"""The vision transformer: what it computes, against PyTorch's layers on the same weights, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import models
from tests.layers.oracles import close, normal, perturbed
from tests.layers.test_transformer import torch_block

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.mark.slow
def test_it_computes_what_pytorch_computes() -> None:
    torch = pytest.importorskip("torch")
    model, images = (
        models.vit(5, patch=3, layers=2, heads=2, features=8, hidden=12),
        normal(0, (2, 6, 9, 3)),
    )
    params = perturbed(model.init(jax.random.key(0), images)[0])
    p = jax.tree.map(lambda leaf: torch.tensor(np.array(leaf)), params)
    kernel = p["patches"]["kernel"].permute(3, 2, 0, 1)
    x = torch.nn.functional.conv2d(
        torch.tensor(np.array(images)).permute(0, 3, 1, 2),
        kernel,
        p["patches"]["bias"],
        stride=3,
    )
    x = x.flatten(2).transpose(1, 2) + p["positions"]["embedding"]
    for index in range(2):
        x = torch_block(torch, params[f"block_{index}"], 2, norm_first=True)(x)
    x = torch.nn.functional.layer_norm(
        x, (8,), p["norm"]["scale"], p["norm"]["bias"], 1e-6
    ).mean(1)
    expected = x @ p["logits"]["kernel"] + p["logits"]["bias"]
    close(model.apply(params, {}, images)[0], expected.detach().numpy())


@pytest.mark.slow
@pytest.mark.once
def test_it_learns_digits() -> None:
    sklearn = pytest.importorskip("sklearn.datasets")
    digits = sklearn.load_digits()
    images, labels = (
        (digits.images[..., None] / 16).astype(np.float32),
        digits.target.astype(np.int32),
    )
    trained = dl.fit(
        models.vit(10, patch=2, layers=1, heads=2, features=16),
        (images[:1000], labels[:1000]),
        loss=dl.losses.softmax_cross_entropy,
        optimizer=optax.adam(5e-3),
        epochs=10,
        batch_size=50,
        metrics={"accuracy": dl.metrics.accuracy},
        validation=(images[1500:], labels[1500:]),
        progress=False,
    )
    assert trained.history["loss"][-1] < 0.2 * trained.history["loss"][0]
    assert trained.history["validation_accuracy"][-1] > 0.7


@pytest.mark.slow
def test_images_of_bytes_are_read_as_they_are() -> None:
    model = models.vit(10, patch=4, layers=1, heads=2, features=8, dropout=0.1)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
    params, state = model.init(jax.random.key(0), images)
    y, _ = model.apply(params, state, images)
    close(y, model.apply(params, state, jnp.asarray(images, jnp.float32) / 255)[0])


@pytest.mark.slow
def test_an_image_of_another_size_is_refused() -> None:
    model = models.vit(10, patch=4, layers=1, heads=2, features=8)
    params, state = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    with pytest.raises(dl.LayerError, match="LearnedPositions at 'positions'"):
        model.apply(params, state, jnp.zeros((1, 12, 12, 1)))
