"""The Fréchet distance that the experiment measures."""

import importlib

import numpy as np
import pytest

pytest.importorskip("matplotlib")


def test_the_frechet_distance_is_that_of_scipys_square_root() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    gan = importlib.import_module("experiments.gan")
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(200, 5)), rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)) + 1
    one, other = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(
        one + other - 2 * linalg.sqrtm(one @ other).real
    )
    assert gan.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert gan.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert gan.frechet_distance(a, a + 2) == pytest.approx(20, rel=1e-6)
