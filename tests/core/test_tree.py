"""Names, counts and selections over trees of arrays."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdl as dl
from jaxdl import tree

MODEL = dl.Sequential(
    dl.Conv(2, 3), dl.BatchNorm(), dl.Flatten(), head=dl.Sequential(dl.Dense(3))
)
PARAMS, STATE = MODEL.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))


class Moments(NamedTuple):
    mean: Any
    rest: Any


def test_leaves_by_their_dotted_path() -> None:
    assert {name: leaf.shape for name, leaf in tree.named_leaves(PARAMS).items()} == {
        "batch_norm_0.bias": (2,),
        "batch_norm_0.scale": (2,),
        "conv_0.bias": (2,),
        "conv_0.kernel": (3, 3, 1, 2),
        "head.dense_0.bias": (3,),
        "head.dense_0.kernel": (32, 3),
    }
    assert tree.named_leaves({}) == {}
    assert tree.named_leaves(Moments(1, [2, {"a": 3}])) == {
        "mean": 1,
        "rest.0": 2,
        "rest.1.a": 3,
    }


def test_counts() -> None:
    assert tree.parameter_count(PARAMS) == 2 + 2 + 2 + 18 + 3 + 96
    assert tree.parameter_count(STATE) == 4
    assert tree.parameter_count(tree.shapes(PARAMS)) == tree.parameter_count(PARAMS)
    assert tree.byte_count(PARAMS) == 4 * tree.parameter_count(PARAMS)
    assert (
        tree.byte_count({"a": jnp.zeros((3, 5), jnp.bfloat16), "b": jnp.zeros((), jnp.int8)})
        == 31
    )
    assert tree.parameter_count({}) == tree.byte_count({}) == 0


def test_map_with_names_makes_masks_for_optax() -> None:
    decayed = tree.map_named(
        lambda name, leaf: name.endswith("kernel") and leaf.ndim > 1, PARAMS
    )
    assert jax.tree.structure(decayed) == jax.tree.structure(PARAMS)
    assert [name for name, chosen in tree.named_leaves(decayed).items() if chosen] == [
        "conv_0.kernel",
        "head.dense_0.kernel",
    ]
    optimizer = optax.add_decayed_weights(0.5, mask=decayed)
    updates: Any
    updates, _ = optimizer.update(
        jax.tree.map(jnp.zeros_like, PARAMS), optimizer.init(PARAMS), PARAMS
    )
    assert jnp.array_equal(updates["conv_0"]["kernel"], 0.5 * PARAMS["conv_0"]["kernel"])
    assert (updates["batch_norm_0"]["scale"] == 0).all()


def test_shapes_hold_no_arrays() -> None:
    shapes = tree.shapes(PARAMS)
    assert shapes["conv_0"]["kernel"] == jax.ShapeDtypeStruct((3, 3, 1, 2), jnp.float32)
    assert tree.shapes(shapes) == shapes
    wide = {"x": np.ones(2), "key": jax.random.key(0)}
    assert tree.shapes(wide)["x"] == jax.ShapeDtypeStruct((2,), jnp.float32), (
        "as JAX would take it"
    )
    assert tree.shapes(wide)["key"].dtype == wide["key"].dtype


def test_shapes_frozen_to_a_value_and_thawed() -> None:
    frozen = tree.frozen_shapes(PARAMS)
    assert hash(frozen) == hash(tree.frozen_shapes(tree.shapes(PARAMS)))
    assert frozen != tree.frozen_shapes(STATE)
    assert tree.thawed_shapes(frozen) == tree.shapes(PARAMS)


def test_weak_types_are_taken_off() -> None:
    weak = jnp.asarray(1.0)
    assert weak.weak_type
    made = tree.strongly_typed({"weak": weak, "strong": jnp.ones(2), "key": jax.random.key(0)})
    assert not made["weak"].weak_type
    assert (made["weak"], made["weak"].dtype) == (1.0, jnp.float32)
    traced = jax.eval_shape(tree.strongly_typed, {"weak": weak})
    assert not traced["weak"].weak_type
