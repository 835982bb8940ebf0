"""Dense, Embedding, PReLU and the layers that only move numbers."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ks_2samp

import jaxdl as dl
from jaxdl.core.error import LayerError
from tests.layers.oracles import (
    close,
    figures,
    flax_figures,
    layer_figures,
    normal,
    perturbed,
    torch_figures,
)

pytestmark = pytest.mark.usefixtures("quickly_compiled")
KEY = jax.random.key(0)

Dense: Any = dl.Dense  # for arguments that a type checker refuses


def drawn(layer: Any, shape: tuple[int, ...]) -> tuple[Any, jax.Array]:
    x = normal(0, shape)
    return perturbed(layer.init(KEY, x)[0]), x


@pytest.mark.sampled(2)
@pytest.mark.parametrize("shape", [(3, 5), (3, 2, 5), (2, 3, 2, 5)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_dense_is_that_of_flax_and_pytorch(shape: tuple[int, ...], use_bias: bool) -> None:
    layer = dl.Dense(4, use_bias=use_bias)
    params, x = drawn(layer, shape)
    ours = layer_figures(layer, params, x)
    close(ours, flax_figures(nn.Dense(4, use_bias=use_bias), params, x))
    linear = pytest.importorskip("torch").nn.functional.linear
    close(
        ours,
        torch_figures(lambda p, x: linear(x, p["kernel"].T, p.get("bias")), params, x, False),
    )


def test_initial_weights_are_those_of_flax() -> None:
    for ours, theirs in (
        (dl.Dense(8).kernel_init, nn.Dense(8).kernel_init),
        (dl.Dense(8).bias_init, nn.Dense(8).bias_init),
    ):
        np.testing.assert_array_equal(
            ours(KEY, (4, 8), jnp.float32), theirs(KEY, (4, 8), jnp.float32)
        )


def test_initial_embeddings_are_distributed_as_those_of_keras(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever their width: a table of width 1 is no wider than another."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    for count, features in ((500, 16), (4000, 1)):
        layer = keras.layers.Embedding(count, features)
        layer.build()
        theirs = np.asarray(layer.embeddings.value)
        params, _ = dl.Embedding(count, features).init(KEY, jnp.zeros(1, jnp.int32))
        for drawn in (params["embedding"], theirs):
            assert 0.0499 < np.abs(drawn).max() <= 0.05
        assert ks_2samp(params["embedding"].ravel(), theirs.ravel()).pvalue > 0.01


def test_kernels_and_biases_draw_from_different_keys() -> None:
    normal_init = jax.nn.initializers.normal()
    params, _ = dl.Dense(1, kernel_init=normal_init, bias_init=normal_init).init(
        KEY, jnp.zeros((1, 1))
    )
    assert params["kernel"][0, 0] != params["bias"][0]


def test_dense_reads_bytes_as_intensities() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 5), dtype=np.uint8)
    params, state = dl.Dense(4).init(KEY, images)
    close(
        dl.Dense(4).apply(params, state, images),
        dl.Dense(4).apply(params, state, images.astype(np.float32) / np.float32(255)),
    )


@pytest.mark.parametrize("shape", [(4,), (4, 5)])
def test_embedding_is_that_of_pytorch(shape: tuple[int, ...]) -> None:
    """An index that comes more than once adds up its gradients."""
    functional = pytest.importorskip("torch").nn.functional
    layer = dl.Embedding(6, 3)
    indices = jnp.asarray(np.random.default_rng(0).integers(0, 5, shape), jnp.int32)
    params, _ = layer.init(KEY, indices)
    ours = figures(lambda params, _: layer.apply(params, {}, indices)[0], params, jnp.zeros(()))
    theirs = torch_figures(
        lambda p, x: functional.embedding(x, p["embedding"]), params, indices, False
    )
    close({**ours, "x": None}, theirs)
    assert (ours["embedding"][5] == 0).all()


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint8", "uint16", "uint32"])
def test_indices_of_every_dtype(dtype: str) -> None:
    """Even of one that cannot hold the count itself."""
    layer = dl.Embedding(256, 2)
    indices = jnp.array([0, 5, 127], dtype)
    params, _ = layer.init(KEY, indices)
    np.testing.assert_array_equal(
        layer.apply(params, {}, indices)[0], params["embedding"][np.array([0, 5, 127])]
    )


def test_an_index_that_is_none_gives_nan() -> None:
    layer = dl.Embedding(4, 2)
    params, _ = layer.init(KEY, jnp.zeros(1, jnp.int32))
    y, _ = layer.apply(params, {}, jnp.array([-1, 0, 3, 4, -(2**31), 2**31 - 1]))
    np.testing.assert_array_equal(jnp.isnan(y).all(1), [True, False, False, True, True, True])
    np.testing.assert_array_equal(jnp.isnan(y).any(1), [True, False, False, True, True, True])
    narrow = jnp.array([-1, 3], jnp.int8)
    np.testing.assert_array_equal(
        jnp.isnan(layer.apply(params, {}, narrow)[0]).all(1), [True, False]
    )


def test_embedding_in_another_dtype() -> None:
    layer = dl.Embedding(4, 2, dtype=jnp.bfloat16)
    params, _ = layer.init(KEY, jnp.zeros(1, jnp.int32))
    assert params["embedding"].dtype == jnp.float32
    assert layer.apply(params, {}, jnp.zeros(1, jnp.int32))[0].dtype == jnp.bfloat16


@pytest.mark.parametrize("shape", [(3, 5), (3, 4, 2, 5)])
def test_prelu_is_that_of_flax_and_pytorch(shape: tuple[int, ...]) -> None:
    prelu = pytest.importorskip("torch").nn.functional.prelu
    params, x = drawn(dl.PReLU(), shape)
    close(
        layer_figures(dl.PReLU(), params, x),
        torch_figures(lambda p, x: prelu(x, p["negative_slope"]), params, x),
    )
    shared, x = drawn(dl.PReLU(0.01, shared=True), shape)
    close(layer_figures(dl.PReLU(shared=True), shared, x), flax_figures(nn.PReLU(), shared, x))


def test_prelu_begins_as_that_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    params, _ = dl.PReLU().init(KEY, jnp.zeros((1, 3)))
    np.testing.assert_array_equal(
        params["negative_slope"], torch.nn.PReLU(3).weight.detach().numpy()
    )


def test_prelu_begins_at_its_slope() -> None:
    layer = dl.PReLU(0.1)
    params, state = layer.init(KEY, jnp.zeros((1, 3)))
    np.testing.assert_allclose(
        layer.apply(params, state, jnp.full((1, 3), -2.0))[0], np.full((1, 3), -0.2), rtol=1e-6
    )


def test_flatten_and_reshape_keep_row_order() -> None:
    x = jnp.arange(24.0).reshape(2, 3, 2, 2)
    np.testing.assert_array_equal(dl.Flatten().apply({}, {}, x)[0], x.reshape(2, 12))
    np.testing.assert_array_equal(dl.Flatten().apply({}, {}, x[:, 0, 0, 0])[0], x[:, :1, 0, 0])
    for shape, expected in (
        ((4, 3), (2, 4, 3)),
        ((-1, 2), (2, 6, 2)),
        (12, (2, 12)),
        (-1, (2, 12)),
    ):
        y, _ = dl.Reshape(shape).apply({}, {}, x)
        np.testing.assert_array_equal(y, x.reshape(expected))


def test_an_empty_batch_stays_one() -> None:
    assert dl.Flatten().apply({}, {}, jnp.zeros((0, 3, 2)))[0].shape == (0, 6)
    params, state = dl.Dense(3).init(KEY, jnp.zeros((1, 2)))
    assert dl.Dense(3).apply(params, state, jnp.zeros((0, 2)))[0].shape == (0, 3)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: dl.Dense(0), "Dense: features is a whole number of at least 1, got 0."),
        (lambda: Dense(2.0), "Dense: features is a whole number of at least 1, got 2.0."),
        (
            lambda: dl.Embedding(0, 3),
            "Embedding: count is a whole number of at least 1, got 0.",
        ),
        (
            lambda: dl.Embedding(3, 0),
            "Embedding: features is a whole number of at least 1, got 0.",
        ),
        (
            lambda: dl.Dense(3).init(KEY, jnp.zeros(3)),
            "Dense: expected [batch, ..., features], got shape (3,) — a single example needs x[None].",
        ),
        (
            lambda: dl.Dense(3, dtype=jnp.int32).init(KEY, jnp.zeros((1, 3))),
            "Dense: dtype is a floating-point dtype, got int32.",
        ),
        (
            lambda: dl.Dense(3).init(KEY, jnp.zeros((1, 3), bool)),
            "Dense: expected floating-point numbers, or images in uint8 (read as x / 255), got bool — convert them with "
            "x.astype('float32'), or put Embedding in front if they are indices.",
        ),
        (
            lambda: dl.Dense(3).apply(
                dl.Dense(3).init(KEY, jnp.zeros((1, 576)))[0], {}, jnp.zeros((2, 1024))
            ),
            "Dense: expected 576 features, as at init, got 1024 (input of shape (2, 1024)) — was the input's size changed after "
            "init?",
        ),
        (
            lambda: dl.PReLU().apply(
                dl.PReLU().init(KEY, jnp.zeros((1, 3)))[0], {}, jnp.zeros((1, 4))
            ),
            "PReLU: expected 3 channels, as at init, got 4 (input of shape (1, 4)) — was the input's size changed after init?",
        ),
        (
            lambda: dl.Embedding(3, 2).init(KEY, jnp.zeros((1, 3))),
            "Embedding: expected indices of an integer dtype, got float32.",
        ),
        (
            lambda: dl.Flatten().apply({}, {}, jnp.zeros(())),
            "Flatten: expected a batch axis, got a scalar.",
        ),
        (
            lambda: dl.Reshape((5, -1)).apply({}, {}, jnp.zeros((2, 12))),
            "Reshape: 12 elements an example (input of shape (2, 12)) do not fill shape (5, -1).",
        ),
        (
            lambda: dl.Reshape((5, 2)).apply({}, {}, jnp.zeros((2, 12))),
            "Reshape: 12 elements an example (input of shape (2, 12)) do not fill shape (5, 2).",
        ),
        (
            lambda: dl.Reshape((-1, -1)),
            "Reshape: one entry of the shape may be -1, got (-1, -1).",
        ),
        (
            lambda: dl.Reshape((3, -2)),
            "Reshape: shape is a whole number of at least 1, got -2.",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments(build: Any, text: str) -> None:
    with pytest.raises(LayerError) as caught:
        build()
    assert str(caught.value) == text
