"""The benchmark of initial values: starts beside the libraries' own, tasks beside their files, and one run of all its parts."""

import json
import lzma
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ks_2samp

import jaxdl as dl
from benchmarks import initial_values, real_tasks, starts

INPUTS, FEATURES = 48, 64
KEY = jax.random.key(0)


def drawn(layer: dl.Layer, x: Any, start: starts.Start) -> Any:
    return starts.redrawn(layer.init(KEY, x)[0], start, 0)


def alike(ours: Any, theirs: Any) -> None:
    """One distribution, by the Kolmogorov–Smirnov test."""
    ours, theirs = (np.asarray(values, np.float64).ravel() for values in (ours, theirs))
    assert ks_2samp(ours, theirs).pvalue > 0.01


@pytest.mark.slow
def test_the_start_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    recurrent, linear, embedding = (
        torch.nn.LSTM(INPUTS, FEATURES),
        torch.nn.Linear(INPUTS, 500),
        torch.nn.Embedding(200, 16),
    )
    ours = drawn(dl.LSTM(FEATURES), jnp.ones((1, 2, INPUTS)), starts.torch)
    alike(ours["kernel"], recurrent.weight_ih_l0.detach())
    alike(ours["recurrent_kernel"], recurrent.weight_hh_l0.detach())
    alike(ours["bias"], (recurrent.bias_ih_l0 + recurrent.bias_hh_l0).detach())
    ours = drawn(dl.Dense(500), jnp.ones((1, INPUTS)), starts.torch)
    alike(ours["kernel"], linear.weight.detach())
    alike(ours["bias"], linear.bias.detach())
    ours = drawn(dl.Embedding(200, 16), jnp.ones(1, jnp.int32), starts.torch)
    alike(ours["embedding"], embedding.weight.detach())


@pytest.mark.slow
def test_the_start_of_flax() -> None:
    cell = nn.OptimizedLSTMCell(FEATURES)
    theirs = cell.init(KEY, cell.initialize_carry(KEY, (1, INPUTS)), jnp.ones((1, INPUTS)))[
        "params"
    ]
    ours = drawn(dl.LSTM(FEATURES), jnp.ones((1, 2, INPUTS)), starts.flax)
    kernel = np.concatenate([theirs[f"i{gate}"]["kernel"] for gate in "ifgo"], -1)
    alike(ours["kernel"], kernel)
    gates = np.split(np.asarray(ours["recurrent_kernel"], np.float64), 4, -1)
    for square in (
        *gates,
        *(np.asarray(theirs[f"h{gate}"]["kernel"], np.float64) for gate in "ifgo"),
    ):
        np.testing.assert_allclose(square @ square.T, np.eye(FEATURES), atol=1e-5)
    embedded = nn.Embed(200, 16).init(KEY, jnp.ones(1, jnp.int32))["params"]["embedding"]
    alike(
        drawn(dl.Embedding(200, 16), jnp.ones(1, jnp.int32), starts.flax)["embedding"], embedded
    )


def test_the_start_of_keras_is_that_of_recurrent_layers_and_embeddings() -> None:
    for layer, x in (
        (dl.GRU(FEATURES), jnp.ones((1, 2, INPUTS))),
        (dl.Embedding(200, 16), jnp.ones(1, jnp.int32)),
    ):
        params = layer.init(KEY, x)[0]
        redrawn = starts.redrawn(params, starts.keras, 0)
        assert params.keys() == redrawn.keys()
        for name in redrawn.keys() - {"bias", "recurrent_bias"}:
            alike(params[name], redrawn[name])
            assert not np.array_equal(params[name], redrawn[name])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JAXDL_DATA", str(tmp_path))
    (tmp_path / "more").mkdir()
    return tmp_path / "more"


def test_the_months_of_the_airline(folder: Path) -> None:
    """Passengers that double from one month to the next: each logarithm is one step above the one before."""
    rows = [f'"{month}",{2**month}' for month in range(40)]
    (folder / "airline-passengers.csv").write_text("\n".join(['"Month","Passengers"', *rows]))
    task = real_tasks.airline_passengers()
    step = 1 / np.arange(28).std()  # 28 of 40 months are trained on
    assert [len(part[0]) for part in (task.train, task.validation or (), task.test)] == [
        16,
        2,
        10,
    ]
    np.testing.assert_allclose(np.diff(task.train[0][:, :, 0], axis=1), step, rtol=1e-5)
    np.testing.assert_allclose(task.train[1] - task.train[0][:, -1], step, rtol=1e-5)
    np.testing.assert_allclose(
        task.test[1][:, 0], (np.arange(30, 40) - np.arange(28).mean()) * step, rtol=1e-5
    )
    assert task.error(task.naive) == pytest.approx(step, rel=1e-5)


def test_the_hours_of_the_transformer(folder: Path) -> None:
    hours = np.arange(20 * 720)
    rows = [
        ",".join(["date", *[str(hour * (variable + 1)) for variable in range(7)]])
        for hour in hours
    ]
    with lzma.open(folder / "ETTh1.csv.xz", "wt") as file:
        file.write("\n".join(["date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT", *rows]))
    task = real_tasks.electricity_transformer()
    step = 1 / np.arange(8640).std()
    assert task.train[0].shape == (8640 - 119, 96, 7)
    assert task.test[1].shape == (2880 - 23, 168)
    following = task.test[1].reshape(-1, 24, 7)
    np.testing.assert_allclose(following[0, 0], (16 * 720 - 4319.5) * step, rtol=1e-5)
    expected = np.square(
        np.arange(1, 25) * step
    ).mean()  # an hour's step, times how far the hour lies ahead
    assert task.error(task.naive) == pytest.approx(expected, rel=1e-4)


def test_the_ratings_of_films(folder: Path) -> None:
    rows = [
        f"{user}\t{film}\t{(user + film) % 5 + 1}\t0"
        for user in range(1, 101)
        for film in range(1, 91)
    ]
    (folder / "u1.base").write_text("\n".join(rows))
    (folder / "u1.test").write_text("3\t4\t5\t0\n5\t6\t1\t0")
    task = real_tasks.film_ratings()
    assert len(task.train[0]) == 1000
    assert task.validation is not None
    assert len(task.validation[0]) == 8000
    np.testing.assert_allclose(task.train[1].mean(), 0, atol=1e-6)
    ratings = np.round(task.validation[1][:, 0] - task.validation[1].min()).astype(int)
    np.testing.assert_array_equal(ratings, task.validation[0].sum(1) % 5)
    np.testing.assert_array_equal(task.test[0], [[3, 4], [5, 6]])
    assert task.test[1][0, 0] - task.test[1][1, 0] == pytest.approx(4)


def test_data_that_is_not_there_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAXDL_DATA", str(tmp_path))
    name = "MovieLens-100k, factors of 16, biases"
    monkeypatch.setattr(
        "sys.argv", ["initial_values", "--trials", name, "--out", str(tmp_path)]
    )
    with pytest.raises(SystemExit, match=r"is not there — put airline-passengers\.csv"):
        initial_values.main()


@pytest.mark.slow
def test_it_measures_every_start_and_keras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(0).normal(size=(20, 6, 2)).astype(np.float32)
    task = real_tasks.Task(
        (x, x[:, -1]), (x[:7], x[:7, 0]), "RMSE", x[:7, 1], 1e-2, 8, 2, (x[7:], x[7:, 0]), 1
    )
    model = dl.Sequential(dl.LSTM(3, sequence=False), dl.Dense(2))
    trial = initial_values.Trial(lambda: task, model, initial_values.OF_STATES)
    monkeypatch.setattr(initial_values, "trials", lambda: {"walks": trial})
    monkeypatch.setattr("sys.argv", ["initial_values", "--seeds", "2", "--out", str(tmp_path)])
    initial_values.main()
    result = json.loads((tmp_path / "initial_values.json").read_text())
    found = result["trials"]["walks"]
    assert found["naive"] == pytest.approx(float(np.sqrt(np.mean((x[:7, 1] - x[:7, 0]) ** 2))))
    assert list(found["starts"]) == list(initial_values.OF_STATES)
    figures = [figure for start in found["starts"].values() for figure in start["seeds"]]
    assert len(set(figures)) == 8
    assert all(0 < figure < 3 for figure in figures)
    row = next(
        line
        for line in initial_values.markdown(result).splitlines()
        if line.startswith("| walks: RMSE")
    )
    assert f"| {found['starts']['jaxdl']['mean']:.3g} (" in row


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["air passengers, GRU(32)", "MovieLens-100k, factors of 16, biases"]
)
def test_keras_trains_the_same_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    pytest.importorskip("keras")
    trial = initial_values.trials()[name]
    inputs = np.ones((1, 2), np.int32) if "Lens" in name else np.ones((1, 12, 1), np.float32)
    params, _ = trial.model.init(KEY, inputs)
    assert trial.keras is not None
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert trial.keras().count_params() == dl.tree.parameter_count(params) + (
            2 * 32 if "GRU" in name else 0
        )
