"""Every derivative written by hand is the one of finite differences and that of `jax.grad`, and it trains as jaxdl does."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from experiments import backprop_by_hand as experiment
from experiments.by_hand import convolutional_network as convolutional
from experiments.by_hand import sigmoid_network as sigmoid


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def slopes(f: Callable[[np.ndarray], Any], x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """∂f/∂x by trying: central differences, one number of x after another."""
    found = np.zeros_like(x)
    for place in itertools.product(*map(range, x.shape)):
        moved = [x.copy(), x.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        found[place] = (f(moved[0]) - f(moved[1])) / (2 * step)
    return found


def examples_of(name: str, count: int) -> experiment.Examples:
    """Pictures of noise: no two numbers are equal, and none lies on a kink."""
    images = np.random.default_rng(1).uniform(size=(count, 8, 8, 1))
    return experiment.NETWORKS[name].prepare((images, np.arange(count, dtype=np.int32) % 10))


def weights_of(name: str) -> sigmoid.Params:
    """In float64, with biases that are not zero."""
    start = experiment.initial_weights(experiment.NETWORKS[name], examples_of(name, 1), seed=0)
    return jax.tree.map(
        lambda leaf: leaf.astype(np.float64) + 0.1 * numbers(*leaf.shape), start
    )


DENSE = {"kernel": numbers(4, 5), "bias": numbers(5)}
CONV = {"kernel": numbers(3, 3, 2, 4), "bias": numbers(4)}
PICTURES = numbers(2, 5, 6, 2)


@pytest.mark.parametrize(
    ("forward", "backward", "x"),
    [
        (
            sigmoid.sigmoid,
            lambda x, by_y: sigmoid.sigmoid_backward(sigmoid.sigmoid(x), by_y),
            numbers(2, 3),
        ),
        (
            lambda x: sigmoid.dense(x, DENSE),
            lambda x, by_y: sigmoid.dense_by_input(DENSE, by_y),
            numbers(3, 4),
        ),
        (
            lambda w: sigmoid.dense(numbers(3, 4), DENSE | {"kernel": w}),
            lambda w, by_y: sigmoid.dense_by_params(numbers(3, 4), by_y)["kernel"],
            DENSE["kernel"],
        ),
        (
            lambda b: sigmoid.dense(numbers(3, 4), DENSE | {"bias": b}),
            lambda b, by_y: sigmoid.dense_by_params(numbers(3, 4), by_y)["bias"],
            DENSE["bias"],
        ),
        (convolutional.relu, convolutional.relu_backward, numbers(2, 3)),
        (
            lambda x: convolutional.patches(x, 3),
            lambda x, by_y: convolutional.patches_backward(by_y, 3),
            PICTURES,
        ),
        (
            lambda x: convolutional.conv(convolutional.patches(x, 3), CONV),
            lambda x, by_y: convolutional.conv_by_input(CONV, by_y),
            PICTURES,
        ),
        (
            lambda w: convolutional.conv(
                convolutional.patches(PICTURES, 3), CONV | {"kernel": w}
            ),
            lambda w, by_y: convolutional.conv_by_params(
                convolutional.patches(PICTURES, 3), CONV, by_y
            )["kernel"],
            CONV["kernel"],
        ),
        (
            lambda x: convolutional.max_pool(x)[0],
            lambda x, by_y: convolutional.max_pool_backward(convolutional.max_pool(x)[1], by_y),
            numbers(2, 4, 6, 3),
        ),
    ],
    ids=[
        "sigmoid",
        "dense input",
        "dense kernel",
        "dense bias",
        "relu",
        "patches",
        "conv input",
        "conv kernel",
        "max pool",
    ],
)
def test_each_function_hands_back_the_slopes_of_its_forward_part(
    forward: Callable[..., Any], backward: Callable[..., Any], x: np.ndarray
) -> None:
    by_y = numbers(*forward(x).shape, seed=7)
    np.testing.assert_allclose(
        backward(x, by_y), slopes(lambda x: (forward(x) * by_y).sum(), x), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (sigmoid.squared_error, numbers(3, 4, seed=2)),
        (convolutional.softmax_cross_entropy, np.array([3, 0, 1], np.int32)),
    ],
)
def test_each_loss_returns_its_slopes(loss: Callable[..., Any], targets: np.ndarray) -> None:
    x = numbers(3, 4)
    np.testing.assert_allclose(
        loss(x, targets)[1], slopes(lambda x: loss(x, targets)[0], x), rtol=1e-6, atol=1e-9
    )


def test_the_cross_entropy_of_large_numbers_is_finite() -> None:
    loss, by_a = convolutional.softmax_cross_entropy(
        np.array([[1e4, 0.0]]), np.array([1], np.int32)
    )
    assert loss == 1e4
    assert by_a.tolist() == [[1, -1]]


@pytest.mark.slow
@pytest.mark.parametrize("name", experiment.NETWORKS)
def test_the_gradients_of_a_network_are_its_slopes_in_any_direction(name: str) -> None:
    by_hand, params, (x, targets) = (
        experiment.NETWORKS[name].by_hand,
        weights_of(name),
        examples_of(name, 3),
    )
    leaves, tree = jax.tree.flatten((params, x))
    _, *found = by_hand.gradients(params, x, targets, pixels=True)
    for index, by_leaf in enumerate(jax.tree.leaves(tuple(found))):

        def loss(distance: np.ndarray, index: int = index) -> Any:
            moved = leaves[index] + distance * numbers(*leaves[index].shape, seed=3)
            params, x = tree.unflatten([*leaves[:index], moved, *leaves[index + 1 :]])
            return by_hand.gradients(params, x, targets)[0]

        expected = slopes(loss, np.array(0.0))
        np.testing.assert_allclose(
            (by_leaf * numbers(*by_leaf.shape, seed=3)).sum(), expected, rtol=1e-6, atol=1e-9
        )


@pytest.mark.sampled
@pytest.mark.parametrize("name", experiment.NETWORKS)
def test_the_gradients_of_a_network_are_those_of_jaxdl(name: str) -> None:
    network = experiment.NETWORKS[name]
    errors = experiment.gradient_errors(network, (weights_of(name),), examples_of(name, 4))
    arrays = {f"{part} {key}" for part, of_part in weights_of(name).items() for key in of_part}
    assert set(errors) == arrays | {"input"}
    assert max(errors.values()) < 1e-12


def test_a_wrong_gradient_is_an_error() -> None:
    network = experiment.NETWORKS["sigmoid"]
    weights, (x, targets) = weights_of("sigmoid"), examples_of("sigmoid", 4)
    wrong = jax.tree.map(lambda leaf: leaf * (1 + 1e-6), weights)
    with jax.enable_x64(True):
        expected = jax.grad(experiment.mean_loss, argnums=1)(network, weights, x, targets)
    _, by_params, _ = network.by_hand.gradients(wrong, x, targets)
    errors = jax.tree.map(
        experiment.relative_difference, by_params, jax.tree.map(np.asarray, expected)
    )
    assert min(jax.tree.leaves(errors)) > 1e-8


def test_of_equal_numbers_the_first_passes_and_gets_the_gradient_as_in_jaxdl() -> None:
    h = np.random.default_rng(0).integers(0, 2, (3, 6, 4, 2)).astype(np.float32)
    by_m = numbers(3, 3, 2, 2).astype(np.float32)
    m, chosen = convolutional.max_pool(h)
    passed, pull = jax.vjp(lambda h: experiment.dl.MaxPool(2).apply({}, {}, h)[0], h)
    assert chosen.sum() == m.size
    assert np.array_equal(m, passed)
    assert np.array_equal(convolutional.max_pool_backward(chosen, by_m), pull(by_m)[0])


@pytest.mark.sampled
@pytest.mark.parametrize("ink", [0.0, 0.5])
def test_on_paper_of_one_grey_where_all_windows_tie_the_derivatives_are_those_of_jaxdl(
    ink: float,
) -> None:
    paper = (np.full((2, 8, 8, 1), ink), np.array([0, 1], np.int32))
    params = weights_of("convolutional")
    params["conv_0"]["bias"] = np.array([1.0, -1.0, 0.0, 2.0, 1.0, 1.0, -2.0, 0.0])
    _, _, by_x = convolutional.gradients(params, *paper, pixels=True)
    assert by_x is not None
    assert by_x.any()
    assert (
        max(
            experiment.gradient_errors(
                experiment.NETWORKS["convolutional"], (params,), paper
            ).values()
        )
        < 1e-12
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", experiment.NETWORKS)
def test_all_ways_to_train_lower_the_same_loss_on_batches_of_any_size(name: str) -> None:
    network, train = experiment.NETWORKS[name], examples_of(name, 20)
    train = (
        train[0].astype(np.float32),
        train[1] if train[1].ndim == 1 else train[1].astype(np.float32),
    )
    start = experiment.initial_weights(network, train, seed=0)
    ways = experiment.ways(network)
    del ways["JAX, eager"]  # the function that "JAX, compiled" compiles, and slow
    learnt = {way: training(start, train, 3, 8) for way, training in ways.items()}
    reference = learnt[experiment.BY_HAND]
    assert len(reference.losses) == 3
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(reference.params))
    for each in learnt.values():
        assert each.seconds > 0
        np.testing.assert_allclose(each.losses, reference.losses, rtol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
            each.params,
            reference.params,
        )
    assert reference.losses[-1] < reference.losses[0]


@pytest.mark.slow
def test_the_quick_form_writes_its_result_and_its_picture(tmp_path: Path) -> None:
    figures = experiment.main(experiment.Config(quick=True, out=tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {
        "result.json",
        "by_hand_and_jaxdl.png",
    }
    assert all(goal.reached(figures) for goal in experiment.GOALS)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["figures"]["gradient_error"] == figures["gradient_error"]
    assert set(result["figures"]["networks"]) == {"sigmoid", "convolutional"}
    for each in result["figures"]["networks"].values():
        assert set(each["milliseconds_a_step"]) == {
            "NumPy, by hand",
            "JAX, eager",
            "JAX, compiled",
            "jaxdl, fit",
        }
        assert min(each["milliseconds_a_step"].values()) > 0
