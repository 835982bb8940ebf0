"""Rotary positions of a part of the features, and of neighbours, against the equations in NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl import ops
from jaxdl.core.error import LayerError
from tests.layers.oracles import close, normal

X = normal(0, (2, 3, 2, 8))
STEPS = np.array([0, 4, 9], np.int32)
pytestmark = pytest.mark.usefixtures("quickly_compiled")


def by_hand(x: Any, features: int, interleaved: bool, base: float) -> np.ndarray:
    """Each pair turned by its matrix, in float64."""
    y = np.asarray(x, np.float64).copy()
    for i in range(features // 2):
        a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + features // 2)
        for t, step in enumerate(STEPS):
            angle = step * base ** (-2 * i / features)
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            # Indices apart from slices come first: [pair, batch, heads].
            y[:, t, :, [a, b]] = np.einsum("pq,qbh->pbh", turn, y[:, t, :, [a, b]])
    return y.astype(np.float32)


@pytest.mark.parametrize("features", [8, 6, 2])
@pytest.mark.parametrize("interleaved", [False, True])
def test_pairs_turn_and_the_other_features_stay(features: int, interleaved: bool) -> None:
    rotary = dl.Rotary(features, interleaved, base=500.0)
    y = rotary(X, jnp.asarray(STEPS))
    close(y, by_hand(X, features, interleaved, 500.0))
    np.testing.assert_array_equal(y[..., features:], X[..., features:])
    moved = rotary(X, jnp.asarray(STEPS + 7))
    ours, theirs = (jnp.einsum("bqhd,bkhd->bhqk", each, each) for each in (moved, y))
    close(ours, theirs, 1e-4)


def test_interleaved_pairs_are_halves_in_another_order() -> None:
    order = np.array([0, 2, 4, 6, 1, 3, 5, 7])
    halves = ops.attention.rotary(X[..., order], jnp.asarray(STEPS))
    neighbours = ops.attention.rotary(X, jnp.asarray(STEPS), interleaved=True)
    close(neighbours[..., order], halves, 1e-6)


def test_the_flag_is_the_default() -> None:
    x = normal(1, (2, 5, 8))
    layer = dl.MultiHeadAttention(2, rotary=True)
    params, _ = layer.init(jax.random.key(0), x)
    y, _ = layer.apply(params, {}, x)
    same = dl.MultiHeadAttention(2, rotary=dl.Rotary())
    np.testing.assert_array_equal(same.apply(params, {}, x)[0], y)
    partly = dl.MultiHeadAttention(2, rotary=dl.Rotary(2, interleaved=True))
    assert not jnp.allclose(partly.apply(params, {}, x)[0], y, atol=1e-3)
    assert repr(partly) == "MultiHeadAttention(2, rotary=Rotary(features=2, interleaved=True))"


def test_only_pairs_within_a_head_are_turned(unchecked: None) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "features is an even number": {"features": 3},
        "base is a finite number above 0": {"base": 0.0},
        "interleaved is True or False": {"interleaved": 1},
    }
    for sentence, arguments in wrong.items():
        with pytest.raises(LayerError, match=sentence):
            dl.Rotary(**arguments)
    layer = dl.MultiHeadAttention(2, rotary=dl.Rotary(6))
    with pytest.raises(LayerError, match="turn 6 features of each head, and a head has 4"):
        layer.init(jax.random.key(0), normal(1, (2, 5, 8)))
