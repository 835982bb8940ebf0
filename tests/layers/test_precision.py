"""Mixed precision: every layer of the catalogue, and what the arithmetic is done in."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl.core.tree import named_leaves, shapes
from jaxdl.training.auxiliary import taken_out
from tests.laws.catalogue import CATALOGUE, Entry

pytestmark = pytest.mark.usefixtures("quickly_compiled")

EVAL, TRAIN = dl.Eval(), dl.Train(jax.random.key(5))
every_layer = pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE.keys())
PRODUCTS = ("dot_general", "conv_general_dilated", "product")


def products(jaxpr: Any) -> Iterator[Any]:
    """The dtypes of what is multiplied in all products of a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in PRODUCTS:
            yield from (variable.aval.dtype for variable in equation.invars)
        for value in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr"),
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from products(inner)


WIDE_PRODUCTS = (
    "Attention",
    "TransformerBlock",
    "TransformerDecoderBlock",
    "Upsample",
    "Resize",
    "SpectralNorm",
    "MixtureOfExperts",
    "VectorQuantizer",
)
"""What weighs, routes or measures distances in float32, or takes the norm of a kernel in it."""


def total(y: Any) -> Any:
    return jnp.sum(jnp.square(y))


@pytest.mark.sampled(8)
@every_layer
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_layer_trains_on_what_it_stores_in_float32(entry: Entry, dtype: str) -> None:
    """On shapes alone: parameters, state and gradients as without it, outputs in float32, products in the narrow dtype."""
    layer = dl.in_precision(entry.layer, dtype)
    trees = jax.eval_shape(lambda: layer.init(jax.random.key(0), entry.input()))
    assert trees == jax.eval_shape(lambda: entry.layer.init(jax.random.key(0), entry.input()))

    def loss(params: Any, state: Any, x: Any) -> Any:
        y, new = layer.apply(params, state, x, TRAIN)
        return total(y), (y, taken_out(new, state)[0])

    gradient = jax.grad(loss, has_aux=True)
    (gradients, (y, new)) = jax.eval_shape(gradient, *trees, shapes(entry.input()))
    assert y.dtype == jnp.float32
    assert shapes(gradients) == trees[0]
    assert shapes(new) == trees[1]
    wide = jax.eval_shape(entry.layer.apply, *trees, shapes(entry.input()), TRAIN)[0]
    assert y.shape == wide.shape
    found = set(products(jax.make_jaxpr(gradient)(*trees, shapes(entry.input())).jaxpr))
    allowed = {jnp.dtype(dtype)}
    if any(f"{name}(" in repr(entry.layer) for name in WIDE_PRODUCTS):
        allowed.add(jnp.dtype("float32"))
    assert found <= allowed
    assert found or not any("kernel" in name for name in named_leaves(trees[0]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "sequential",
        "composite",
        "lstm",
        "transformer block",
        "frozen",
        "map over the last axis",
    ],
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("bfloat16", 0.05), ("float16", 0.01), ("float32", 0.0)]
)
def test_it_is_the_same_function_to_the_precision(
    name: str, dtype: str, tolerance: float
) -> None:
    entry = CATALOGUE[name]
    params, state = entry.drawn()
    x = entry.input()
    narrow, new = jax.jit(dl.in_precision(entry.layer, dtype).apply)(params, state, x, TRAIN)
    wide, expected = jax.jit(entry.layer.apply)(params, state, x, TRAIN)
    scale = float(jnp.abs(wide).max())
    assert float(jnp.abs(narrow - wide).max()) <= tolerance * scale
    assert (float(jnp.abs(narrow - wide).max()) > 0) == (tolerance > 0)
    for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0.05, atol=0.05 if tolerance else 0)


@pytest.mark.slow
def test_running_statistics_do_not_lose_small_steps() -> None:
    """In bfloat16 a mean of 1 would not move by a thousandth."""
    model = dl.in_precision(dl.Sequential(dl.BatchNorm(momentum=0.999)), "bfloat16")
    params, state = model.init(jax.random.key(0), jnp.ones((4, 1)))
    state = jax.tree.map(jnp.ones_like, state)
    _, new = model.apply(params, state, jnp.zeros((4, 1)), TRAIN)
    np.testing.assert_allclose(new["batch_norm_0"]["mean"], [0.999], rtol=1e-6)


def test_bytes_are_read_as_the_model_reads_them() -> None:
    images = jnp.arange(64, dtype=jnp.uint8).reshape(4, 4, 4, 1) * 4
    plain = dl.Sequential(dl.Conv(2, 3), dl.Flatten())
    own = dl.Sequential(
        lambda x: x.astype(jnp.float32) / 127.5 - 1, dl.Conv(2, 3), dl.Flatten()
    )
    indices = dl.Sequential(dl.Embedding(256, 3), dl.Flatten())
    for model, x in ((plain, images), (own, images), (indices, images[..., 0])):
        narrow = dl.in_precision(model, "bfloat16")
        params, state = model.init(jax.random.key(0), x)
        wide = model.apply(params, state, x)[0]
        y = narrow.apply(params, state, x)[0]
        assert float(jnp.abs(y - wide).max()) < 0.02 * float(jnp.abs(wide).max())
        found = set(products(jax.make_jaxpr(narrow.apply)(params, state, x).jaxpr))
        assert found <= {jnp.dtype("bfloat16")}


def test_a_layer_that_was_told_a_dtype_keeps_to_it() -> None:
    model = dl.in_precision(
        dl.Sequential(dl.Dense(3), head=dl.Dense(2, dtype="float32")), "bfloat16"
    )
    x = jnp.ones((2, 4))
    params, state = model.init(jax.random.key(0), x)
    found = list(products(jax.make_jaxpr(model.apply)(params, state, x).jaxpr))
    assert found == [jnp.dtype("bfloat16")] * 2 + [jnp.dtype("float32")] * 2


@dataclasses.dataclass(frozen=True)
class Scaled(dl.Stateless):
    """A layer of a user's own, which casts nothing."""

    def weights(self, key: Any, x: Any) -> Any:
        del key
        return {"scale": jnp.full(x.shape[-1], 3.0)}

    def forward(self, params: Any, x: Any) -> Any:
        return x * params["scale"][None]


def test_a_layer_of_ones_own_needs_to_know_nothing() -> None:
    model = dl.in_precision(dl.Sequential(Scaled(), dl.Dense(2)), "float16")
    x = jnp.ones((2, 4))
    params, state = model.init(jax.random.key(0), x)
    assert params["scaled_0"]["scale"].dtype == jnp.float32
    assert model.apply(params, state, x)[0].dtype == jnp.float32
    assert set(products(jax.make_jaxpr(model.apply)(params, state, x).jaxpr)) == {
        jnp.dtype("float16")
    }


@pytest.mark.slow
def test_a_language_model_generates_in_it() -> None:
    model = dl.models.gpt(11, layers=1, heads=2, features=8, context=8)
    params, state = model.init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
    prompt = jnp.asarray([[1, 2, 3]], jnp.int32)
    narrow = dl.generate(
        dl.in_precision(model, "bfloat16"), params, state, prompt, 4, temperature=0
    )
    assert narrow.shape == dl.generate(model, params, state, prompt, 4, temperature=0).shape


def test_it_is_a_value_that_prints_as_its_call() -> None:
    model = dl.in_precision(dl.Dense(3), "bfloat16")
    assert model == dl.in_precision(dl.Dense(3), jnp.bfloat16)
    assert hash(model) == hash(dl.in_precision(dl.Dense(3), jnp.bfloat16))
    assert model != dl.in_precision(dl.Dense(3), "float16")
    assert eval(repr(model), vars(dl)) == model


@pytest.mark.parametrize("dtype", ["int32", "bfloat", None])
def test_a_dtype_that_is_none_is_refused(dtype: Any) -> None:
    with pytest.raises(ValueError, match=r"expected a floating dtype such as 'bfloat16'"):
        dl.in_precision(dl.Dense(3), dtype)
