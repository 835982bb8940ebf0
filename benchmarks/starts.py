"""Initial parameters as other libraries draw them, for models of jaxdl."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import initializers
from jax.nn.initializers import Initializer

Node = dict[str, Any]
"""The parameters of one layer, by name."""

Start = Callable[[Node, Array], Node]
"""A layer's parameters anew, from a key."""


def redrawn(params: Any, start: Start, seed: int) -> Any:
    """The parameters of a model with those of each layer drawn anew, from a key of its own."""
    keys = (jax.random.fold_in(jax.random.key(seed), count) for count in itertools.count())

    def walk(node: Node) -> Node:
        if any(isinstance(value, dict) for value in node.values()):
            return {name: walk(value) for name, value in node.items()}
        return {**node, **start(node, next(keys))}

    return walk(params)


def keras(node: Node, key: Array) -> Node:
    """glorot_uniform for all gates at once, orthogonal over [features, gates · features],
    embeddings uniform in ±0.05.
    """
    kernel_key, recurrent_key = jax.random.split(key)
    if "embedding" in node:
        return {"embedding": symmetric(0.05)(key, node["embedding"].shape)}
    if "kernel" not in node:
        return {}
    drawn = {"kernel": initializers.glorot_uniform()(kernel_key, node["kernel"].shape)}
    if "recurrent_kernel" in node:
        drawn["recurrent_kernel"] = initializers.orthogonal()(
            recurrent_key, node["recurrent_kernel"].shape
        )
    return drawn


def flax(node: Node, key: Array) -> Node:
    """lecun_normal, an orthogonal matrix for each gate, embeddings of variance 1 / features; a
    forget gate as it was.
    """
    kernel_key, recurrent_key = jax.random.split(key)
    if "embedding" in node:
        return {
            "embedding": initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0)(
                key, node["embedding"].shape
            )
        }
    if "kernel" not in node:
        return {}
    drawn = {"kernel": initializers.lecun_normal()(kernel_key, node["kernel"].shape)}
    if "recurrent_kernel" in node:
        features, columns = node["recurrent_kernel"].shape
        keys = jax.random.split(recurrent_key, columns // features)
        gates = [initializers.orthogonal()(key, (features, features)) for key in keys]
        drawn["recurrent_kernel"] = jnp.concatenate(gates, -1)
    return drawn


def he(node: Node, key: Array) -> Node:
    """he_normal for kernels."""
    return (
        {"kernel": initializers.he_normal()(key, node["kernel"].shape)}
        if "kernel" in node
        else {}
    )


def torch(node: Node, key: Array) -> Node:
    """Uniform in ±1/√inputs, biases too; of recurrent layers ±1/√features, and two biases in one;
    embeddings normal.
    """
    kernel_key, recurrent_key, *bias_keys = jax.random.split(key, 4)
    if "embedding" in node:
        return {"embedding": initializers.normal(1.0)(key, node["embedding"].shape)}
    if "kernel" not in node:
        return {}
    recurrent = "recurrent_kernel" in node
    shape = node["kernel"].shape
    bound = (node["recurrent_kernel"].shape[0] if recurrent else math.prod(shape[:-1])) ** -0.5
    draw = symmetric(bound)
    drawn = {"kernel": draw(kernel_key, shape)}
    if "bias" in node:
        biases = [draw(key, node["bias"].shape) for key in bias_keys[: 1 + recurrent]]
        drawn["bias"] = jnp.stack(biases).sum(0)
    if recurrent:
        drawn["recurrent_kernel"] = draw(recurrent_key, node["recurrent_kernel"].shape)
    return drawn


@functools.cache
def symmetric(bound: float) -> Initializer:
    """Uniform in ±bound."""

    def init(
        key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None
    ) -> Array:
        del out_sharding
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
