"""Every layer under what JAX can do with a function: policies of rematerialisation, Taylor series, explicit sharding."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import jet
from jax.flatten_util import ravel_pytree
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

import jaxdl as dl
from tests.laws.catalogue import CATALOGUE, Entry

pytestmark = pytest.mark.usefixtures("quickly_compiled")
DEVICES = 4
TRAIN = dl.Train(jax.random.key(5))
AXES = ("data", "model")
every_layer = pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE.keys())
several = pytest.mark.skipif(
    jax.device_count() < DEVICES,
    reason=f"runs where there are {DEVICES} devices: see the first test",
)


@pytest.mark.slow
def test_on_four_devices(request: pytest.FixtureRequest) -> None:
    """The tests of this file that need them, in a process whose CPU is four devices."""
    if jax.device_count() >= DEVICES:
        return
    environment = dict(os.environ) | {"JAX_NUM_CPU_DEVICES": str(DEVICES)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "0",
        "-rs",
        "-k",
        "sharded",
        str(Path(__file__)),
    ]
    command += ["-m", request.config.option.markexpr]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "SKIPPED" not in done.stdout


def equations(jaxpr: Any) -> Iterator[Any]:
    """All equations of a program, those of its parts included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for part in value if isinstance(value, (tuple, list)) else (value,):
                part = getattr(part, "jaxpr", part)
                if hasattr(part, "eqns"):
                    yield from equations(part)


def primitives(function: Any, *arguments: Any) -> list[str]:
    return [
        equation.primitive.name
        for equation in equations(jax.make_jaxpr(function)(*arguments).jaxpr)
    ]


def outputs(entry: Entry, state: Any, mode: Any = TRAIN) -> Any:
    return lambda params, x: entry.layer.apply(params, state, x, mode)[0]


def gradients(function: Any, entry: Entry) -> Any:
    """Of the sum of squares, by the parameters and by inputs that are numbers."""
    wanted = (0,) if entry.indices else (0, 1)
    return jax.grad(
        lambda params, x: jnp.sum(jnp.square(function(params, x).astype(jnp.float32))), wanted
    )


@pytest.mark.sampled(6)
@every_layer
def test_policies_of_rematerialisation_see_the_products(entry: Entry) -> None:
    """Under `dots_saveable` the gradient computes no product of the forward pass again; those of the next state alone it leaves out."""
    params, state = entry.drawn()
    x, forward = entry.input(), outputs(entry, state)
    assert "product" not in primitives(forward, params, x)

    def products(policy: Any) -> int:
        checkpointed = jax.checkpoint(forward, policy=policy, static_argnums=())
        return primitives(gradients(checkpointed, entry), params, x).count("dot_general")

    saved = products(jax.checkpoint_policies.dots_saveable)
    assert saved <= products(jax.checkpoint_policies.nothing_saveable)
    assert saved <= primitives(gradients(forward, entry), params, x).count("dot_general")


WITHOUT_RULES = {
    "cond": "the function of the platform is chosen when a program is lowered",
    "scan": "recurrences are loops",
}
BY_JAX_ITSELF = {
    "relu": "jax.nn.relu: jet leaks the tracers of a function with a rule of its own under jax.jit",
    "adaptive max pool": "the maximum of two, with a rule of its own under jax.jit",
}


@pytest.mark.slow
@every_layer
def test_taylor_series_where_jax_has_rules(
    entry: Entry, request: pytest.FixtureRequest
) -> None:
    params, state = entry.drawn()
    x = entry.input()
    point, tree = ravel_pytree((params, None if entry.indices else x))

    def function(point: Any) -> Any:
        params, given = tree(point)
        return entry.layer.apply(params, state, x if entry.indices else given)[0]

    lacking = set(primitives(function, point)) & WITHOUT_RULES.keys()
    known = {primitive.name for primitive in jet.jet_rules}
    assert not lacking & known
    if lacking or request.node.callspec.id in BY_JAX_ITSELF:
        with pytest.raises(Exception, match=r"cond|scan|racer|process_primitive"):
            jet.jet(function, (point,), ((jnp.ones_like(point), jnp.zeros_like(point)),))
        return
    direction = jnp.asarray(np.random.default_rng(1).normal(size=point.shape), jnp.float32)
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):  # which rules of JAX rely on
        value, (first, second) = jet.jet(
            function, (point,), ((direction, jnp.zeros_like(point)),)
        )

    def slope(point: Any) -> Any:
        return jax.jvp(function, (point,), (direction,))[1]

    expected = function(point), slope(point), jax.jvp(slope, (point,), (direction,))[1]
    for ours, theirs in zip((value, first, second), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3)


def batch_sharding(mesh: Any) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec("data"))


def kernel_sharding(mesh: Any, leaf: Any, split: bool = True) -> NamedSharding:
    """The last axis of a parameter over the other axis of the mesh, where it can be."""
    last = "model" if split and leaf.ndim and leaf.shape[-1] % 2 == 0 else None
    return NamedSharding(
        mesh, PartitionSpec(*((None,) * leaf.ndim)[:-1], *(last,)[: leaf.ndim])
    )


@pytest.mark.sampled(8)
@every_layer
@pytest.mark.parametrize("kernels", [False, True], ids=["batch", "batch and kernels"])
def test_explicit_sharding_is_kept(
    entry: Entry, kernels: bool, request: pytest.FixtureRequest
) -> None:
    """Outputs lie as the batch does, and gradients as what they are of."""
    if kernels and request.node.callspec.id.endswith("tied"):
        pytest.skip(
            "JAX asks the author of the plain product in its function for the sharding of sums over devices"
        )
    params, state = entry.drawn()
    mesh = AbstractMesh((2, 2), AXES, axis_types=(AxisType.Explicit,) * 2)

    def struct(leaf: Any, over: NamedSharding) -> Any:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=over)

    x = struct(entry.input(), batch_sharding(mesh))
    given = jax.tree.map(
        lambda leaf: struct(leaf, kernel_sharding(mesh, leaf, kernels)), params
    )
    with jax.sharding.use_abstract_mesh(mesh):
        y = jax.eval_shape(outputs(entry, state), given, x)
        found = jax.eval_shape(gradients(outputs(entry, state), entry), given, x)
    assert y.sharding.spec[0] == "data"
    assert [g.sharding.spec for g in jax.tree.leaves(found[0])] == [
        p.sharding.spec for p in jax.tree.leaves(given)
    ]


SHARDED = (
    "dense",
    "conv 2d",
    "conv transpose 2d",
    "max pool overlapping",
    "batch norm",
    "embedding",
    "lstm",
    "attention",
)


@pytest.mark.slow
@several
@pytest.mark.parametrize("name", SHARDED)
def test_sharded_numbers_are_those_of_one_device(name: str) -> None:
    entry = CATALOGUE[name]
    params, state = entry.drawn()
    x = entry.input()
    function = jax.jit(
        lambda params, x: (
            outputs(entry, state)(params, x),
            gradients(outputs(entry, state), entry)(params, x),
        )
    )
    expected = function(params, x)
    mesh = jax.make_mesh((2, 2), AXES, axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        placed = jax.tree.map(
            lambda leaf: jax.device_put(leaf, kernel_sharding(mesh, leaf)), params
        )
        found = function(placed, jax.device_put(x, batch_sharding(mesh)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(np.asarray(a), b, rtol=1e-5, atol=1e-5),
        found,
        expected,
    )


@pytest.mark.slow
@several
@pytest.mark.parametrize("layer", [dl.LSTM(8), dl.GRU(8)])
def test_sharded_sequences_are_not_gathered(layer: Any) -> None:
    """Neither those of a batch that lies over devices, nor what is computed of them."""
    x = jnp.ones((64, 5, 6))
    params, state = layer.init(jax.random.key(0), x)
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,))
    x = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    gradient = jax.jit(
        jax.grad(lambda params, x: jnp.sum(layer.apply(params, state, x)[0] ** 2))
    )
    text = gradient.lower(params, x).compile().as_text()
    assert "all-gather" not in text
    assert "all-reduce" in text


@pytest.mark.slow
@several
def test_sharded_surroundings_leave_a_run_as_it_is() -> None:
    """Inside of `jax.set_mesh` a run takes the device it takes outside."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 2, 40).astype(np.int32)

    def run() -> dl.Run:
        options: Any = {
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "epochs": 2,
            "batch_size": 8,
            "progress": False,
        }
        return dl.fit(
            dl.Dense(2), (x, y), loss=dl.losses.softmax_cross_entropy, validation=0.2, **options
        )

    outside = run()
    with jax.set_mesh(jax.make_mesh((DEVICES,), ("data",))):
        inside = run()
        again = dl.evaluate(
            dl.Dense(2), inside.params, {}, (x, y), loss=dl.losses.softmax_cross_entropy
        )
    assert again == dl.evaluate(
        dl.Dense(2), outside.params, {}, (x, y), loss=dl.losses.softmax_cross_entropy
    )
    np.testing.assert_array_equal(inside.history["loss"], outside.history["loss"])
    assert [leaf.sharding for leaf in jax.tree.leaves(inside.params)] == [
        leaf.sharding for leaf in jax.tree.leaves(outside.params)
    ]
