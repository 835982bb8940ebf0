"""Optimizers built alike are one; whatever may mean something else is not taken for the same."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses
from jaxdl.optim.alike import first_alike, with_first_alike
from jaxdl.training import program

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
T = X.sum(1, keepdims=True)


def chained() -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, 3, 20)
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, b1=0.8, mu_dtype=jnp.bfloat16)
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: optax.adam(1e-3),
        lambda: optax.sgd(np.float32(0.1), momentum=0.9, nesterov=True),
        lambda: optax.lion(optax.piecewise_constant_schedule(0.1)),
        lambda: optax.apply_if_finite(optax.rmsprop(0.1), 3),
        lambda: optax.contrib.prodigy(),
        lambda: optax.contrib.schedule_free_sgd(0.1),
        lambda: optax.lookahead(optax.adabelief(0.1), 5, 0.5),
        lambda: optax.sgd(jnp.float32(0.1)),
        lambda: optax.masked(optax.sgd(0.1), {"kernel": True, "bias": False}),
        lambda: optax.inject_hyperparams(optax.adam)(
            optax.exponential_decay(0.1, 3, 0.5, end_value=0.01)
        ),
        lambda: optax.MultiSteps(
            optax.sgd(optax.piecewise_constant_schedule(0.1, {5: 0.5})), 3
        ).gradient_transformation(),
        chained,
    ],
)
def test_built_twice_they_are_one(make) -> None:
    assert make() is not make()
    assert first_alike(make()) is first_alike(make())


def test_they_are_apart_where_a_number_a_sign_a_type_or_a_function_is() -> None:
    built = [
        optax.adam(1e-3),
        optax.adam(1e-2),
        optax.nadam(1e-3),
        optax.adam(1e-3, eps_root=-0.0),
        optax.adam(optax.constant_schedule(1e-3)),
        optax.sgd(1),
        optax.sgd(1.0),
        optax.sgd(np.float32(1)),
        optax.scale(True),
        optax.chain(optax.adam(1e-3), optax.sgd(1.0)),
        optax.chain(optax.sgd(1.0), optax.adam(1e-3)),
    ]
    assert len({id(first_alike(each)) for each in built}) == len(built)


def test_what_may_read_something_else_is_like_itself_alone() -> None:
    factor = 1.0

    def mine(count):
        return factor * 0.1

    for make in (
        lambda: optax.sgd(lambda count: 0.1),
        lambda: optax.sgd(mine),
        lambda: optax.sgd(functools.partial(mine)),
        lambda: optax.add_noise(0.1, 0.5, jax.random.key(0)),
        lambda: optax.GradientTransformation(
            lambda params: (), lambda updates, state, params=None: (updates, state)
        ),
    ):
        one, other = make(), make()
        assert first_alike(one) is one
        assert first_alike(other) is other


def test_a_list_that_has_changed_makes_it_another() -> None:
    def joined(boundaries: list[int]) -> optax.GradientTransformation:
        return optax.sgd(
            optax.join_schedules(
                [optax.constant_schedule(0.5), optax.constant_schedule(0.25)], boundaries
            )
        )

    ends = [7]
    first = first_alike(joined(ends))
    assert first_alike(joined([7])) is first
    ends[0] = 8
    again = joined([7])
    assert first_alike(again) is again
    assert first_alike(joined([8])) is not first


def test_a_step_has_its_optimizers_replaced_and_is_else_what_it_was() -> None:
    def step(rate: float) -> dl.Supervised:
        return dl.Supervised(dl.Dense(1), losses.mean_squared_error, optax.sgd(rate))

    first = with_first_alike(step(0.125))
    given = step(0.125)
    again = with_first_alike(given)
    assert again == first != given
    assert again.optimizer is first.optimizer is not given.optimizer
    assert dataclasses.replace(again, optimizer=given.optimizer) == given
    assert with_first_alike(again) is again


@pytest.mark.sampled
@pytest.mark.parametrize("train", [False, True])
def test_a_run_that_writes_its_optimizer_anew_compiles_nothing(train: bool) -> None:
    model = dl.Dense(1)

    def run() -> dl.Run:
        if train:
            step = dl.Supervised(model, losses.mean_squared_error, optax.adam(0.0625))
            return dl.train(step, (X, T), batch_size=4, progress=False)
        built = optax.adam(0.0625)
        return dl.fit(
            model,
            (X, T),
            loss=losses.mean_squared_error,
            optimizer=built,
            clip_norm=3.0,
            batch_size=4,
            progress=False,
        )

    first, before = run(), program._loop._cache_size()
    with dl.why_compiled(show=False) as compiled:
        again = run()
    assert program._loop._cache_size() == before
    assert [each.function for each in compiled.functions] == []
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
