"""Initializers: the distributions that Keras and PyTorch draw from, as values."""

import copy
import inspect
import pickle
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl import initializers

KEY = jax.random.key(0)
WRONG: Any = initializers  # what is not of the declared types
NAMED: dict[
    str, tuple[Any, float]
] = {  # of a matrix [300, 200]: the standard deviation, by its definition
    "Zeros()": (initializers.Zeros(), 0),
    "Ones()": (initializers.Ones(), 0),
    "Constant(0.5)": (initializers.Constant(0.5), 0),
    "Normal(0.02)": (initializers.Normal(0.02), 0.02),
    "TruncatedNormal(0.02)": (initializers.TruncatedNormal(0.02), 0.02 * 0.8796256610342398),
    "Uniform(0.05)": (initializers.Uniform(0.05), 0.05 / 3**0.5),
    "Orthogonal()": (initializers.Orthogonal(), 300**-0.5),
    "Orthogonal(scale=2.0)": (initializers.Orthogonal(2.0), 2 * 300**-0.5),
    "VarianceScaling(3.0, 'fan_out', 'normal')": (
        initializers.VarianceScaling(3.0, "fan_out", "normal"),
        (3 / 200) ** 0.5,
    ),
    "VarianceScaling(1.0, 'fan_in', 'normal', out_axis=0)": (
        initializers.VarianceScaling(1.0, "fan_in", "normal", out_axis=0),
        (1 / 200) ** 0.5,
    ),
    "GlorotNormal()": (initializers.GlorotNormal(), (2 / 500) ** 0.5),
    "GlorotUniform()": (initializers.GlorotUniform(), (2 / 500) ** 0.5),
    "HeNormal()": (initializers.HeNormal(), (2 / 300) ** 0.5),
    "HeUniform()": (initializers.HeUniform(), (2 / 300) ** 0.5),
    "LecunNormal()": (initializers.LecunNormal(), (1 / 300) ** 0.5),
    "LecunUniform()": (initializers.LecunUniform(), (1 / 300) ** 0.5),
}
every_initializer = pytest.mark.parametrize(
    ("printed", "given"), NAMED.items(), ids=NAMED.keys()
)


def test_every_initializer_is_here() -> None:
    public = {
        name
        for name, kind in vars(initializers).items()
        if inspect.isclass(kind)
        and issubclass(kind, initializers.Named)
        and not name.startswith("_")
    }
    assert public - {"Named"} == {
        type(initializer).__name__ for initializer, _ in NAMED.values()
    }


@every_initializer
def test_an_initializer_is_a_value(printed: str, given: tuple[Any, float]) -> None:
    initializer, _ = given
    again = eval(printed, dict(vars(initializers)))
    assert repr(initializer) == printed
    for other in (again, pickle.loads(pickle.dumps(initializer)), copy.deepcopy(initializer)):
        assert other == initializer
        assert hash(other) == hash(initializer)
    assert [name for name, (other, _) in NAMED.items() if other == initializer] == [printed]


@pytest.mark.sampled(5)
@every_initializer
def test_an_initializer_draws_its_distribution(printed: str, given: tuple[Any, float]) -> None:
    """60,000 elements: four standard errors of a standard deviation are 1.2 %, and of a mean 1.6 % of it."""
    initializer, deviation = given
    drawn = np.asarray(initializer(KEY, (300, 200), jnp.float32), np.float64)
    mean = {"Ones()": 1.0, "Constant(0.5)": 0.5}.get(printed, 0.0)
    np.testing.assert_allclose(drawn.std(), deviation, rtol=0.012)
    np.testing.assert_allclose(drawn.mean(), mean, atol=0.017 * deviation)


def test_bounds_are_those_that_are_said() -> None:
    drawn = np.asarray(initializers.Uniform(0.05)(KEY, (300, 200), jnp.float32))
    assert -0.05 <= drawn.min() < -0.0499
    assert 0.0499 < drawn.max() < 0.05
    glorot = np.asarray(initializers.GlorotUniform()(KEY, (300, 200), jnp.float32))
    assert 0.99 * (6 / 500) ** 0.5 < np.abs(glorot).max() <= (6 / 500) ** 0.5


def test_orthogonal_matrices_are_orthogonal() -> None:
    tall = np.asarray(initializers.Orthogonal(3.0)(KEY, (20, 5), jnp.float32), np.float64)
    np.testing.assert_allclose(tall.T @ tall, 9 * np.eye(5), atol=1e-5)
    wide = np.asarray(initializers.Orthogonal()(KEY, (5, 20), jnp.float32), np.float64)
    np.testing.assert_allclose(wide @ wide.T, np.eye(5), atol=1e-6)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (
            lambda: initializers.Normal(-1.0),
            "Normal: stddev is a finite number of at least 0, got -1.0.",
        ),
        (
            lambda: initializers.Uniform(float("nan")),
            "Uniform: scale is a finite number of at least 0, got nan.",
        ),
        (lambda: WRONG.Constant("a"), "Constant: value is a finite number, got 'a'."),
        (
            lambda: WRONG.VarianceScaling(1.0, "fan", "normal"),
            "VarianceScaling: mode is 'fan_in' or",
        ),
        (
            lambda: WRONG.VarianceScaling(1.0, "fan_in", "gauss"),
            "VarianceScaling: distribution is 'uniform' or",
        ),
        (lambda: dl.Dense(3, kernel_init=WRONG.HeNormal), "call it: HeNormal(…)."),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_initializer_is_refused(build: Any, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        build()


def test_functions_of_jax_are_initializers_too() -> None:
    x = jnp.ones((1, 300))
    for function in (
        jax.nn.initializers.lecun_normal(),
        lambda *arguments: initializers.LecunNormal()(*arguments),
    ):
        given = dl.Dense(2, kernel_init=function).init(KEY, x)
        jax.tree.map(np.testing.assert_array_equal, given, dl.Dense(2).init(KEY, x))


def test_a_deviation_may_be_traced() -> None:
    """As in a sweep."""

    def deviation(stddev: Any) -> Any:
        return (
            dl.Dense(200, kernel_init=initializers.Normal(stddev))
            .init(KEY, jnp.ones((1, 300)))[0]["kernel"]
            .std()
        )

    np.testing.assert_allclose(
        jax.vmap(deviation)(jnp.array([0.1, 0.3])), [0.1, 0.3], rtol=0.012
    )
