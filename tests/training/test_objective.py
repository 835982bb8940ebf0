"""Own objectives: what `fit` does written as one, and what has no loss of outputs and targets."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 5)).astype(np.float32)
Y = (X[:, :1] * 2 + X[:, 1:2]).astype(np.float32)
MODEL = dl.Sequential(dl.Dense(8), dl.BatchNorm(), jax.nn.relu, dl.Dropout(0.2), dl.Dense(1))
SETTINGS: dict[str, Any] = {"epochs": 3, "batch_size": 16, "progress": False}


@dataclasses.dataclass(frozen=True)
class Regression(dl.Objective):
    """What `fit` minimises, by hand."""

    model: dl.Layer

    def loss(self, params, state, batch, mode):
        outputs, state = self.model.apply(params, state, batch.inputs, mode)
        each = losses.mean_squared_error(outputs, batch.targets)
        error = losses.mean_absolute_error(outputs, batch.targets)
        return each, state, {"error": error, "one": jnp.ones(())}


def equal(a: Any, b: Any, **tolerance: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_norm": 0.1, "average": 0.9},
        {"compile": "step", "drop_last": True},
        pytest.param({"compile": "eager"}, marks=pytest.mark.slow),
        pytest.param({"accumulate": 4}, marks=pytest.mark.slow),
        pytest.param({"precision": "bfloat16"}, marks=pytest.mark.slow),
        pytest.param({"precision": "float16"}, marks=pytest.mark.slow),
        pytest.param({"if_not_finite": "rollback"}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:accumulate=4. the moments of BatchNorm")
def test_what_fit_minimises_written_as_an_objective_is_fit(options):
    given = {**SETTINGS, "optimizer": optax.adam(1e-2), "validation": 0.25, **options}
    by_fit = dl.fit(
        MODEL,
        (X, Y),
        loss=losses.mean_squared_error,
        metrics={"error": losses.mean_absolute_error},
        **given,
    )
    run = dl.train(Regression(MODEL), (X, Y), **given)
    equal(run.params, by_fit.params, rtol=1e-6, atol=1e-7)
    for name in ("loss", "error", "validation_loss", "validation_error", "learning_rate"):
        equal(run.history[name], by_fit.history[name], rtol=1e-6)
    assert run.history["one"] == [1.0] * 3


@pytest.mark.slow
def test_an_objective_has_as_many_fusions_as_the_built_in_step():
    def fusions(step):
        batch = dl.Batch(X[:16], Y[:16])
        state = step.init(jax.random.key(0), batch)
        return jax.jit(step).lower(state, batch).compile().as_text().count(" fusion(")

    @dataclasses.dataclass(frozen=True)
    class Plain(Regression):
        def loss(self, params, state, batch, mode):
            each, state, _ = super().loss(params, state, batch, mode)
            return each, state, {}

    optimizer = optax.adam(1e-2)
    built_in = dl.Supervised(MODEL, losses.mean_squared_error, optimizer)
    assert fusions(dl.Minimize(Plain(MODEL), optimizer)) == fusions(built_in)


@dataclasses.dataclass(frozen=True)
class Contrast(dl.Objective):
    """SimCLR (Chen et al., 2020): views of an example attract, those of others repel each other."""

    model: dl.Layer
    temperature: float = 0.5
    mixes = True

    def loss(self, params, state, batch, mode):
        views = []
        for view in ("first", "second"):
            noise = 0.1 * jax.random.normal(mode.for_part(view).key, batch.inputs.shape)
            z, state = self.model.apply(params, state, batch.inputs + noise, mode)
            views.append(z / jnp.linalg.norm(z, axis=-1, keepdims=True))
        similarity = views[0] @ views[1].T / self.temperature
        present = jnp.ones(batch.size, bool) if batch.mask is None else batch.mask
        similarity = jnp.where(present[None], similarity, -jnp.inf)
        own = jnp.diagonal(similarity)
        each = jnp.where(present, jax.nn.logsumexp(similarity, axis=-1) - own, 0)
        return each, state, {"alike": own * self.temperature}


def test_examples_may_mix_and_rows_that_fill_up_a_batch_stay_out():
    objective = Contrast(dl.Dense(4))
    optimizer = optax.adam(0.01)
    run = dl.train(objective, X, optimizer=optimizer, validation=X[:10], **SETTINGS)
    assert run.history["loss"][-1] < run.history["loss"][0]
    step = dl.Minimize(objective, optimizer)
    state = step.init(jax.random.key(0), dl.Batch(X[:10], ()))
    filled = dl.Batch(np.concatenate([X[:10], 1e3 * X[10:16]]), (), None, jnp.arange(16) < 10)
    _, measured = step(state, filled)
    key = jax.random.fold_in(state.key, 0)
    wanted = _contrast_in_numpy(state.params, X[:10], key, 16)
    total, weight = measured.sums["loss"]
    np.testing.assert_allclose(total / weight, wanted, rtol=1e-5)


def _contrast_in_numpy(params: Any, x: np.ndarray, key: Any, drawn: int) -> float:
    kernel = np.asarray(params["kernel"], np.float64)
    bias = np.asarray(params["bias"], np.float64)
    views = []
    for view in ("first", "second"):
        own = dl.Train(key).for_part(view).key
        noise = 0.1 * np.asarray(jax.random.normal(own, (drawn, x.shape[1])), np.float64)
        z = (x + noise[: len(x)]) @ kernel + bias
        views.append(z / np.linalg.norm(z, axis=1, keepdims=True))
    similarity = views[0] @ views[1].T / 0.5
    return float(np.mean(np.log(np.exp(similarity).sum(1)) - np.diagonal(similarity)))


def test_a_loss_that_mixes_examples_has_to_be_declared():
    @dataclasses.dataclass(frozen=True)
    class Undeclared(Contrast):
        mixes = False

    with pytest.raises(ValueError, match=r"loss .* mixes the examples of a batch"):
        dl.train(Undeclared(dl.Dense(4)), X, optimizer=optax.adam(0.01), **SETTINGS)
    with pytest.raises(
        ValueError, match="accumulate: the examples of a batch meet in Contrast"
    ):
        dl.train(Contrast(dl.Dense(4)), X, optimizer=optax.adam(0.01), accumulate=2, **SETTINGS)


@dataclasses.dataclass(frozen=True)
class Distillation(dl.Objective):
    """A small model learns what a frozen teacher says."""

    model: dl.Layer
    teacher: dl.Layer
    weights: dl.Constants

    def init(self, key, batch):
        params, state = self.model.init(key, batch.inputs)
        return params, {"student": state, "teacher": self.weights.tree}

    def loss(self, params, state, batch, mode):
        wanted, _ = self.teacher.apply(state["teacher"], {}, batch.inputs)
        outputs, student = self.model.apply(params, state["student"], batch.inputs, mode)
        each = losses.mean_squared_error(outputs, wanted)
        return each, state | {"student": student}, {}


def test_a_frozen_teacher_stands_in_the_state():
    teacher = dl.Dense(2)
    weights, _ = teacher.init(jax.random.key(5), X)
    objective = Distillation(dl.Dense(2), teacher, dl.Constants(weights))
    run = dl.train(objective, X, optimizer=optax.sgd(0.3), **(SETTINGS | {"epochs": 60}))
    assert run.history["loss"][-1] < 1e-4
    equal(run.state["teacher"], weights, rtol=0)
    equal(run.params, weights, atol=0.02, rtol=0)


def test_a_run_with_another_teacher_is_another_run(tmp_path):
    teacher = dl.Dense(2)
    weights, _ = teacher.init(jax.random.key(5), X)

    def trained(scale: float, epochs: int) -> dl.Run:
        constants = dl.Constants(jax.tree.map(lambda leaf: scale * leaf, weights))
        objective = Distillation(dl.Dense(2), teacher, constants)
        given = SETTINGS | {"epochs": epochs, "checkpoint": dl.Checkpoints(tmp_path)}
        return dl.train(objective, X, optimizer=optax.sgd(0.1), **given)

    trained(1.0, 1)
    assert len(trained(1.0, 2).history["loss"]) == 2
    with pytest.raises(dl.CheckpointError, match=r"of\.weights\.tree"):
        trained(2.0, 3)


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (lambda b: (jnp.ones(()), {}, {}), r"expected one loss for each example"),
        (lambda b: (jnp.ones(b.size), {}, {"a": jnp.ones((b.size, 2))}), "the metric 'a'"),
        (lambda b: (jnp.ones(b.size), {}, None), "expected a dict by name"),
        (
            lambda b: jnp.ones(()),
            r"Wrong.loss returned .*; expected \(losses, state, metrics\)",
        ),
    ],
)
def test_what_a_loss_returns_is_checked(returned, sentence):
    @dataclasses.dataclass(frozen=True)
    class Wrong(dl.Objective):
        model: dl.Layer

        def loss(self, params, state, batch, mode):
            return returned(batch)

    with pytest.raises((ValueError, TypeError), match=sentence):
        dl.train(Wrong(dl.Dense(1)), X, optimizer=optax.adam(0.01), **SETTINGS)


def test_optimizer_and_options_are_those_of_an_objective():
    with pytest.raises(TypeError, match="optimizer: Regression is an Objective"):
        dl.train(Regression(MODEL), (X, Y), **SETTINGS)
    step = dl.Supervised(MODEL, losses.mean_squared_error, optax.adam(1e-2))
    with pytest.raises(TypeError, match="Supervised is a training step"):
        dl.train(step, (X, Y), clip_norm=1.0, **SETTINGS)
    with pytest.raises(TypeError, match="there is no argument 'metrics'"):
        dl.train(Regression(MODEL), (X, Y), optimizer="adam", metrics={}, **SETTINGS)  # type: ignore


def test_a_model_without_a_field_model_defines_init():
    @dataclasses.dataclass(frozen=True)
    class Bare(dl.Objective):
        def loss(self, params, state, batch, mode):
            return jnp.ones(batch.size), state, {}

    with pytest.raises(TypeError, match="Bare: it has no layer as its field 'model'"):
        dl.train(Bare(), X, optimizer=optax.adam(0.01), **SETTINGS)


@pytest.mark.slow
def test_a_population_of_an_objective_is_its_runs():
    model = dl.Sequential(dl.Dense(4), jax.nn.relu, dl.Dense(1))
    given = {**SETTINGS, "optimizer": optax.sgd(0.1)}
    runs = dl.fit_many(Regression(model), (X, Y), seeds=3, validation=0.25, **given)
    assert len(runs) == 3
    for seed, member in enumerate(runs):
        run = dl.train(Regression(model), (X, Y), seed=seed, validation=0.25, **given)
        equal(member.params, run.params, rtol=1e-5, atol=1e-6)
        for name in ("loss", "error", "validation_loss"):
            equal(member.history[name], run.history[name], rtol=1e-5)
    assert runs.predict(X).mean.shape == (40, 1)


@pytest.mark.slow
def test_hyperparameters_of_an_objective_are_swept():
    runs = dl.sweep(
        lambda temperature: Contrast(dl.Dense(4), temperature),
        X,
        {"temperature": [0.2, 0.5]},
        optimizer=optax.adam(0.01),
        **SETTINGS,
    )
    alone = dl.train(Contrast(dl.Dense(4), 0.5), X, optimizer=optax.adam(0.01), **SETTINGS)
    equal(runs[1].params, alone.params, rtol=1e-4, atol=1e-6)
    with pytest.raises(TypeError, match="loss: Contrast is an Objective"):
        dl.fit_many(
            Contrast(dl.Dense(4)), X, seeds=2, loss=losses.mean_squared_error, optimizer="adam"
        )
    with pytest.raises(TypeError, match="metrics: Contrast is an Objective"):
        dl.fit_many(Contrast(dl.Dense(4)), X, seeds=2, metrics={}, optimizer="adam")


def test_arrays_of_an_objective_are_no_constants_of_a_program():
    """As constants, two hundred megabytes take half a minute to compile."""
    weights = {"kernel": np.ones((5, 2), np.float32), "bias": np.ones(2, np.float32)}
    objective = Distillation(dl.Dense(2), dl.Dense(2), dl.Constants(weights))
    with dl.why_compiled(show=False) as why:
        run = dl.train(objective, X, optimizer=optax.sgd(0.1), **(SETTINGS | {"epochs": 1}))
    assert not any(each.function.endswith("._init") for each in why.functions)
    held = objective.weights.tree
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(held))
    equal(run.state["teacher"], weights, rtol=0)


def test_names_of_figures_are_the_objective_s_own():
    @dataclasses.dataclass(frozen=True)
    class Telling(Regression):
        name: str = "loss"

        def loss(self, params, state, batch, mode):
            each, state, _ = super().loss(params, state, batch, mode)
            return each, state, {self.name: 2 * each}

    for name in ("loss", "losses", "learning_rate", "validation_loss"):
        with pytest.raises(
            ValueError, match=f"'{name}' is a name that the history uses itself"
        ):
            dl.train(Telling(MODEL, name), (X, Y), optimizer="adam", **SETTINGS)


def test_a_run_predicts_where_the_parameters_are_all_its_model_s():
    model = dl.Dense(4)
    run = dl.train(Contrast(model), X, optimizer=optax.adam(0.01), **SETTINGS)
    equal(run.predict(X), dl.predict(model, run.params, run.state, X), rtol=0)
    weights, _ = dl.Dense(2).init(jax.random.key(5), X)
    objective = Distillation(dl.Dense(2), dl.Dense(2), dl.Constants(weights))
    other = dl.train(objective, X, optimizer=optax.adam(0.01), **SETTINGS)
    with pytest.raises(ValueError, match="Minimize trains no single model"):
        other.predict(X)
