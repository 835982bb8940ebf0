"""The laws that every layer keeps."""

import copy
import dataclasses
import functools
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl.core.function import as_layer
from jaxdl.core.tree import named_leaves, shapes
from jaxdl.training.auxiliary import taken_out
from tests.laws.catalogue import CATALOGUE, Decoder, Entry, Gated, Leaky, attend, missing

LEAF_NAMES = {
    "kernel",
    "recurrent_kernel",
    "bias",
    "recurrent_bias",
    "scale",
    "embedding",
    "negative_slope",
    "projection_kernel",
    "peepholes",
    "u",
    "v",
    "mean",
    "var",
    "counts",
    "sums",
}
EVAL, TRAIN = dl.Eval(), dl.Train(jax.random.key(5))
every_layer = pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE.keys())
PLATFORMS = ("cpu", "cuda", "tpu")
ROOT = Path(__file__).parent.parent.parent
OPTIMISED = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
pytestmark = pytest.mark.usefixtures("quickly_compiled")


def apply(layer: Any, params: Any, state: Any, x: Any, mode: Any) -> Any:
    return layer.apply(params, state, x, mode)


run = jax.jit(apply, static_argnums=0)


def close(a: Any, b: Any, tolerance: float = 1e-5) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b
    )


def same(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def rebuilt(layer: Any) -> Any:
    """The layer that its own print builds."""
    names = {
        **vars(dl),
        **vars(dl.activations),
        **vars(dl.initializers),
        "partial": functools.partial,
        "Decoder": Decoder,
        "Gated": Gated,
        "Leaky": Leaky,
        "attend": attend,
    }
    return as_layer(eval(repr(layer), names))


def test_every_public_layer_is_in_the_catalogue() -> None:
    assert missing(vars(dl), CATALOGUE.values()) == []


def test_a_layer_that_is_not_in_the_catalogue_is_found() -> None:
    @dataclasses.dataclass(frozen=True)
    class Forgotten(dl.Parameterless):
        def compute(self, x: Any) -> Any:
            return x

    assert missing({**vars(dl), "Forgotten": Forgotten}, CATALOGUE.values()) == ["Forgotten"]
    assert {"Conv", "Dense", "Sequential"} <= set(missing(vars(dl), []))


@pytest.mark.sampled(5)
@every_layer
def test_jit_equals_eager(entry: Entry) -> None:
    params, state = entry.drawn()
    x = entry.input()
    compiled = jax.jit(apply, static_argnums=0, compiler_options=OPTIMISED)(
        entry.layer, params, state, x, TRAIN
    )
    close(compiled, entry.layer.apply(params, state, x, TRAIN))


@pytest.mark.slow
@every_layer
def test_no_tracer_leaks(entry: Entry) -> None:
    with jax.checking_leaks():
        jax.make_jaxpr(
            jax.grad(
                lambda x, p, s: total(entry.layer.apply(p, s, x, TRAIN)[0]), allow_int=True
            )
        )(entry.input(), *entry.drawn())


def total(y: Any) -> Any:
    return jnp.sum(y.astype(jnp.float32))


@pytest.mark.sampled(6)
@every_layer
def test_vmap_equals_a_loop(entry: Entry) -> None:
    """Over parameters, state, inputs and keys at once: a population."""

    def both(params: Any, state: Any, x: Any, key: Any) -> Any:
        return entry.layer.apply(params, state, x)[0], entry.layer.apply(
            params, state, x, dl.Train(key)
        )

    keys = jax.random.split(jax.random.key(3))
    members = [(*entry.drawn(seed), entry.input(seed), keys[seed]) for seed in (0, 1)]
    program = jax.jit(both)
    expected = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *[program(*member) for member in members]
    )
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    close(jax.jit(jax.vmap(both))(*stacked), expected)


@pytest.mark.sampled(4)
@every_layer
@pytest.mark.once
def test_gradients_equal_finite_differences(entry: Entry) -> None:
    """Of first and second order, forwards and backwards, along one direction of all parameters and inputs together."""
    mode = EVAL if entry.has_constants else TRAIN
    with jax.enable_x64(True):
        params, state = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), entry.drawn())
        x = entry.input(dtype=jnp.float64)
        point, indices = (params, None if entry.indices else x), x if entry.indices else None
        rng = np.random.default_rng(7)
        direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), point)
        shape = jax.eval_shape(lambda: entry.layer.apply(params, state, x)[0]).shape
        weights = jnp.asarray(rng.normal(size=shape))

        def objective(point: Any) -> Any:
            y, _ = entry.layer.apply(
                point[0], state, point[1] if indices is None else indices, mode
            )
            return jnp.sum(weights * y)

        def forwards(point: Any) -> Any:
            return jax.jvp(objective, (point,), (direction,))[1]

        def backwards(point: Any) -> Any:
            products = jax.tree.map(
                lambda g, d: jnp.sum(g * d), jax.grad(objective)(point), direction
            )
            return sum(jax.tree.leaves(products), jnp.zeros(()))

        @jax.jit
        def at(step: Any) -> Any:
            here = jax.tree.map(lambda leaf, d: leaf + step * d, point, direction)
            slope, curvature = jax.jvp(backwards, (here,), (direction,))
            return objective(here), slope, forwards(here), curvature

        h = 1e-4
        stencil = {-2 * h: 1, -h: -8, h: 8, 2 * h: -1}  # of fourth order
        near = {step: at(step) for step in stencil}
        difference, second_difference = (
            sum(c * near[s][i] for s, c in stencil.items()) / (12 * h) for i in (0, 1)
        )
        _, slope, forward, curvature = at(0.0)
        np.testing.assert_allclose(forward, slope, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(slope, difference, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(curvature, second_difference, rtol=1e-7, atol=1e-7)


@pytest.mark.sampled(24)
@every_layer
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_the_dtype_is_kept(entry: Entry, dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        x = shapes(entry.input(dtype=dtype))
        params, state = jax.eval_shape(lambda: entry.layer.init(jax.random.key(0), x))
        assert {leaf.dtype for leaf in jax.tree.leaves((params, state))} <= {
            jnp.dtype("float32")
        }
        y, _ = jax.eval_shape(entry.layer.apply, params, state, x)
        assert y.dtype == ("float32" if entry.indices else dtype)

        def loss(params: Any, state: Any, x: Any) -> Any:
            y, new = entry.layer.apply(params, state, x, TRAIN)
            return total(y), (y, taken_out(new, state)[0])

        gradient, trained = jax.eval_shape(jax.grad(loss, has_aux=True), params, state, x)
        assert shapes((gradient, trained)) == (params, (y, state))


@pytest.mark.sampled(8)
@pytest.mark.parametrize(
    "name", [name for name, entry in CATALOGUE.items() if hasattr(entry.layer, "param_dtype")]
)
def test_the_dtypes_of_parameters_and_of_computing_are_as_said(name: str) -> None:
    entry = CATALOGUE[name]
    said = {
        field.name: "bfloat16"
        for field in dataclasses.fields(entry.layer)
        if field.name in ("dtype", "param_dtype")
    }
    layer = dataclasses.replace(entry.layer, **said)
    params, state = jax.eval_shape(lambda: layer.init(jax.random.key(0), entry.input()))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, state))} <= {jnp.dtype("bfloat16")}
    y, _ = jax.eval_shape(layer.apply, params, state, entry.input(), TRAIN)
    new = jax.eval_shape(functools.partial(next_state, layer), params, state, entry.input())
    assert y.dtype == ("bfloat16" if "dtype" in said else "float32")
    assert shapes(new) == state


mathematics = {
    n: e
    for n, e in CATALOGUE.items()
    if type(e.layer).__module__.startswith("jaxdl.layers.") and not e.indices
}


@pytest.mark.sampled(6)
@pytest.mark.parametrize("entry", mathematics.values(), ids=mathematics.keys())
@pytest.mark.once
def test_bfloat16_gives_float32_to_its_own_precision(entry: Entry) -> None:
    params, state = entry.drawn()
    x = entry.input(dtype=jnp.bfloat16)
    half = run(entry.layer, params, state, x, EVAL)[0].astype(jnp.float32)
    full = run(entry.layer, params, state, x.astype(jnp.float32), EVAL)[0]
    assert jnp.abs(half - full).max() <= 0.03 * jnp.abs(full).max()


@pytest.mark.sampled(6)
@every_layer
@pytest.mark.once
def test_the_key_alone_decides_what_training_draws(entry: Entry) -> None:
    params, state = entry.drawn()
    x = entry.input()
    first, again, other = (
        run(entry.layer, params, state, x, dl.Train(jax.random.key(seed))) for seed in (0, 0, 1)
    )
    same(first, again)
    assert jnp.array_equal(first[0], other[0]) == (not entry.stochastic)


@pytest.mark.sampled(8)
@every_layer
def test_evaluation_leaves_the_state_and_draws_nothing(entry: Entry) -> None:
    params, state = entry.drawn()
    x = entry.input()
    y, new = entry.layer.apply(params, state, x)  # Eval is the default
    same(new, state)
    same((y, new), entry.layer.apply(params, state, x, EVAL))


@every_layer
def test_training_keeps_the_structure_of_the_state(entry: Entry) -> None:
    params, state = entry.drawn()
    new = jax.eval_shape(lambda x: next_state(entry.layer, params, state, x), entry.input())
    assert shapes(new) == shapes(state)


def next_state(layer: Any, params: Any, state: Any, x: Any) -> Any:
    """The next state in training, without the losses that the layer adds."""
    return taken_out(layer.apply(params, state, x, TRAIN)[1], state)[0]


@pytest.mark.sampled(8)
@every_layer
@pytest.mark.once
def test_apply_changes_nothing_it_is_given(entry: Entry) -> None:
    trees = entry.drawn()
    before = jax.tree.map(lambda leaf: leaf, trees)
    jax.eval_shape(lambda x: entry.layer.apply(*trees, x, TRAIN), entry.input())
    assert jax.tree.structure(trees) == jax.tree.structure(before)
    assert all(
        a is b for a, b in zip(jax.tree.leaves(trees), jax.tree.leaves(before), strict=True)
    )


def program(function: Any, *arguments: Any) -> str:
    return jax.jit(function).lower(*arguments).as_text()


@pytest.mark.sampled(6)
@every_layer
@pytest.mark.once
def test_init_reads_only_shape_and_dtype(entry: Entry) -> None:
    key, x = jax.random.key(2), entry.input()
    drawn = program(lambda key: entry.layer.init(key, x), key)
    assert drawn == program(
        lambda key: entry.layer.init(key, jax.ShapeDtypeStruct(x.shape, x.dtype)), key
    )
    wide = np.asarray(x).astype("int64" if entry.indices else "float64")
    assert drawn == program(lambda key: entry.layer.init(key, wide), key)


@pytest.mark.sampled(8)
@every_layer
def test_numpy_arrays_are_inputs_too(entry: Entry) -> None:
    params, state = entry.drawn()
    x = entry.input()
    wide = np.asarray(x).astype("int64" if entry.indices else "float64")
    for mode in (EVAL, TRAIN):
        same(
            entry.layer.apply(params, state, wide, mode),
            entry.layer.apply(params, state, x, mode),
        )


@pytest.mark.sampled(6)
@every_layer
@pytest.mark.once
def test_an_inserted_activation_changes_no_weights_and_no_masks(entry: Entry) -> None:
    """The programs are the same to the last letter, keys folded in included."""
    plain = dl.Sequential(entry.layer)
    longer = dl.Sequential(identity, entry.layer, identity)
    key, x = jax.random.key(1), entry.input()
    assert program(longer.init, key, x) == program(plain.init, key, x)
    trees = jax.eval_shape(plain.init, key, x)
    assert program(longer.apply, *trees, x, TRAIN) == program(plain.apply, *trees, x, TRAIN)


def identity(x: Any) -> Any:
    return x


@every_layer
def test_a_layer_is_a_value(entry: Entry) -> None:
    again = rebuilt(entry.layer)
    assert again == entry.layer
    assert hash(again) == hash(entry.layer)
    assert repr(again) == repr(entry.layer)
    assert entry.layer != dl.Dense(99)


@every_layer
def test_a_layer_equals_what_its_pickle_gives_and_its_copies(entry: Entry) -> None:
    for other in (
        pickle.loads(pickle.dumps(entry.layer)),
        copy.deepcopy(entry.layer),
        copy.copy(entry.layer),
    ):
        assert other == entry.layer
        assert hash(other) == hash(entry.layer)
        assert repr(other) == repr(entry.layer)


@pytest.mark.slow
def test_layers_reach_another_process(tmp_path: Path) -> None:
    """One that has built its own catalogue, in which each is equal to the one that came."""
    sent = tmp_path / "layers"
    sent.write_bytes(pickle.dumps({name: entry.layer for name, entry in CATALOGUE.items()}))
    program = (
        "import pickle, sys; from tests.laws.catalogue import CATALOGUE\n"
        "came = pickle.load(open(sys.argv[1], 'rb'))\n"
        "assert came.keys() == CATALOGUE.keys()\n"
        "for name, layer in came.items():\n"
        "    assert layer == CATALOGUE[name].layer and hash(layer) == hash(CATALOGUE[name].layer), name\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, sent],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.sampled(8)
@every_layer
def test_an_equal_layer_is_not_traced_again(entry: Entry) -> None:
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def apply(layer: Any, params: Any, state: Any, x: Any) -> Any:
        traces.append(layer)
        return layer.apply(params, state, x)

    arguments = (*shapes(entry.drawn()), shapes(entry.input()))
    apply.trace(entry.layer, *arguments)
    apply.trace(rebuilt(entry.layer), *arguments)
    assert len(traces) == 1
    apply.trace(
        dl.Frozen(entry.layer),
        {},
        {"params": arguments[0], "state": arguments[1]},
        arguments[2],
    )
    assert len(traces) == 2


@pytest.mark.sampled(12)
@every_layer
@pytest.mark.once
def test_leaves_have_the_names_of_the_field(entry: Entry) -> None:
    params, state = jax.eval_shape(lambda: entry.layer.init(jax.random.key(0), entry.input()))
    leaves = {**named_leaves(params), **named_leaves(state)}
    assert {name.split(".")[-1] for name in leaves} <= LEAF_NAMES
    assert all(node for node in nodes(params) + nodes(state)), (
        "a part that has nothing leaves no key"
    )


def nodes(tree: Any) -> list[Any]:
    return [
        node
        for child in tree.values()
        if isinstance(child, dict)
        for node in (child, *nodes(child))
    ]


@pytest.mark.sampled(6)
@every_layer
@pytest.mark.once
def test_examples_are_independent_in_evaluation(entry: Entry) -> None:
    params, state = entry.drawn()
    x, other = entry.input(0), entry.input(1)
    y = run(entry.layer, params, state, x, EVAL)[0]
    order = np.array([2, 0, 3, 1])
    close(run(entry.layer, params, state, x[order], EVAL)[0], y[order], 1e-6)
    mixed = jnp.concatenate([x[:1], other[1:]])
    close(run(entry.layer, params, state, mixed, EVAL)[0][0], y[0], 1e-6)


see_the_mask = {
    n: e
    for n, e in CATALOGUE.items()
    if not isinstance(e.layer, dl.Stateless) and not e.stochastic
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("entry", see_the_mask.values(), ids=see_the_mask.keys())
@pytest.mark.once
def test_masked_examples_leave_no_trace_in_training(entry: Entry) -> None:
    params, state = entry.drawn()
    x = entry.input()
    padded, mask = jnp.concatenate([x, entry.input(9)[:2]]), jnp.arange(len(x) + 2) < len(x)

    @jax.jit
    def learn(params: Any, x: Any, mask: Any) -> Any:
        def objective(params: Any) -> Any:
            y, new = entry.layer.apply(params, state, x, dl.Train(jax.random.key(0), mask))
            new, _ = taken_out(new, state)  # losses of examples are weighted by the step
            return jnp.sum(jnp.square(y[: entry.shape[0]])), (y[: entry.shape[0]], new)

        return jax.grad(objective, has_aux=True)(params)

    close(learn(params, padded, mask), learn(params, x, None), 2e-5)


@pytest.mark.sampled(9)
@every_layer
@pytest.mark.parametrize("platform", PLATFORMS)
def test_training_lowers_for(entry: Entry, platform: str) -> None:
    def gradient(params: Any, state: Any, x: Any) -> Any:
        key = jax.random.key(0)
        wanted = (0,) if entry.indices else (0, 1)
        return jax.grad(
            lambda p, v: total(entry.layer.apply(p, state, v, dl.Train(key))[0]), wanted
        )(params, x)

    arguments = (*shapes(entry.drawn()), shapes(entry.input()))
    text = jax.export.export(jax.jit(gradient), platforms=[platform])(*arguments).mlir_module()
    if platform == "cpu":
        assert not {
            name
            for name in ("convolution", "reduce_window", "select_and_scatter")
            if f"stablehlo.{name}" in text
        }
    elif isinstance(entry.layer, dl.Conv | dl.ConvTranspose):
        assert "stablehlo.convolution" in text
    elif isinstance(entry.layer, dl.MaxPool) and entry.layer.dilation == 1:
        assert "stablehlo.select_and_scatter" in text
