"""Models that hold functions: what their pickles give is equal to them."""

import copy
import dataclasses
import functools
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl import models
from jaxdl.core.values import Value

X = jnp.array([[-0.5, 0.25, 2.0]])


def plain(x: Any) -> Any:
    return 2 * x


@jax.jit
def compiled(x: Any) -> Any:
    return 3 * x


@jax.custom_jvp
def differentiated(x: Any) -> Any:
    return 4 * x


differentiated.defjvps(lambda tangent, y, x: 4 * tangent)


leaky = functools.partial(jax.nn.leaky_relu, negative_slope=0.1)
FUNCTIONS = [
    *dl.activations.POINTWISE,
    jnp.tanh,
    jnp.exp,
    jnp.negative,
    jax.lax.rsqrt,
    jax.scipy.special.erf,
    leaky,
    plain,
    compiled,
    differentiated,
]


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.sampled(6)
@pytest.mark.parametrize(
    "function", FUNCTIONS, ids=lambda function: getattr(function, "__name__", "partial")
)
def test_functions_pickle_by_name(function: Any) -> None:
    model = dl.Sequential(function, dl.Flatten())
    x = X.repeat(2, -1)  # glu halves the channels
    for other in (pickled(model), copy.deepcopy(model)):
        assert other == model
        assert hash(other) == hash(model)
        np.testing.assert_array_equal(other.apply({}, {}, x)[0], model.apply({}, {}, x)[0])


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "function", [function for function in FUNCTIONS if function is not leaky]
)
def test_functions_in_any_field_pickle_by_name(function: Any) -> None:
    model = dl.Sequential(
        dense=dl.Dense(3),
        states=dl.SimpleRNN(3, activation=function),
        block=dl.TransformerBlock(1, activation=function),
        again=dl.Tied("dense", use_kernel),
    )
    assert pickled(model) == model
    assert pickled({"models": [model]}) == {"models": [model]}


def use_kernel(params: Any, x: Any) -> Any:
    return x @ params["kernel"]


def test_public_names_are_stored() -> None:
    """The private modules of JAX are free to change."""
    stored = pickle.dumps(dl.Sequential(jax.nn.relu, jax.nn.gelu, jnp.tanh, jnp.negative))
    assert b"jax.nn" in stored
    assert b"jax._src" not in stored


def test_a_function_without_a_name_does_not_pickle() -> None:
    model = dl.Sequential(lambda x: x)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(model)
    assert copy.deepcopy(model) == model


def test_a_users_value_may_hold_what_it_likes() -> None:
    @dataclasses.dataclass(frozen=True)
    class Holds(Value):
        functions: tuple[Any, ...]
        kind: Any = jnp.float32

    held = Holds((jax.nn.relu, (leaky, "relu", 3)))
    state = held.__getstate__()
    other = object.__new__(Holds)
    other.__setstate__(state)
    assert other.functions[0] is jax.nn.relu
    assert other.functions[1][0].func is jax.nn.leaky_relu
    assert other.functions[1][0].keywords == {"negative_slope": 0.1}
    assert other.functions[1][1:] == ("relu", 3)
    assert other.kind is jnp.float32


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "model",
    [
        models.mlp(8, 3, activation=jnp.tanh, dropout=0.5),
        models.cnn(4, 8, head=[10]),
        models.resnet(4, 8),
        models.gpt(11, layers=2, heads=2, features=8, context=6),
        models.vit(10, patch=7, layers=2, heads=2, features=8),
        models.conv_generator(8, 4),
        models.conv_discriminator(4, 8),
        models.dense_autoencoder(32, shape=784),
        models.VariationalAutoencoder(
            dl.Sequential(dl.Flatten(), dl.Dense(4), jax.nn.relu), dl.Dense(3), latent=2
        ),
        dl.in_precision(dl.Sequential(dl.Dense(3), jax.nn.relu), "bfloat16"),
    ],
    ids=[
        "mlp",
        "cnn",
        "resnet",
        "gpt",
        "vit",
        "generator",
        "discriminator",
        "autoencoder",
        "variational",
        "in precision",
    ],
)
def test_architectures_pickle(model: Any) -> None:
    for other in (pickled(model), copy.deepcopy(model)):
        assert other == model
        assert hash(other) == hash(model)
        assert repr(other) == repr(model)
