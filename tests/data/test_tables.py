"""The data sets of scikit-learn: the rows, their split and their scale, against scikit-learn itself."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jaxdl import data


def rows(count: int, stratify: np.ndarray | None) -> list[Any]:
    from sklearn.model_selection import train_test_split

    return train_test_split(np.arange(count), test_size=0.2, random_state=0, stratify=stratify)


def test_digits_are_scikit_learns_in_the_promised_split():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    for part, chosen in zip(data.digits(), rows(1797, labels), strict=True):
        np.testing.assert_array_equal(part[0].reshape(-1, 64) * 16, images[chosen])
        np.testing.assert_array_equal(part[1], labels[chosen])


def test_digits_are_as_their_docstring_says():
    train, test = data.digits()
    assert (train[0].shape, test[0].shape) == ((1437, 8, 8, 1), (360, 8, 8, 1))
    assert [array.dtype for array in (*train, *test)] == [np.float32, np.int32] * 2
    assert (train[0].min(), train[0].max()) == (0, 1)
    assert (
        np.abs(np.bincount(test[1]) / 360 - np.bincount(train[1]) / 1437).max() < 2 / 360
    )  # stratified


@pytest.mark.parametrize(("name", "stratified"), [("diabetes", False), ("breast_cancer", True)])
def test_tables_are_scikit_learns_standardised_by_their_training_part(
    name: str, stratified: bool
):
    import sklearn.datasets
    from sklearn.preprocessing import StandardScaler

    options = {"scaled": False} if name == "diabetes" else {}
    features, targets = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True, **options)
    parts = rows(len(features), targets if stratified else None)
    scaler = StandardScaler().fit(features[parts[0]])
    for part, chosen in zip(getattr(data, name)(), parts, strict=True):
        np.testing.assert_allclose(
            part[0], np.asarray(scaler.transform(features[chosen])), rtol=1e-6, atol=1e-6
        )
        np.testing.assert_array_equal(part[1], targets[chosen])
        assert part[0].dtype == np.float32


def test_targets_are_in_the_types_that_losses_take():
    assert data.diabetes()[0][1].dtype == np.float32
    assert data.breast_cancer()[0][1].dtype == np.int32
    counts = np.bincount(data.breast_cancer()[0][1])
    assert (
        counts[data.BREAST_CANCER_CLASSES.index("benign")]
        > counts[data.BREAST_CANCER_CLASSES.index("malignant")]
    )


@pytest.mark.parametrize("load", [data.digits, data.diabetes, data.breast_cancer])
def test_every_call_gives_the_same_rows(load: Callable[[], tuple]):
    for first, second in zip(load(), load(), strict=True):
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize("load", [data.digits, data.diabetes, data.breast_cancer])
def test_a_missing_scikit_learn_is_named_with_its_extra(
    load: Callable[[], tuple], monkeypatch: pytest.MonkeyPatch
):
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(
        ModuleNotFoundError,
        match=rf'^data.{load.__name__}: .* pip install "jaxdl\[experiments\]"',
    ):
        load()
