"""A population is its members, each as if it were alone; and one program."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, metrics, optim
from jaxdl.population import search
from jaxdl.training import program

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SGD = optax.sgd(0.1)


def blobs(count: int = 100) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, count)
    return (random.normal(size=(count, 4)) + labels[:, None]).astype(np.float32), labels.astype(
        np.int32
    )


def network(dropout: Any = 0.25) -> dl.Sequential:
    return dl.Sequential(
        dl.Dense(6, use_bias=False),
        dl.BatchNorm(),
        jax.nn.relu,
        dl.Dropout(dropout),
        dl.Dense(3),
    )


MODEL = network()
SETTINGS: dict[str, Any] = {
    "loss": losses.softmax_cross_entropy,
    "optimizer": optax.adam(1e-2),
    "epochs": 3,
    "batch_size": 32,
    "metrics": {"accuracy": metrics.accuracy},
    "progress": False,
}


def assert_same_run(member: dl.Run, single: dl.Run, tolerance: float = 1e-5) -> None:
    assert list(member.history) == list(single.history)
    for name, values in single.history.items():
        if name != "seconds":
            np.testing.assert_allclose(
                member.history[name], values, rtol=tolerance, atol=tolerance, err_msg=name
            )
    assert jax.tree.structure(member.params) == jax.tree.structure(single.params)
    trees = ((member.params, single.params), (member.state, single.state))
    for ours, theirs in trees:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
            ours,
            theirs,
        )
    assert int(member.train_state.step) == int(single.train_state.step)
    assert member.stopped == single.stopped


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["last", "first"])
def test_each_member_is_the_single_run_with_its_seed(
    axis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SMALL", 4096 if axis == "last" else 0)
    runs = dl.fit_many(MODEL, blobs(), seeds=[3, 0, 7], validation=blobs(40), **SETTINGS)
    for i, seed in enumerate([3, 0, 7]):
        assert_same_run(
            runs[i], dl.fit(MODEL, blobs(), seed=seed, validation=blobs(40), **SETTINGS)
        )
    assert runs.history["validation_accuracy"].shape == (3, 3)


@pytest.mark.slow
@pytest.mark.once
def test_each_member_sets_aside_its_own_share() -> None:
    runs = dl.fit_many(MODEL, blobs(), seeds=2, validation=0.3, **SETTINGS)
    for seed in range(2):
        assert_same_run(
            runs[seed], dl.fit(MODEL, blobs(), seed=seed, validation=0.3, **SETTINGS)
        )


@pytest.mark.slow
def test_one_member_alone_is_the_single_run_bit_for_bit_and_its_program() -> None:
    settings = SETTINGS | {"validation": 0.2, "early_stopping": dl.EarlyStopping(patience=2)}
    single = dl.fit(MODEL, blobs(), seed=5, **settings)
    before = program.epoch_loop._cache_size()
    runs = dl.fit_many(MODEL, blobs(), seeds=[5], **settings)
    assert program.epoch_loop._cache_size() == before
    assert_same_run(runs[0], single, 0.0)
    assert runs.best.best is not None
    assert single.best is not None
    assert runs.best.best.value == single.best.value
    x, _ = blobs(20)
    np.testing.assert_allclose(
        runs.predict(x).mean, dl.predict(MODEL, single.params, single.state, x), rtol=1e-6
    )


def test_the_same_members_give_the_same_bits() -> None:
    first, second = (dl.fit_many(MODEL, blobs(), seeds=3, **SETTINGS) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first[2].params, second[2].params)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.filterwarnings("ignore:accumulate=2. the moments of BatchNorm")
def test_all_other_settings_of_fit_mean_the_same() -> None:
    settings = SETTINGS | {
        "class_weight": {0: 1.0, 1: 2.0, 2: 0.5},
        "clip_norm": 0.5,
        "accumulate": 2,
        "average": 0.9,
        "metrics": {"auc": metrics.ConfusionMatrix(3)},
        "shuffle": False,
        "steps": 7,
    }
    runs = dl.fit_many(MODEL, blobs(), seeds=2, **settings)
    for seed in range(2):
        assert_same_run(runs[seed], dl.fit(MODEL, blobs(), seed=seed, **settings))
    assert runs[1].average is not None


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{}, {"shuffle": False}, {"validation": 0.2}])
def test_a_smaller_last_batch_is_dropped(changed: dict[str, Any]) -> None:
    settings = SETTINGS | {"drop_last": True} | changed
    runs = dl.fit_many(MODEL, blobs(90), seeds=2, **settings)
    for seed in range(2):
        single = dl.fit(MODEL, blobs(90), seed=seed, **settings)
        assert_same_run(runs[seed], single)
        assert int(single.train_state.step) == settings["epochs"] * (
            (72 if "validation" in changed else 90) // settings["batch_size"]
        )


@pytest.mark.slow
@pytest.mark.parametrize("way", ["step", pytest.param("eager", marks=pytest.mark.once)])
def test_the_ways_to_run_give_the_same_numbers(way: Any) -> None:
    settings = SETTINGS | {"epochs": 1}
    runs = dl.fit_many(MODEL, blobs(), seeds=2, compile=way, **settings)
    compiled = dl.fit_many(MODEL, blobs(), seeds=2, compile="epoch", **settings)
    np.testing.assert_allclose(runs.history["loss"], compiled.history["loss"], rtol=1e-5)


@pytest.mark.slow
def test_a_stream_gives_all_members_the_same_batches() -> None:
    x, y = blobs(96)
    stream = [(x[i : i + 32], y[i : i + 32]) for i in range(0, 96, 32)]
    runs = dl.fit_many(MODEL, stream, seeds=2, **SETTINGS)
    for seed in range(2):
        assert_same_run(runs[seed], dl.fit(MODEL, stream, seed=seed, **SETTINGS))


@pytest.mark.slow
@pytest.mark.once
def test_hyperparameters_of_optimizer_loss_and_model_are_swept_by_one_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = SETTINGS | {
        "loss": losses.softmax_cross_entropy,
        "optimizer": optax.adam,
        "metrics": None,
    }
    over = {
        "learning_rate": [1e-3, 1e-2],
        "label_smoothing": [0.0, 0.2],
        "dropout": [0.0, 0.1, 0.5],
    }
    before = program.epoch_loop._cache_size()
    runs = dl.sweep(network, blobs(), over, **settings)
    assert program.epoch_loop._cache_size() == before + 1
    assert len(runs) == 12
    for i in (0, 4, 7, 11):
        values = runs.members[i].hyperparameters
        single = dl.fit(
            network(values["dropout"]),
            blobs(),
            **settings
            | {
                "loss": functools.partial(
                    losses.softmax_cross_entropy, label_smoothing=values["label_smoothing"]
                ),
                "optimizer": optax.adam(values["learning_rate"]),
            },
        )
        assert_same_run(runs[i], single)
        assert runs.model(i) == network(values["dropout"])
    before = program.epoch_loop._cache_size()
    again = dl.sweep(
        network,
        blobs(),
        {name: [v * 0.5 for v in values] for name, values in over.items()},
        **settings,
    )
    assert program.epoch_loop._cache_size() == before
    assert len(again) == 12


@pytest.mark.slow
def test_early_stopping_ends_one_member_and_leaves_the_others_alone() -> None:
    rule = dl.EarlyStopping(patience=2, monitor="validation_loss")
    settings = SETTINGS | {
        "optimizer": optax.sgd,
        "epochs": 8,
        "early_stopping": rule,
        "validation": blobs(40),
    }
    over = {"learning_rate": [0.05, 3.0, 0.0]}
    runs = dl.sweep(dl.Dense(3), blobs(), over, **settings)
    for i, rate in enumerate(over["learning_rate"]):
        single = dl.fit(dl.Dense(3), blobs(), **settings | {"optimizer": optax.sgd(rate)})
        assert_same_run(runs[i], single, 1e-4)
        assert runs[i].best is not None
        assert single.best is not None
        assert runs[i].best.epoch == single.best.epoch
    lengths = [len(run.history["loss"]) for run in runs]
    assert lengths[2] == 3
    assert lengths[0] == 8
    assert np.isnan(runs.history["loss"][3:, 2]).all()


@pytest.mark.slow
@pytest.mark.parametrize("rate", [3e3, 1e30])
def test_a_member_whose_loss_is_not_finite_ends_as_it_would_alone(rate: float) -> None:
    """A rate of 3e3 lets the loss overflow after some steps; one of 1e30 makes the first update itself overflow."""
    x, y = blobs()
    settings: dict[str, Any] = {
        "loss": losses.mean_squared_error,
        "epochs": 4,
        "batch_size": 32,
        "progress": False,
    }
    targets = y.astype(np.float32)[:, None]
    runs = dl.sweep(
        dl.Dense(1),
        (x, targets),
        {"learning_rate": [0.01, rate]},
        optimizer=optax.sgd,
        **settings,
    )
    with pytest.warns(RuntimeWarning, match="not finite"):
        single = dl.fit(dl.Dense(1), (x, targets), optimizer=optax.sgd(rate), **settings)
    assert int(runs[1].train_state.step) == int(single.train_state.step)
    assert "not finite at step" in runs[1].stopped
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(runs[1].params))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), runs[1].params, single.params
    )
    assert_same_run(
        runs[0], dl.fit(dl.Dense(1), (x, targets), optimizer=optax.sgd(0.01), **settings)
    )
    assert runs.ranking[0] == 0


@pytest.mark.slow
@pytest.mark.once
def test_members_trained_in_groups_are_the_same() -> None:
    together = dl.fit_many(MODEL, blobs(), seeds=5, **SETTINGS)
    groups = dl.fit_many(MODEL, blobs(), seeds=5, at_a_time=2, **SETTINGS)
    assert len(groups.cohorts) == 3
    np.testing.assert_allclose(groups.history["loss"], together.history["loss"], rtol=1e-5)
    for i in range(5):
        assert_same_run(groups[i], together[i])


@pytest.mark.slow
def test_what_does_not_fit_is_trained_in_groups_and_the_user_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jaxdl.population.search.available_bytes", lambda: 300_000)
    with pytest.warns(UserWarning, match=r"8 members may need .* trained in \d groups"):
        runs = dl.fit_many(MODEL, blobs(), seeds=8, **SETTINGS)
    assert len(runs.cohorts) > 1


@pytest.mark.slow
def test_halving_drops_the_worse_half_and_the_others_go_on_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = SETTINGS | {"optimizer": optax.sgd, "epochs": 6}
    over = {"learning_rate": [1e-4, 1e-3, 1e-2, 1e-1, 0.2]}
    before = program.epoch_loop._cache_size()
    runs = dl.sweep(MODEL, blobs(), over, halving=[1, 3], **settings)
    assert program.epoch_loop._cache_size() == before + 3
    whole = dl.sweep(MODEL, blobs(), over, **settings)
    epochs = [len(run.history["loss"]) for run in runs]
    assert sorted(epochs) == [1, 1, 3, 6, 6]
    for i, count in enumerate(epochs):
        np.testing.assert_allclose(
            runs[i].history["loss"], whole[i].history["loss"][:count], rtol=1e-4
        )
        assert runs[i].stopped.startswith("dropped after epoch" if count < 6 else "finished")
    first = np.argsort(whole.history["loss"][0])
    assert {i for i, count in enumerate(epochs) if count == 1} == set(first[3:].tolist())


@pytest.mark.slow
def test_the_best_member_and_the_ranking() -> None:
    runs = dl.sweep(
        MODEL,
        blobs(),
        {"learning_rate": [1e-4, 1e-1]},
        monitor="accuracy",
        seeds=2,
        **SETTINGS | {"optimizer": optax.sgd},
    )
    accuracy = runs.history["accuracy"][-1]
    assert runs.scores == pytest.approx(accuracy)
    assert accuracy[runs.ranking[0]] == accuracy.max()
    assert runs.best.history["accuracy"][-1] == accuracy.max()
    assert runs.best_member == runs.members[runs.ranking[0]]


@pytest.mark.slow
def test_an_ensemble_predicts_and_each_member_is_evaluated() -> None:
    x, y = blobs(50)
    runs = dl.fit_many(MODEL, blobs(), seeds=3, at_a_time=2, **SETTINGS)
    ensemble = runs.predict(x, batch_size=16)
    alone = np.stack([dl.predict(MODEL, run.params, run.state, x) for run in runs])
    np.testing.assert_allclose(ensemble.each, alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ensemble.mean, alone.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ensemble.spread, alone.std(0), rtol=1e-3, atol=1e-5)
    figures = runs.evaluate(
        (x, y), loss=losses.softmax_cross_entropy, metrics={"accuracy": metrics.accuracy}
    )
    for i, run in enumerate(runs):
        single = dl.evaluate(
            MODEL,
            run.params,
            run.state,
            (x, y),
            loss=losses.softmax_cross_entropy,
            metrics={"accuracy": metrics.accuracy},
        )
        assert figures["loss"][i] == pytest.approx(single["loss"], rel=1e-5)
        assert figures["accuracy"][i] == single["accuracy"]


@pytest.mark.slow
def test_results_as_table_json_and_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = {"learning_rate": [1e-2, 1e-1], "momentum": [0.0, 0.9]}
    runs = dl.sweep(MODEL, blobs(), over, seeds=2, **SETTINGS | {"optimizer": optax.sgd})
    plain = str(runs)
    lines = plain.splitlines()
    with monkeypatch.context() as notebook:  # where rich shows what it is to write into a text
        notebook.setattr("rich.console._is_jupyter", lambda: True)
        notebook.setenv("FORCE_COLOR", "1")
        assert str(runs) == plain
    assert lines[0].startswith("8 members by loss: best ")
    assert "learning_rate" in lines[2]
    assert len(lines) == 4 + 8
    runs.to_json(tmp_path / "runs.json")
    record = json.loads((tmp_path / "runs.json").read_text())
    assert record["best"] == runs.best_member.number
    assert record["members"][3]["hyperparameters"] == runs.members[3].hyperparameters
    assert record["members"][3]["history"]["loss"] == pytest.approx(runs[3].history["loss"])
    figure = runs.plot(tmp_path / "runs.png")
    assert [axis.get_ylabel() for axis in figure.axes[:3]] == [
        "loss",
        "accuracy",
        "learning rate",
    ]
    assert (tmp_path / "runs.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"over": {"widht": [1.0]}}, "nothing takes the hyperparameter 'widht'"),
        ({"over": {"learning_rate": []}}, "'learning_rate' has no values"),
        ({"over": {"learning_rate": [float("nan")]}}, "finite numbers, got nan"),
        (
            {"over": {"learning_rate": [0.1], "momentum": [0.1, 0.2]}, "combine": "zip"},
            "as many values of each",
        ),
        ({"over": {}, "seeds": 0}, "seeds is a whole number of at least 1"),
        ({"over": {}, "seeds": [1, 1]}, "each once"),
        ({"over": {}, "halving": [3, 1]}, "epochs that grow"),
        ({"over": {}, "halving": [3]}, "the last before epoch 3"),
        ({"over": {}, "devices": []}, "at least one is needed"),
        (
            {
                "over": {"features": [3, 4]},
                "optimizer": SGD,
                "model": lambda features: dl.Dense(int(features)),
            },
            "decides what is compiled",
        ),
        (
            {
                "over": {"warmup": [0.1]},
                "learning_rate": lambda warmup: optim.Cosine(1.0, warmup),
            },
            "decides what is comp",
        ),
        ({"over": {"momentum": [0.1]}, "optimizer": "sdg"}, "'sdg' is none of"),
        ({"over": [0.1], "optimizer": SGD}, "expected values by name"),
        (
            {"over": {"learning_rate": 0.1}},
            "expected a list of values for each name, got 0.1 for 'learning_rate'",
        ),
        ({"over": {}, "seeds": None}, "seeds: expected how many"),
        ({"over": {}, "seeds": [0.5]}, "seeds is a whole number"),
        ({"over": {}, "monitor": 3}, "monitor is the name of a figure"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    optimizer = optax.sgd if arguments["over"] else SGD
    with pytest.raises((ValueError, TypeError), match=message):
        dl.sweep(
            data=blobs(), **SETTINGS | {"model": MODEL, "optimizer": optimizer} | arguments
        )


@pytest.mark.slow
def test_each_member_has_the_rate_of_its_last_update() -> None:
    """A line from the peak to 0 over all steps: with n steps an epoch, the last of epoch e was step e n − 1."""
    ones = np.ones((8, 1), np.float32)
    runs = dl.sweep(
        dl.Dense(1), (ones, ones), {"peak": [0.5, 0.25]}, loss=losses.mean_squared_error, optimizer=optax.sgd,
        learning_rate=optim.Linear, batch_size=4, epochs=4, progress=False,
    )  # fmt: skip
    shares = np.array([1 - k / 8 for k in (1, 3, 5, 7)])
    np.testing.assert_allclose(
        runs.history["learning_rate"], shares[:, None] * np.array([0.5, 0.25]), rtol=1e-6
    )


@pytest.mark.slow
@pytest.mark.once
def test_names_schedules_and_precision_mean_what_they_mean_in_fit() -> None:
    options = SETTINGS | {"optimizer": "adam", "precision": "bfloat16"}
    cosine = optim.Cosine(0.02, warmup=0.2)
    runs = dl.fit_many(MODEL, blobs(), seeds=2, **options | {"learning_rate": cosine})
    assert_same_run(
        runs[1], dl.fit(MODEL, blobs(), seed=1, **options | {"learning_rate": cosine}), 1e-2
    )
    runs = dl.sweep(MODEL, blobs(), {"learning_rate": [1e-3, 1e-2]}, **options)
    assert_same_run(runs[1], dl.fit(MODEL, blobs(), **options | {"learning_rate": 1e-2}), 1e-2)
    scaled = SETTINGS | {
        "optimizer": "sgd",
        "precision": "float16",
        "learning_rate": optim.Cosine,
    }
    runs = dl.sweep(MODEL, blobs(), {"peak": [1e-3, 1e-2]}, **scaled)
    single = dl.fit(MODEL, blobs(), **scaled | {"learning_rate": optim.Cosine(1e-2)})
    assert_same_run(runs[1], single, 1e-2)
    np.testing.assert_allclose(
        runs[1].history["learning_rate"], single.history["learning_rate"], rtol=1e-5
    )


@pytest.mark.slow
@pytest.mark.once
def test_a_schedule_over_a_swept_optimizer() -> None:
    options = SETTINGS | {"optimizer": optax.sgd, "learning_rate": optim.Linear(0.1)}
    runs = dl.sweep(MODEL, blobs(), {"momentum": [0.0, 0.9]}, **options)
    single = dl.fit(
        MODEL, blobs(), **options | {"optimizer": functools.partial(optax.sgd, momentum=0.9)}
    )
    assert_same_run(runs[1], single)


def test_values_are_taken_together_by_zip() -> None:
    over = {"learning_rate": [0.1, 0.2], "momentum": [0.5, 0.9]}
    runs = dl.sweep(
        dl.Dense(3), blobs(), over, combine="zip", **SETTINGS | {"optimizer": optax.sgd}
    )
    assert [member.hyperparameters for member in runs.members] == [
        {"learning_rate": 0.1, "momentum": 0.5},
        {"learning_rate": 0.2, "momentum": 0.9},
    ]


@pytest.mark.slow
def test_a_traced_rate_drops_what_the_number_drops() -> None:
    x = jnp.ones((50, 40), jnp.float32)
    for rate in (0.0, 0.1, 0.25, 0.5, 0.999):
        ours = jax.jit(lambda r: dl.ops.dropout.dropout(jax.random.key(0), x, r))(
            jnp.asarray(rate, jnp.float32)
        )
        np.testing.assert_allclose(
            ours, dl.ops.dropout.dropout(jax.random.key(0), x, rate), rtol=1e-6
        )


def flattened(dropout: Any) -> dl.Sequential:
    return dl.Sequential(dl.Flatten(), *dl.models.mlp(4, 3, dropout=dropout))


@pytest.mark.slow
@pytest.mark.parametrize("build", [flattened, functools.partial(dl.models.cnn, 4, head=(4, 3))])
def test_the_models_take_a_traced_dropout(build: Any) -> None:
    x = np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype(np.float32)
    y = np.arange(16, dtype=np.int32) % 3
    runs = dl.sweep(build, (x, y), {"dropout": [0.1, 0.5]}, **SETTINGS | {"epochs": 1})
    assert np.isfinite(runs.history["loss"]).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        lambda rate: {"optimizer": optax.adam(rate)},
        lambda rate: {"optimizer": "adam", "learning_rate": rate},
        lambda rate: {"optimizer": "sgd", "learning_rate": dl.optim.Cosine(rate)},
    ],
)
def test_populations_of_other_rates_share_their_programs(given):
    x = np.linspace(-1, 1, 24, dtype=np.float32)[:, None]

    def trained(rate):
        return dl.fit_many(
            dl.Dense(1),
            (x, 2 * x),
            seeds=3,
            loss=losses.mean_squared_error,
            epochs=2,
            validation=0.25,
            progress=False,
            **given(rate),
        )

    slow = trained(0.01)
    with dl.why_compiled(show=False) as why:
        fast = trained(0.02)
    assert [each.function for each in why.functions] == []
    rates = [runs.history["learning_rate"][0] for runs in (slow, fast)]
    np.testing.assert_allclose(2 * rates[0], rates[1], rtol=1e-6)
    assert not np.array_equal(slow[0].params["kernel"], fast[0].params["kernel"])
