"""Activations against PyTorch, and their gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import activations

pytestmark = pytest.mark.usefixtures("quickly_compiled")
X = np.linspace(-6, 6, 25, dtype=np.float32)[1::2].reshape(
    3, 4
)  # without 0, where some have no derivative
THEIRS: dict[str, dict[str, Any]] = {
    "elu": {},
    "gelu": {"approximate": "tanh"},
    "leaky_relu": {"negative_slope": 0.01},
    "log_softmax": {"dim": -1},
    "relu": {},
    "selu": {},
    "sigmoid": {},
    "silu": {},
    "softmax": {"dim": -1},
    "softplus": {},
    "tanh": {},
}


@pytest.mark.parametrize("name", THEIRS)
def test_they_are_those_of_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    ours, vjp = jax.vjp(getattr(activations, name), jnp.asarray(X))
    x = torch.tensor(X, requires_grad=True)
    theirs = getattr(torch.nn.functional, name)(x, **THEIRS[name])
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)
    theirs.backward(torch.tensor(X))
    np.testing.assert_allclose(
        vjp(jnp.asarray(X))[0], x.grad.numpy(), rtol=1e-5, atol=4e-5
    )  # XLA's erf near -1, times x


def test_the_step_is_rosenblatts() -> None:
    x = jnp.array([-2.0, -0.0, 0.0, 3.0])
    np.testing.assert_array_equal(activations.step(x), [0, 1, 1, 1])
    np.testing.assert_array_equal(jax.grad(lambda x: activations.step(x).sum())(x), 0)
    assert activations.step(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
