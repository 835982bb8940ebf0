"""Our layers beside the same layers of Flax and PyTorch: on the same weights, forwards and backwards."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

Figures = dict[str, Any]
"""The outputs, and the gradients of their weighted sum by the name of what they are for."""


def normal(seed: int, shape: tuple[int, ...]) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def perturbed(tree: Any, seed: int = 0) -> Any:
    """The tree with noise added: no bias 0, no scale 1, no variance below its own."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + jnp.asarray(rng.uniform(0.1, 0.5, leaf.shape), leaf.dtype), tree
    )


def close(ours: Any, theirs: Any, tolerance: float = 2e-5) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        ours,
        theirs,
    )


def figures(forward: Callable[[Any, Any], Any], params: Any, x: jax.Array) -> Figures:
    """The figures of a function of parameters and input, in JAX."""

    @jax.jit
    def measure(params: Any, x: Any) -> Any:
        def objective(params: Any, x: Any) -> Any:
            y = forward(params, x)
            return jnp.sum(y * weights(y.shape)), y

        (_, y), (dparams, dx) = jax.value_and_grad(objective, (0, 1), has_aux=True)(params, x)
        return {"y": y, "x": dx, **dparams}

    return measure(params, x)


def torch_figures(
    forward: Callable[..., Any], params: Any, x: Any, channels_first: bool = True
) -> Figures:
    """The figures of PyTorch's function of (params, x), both tensors of ours in shape; x with its channels second."""
    torch = pytest.importorskip("torch")
    tensors = {
        name: torch.tensor(np.asarray(leaf), requires_grad=True)
        for name, leaf in params.items()
    }
    leaf = torch.tensor(np.asarray(x), requires_grad=np.issubdtype(x.dtype, np.floating))
    y = forward(tensors, leaf.movedim(-1, 1) if channels_first else leaf)
    y = y.movedim(1, -1) if channels_first and y.ndim > 2 else y
    (y * torch.tensor(np.asarray(weights(tuple(y.shape))))).sum().backward()
    gradients = {name: tensor.grad.numpy() for name, tensor in tensors.items()}
    return {
        "y": y.detach().numpy(),
        "x": None if leaf.grad is None else leaf.grad.numpy(),
        **gradients,
    }


def weights(shape: tuple[int, ...]) -> jax.Array:
    return normal(11, shape)


def flax_figures(module: Any, params: Any, x: jax.Array, **others: Any) -> Figures:
    """The figures of a Flax module, which does not keep to strict promotion itself."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        return figures(
            lambda params, x: module.apply({"params": params, **others}, x), params, x
        )


def layer_figures(layer: Any, params: Any, x: jax.Array, state: Any = None) -> Figures:
    return figures(lambda params, x: layer.apply(params, state or {}, x)[0], params, x)
