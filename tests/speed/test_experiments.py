"""What experiments offer to compare is what `fit` takes."""

import importlib
import inspect
from pathlib import Path

import pytest

import jaxdl as dl
from jaxdl.speed.experiments import found

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

FOLDER = Path(__file__).parents[2] / "experiments"
COMPARABLE = {
    "cifar10_cnn",
    "digits_cnn",
    "logistic_regression",
    "mlp_classifier",
    "mnist_cnn",
    "spoken_digits_lstm",
}


def test_all_experiments_are_found_with_what_they_expect() -> None:
    experiments = found(FOLDER)
    assert {each.name for each in experiments if each.comparable} >= COMPARABLE
    assert not {"reporting", "pictures", "__init__"} & {each.name for each in experiments}
    assert all(each.idea and each.expect for each in experiments)


@pytest.mark.parametrize("name", ["digits_cnn", "logistic_regression", "mlp_classifier"])
def test_a_subject_is_what_fit_takes(name: str) -> None:
    module = importlib.import_module(f"experiments.{name}")
    subject = module.subject(module.Config(quick=True))
    assert set(subject) <= set(inspect.signature(dl.fit).parameters)
    assert {"model", "data", "loss", "optimizer", "batch_size"} <= set(subject)
