"""Optimizers by name, by function and rate; and those that mean other parameters than they train."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import jaxdl as dl
from jaxdl import losses, metrics, optim
from jaxdl.optim.optimizers import NAMES, as_optimizer
from jaxdl.training.update import updated

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
T = X[:, :1] - X[:, 1:2]
MODEL = dl.Dense(1)
fit = functools.partial(
    dl.fit, MODEL, loss=losses.mean_squared_error, batch_size=8, progress=False
)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_one_optimizer_that_lowers_a_loss(name):
    optimizer = as_optimizer(name, steps=30)
    assert optimizer is as_optimizer(name, steps=30)
    params = {"w": jnp.asarray([1.0, -2.0])}

    def objective(params):
        return jnp.sum(jnp.square(params["w"]))

    def step(carry, _):
        params, state = carry
        loss, gradients = jax.value_and_grad(objective)(params)
        params, state = updated(optimizer, gradients, state, params, loss)
        return (params, state), None

    (params, _), _ = jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), None, 30))(
        params
    )
    assert objective(params) < 5


def test_a_name_is_optax_s_function():
    expected = fit((X, T), optimizer=optax.adam(1e-3), epochs=2)
    for spelt in ({"optimizer": "adam"}, {"optimizer": optax.adam, "learning_rate": 1e-3}):
        jax.tree.map(
            np.testing.assert_array_equal,
            fit((X, T), epochs=2, **spelt).params,
            expected.params,
        )
    auto, prodigy = (
        fit((X, T), epochs=2, optimizer=o)
        for o in ("auto", contrib.prodigy(optax.cosine_decay_schedule(1.0, 10)))
    )
    jax.tree.map(np.testing.assert_array_equal, auto.params, prodigy.params)


RATES_OF_OTHERS = {
    "nadam": ("keras", "Nadam"),
    "lamb": ("keras", "Lamb"),
    "adam": ("keras", "Adam"),
    "adamw": ("keras", "AdamW"),
    "sgd": ("keras", "SGD"),
    "rmsprop": ("keras", "RMSprop"),
    "adagrad": ("torch", "Adagrad"),
    "radam": ("torch", "RAdam"),
    "adadelta": ("torch", "Adadelta"),
    "adafactor": ("torch", "Adafactor"),
    "adamax": ("torch", "Adamax"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RATES_OF_OTHERS)
def test_learning_rates_are_the_defaults_of_whom_the_documentation_names(name, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    library, kind = RATES_OF_OTHERS[name]
    if library == "keras":
        maker = getattr(pytest.importorskip("keras").optimizers, kind)
    else:
        maker = getattr(pytest.importorskip("torch").optim, kind)
    parameters = inspect.signature(maker).parameters
    default = parameters["learning_rate" if library == "keras" else "lr"].default
    assert NAMES[name][1] == pytest.approx(float(default))


def updates_of_pytorch(make, gradients):
    torch = pytest.importorskip("torch")
    weights = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    optimizer = make(torch.optim, [weights])
    for gradient in gradients:
        weights.grad = torch.tensor(gradient)
        optimizer.step()
    return weights.detach().numpy()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("radam", lambda optim, params: optim.RAdam(params, lr=0.01)),
        ("adamax", lambda optim, params: optim.Adamax(params, lr=0.01)),
        ("adadelta", lambda optim, params: optim.Adadelta(params, lr=0.01)),
    ],
)
def test_updates_are_those_of_pytorch(name, make):
    gradients = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    optimizer = as_optimizer(name, 0.01)
    params = {"w": jnp.array([1.0, -2.0, 0.5])}
    state = optimizer.init(params)
    for gradient in gradients:
        slopes = {"w": jnp.asarray(gradient)}
        params, state = updated(optimizer, slopes, state, params, jnp.zeros(()))
    np.testing.assert_allclose(params["w"], updates_of_pytorch(make, gradients), rtol=1e-4)


def test_the_names_cannot_be_changed():
    with pytest.raises(TypeError):
        NAMES["mine"] = ("adam", 1.0)  # type: ignore[index]


def test_auto_without_a_known_end_has_no_schedule():
    assert as_optimizer("auto") is as_optimizer("prodigy")
    run = fit([(X, T)] * 3, optimizer="auto")
    assert np.isfinite(run.history["loss"][0])


def test_equal_rates_share_a_program():
    from jaxdl.training import program

    fit((X, T), optimizer=optax.sgd, learning_rate=0.1)
    before = program.epoch_loop._cache_size()
    fit((X, T), optimizer=optax.sgd, learning_rate=np.float64(0.1))
    fit((X, T), optimizer="sgd", learning_rate=0.1)
    assert program.epoch_loop._cache_size() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"optimizer": "adm"},
            r"'adm' is none of 'adam', .*'auto' — give one of these, or optax's own",
        ),
        (
            {"optimizer": optax.adam(0.1), "learning_rate": 0.1},
            "the optimizer has been built with its own",
        ),
        (
            {"optimizer": optax.adam},
            r"expected an optax optimizer, got <function adam.*call it.*or give a learning_rate",
        ),
        (
            {"optimizer": optax.sgd, "learning_rate": -1.0},
            r"a finite number of at least 0, got -1\.0",
        ),
        (
            {"optimizer": "schedule_free_sgd", "average": 0.9},
            "a schedule-free optimizer averages the parameters itself",
        ),
    ],
)
def test_what_is_none_is_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fit((X, T), **options)


@pytest.mark.slow
@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("way", ["epoch", "step"])
def test_a_schedule_free_run_means_the_average(clip_norm, way):
    """Against optax's own loop, evaluated as optax says."""
    optimizer = contrib.schedule_free_sgd(0.1)
    chained = (
        optimizer
        if clip_norm is None
        else optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)
    )
    start = MODEL.init(jax.random.key(3), X)
    run = fit(
        (X, T),
        optimizer=optimizer,
        clip_norm=clip_norm,
        initial=start,
        shuffle=False,
        validation=(X, T),
        epochs=2,
        compile=way,
    )
    params = start[0]
    state = chained.init(params)

    def mean_loss(params, x, t):
        return jnp.mean(jnp.square(MODEL.apply(params, {}, x)[0] - t))

    for first in [*range(0, 40, 8)] * 2:
        gradients = jax.grad(mean_loss)(params, X[first : first + 8], T[first : first + 8])
        with jax.numpy_dtype_promotion("standard"):
            updates, state = chained.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    means = contrib.schedule_free_eval_params(state if clip_norm is None else state[1], params)
    same(run.train_state.params, params)
    same(run.params, means)
    assert run.best is not None
    np.testing.assert_allclose(
        run.history["validation_loss"][-1], mean_loss(means, X, T), rtol=1e-4
    )
    assert abs(float(mean_loss(means, X, T) - mean_loss(params, X, T))) > 1e-4
    figures = dl.evaluate(MODEL, run.params, run.state, (X, T), loss=losses.mean_squared_error)
    np.testing.assert_allclose(figures["loss"], run.history["validation_loss"][-1], rtol=1e-5)


def same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), a, b)


def test_a_schedule_free_part_of_an_optimizer_leaves_the_others_alone():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    optimizer = optax.partition(
        {"free": contrib.schedule_free_sgd(0.5), "plain": optax.sgd(0.5)},
        {"a": "free", "b": "plain"},
    )
    state = optimizer.init(params)
    for _ in range(3):
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(
                {"a": params["a"], "b": params["b"]}, state, params
            )
        params = optax.apply_updates(params, updates)
    meant = dl.TrainState(
        jnp.zeros((), jnp.int32), params, {}, state, jax.random.key(0)
    ).eval_params
    np.testing.assert_array_equal(meant["b"], params["b"])
    assert not np.allclose(meant["a"], params["a"])


@pytest.mark.slow
def test_each_player_of_a_game_means_its_own_average():
    step = dl.Adversarial(
        generator=dl.Dense(2),
        discriminator=dl.Dense(1),
        generator_optimizer=as_optimizer("schedule_free_sgd", 0.5),
        discriminator_optimizer=optax.sgd(0.1),
        latent=2,
    )
    run = dl.train(step, X[:, :2], epochs=2, batch_size=8, progress=False, validation=X[:, :2])
    last = run.train_state
    free = last.optimizer_state["generator"]
    same(
        run.params["generator"],
        contrib.schedule_free_eval_params(free, last.params["generator"]),
    )
    same(run.params["discriminator"], last.params["discriminator"])


@pytest.mark.slow
def test_members_of_a_population_mean_their_own_averages():
    options = {
        "loss": losses.mean_squared_error,
        "optimizer": as_optimizer("schedule_free_sgd", 0.1),
        "validation": (X, T),
        "batch_size": 8,
        "progress": False,
        "epochs": 3,
    }
    runs = dl.fit_many(MODEL, (X, T), seeds=3, **options)
    single = dl.fit(MODEL, (X, T), seed=1, **options)
    same(runs[1].params, single.params)
    assert runs[1].best is not None
    assert single.best is not None
    same(runs[1].best.params, single.best.params)
    np.testing.assert_allclose(
        runs.history["validation_loss"][:, 1], single.history["validation_loss"], rtol=1e-4
    )
    figures = runs.evaluate((X, T), loss=losses.mean_squared_error)
    np.testing.assert_allclose(figures["loss"], runs.history["validation_loss"][-1], rtol=1e-4)


@pytest.mark.sampled
@pytest.mark.parametrize("name", ["prodigy", "dadapt_adamw"])
def test_the_history_tells_the_estimated_rate(name):
    run = fit((X, T), optimizer=name, learning_rate=optim.Linear(2.0), steps=60)
    state = run.train_state.optimizer_state
    rates = fit((X, T), optimizer=name, steps=60).history["learning_rate"]
    assert run.history["learning_rate"][-1] < rates[-1]  # near the line's end
    assert 0 < rates[0] <= rates[-1]
    assert rates[-1] > 1e-5
    assert state.estim_lr > 1e-6


@pytest.mark.slow
@pytest.mark.once
def test_auto_learns_without_a_rate():
    pytest.importorskip("sklearn")
    train, test = dl.data.digits()
    model = dl.Sequential(dl.Flatten(), dl.Dense(32), jax.nn.relu, dl.Dense(10))
    run = dl.fit(
        model,
        train,
        loss=losses.softmax_cross_entropy,
        optimizer="auto",
        epochs=5,
        validation=test,
        metrics={"accuracy": metrics.accuracy},
        progress=False,
    )
    assert run.history["validation_accuracy"][-1] > 0.93


def test_schedules_and_names_go_together():
    run = fit((X, T), optimizer="sgd", learning_rate=optim.Linear(0.1), epochs=2)
    np.testing.assert_allclose(run.history["learning_rate"], [0.06, 0.01], atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"compile": "step"}, {"accumulate": 2}], ids=str)
@pytest.mark.parametrize(
    "make",
    [
        optax.lbfgs,
        lambda: optax.chain(
            optax.sgd(1.0), optax.scale_by_backtracking_linesearch(15, store_grad=True)
        ),
    ],
    ids=["lbfgs", "backtracking"],
)
def test_a_search_along_a_line_is_that_of_optax(make, options):
    """On all examples at once, against optax's own loop, which is given the loss as a function."""
    model, optimizer = dl.Sequential(dl.Dense(5), jnp.tanh, dl.Dense(1)), make()
    start = model.init(jax.random.key(1), X)

    def mean_loss(params):
        return jnp.mean(jnp.square(model.apply(params, {}, X)[0] - T))

    @jax.jit
    def step(params, state):
        value, gradients = jax.value_and_grad(mean_loss)(params)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(
                gradients, state, params, value=value, grad=gradients, value_fn=mean_loss
            )
        return optax.apply_updates(params, updates), state

    params, state = start[0], optimizer.init(start[0])
    for _ in range(5):
        params, state = step(params, state)
    settings = {
        "loss": losses.mean_squared_error,
        "optimizer": make(),
        "initial": start,
        "batch_size": 40,
        "epochs": 5,
    }
    run = dl.fit(model, (X, T), shuffle=False, progress=False, **settings, **options)
    same(run.params, params)
    assert float(mean_loss(params)) < 0.9 * float(mean_loss(start[0]))


@pytest.mark.slow
def test_a_step_that_cannot_give_the_loss_of_other_parameters_says_so():
    step = dl.Adversarial(dl.Dense(2), dl.Dense(1), 2, optax.lbfgs(), optax.sgd(0.1))
    with pytest.raises(
        TypeError,
        match=r"optimizer: it searches along a line.*train with `fit` or `Supervised`, or take",
    ):
        dl.train(step, X[:, :2], progress=False)


@pytest.mark.slow
def test_many_steps_as_one_update_are_those_of_optax(unchecked):
    """k batches of one size as one update are their mean gradient, as a batch k times as large has it."""
    start = MODEL.init(jax.random.key(3), X)
    whole = fit(
        (X, T), optimizer=optax.adam(0.1), initial=start, shuffle=False, epochs=3, batch_size=40
    )
    parts = fit(
        (X, T),
        optimizer=optax.MultiSteps(optax.adam(0.1), 5),
        initial=start,
        shuffle=False,
        epochs=3,
    )
    same(parts.params, whole.params)
    with pytest.raises(
        TypeError, match=r"give optax\.MultiSteps\(…\)\.gradient_transformation\(\)"
    ):
        dl.Adversarial(
            dl.Dense(2), dl.Dense(1), 2, optax.MultiSteps(optax.sgd(0.1), 2), optax.sgd(0.1)
        )
