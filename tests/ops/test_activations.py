"""Activations against PyTorch, and their gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl import activations

pytestmark = pytest.mark.usefixtures("quickly_compiled")
X = np.linspace(-6, 6, 25, dtype=np.float32)[1::2].reshape(
    3, 4
)  # without 0, where some have no derivative
THEIRS: dict[str, dict[str, Any]] = {
    "celu": {},
    "elu": {},
    "gelu": {"approximate": "tanh"},
    "glu": {"dim": -1},
    "hard_sigmoid": {},
    "hard_swish": {},
    "leaky_relu": {"negative_slope": 0.01},
    "log_sigmoid": {},
    "log_softmax": {"dim": -1},
    "mish": {},
    "relu": {},
    "relu6": {},
    "selu": {},
    "sigmoid": {},
    "silu": {},
    "soft_sign": {},
    "softmax": {"dim": -1},
    "softplus": {},
    "tanh": {},
}
OTHER_NAMES = {
    "hard_sigmoid": "hardsigmoid",
    "hard_swish": "hardswish",
    "log_sigmoid": "logsigmoid",
    "soft_sign": "softsign",
}


@pytest.mark.parametrize("name", THEIRS)
def test_they_are_those_of_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    ours, vjp = jax.vjp(getattr(activations, name), jnp.asarray(X))
    x = torch.tensor(X, requires_grad=True)
    theirs = getattr(torch.nn.functional, OTHER_NAMES.get(name, name))(x, **THEIRS[name])
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)
    weights = X[:, : ours.shape[-1]]
    theirs.backward(torch.tensor(weights))
    np.testing.assert_allclose(
        vjp(jnp.asarray(weights))[0], x.grad.numpy(), rtol=1e-5, atol=4e-5
    )  # XLA's erf near -1, times x


def test_the_step_is_rosenblatts() -> None:
    x = jnp.array([-2.0, -0.0, 0.0, 3.0])
    np.testing.assert_array_equal(activations.step(x), [0, 1, 1, 1])
    np.testing.assert_array_equal(jax.grad(lambda x: activations.step(x).sum())(x), 0)
    assert activations.step(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_numbers_stay_narrow(name: str, dtype: str) -> None:
    function = getattr(activations, name)
    y = function(jnp.asarray(X, dtype))
    assert y.dtype == dtype
    np.testing.assert_allclose(np.float32(y), function(jnp.asarray(X)), rtol=0.03, atol=0.03)


@pytest.mark.parametrize("function", activations.POINTWISE, ids=lambda f: f.__name__)
def test_padded_sequences_stay_padded(function: Any) -> None:
    lengths = jnp.array([1, 2], jnp.int32)
    x = dl.Padded(jnp.asarray(X).reshape(2, 3, 2), lengths)
    y, _ = dl.Sequential(function).apply({}, {}, x)
    assert isinstance(y, dl.Padded)
    np.testing.assert_array_equal(y.lengths, lengths)
