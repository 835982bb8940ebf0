"""An optimizer built anew of its form and other numbers is the one that optax builds of these."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import jaxdl as dl
from jaxdl import losses, optim
from jaxdl.optim.forms import UnlikeError, opened
from jaxdl.training import program

RNG = np.random.default_rng(0)
PARAMS = {"w": RNG.normal(size=(3, 2)).astype(np.float32), "b": np.full(2, 0.3, np.float32)}
INPUTS = RNG.normal(size=(12, 3)).astype(np.float32)
TARGETS = INPUTS.sum(1, keepdims=True)

MAKE = {
    "adam": optax.adam,
    "adamw": lambda rate: optax.adamw(rate, b1=1 - rate, weight_decay=rate),
    "sgd with momentum": lambda rate: optax.sgd(rate, momentum=1 - rate, nesterov=True),
    "adagrad": lambda rate: optax.adagrad(rate, initial_accumulator_value=rate),
    "of a chain": lambda rate: optax.chain(
        optax.clip_by_global_norm(10 * rate), optax.lion(rate)
    ),
    "of a mask": lambda rate: optax.masked(optax.rmsprop(rate), {"w": True, "b": False}),
    "of a partition": lambda rate: optax.partition(
        {"a": optax.adam(rate), "b": optax.sgd(rate)}, {"w": "a", "b": "b"}
    ),
    "injected": lambda rate: optax.inject_hyperparams(optax.adam)(learning_rate=rate),
    "an injected schedule": lambda rate: optax.inject_hyperparams(optax.sgd)(
        optax.linear_schedule(rate, 0.0, 10)
    ),
    "MultiSteps": lambda rate: optax.MultiSteps(optax.adam(rate), 2).gradient_transformation(),
    "nadam": optax.nadam,
    "radam": optax.radam,
    "adamax": optax.adamax,
    "adadelta": optax.adadelta,
    "lamb": lambda rate: optax.lamb(rate, weight_decay=rate),
    "adafactor": optax.adafactor,
    "an array": lambda rate: optax.sgd(jnp.float32(rate)),
    "prodigy": contrib.prodigy,
    "schedule-free": contrib.schedule_free_adamw,
    "a cosine": lambda rate: optax.sgd(
        optax.warmup_cosine_decay_schedule(0.0, rate, 2, int(1000 * rate), rate / 9)
    ),
    "steps of a rate": lambda rate: optax.sgd(
        optax.piecewise_constant_schedule(rate, {3: 0.5})
    ),
    "an exponential": lambda rate: optax.sgd(
        optax.exponential_decay(rate, 3, 0.9, end_value=rate / 2)
    ),
    "shares of a run": lambda rate: optax.adam(
        optim.Linear(rate, warmup=0.2).over(int(1000 * rate))
    ),
    "one cycle": lambda rate: optax.adam(optim.OneCycle(rate).over(int(1000 * rate))),
    "lbfgs": optax.lbfgs,
}


def loss(params):
    return sum(
        jnp.sum(
            jnp.square(leaf - 1)
            * (1 + jnp.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape))
        )
        for leaf in params.values()
    )


def trained(optimizer, steps=5):
    """The parameters after some updates of optax's own loop."""
    params = jax.tree.map(jnp.asarray, PARAMS)
    state, extended = optimizer.init(params), optax.with_extra_args_support(optimizer)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(steps):
            value, gradients = jax.value_and_grad(loss)(params)
            updates, state = extended.update(
                gradients, state, params, value=value, grad=gradients, value_fn=loss
            )
            params = optax.apply_updates(params, updates)
    return params


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKE)
def test_of_other_numbers_it_is_the_one_that_optax_builds_of_them(name):
    (form, _), (other, numbers) = opened(MAKE[name](0.01)), opened(MAKE[name](0.02))
    assert form == other
    assert hash(form) == hash(other)
    built = jax.jit(lambda numbers: trained(form.built(numbers)))(numbers)
    expected = jax.jit(lambda: trained(MAKE[name](0.02)))()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), built, expected
    )
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), expected, PARAMS)
    assert max(jax.tree.leaves(moved)) > 1e-7  # Prodigy begins with steps of a millionth


@pytest.mark.parametrize("name", optim.NAMES)
def test_of_each_name_one_form_serves_all_learning_rates(name):
    (form, _), (other, numbers) = (
        opened(optim.as_optimizer(name, rate)) for rate in (0.1, 0.3)
    )
    assert form == other
    assert any(np.isclose(abs(float(number)), 0.3) for number in numbers)


@pytest.mark.slow
def test_numbers_that_are_traced_are_no_further_from_the_truth_than_optax_s():
    """Where 1 − b2 is small: optax takes it of Python's number and the powers of b2 of a float32, which do not fit together."""
    gradients = RNG.normal(size=(50, 20))
    optimizer = optax.adam(1e-2, b2=0.9999)

    def path(optimizer, dtype):
        def step(carry, gradient):
            updates, state = optimizer.update(gradient, carry[1])
            return (carry[0] + updates, state), None

        with jax.numpy_dtype_promotion("standard"):
            start = jnp.zeros(20, dtype)
            return jax.lax.scan(
                step, (start, optimizer.init(start)), jnp.asarray(gradients, dtype)
            )[0][0]

    with jax.enable_x64(True):
        truth = np.asarray(path(optimizer, jnp.float64))
    form, numbers = opened(optimizer)
    built = jax.jit(lambda numbers: path(form.built(numbers), jnp.float32))(numbers)
    plain = jax.jit(lambda: path(optimizer, jnp.float32))()
    error, plain_error = (
        np.abs(values - truth).max() / np.abs(truth).max() for values in (built, plain)
    )
    assert error < 2e-5
    assert error < plain_error


def test_with_64_bits_numbers_are_what_was_given():
    with jax.enable_x64(True):
        form, numbers = opened(optax.sgd(0.1))
        updates = jax.jit(
            lambda n: form.built(n).update(
                jnp.ones(1, jnp.float64), form.built(n).init(jnp.ones(1))
            )[0]
        )(numbers)
        assert updates.dtype == jnp.float64
        assert float(updates[0]) == -0.1


def test_forms_differ_where_what_is_computed_does():
    forms = [
        opened(optimizer)[0]
        for optimizer in (
            optax.sgd(0.1),
            optax.sgd(1),
            optax.sgd(np.float32(0.1)),  # type: ignore[arg-type]
            optax.sgd(0.1, momentum=0.9),
            optax.sgd(0.1, momentum=0.9, nesterov=True),
            optax.adam(0.1),
            optax.adam(0.1, mu_dtype=jnp.bfloat16),
            optax.adam(optax.linear_schedule(0.1, 0.0, 3)),
            optax.masked(optax.sgd(0.1), {"w": True}),
            optax.masked(optax.sgd(0.1), {"w": False}),
            optax.apply_if_finite(optax.sgd(0.1), 3),
            optax.apply_if_finite(optax.sgd(0.1), 4),
        )
    ]
    assert len(set(forms)) == len(forms)


def test_a_list_that_changes_later_changes_nothing():
    ends = [3]
    optimizer = optax.sgd(
        optax.join_schedules(
            [optax.constant_schedule(0.5), optax.constant_schedule(0.25)], ends
        )
    )
    form, numbers = opened(optimizer)
    expected = trained(form.built(numbers))
    ends[0] = 1
    jax.tree.map(np.testing.assert_array_equal, trained(form.built(numbers)), expected)
    assert any(
        (a != b).any()
        for a, b in zip(
            *(jax.tree.leaves(t) for t in (trained(optimizer), expected)), strict=True
        )
    )


def test_what_a_user_s_function_or_an_array_takes_part_in_has_no_form():
    for optimizer in (
        optax.sgd(lambda count: 0.1),
        optax.adamw(0.1, mask=lambda params: jax.tree.map(lambda _: True, params)),
        optax.add_noise(0.1, 0.5, jax.random.key(0)),
        optax.GradientTransformation(
            lambda params: (), lambda updates, state, params=None: (updates, state)
        ),
    ):
        with pytest.raises(UnlikeError):
            opened(optimizer)


def chained():
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
def test_built_twice_it_has_one_form_and_equal_numbers(make):
    form, numbers = opened(make())
    other, others = opened(make())
    assert form == other
    assert hash(form) == hash(other)
    assert numbers == others


@pytest.mark.parametrize("train", [False, True])
def test_a_run_that_writes_its_optimizer_anew_compiles_nothing(train):
    model = dl.Dense(1)

    def run():
        if train:
            step = dl.Supervised(model, losses.mean_squared_error, optax.adam(0.0625))
            return dl.train(step, (INPUTS, TARGETS), batch_size=4, progress=False)
        built = optax.adam(0.0625)
        return dl.fit(
            model,
            (INPUTS, TARGETS),
            loss=losses.mean_squared_error,
            optimizer=built,
            clip_norm=3.0,
            batch_size=4,
            progress=False,
        )

    first, before = run(), program.epoch_loop._cache_size()
    with dl.why_compiled(show=False) as compiled:
        again = run()
    assert program.epoch_loop._cache_size() == before
    assert [each.function for each in compiled.functions] == []
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
