"""Each experiment keeps the same outer form, and its pieces compute what they say; their quick form is run by CI."""

import dataclasses
import importlib
import inspect
import json
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import optax
import pytest

import jaxdl as dl

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

SHARED = {"__init__", "reporting", "pictures"}
FOLDER = Path(__file__).parents[2] / "experiments"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in SHARED)


def module(name: str) -> ModuleType:
    return importlib.import_module(f"experiments.{name}")


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_says_its_command_what_to_expect_and_its_settings(name: str) -> None:
    experiment = module(name)
    assert experiment.__doc__ is not None
    assert f"python -m experiments.{name} " in experiment.__doc__
    assert "\nExpect: " in experiment.__doc__
    assert "\nData: " in experiment.__doc__
    config = experiment.Config()
    assert (config.seed, config.quick, config.out) == (0, False, Path("runs") / name)
    assert config.epochs > 0
    for field in dataclasses.fields(config):
        assert f"\n    {field.name}: " in inspect.cleandoc(experiment.Config.__doc__), (
            f"{field.name} is not explained"
        )


def test_an_experiment_runs_from_its_config_to_its_result(tmp_path: Path) -> None:
    linear = module("linear_regression")
    figures = linear.main(linear.Config(quick=True, epochs=100, out=tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"result.json", "line_and_losses.png"}
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["experiment"] == "linear_regression"
    assert result["figures"]["line_difference"] == figures["line_difference"] < 1e-3
    assert np.allclose(figures["coefficients"]["line"], [2, 1], atol=0.1)


def test_the_closed_form_is_that_of_the_normal_equations() -> None:
    x = np.random.default_rng(0).normal(size=(50, 3))
    y = x @ [1.0, -2.0, 3.0] + 4.0
    np.testing.assert_allclose(
        module("linear_regression").closed_form(x, y), [1, -2, 3, 4], atol=1e-6
    )


@pytest.mark.slow
def test_logistic_regression_descends_to_the_coefficients_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    logistic = module("logistic_regression")
    x, y = logistic.square(200, np.random.default_rng(0))
    assert np.array_equal(y, (x[:, 0] + x[:, 1] > 1).astype(np.int32))
    trained = logistic.descend((x, y), logistic.Config(epochs=1000, inverse_penalty=0.5))
    oracle = LogisticRegression(C=0.5, tol=1e-10, max_iter=1000).fit(x.astype(np.float64), y)
    np.testing.assert_allclose(trained.params["kernel"][:, 0], oracle.coef_[0], rtol=1e-3)
    np.testing.assert_allclose(trained.params["bias"], oracle.intercept_, rtol=1e-3)


@pytest.mark.slow
def test_weight_decay_of_the_residual_network_reaches_kernels_alone() -> None:
    resnet = module("cifar10_resnet")
    params = {
        "conv": {"kernel": np.ones(2, np.float32)},
        "norm": {"scale": np.ones(2, np.float32)},
    }
    optimizer = resnet.one_cycle(resnet.Config(weight_decay=0.1, learning_rate=1.0), 100)
    with jax.numpy_dtype_promotion(
        "standard"
    ):  # optax's schedule multiplies whole numbers and floats
        updates, _ = optimizer.update(
            jax.tree.map(np.zeros_like, params), optimizer.init(params), params
        )
    assert (np.asarray(updates["conv"]["kernel"]) < 0).all()
    assert not np.asarray(updates["norm"]["scale"]).any()


@pytest.mark.slow
def test_augmentation_keeps_shape_dtype_and_labels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    labels = np.arange(6, dtype=np.int32)
    moved, same = module("cifar10_resnet").flip_and_crop(jax.random.key(0), images, labels)
    assert (moved.shape, moved.dtype) == (images.shape, images.dtype)
    assert not np.array_equal(moved, images)
    assert np.array_equal(same, labels)


@pytest.mark.slow
def test_the_step_lets_no_gradient_through_and_the_sigmoid_less_in_each_layer_below() -> None:
    experiment = module("activations")
    config = experiment.Config(width=16, hidden_layers=3)
    train = (
        np.random.default_rng(0).uniform(size=(64, 4, 4, 1)).astype(np.float32),
        np.arange(64, dtype=np.int32) % 10,
    )
    norms = {
        name: experiment.first_gradients(experiment.network(function, config), train, config)
        for name, function in experiment.ACTIVATIONS.items()
    }
    assert norms["step"][:-1] == [0.0, 0.0, 0.0]
    assert norms["step"][-1] > 0
    assert norms["sigmoid"] == sorted(norms["sigmoid"])
    assert norms["sigmoid"][0] < norms["relu"][0]


@pytest.mark.slow
def test_the_ways_of_the_main_job_are_compared_by_losses_and_parameters() -> None:
    compared = module("digits_cnn").compared
    x, y = np.ones((8, 3), np.float32), np.zeros(8, np.float32)
    optimizer = optax.sgd(0.1)
    one, other = (
        dl.fit(
            dl.Dense(1),
            (x, y),
            loss=dl.losses.mean_squared_error,
            optimizer=optimizer,
            epochs=2,
            seed=seed,
            progress=False,
        )
        for seed in (0, 1)
    )
    for run in (one, other):
        run.history["validation_accuracy"] = [0.0, 1.0]
    same, apart = compared(one, one), compared(other, one)
    assert (same["epochs"], same["times_as_long"], same["test_accuracy"]) == (2, 1.0, 1.0)
    assert (same["loss_difference"], same["parameter_difference"]) == (0.0, 0.0)
    difference = np.abs(
        np.asarray(one.params["kernel"]) - np.asarray(other.params["kernel"])
    ).max()
    assert apart["parameter_difference"] == pytest.approx(float(difference))
    assert apart["loss_difference"] > 0
