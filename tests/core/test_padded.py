"""Padded sequences: what passes through step by step, what reads the lengths, and what refuses them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl.core.function import as_layer

LENGTHS = np.array([3, 0, 5, 1], np.int32)


def padded(values: Any) -> dl.Padded:
    return dl.Padded(jnp.asarray(values), jnp.asarray(LENGTHS))


def test_the_mask_is_true_within_the_lengths() -> None:
    expected = [[True] * n + [False] * (5 - n) for n in LENGTHS]
    np.testing.assert_array_equal(padded(np.zeros((4, 5, 2))).mask, expected)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "layer",
    [
        dl.Dense(3),
        dl.LayerNorm(),
        dl.RMSNorm(),
        jax.nn.relu,
        jnp.tanh,
        dl.Residual(dl.Dense(6)),
        dl.Sequential(dl.Dense(2)),
    ],
    ids=lambda layer: repr(as_layer(layer)),
)
def test_layers_that_treat_steps_alike_keep_the_lengths(layer: Any) -> None:
    layer = as_layer(layer)
    x = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    params, state = layer.init(jax.random.key(0), padded(x))
    y, _ = layer.apply(params, state, padded(x))
    assert isinstance(y, dl.Padded)
    np.testing.assert_array_equal(y.lengths, LENGTHS)
    zeros_behind = jnp.where(padded(x).mask[..., None], x, 0)
    np.testing.assert_array_equal(y.values, layer.apply(params, state, zeros_behind)[0])


def test_embedding_and_dropout_keep_the_lengths() -> None:
    model = dl.Sequential(dl.Embedding(7, 3), dl.Dropout(0.5))
    tokens = np.random.default_rng(0).integers(0, 7, (4, 5)).astype(np.int32)
    params, state = model.init(jax.random.key(0), padded(tokens))
    y, _ = model.apply(params, state, padded(tokens), dl.Train(jax.random.key(1)))
    np.testing.assert_array_equal(y.lengths, LENGTHS)
    assert y.shape == (4, 5, 3)
    assert 0.2 < float((y.values == 0).mean()) < 0.8


@pytest.mark.parametrize(
    ("layer", "reduce"), [(dl.GlobalAvgPool(), np.mean), (dl.GlobalMaxPool(), np.max)]
)
def test_global_pooling_reads_what_is_within_the_lengths(layer: Any, reduce: Any) -> None:
    x = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32) - 3
    y, _ = layer.apply({}, {}, padded(x))
    expected = [
        reduce(row[:n], axis=0) if n else np.zeros(2) for row, n in zip(x, LENGTHS, strict=True)
    ]
    np.testing.assert_allclose(y, np.array(expected, np.float32), rtol=1e-6)
    gradient = jax.grad(lambda v: jnp.sum(layer.apply({}, {}, padded(v))[0]))(jnp.asarray(x))
    assert jnp.isfinite(gradient).all()
    assert not gradient[np.arange(5)[None] >= LENGTHS[:, None]].any()


def test_a_function_of_ones_own_gets_the_lengths() -> None:
    total = as_layer(lambda x: jnp.where(x.mask[..., None], x.values, 0).sum(1))
    y, _ = total.apply({}, {}, padded(np.ones((4, 5, 1), np.float32)))
    np.testing.assert_array_equal(y[:, 0], LENGTHS)


@pytest.mark.parametrize(
    "layer",
    [dl.Flatten(), dl.Conv(2, 3), dl.BatchNorm(), dl.Map(dl.Dense(2)), dl.MaxPool(2)],
    ids=repr,
)
def test_layers_that_would_mix_padding_in_refuse_it(layer: Any) -> None:
    x = padded(np.zeros((4, 5, 6), np.float32))
    with pytest.raises(
        dl.LayerError, match=f"{type(layer).__name__}: it got padded sequences, and would mix"
    ):
        layer.init(jax.random.key(0), x)
    with pytest.raises(dl.LayerError, match="padded sequences"):
        layer.apply(*layer.init(jax.random.key(0), x.values), x)


def test_a_summary_shows_padded_shapes() -> None:
    rows = dl.summary(
        dl.Sequential(dl.Embedding(7, 3), dl.GlobalAvgPool()),
        padded(np.zeros((4, 5), np.int32)),
        show=False,
    ).rows
    assert rows[-1].output == (4, 3)


@pytest.mark.slow
def test_what_lies_behind_the_ends_changes_no_run() -> None:
    rng = np.random.default_rng(0)
    values, lengths = (
        rng.normal(size=(6, 5, 3)).astype(np.float32),
        np.array([5, 2, 1, 4, 3, 5], np.int32),
    )
    behind = np.arange(5) >= lengths[:, None]
    runs = []
    for filling in (0.0, np.nan, np.inf):
        inputs = dl.Padded(np.where(behind[..., None], np.float32(filling), values), lengths)
        model = dl.Sequential(
            dl.Dense(4), dl.LayerNorm(), dl.GRU(3, sequence=False), dl.Dense(1)
        )
        settings = {
            "loss": dl.losses.mean_squared_error,
            "optimizer": optax.sgd(0.1),
            "batch_size": 4,
            "progress": False,
        }
        runs.append(dl.fit(model, (inputs, values[:, 0, :1]), **settings))
    for run in runs[1:]:
        assert run.history["loss"] == runs[0].history["loss"]
        jax.tree.map(np.testing.assert_array_equal, run.params, runs[0].params)
