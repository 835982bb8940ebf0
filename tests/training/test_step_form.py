"""One compiled program serves steps that differ in the numbers of their optimizers alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, optim
from jaxdl.training import program
from jaxdl.training.step_form import closed_step, open_step

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
T = X.sum(1, keepdims=True)
MODEL = dl.Dense(1)
START = MODEL.init(jax.random.key(7), X)
RATES = (0.01, 0.02, 0.05, 0.1, 0.3)
fit = functools.partial(
    dl.fit,
    MODEL,
    (X, T),
    loss=losses.mean_squared_error,
    batch_size=4,
    epochs=2,
    progress=False,
    shuffle=False,
    initial=START,
)

GRIDS = {
    "a name": lambda rate: {"optimizer": "adam", "learning_rate": rate},
    "a factory": lambda rate: {"optimizer": optax.sgd, "learning_rate": rate},
    "optax's own": lambda rate: {"optimizer": optax.adamw(rate, weight_decay=rate)},
    "injected": lambda rate: {
        "optimizer": optax.inject_hyperparams(optax.adam)(learning_rate=rate)
    },
    "optax's schedule": lambda rate: {
        "optimizer": optax.adam(optax.cosine_decay_schedule(rate, round(1000 * rate)))
    },
    "a schedule of the run": lambda rate: {
        "optimizer": "sgd",
        "learning_rate": optim.Cosine(rate, warmup=0.4),
    },
    "a plateau": lambda rate: {"optimizer": "sgd", "learning_rate": optim.Plateau(rate)},
    "a clipped one": lambda rate: {
        "optimizer": "prodigy",
        "learning_rate": rate,
        "clip_norm": rate,
    },
    "MultiSteps": lambda rate: {"optimizer": optax.MultiSteps(optax.adam(rate), 2)},
    "skipping": lambda rate: {
        "optimizer": "lion",
        "learning_rate": rate,
        "if_not_finite": "skip",
    },
    "in float16": lambda rate: {
        "optimizer": "rmsprop",
        "learning_rate": rate,
        "precision": "float16",
    },
}


def compiled() -> int:
    return program.epoch_loop._cache_size() + program.compiled_step._cache_size()


@pytest.mark.sampled
@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_of_rates_compiles_once(name) -> None:
    before, ended = compiled(), []
    fit(**GRIDS[name](RATES[0]))
    assert compiled() == before + 1
    with dl.why_compiled(show=False) as why:
        for rate in RATES[1:]:
            ended.append(fit(**GRIDS[name](rate)).params["kernel"])
    assert [each.function for each in why.functions] == []
    assert compiled() == before + 1
    assert len({np.asarray(kernel).tobytes() for kernel in ended}) == len(ended)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["optax's own", "optax's schedule", "injected"])
@pytest.mark.parametrize("way", ["epoch", "step"])
def test_each_run_of_a_grid_is_that_of_optax(name, way) -> None:
    for rate in (0.1, 0.3):
        optimizer = GRIDS[name](rate)["optimizer"]
        params, state = START[0], optimizer.init(START[0])
        for first in [0, 4, 8] * 2:
            rows = slice(first, first + 4)
            gradients = jax.grad(
                lambda p, rows=rows: jnp.mean(
                    jnp.square(MODEL.apply(p, {}, X[rows])[0] - T[rows])
                )
            )(params)
            with jax.numpy_dtype_promotion("standard"):
                updates, state = optimizer.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
        run = fit(compile=way, **GRIDS[name](rate))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            run.params,
            params,
        )
        same = jax.tree.map(
            lambda a, b: a.shape == b.shape and a.dtype == b.dtype,
            run.train_state.optimizer_state,
            state,
        )
        assert all(jax.tree.leaves(same))


def test_the_history_has_each_run_s_own_rate() -> None:
    for rate in (0.25, 0.5):
        assert fit(optimizer=optax.sgd(rate)).history["learning_rate"] == [rate, rate]


@pytest.mark.slow
def test_both_players_of_a_game_take_their_numbers() -> None:
    def play(rate: float) -> dl.Run:
        step = dl.Adversarial(dl.Dense(3), dl.Dense(1), 2, optax.sgd(rate), optax.sgd(2 * rate))
        return dl.train(step, X, batch_size=4, validation=X[:4], progress=False)

    first, before = play(0.125), program.epoch_loop._cache_size()
    second = play(0.25)
    assert program.epoch_loop._cache_size() == before
    assert first.history["generator_learning_rate"] == [0.125]
    assert second.history["generator_learning_rate"] == [0.25]
    assert second.history["discriminator_learning_rate"] == [0.5]


@pytest.mark.slow
def test_a_run_that_goes_on_with_another_rate_takes_it() -> None:
    def step(rate: float) -> dl.Supervised:
        return dl.Supervised(MODEL, losses.mean_squared_error, optax.adam(rate))

    first = dl.train(step(0.5), (X, T), batch_size=4, progress=False)
    rest = dl.train(step(0.0), (X, T), batch_size=4, progress=False, initial=first.train_state)
    jax.tree.map(np.testing.assert_array_equal, rest.params, first.params)


@pytest.mark.slow
def test_an_optimizer_that_decides_by_a_number_keeps_it() -> None:
    """optax.sm3 asks in Python whether its momentum is positive."""
    runs = [fit(optimizer=optax.sm3(rate)) for rate in (0.25, 0.5)]
    assert [run.history["learning_rate"][0] for run in runs] == [0.25, 0.5]


@pytest.mark.parametrize("build", [lambda: optax.sm3(0.25), lambda: optax.sgd(1)])
def test_optimizers_that_keep_their_numbers_share_a_program_where_these_are_equal(
    build,
) -> None:
    first, again = (closed_step(step_of(build())) for _ in range(2))
    assert first is again
    fit(optimizer=build())
    compiled = program.epoch_loop._cache_size()
    fit(optimizer=build())
    assert program.epoch_loop._cache_size() == compiled


def test_optimizers_of_other_numbers_are_other_closed_steps() -> None:
    first, other = (closed_step(step_of(optax.sm3(rate))) for rate in (0.25, 0.5))
    assert first != other


def step_of(optimizer: optax.GradientTransformation) -> dl.Supervised:
    return dl.Supervised(MODEL, losses.mean_squared_error, optimizer)


@dataclasses.dataclass(frozen=True)
class Doubling(dl.Supervised):
    """A step that makes something of its optimizer when it is built."""

    def __post_init__(self) -> None:
        optimizer = optax.chain(self.optimizer, optax.scale(2.0))
        object.__setattr__(self, "doubled", dl.Supervised(self.model, self.loss, optimizer))

    def init(self, key, batch):
        return self.doubled.init(key, batch)  # type: ignore[attr-defined]

    def __call__(self, state, batch):
        return self.doubled(state, batch)  # type: ignore[attr-defined]

    def observe(self, state):
        return self.doubled.observe(state)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_step_that_is_more_than_its_fields_keeps_its_numbers() -> None:
    def run(rate: float) -> dl.Run:
        return dl.train(
            Doubling(MODEL, losses.mean_squared_error, optax.sgd(rate)),
            (X, T),
            batch_size=12,
            progress=False,
        )

    def moved(rate: float) -> np.ndarray:
        still, after = run(0.0), run(rate)
        return np.asarray(after.params["kernel"] - still.params["kernel"])

    np.testing.assert_allclose(moved(0.2), 2 * moved(0.1), rtol=1e-5)
    step = Doubling(MODEL, losses.mean_squared_error, optax.sgd(0.1))
    assert open_step(step)[1] == ()


def test_a_form_s_step_is_the_step() -> None:
    step = dl.Supervised(MODEL, losses.mean_squared_error, optax.adam(0.1))
    form, numbers = open_step(step)
    again, others = open_step(dataclasses.replace(step, optimizer=optax.adam(0.2)))
    assert again is form
    assert [a == b for a, b in zip(numbers, others, strict=True)].count(False) == 1
    assert open_step(dataclasses.replace(step, accumulate=2))[0] != form
    state = step.init(jax.random.key(0), dl.Batch(X, T))
    after = [
        jax.jit(each)(state, dl.Batch(X, T))[0].params for each in (step, form.step(numbers))
    ]
    jax.tree.map(np.testing.assert_array_equal, *after)
