"""What a function gives without computing, against what its program gives."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl.compiling.draws import Computes, Draw, _draw_stacked
from jaxdl.compiling.initialization import made_of, values_of
from jaxdl.core.tree import shapes
from jaxdl.data.source import Batch
from jaxdl.training import program
from jaxdl.training.train import first_state

PARAMS = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2, jnp.bfloat16)}


@pytest.mark.parametrize(
    "function",
    [
        optax.adam(1e-3).init,
        optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.sgd(optax.cosine_decay_schedule(0.1, 5), momentum=0.9),
        ).init,
        optax.adabelief(1e-3, nesterov=True).init,
        optax.adagrad(1e-2, initial_accumulator_value=0.1).init,
        lambda params: (
            params,
            jnp.full((2, 2), -0.0, "float32"),
            jnp.ones(3, bool),
            jnp.asarray(7, jnp.int32),
            params["bias"],
        ),
        jax.jit(lambda params: jax.tree.map(jnp.zeros_like, params)),
    ],
    ids=["adam", "chain", "adabelief", "adagrad", "constants", "jit"],
)
def test_arguments_and_constants_are_those_of_the_program(function: Any) -> None:
    made = values_of(made_of(function, shapes(PARAMS)), PARAMS)
    expected = jax.jit(function)(PARAMS)
    assert jax.tree.structure(made) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(made), jax.tree.leaves(expected), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


@pytest.mark.parametrize(
    "function",
    [
        lambda params: params["kernel"] * 2,
        lambda params: jnp.arange(3),
        lambda params: jnp.broadcast_to(params["bias"], (3, 2)),
        lambda params: jnp.zeros(()) + 1,
        jax.jit(lambda params: jax.random.normal(jax.random.key(0))),
        lambda params: halved().init(params),
        lambda params: (
            params["kernel"],
            1.5,
        ),  # of weak type, which an array on the host has not
    ],
    ids=["product", "arange", "broadcast", "sum", "random", "halves", "weak"],
)
def test_what_computes_says_so(function: Any) -> None:
    with pytest.raises(Computes):
        made_of(function, shapes(PARAMS))


def test_a_run_from_given_parameters_compiles_no_program_for_its_first_state(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, x = dl.Dense(1), jnp.ones((8, 3))
    settings: dict[str, Any] = {
        "loss": dl.losses.mean_squared_error,
        "epochs": 1,
        "progress": False,
    }
    initial = model.init(jax.random.key(0), x)
    for optimizer, programs in (
        (optax.adam(1e-3), 0),
        (optax.chain(optax.adam(1e-3), halved()), 1),
    ):
        caplog.clear()
        with jax.log_compiles():
            dl.fit(model, (x, x[:, :1]), optimizer=optimizer, initial=initial, **settings)
        assert (
            sum("Compiling jit(_restart)" in record.getMessage() for record in caplog.records)
            == programs
        )


def halved() -> optax.GradientTransformation:
    """Its first state is computed of the parameters."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(lambda leaf: leaf / 2, params), lambda u, s, p=None: (u, s)
    )


@dataclasses.dataclass(frozen=True)
class Scaled(dl.Stateless):
    """A layer whose first parameters are computed of a draw."""

    def weights(self, key: jax.Array, x: Any) -> dict[str, Any]:
        return {"scale": 1 + 0.1 * jax.random.normal(key, x.shape[-1:])}

    def forward(self, params: dict[str, Any], x: Any) -> Any:
        return x * params["scale"][None]


def block() -> dl.Layer:
    return dl.Residual(dl.Sequential(dl.Dense(6), dl.BatchNorm(), jnp.tanh, dl.Dense(6)))


MODELS = {
    "different": dl.Sequential(dl.Dense(6), dl.Dense(5), dl.Dense(4)),
    "equal": dl.Sequential(dl.Dense(6), *[block() for _ in range(4)], dl.Dense(4)),
    "the same": dl.Sequential(dl.Dense(6), *[block()] * 4, dl.Frozen(dl.Dense(6)), dl.Dense(4)),
    "computed": dl.Sequential(dl.Dense(6), Scaled(), dl.Dense(6), Scaled()),
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "optimizer",
    [optax.adam(1e-3), optax.contrib.schedule_free_sgd(1e-2)],
    ids=["adam", "schedule_free"],
)
def test_a_first_state_is_what_the_step_draws_one_by_one(name: str, optimizer: Any) -> None:
    step = dl.Supervised(MODELS[name], dl.losses.mean_squared_error, optimizer, average=0.9)
    example = Batch(
        jax.ShapeDtypeStruct((8, 6), "float32"), jax.ShapeDtypeStruct((8, 4), "float32")
    )
    for seed in (0, 3):
        key = jax.random.key(seed)
        made, expected = first_state(step, example, key), step.init(key, example)
        assert jax.tree.structure(made) == jax.tree.structure(expected)
        assert (jax.random.key_data(made.key) == jax.random.key_data(expected.key)).all()
        for ours, theirs in zip(
            *(jax.tree.leaves(state._replace(key=None)) for state in (made, expected)),
            strict=True,
        ):
            assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


def test_equal_parameters_are_drawn_by_one_program_for_all_seeds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = dl.Sequential(dl.Dense(7), *[dl.Dense(7) for _ in range(20)])
    step = dl.Supervised(model, dl.losses.mean_squared_error, optax.adam(1e-3))
    example = Batch(
        jax.ShapeDtypeStruct((8, 7), "float32"), jax.ShapeDtypeStruct((8, 7), "float32")
    )
    with jax.log_compiles():
        states = [first_state(step, example, jax.random.key(seed)) for seed in range(3)]
    compiled = [
        record.getMessage()
        for record in caplog.records
        if "Compiling jit(" in record.getMessage()
    ]
    assert len([message for message in compiled if "_draw_stacked" in message]) == 1
    assert not [message for message in compiled if "_init" in message]
    kernels = np.stack(
        [leaf for state in states for leaf in jax.tree.leaves(state.params) if leaf.ndim == 2]
    )
    assert len(np.unique(kernels[:, 0, 0])) == 3 * 21  # no key serves twice
    draw = Draw(jax.nn.initializers.lecun_normal(), (7, 7), np.dtype("float32"))
    drawing = _draw_stacked.trace((draw,), [np.zeros((21, 2), np.uint32)])
    assert str(drawing.jaxpr).count("random_bits") == 1


def test_a_first_state_with_equal_parameters_and_the_state_after_it_share_a_program() -> None:
    x = np.ones((12, 5), np.float32)
    model = dl.Sequential(dl.Dense(5), *[dl.Dense(5) for _ in range(3)], dl.Dense(1))
    before = program.epoch_loop._cache_size()
    run = dl.fit(
        model,
        (x, x[:, :1]),
        loss=dl.losses.mean_squared_error,
        optimizer=optax.sgd(0.1),
        epochs=3,
        batch_size=4,
        progress=False,
    )
    assert program.epoch_loop._cache_size() == before + 1
    example = Batch(
        jax.ShapeDtypeStruct((4, 5), "float32"), jax.ShapeDtypeStruct((4, 1), "float32")
    )
    step = dl.Supervised(model, dl.losses.mean_squared_error, optax.sgd(0.1))
    assert not any(
        leaf.committed
        for leaf in jax.tree.leaves(first_state(step, example, jax.random.key(0)))
    )
    assert run.compile_seconds > 0


def test_an_initializer_that_is_none_is_refused_where_it_stands() -> None:
    model = dl.Sequential(
        head=dl.Dense(3, kernel_init=lambda key, shape, dtype: jnp.zeros((1, 1), dtype))
    )
    x = jnp.ones((8, 2))
    with pytest.raises(
        dl.LayerError,
        match=r"Dense at 'head': kernel_init gave float32\[1, 1\] for a parameter of shape \[2, 3\]",
    ):
        dl.fit(
            model,
            (x, x[:, :1]),
            loss=dl.losses.mean_squared_error,
            optimizer=optax.sgd(0.1),
            progress=False,
        )


def test_keys_of_other_generators_draw_too() -> None:
    step = dl.Supervised(dl.Dense(3), dl.losses.mean_squared_error, optax.sgd(0.1))
    example = Batch(
        jax.ShapeDtypeStruct((8, 2), "float32"), jax.ShapeDtypeStruct((8, 3), "float32")
    )
    other = first_state(step, example, jax.random.key(0, impl="rbg"))
    np.testing.assert_allclose(
        other.params["kernel"],
        step.init(jax.random.key(0, impl="rbg"), example).params["kernel"],
        rtol=1e-6,
    )


def test_paths_of_keys_are_those_of_jax() -> None:
    def keys(key: jax.Array) -> Any:
        first, second = jax.random.split(jax.random.fold_in(key, 7))
        grid = jax.random.split(second, (2, 3))
        return first, jax.random.fold_in(grid[1, 2], 5), key

    key = jax.random.key(11)
    for ours, theirs in zip(values_of(made_of(keys, key), key), keys(key), strict=True):
        assert (jax.random.key_data(ours) == jax.random.key_data(theirs)).all()
