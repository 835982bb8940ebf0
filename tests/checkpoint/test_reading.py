"""A folder of checkpoints is read without the run that saved it."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, metrics
from jaxdl.checkpoint import Checkpoint, CheckpointInfo, RunInfo
from jaxdl.training import saving

pytestmark = pytest.mark.usefixtures("quickly_compiled")
MODEL = dl.Sequential(dl.Dense(6), dl.BatchNorm(), jax.nn.relu, dl.Dense(3))


def blobs(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, count)
    x = random.normal(size=(count, 4)) + labels[:, None]
    return x.astype(np.float32), labels.astype(np.int32)


def fitted(folder: Path, epochs: int = 3, **more: Any) -> dl.Run:
    options: dict[str, Any] = {"every": "1 epoch", "keep": None} | more.pop("checkpoint", {})
    given: dict[str, Any] = {
        "loss": losses.softmax_cross_entropy,
        "optimizer": optax.adam(1e-2),
        "epochs": epochs,
        "batch_size": 20,
        "metrics": {"accuracy": metrics.accuracy},
        "progress": False,
    }
    return dl.fit(MODEL, blobs(), **given | more, checkpoint=dl.Checkpoints(folder, **options))


def assert_same(found: Any, expected: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def without_key(state: Any) -> Any:
    return state._replace(key=jax.random.key_data(state.key))


def test_the_newest_is_the_run(tmp_path: Path) -> None:
    run = fitted(tmp_path, average=0.9)
    found = dl.Checkpoints(tmp_path).load()
    assert isinstance(found, Checkpoint)
    assert (found.step, found.epoch, found.stopped) == (9, 3, "finished")
    for name in ("params", "state", "average"):
        assert_same(getattr(found, name), getattr(run, name))
    assert_same(without_key(found.train_state), without_key(run.train_state))
    assert found.history == run.history
    assert found.settings["loss"] == "jaxdl.softmax_cross_entropy"
    assert "data" in found.settings
    assert repr(found).endswith("step=9, epoch=3)")


def test_each_step_is_there(tmp_path: Path) -> None:
    first = fitted(tmp_path, epochs=1)
    for epochs in (2, 3):
        fitted(tmp_path, epochs)
    checkpoints = dl.Checkpoints(tmp_path)
    assert_same(checkpoints.load(3).params, first.params)
    assert len(checkpoints.load(6).history["loss"]) == 2
    (run,) = checkpoints.runs()
    assert isinstance(run, RunInfo)
    listed = {(each.step, each.epoch) for each in run.checkpoints}
    assert listed == {(9, 3), (6, 2), (3, 1)}
    assert isinstance(run.checkpoints[0], CheckpointInfo)
    with pytest.raises(
        dl.CheckpointError, match=r"no checkpoint of step 4 — there are of steps 3, 6, 9"
    ):
        checkpoints.load(4)


@pytest.mark.slow
def test_parameters_of_a_schedule_free_optimizer_are_its_average(tmp_path: Path) -> None:
    run = fitted(tmp_path, optimizer="schedule_free_adamw", learning_rate=0.01)
    found = dl.Checkpoints(tmp_path).load()
    assert_same(found.params, run.params)


@pytest.mark.slow
def test_the_best_by_a_metric(tmp_path: Path) -> None:
    best = {"best": "validation_loss"}
    run = fitted(tmp_path, validation=blobs(30), checkpoint=best)
    found = dl.Checkpoints(tmp_path, best="validation_loss").load_best()
    assert found.metric == min(run.history["validation_loss"])
    worst = dl.Checkpoints(tmp_path, best="validation_loss", mode="max").load_best()
    assert worst.metric == max(run.history["validation_loss"])


def test_the_best_epoch_of_a_run(tmp_path: Path) -> None:
    run = fitted(tmp_path, validation=blobs(30))
    found = dl.Checkpoints(tmp_path).load_best()
    assert run.best is not None
    assert (found.epoch, found.metric) == (run.best.epoch + 1, run.best.value)
    assert_same((found.params, found.state), (run.best.params, run.best.state))
    assert found.train_state is None


@pytest.mark.slow
def test_runs_that_were_set_aside(tmp_path: Path) -> None:
    fitted(tmp_path, epochs=1)
    for seed in (1, 2):
        fitted(tmp_path, epochs=2, seed=seed, checkpoint={"on_change": "restart"})
    runs = dl.Checkpoints(tmp_path).runs()
    assert [run.folder.name for run in runs] == [tmp_path.name, "earlier-2", "earlier-1"]
    assert [run.checkpoints[0].epoch for run in runs] == [2, 2, 1]
    assert dl.Checkpoints(runs[-1].folder).load().epoch == 1


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(dl.CheckpointError, match="there is no folder"):
        dl.Checkpoints(tmp_path / "none").runs()
    with pytest.raises(dl.CheckpointError, match="has no checkpoint — there are none"):
        dl.Checkpoints(tmp_path).load()
    assert dl.Checkpoints(tmp_path).runs() == ()
    fitted(tmp_path, epochs=1)
    with pytest.raises(
        dl.CheckpointError, match="had no validation data and no early stopping"
    ):
        dl.Checkpoints(tmp_path).load_best()
    with pytest.raises(dl.CheckpointError, match="was saved with a metric — leave best out"):
        dl.Checkpoints(tmp_path, best="loss").load_best()


def test_a_damaged_one_is_named_and_the_one_before_it_read(tmp_path: Path) -> None:
    fitted(tmp_path, epochs=2)
    checkpoints = dl.Checkpoints(tmp_path)
    for info in checkpoints.runs()[0].checkpoints[:-1]:
        (info.path / "manifest.json").write_text("{}")
    (run,) = checkpoints.runs()
    assert len(run.checkpoints) == 1
    assert "has a damaged manifest.json" in run.unreadable[0]
    assert checkpoints.load().step == 3
    with pytest.raises(
        dl.CheckpointError, match=r"has a damaged manifest.json .* — take another"
    ):
        checkpoints.load(6)


def test_a_checkpoint_without_its_structure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "taken_apart", lambda tree: [None])
    run = fitted(tmp_path, epochs=1)
    found = dl.Checkpoints(tmp_path).load()
    assert found.train_state is None
    assert_same((found.params, found.state), (run.params, run.state))


@pytest.mark.slow
def test_a_population_is_refused(tmp_path: Path) -> None:
    dl.fit_many(
        MODEL,
        blobs(),
        seeds=2,
        loss=losses.softmax_cross_entropy,
        optimizer=optax.adam(1e-2),
        progress=False,
        checkpoint=dl.Checkpoints(tmp_path),
    )
    folder = next(path.parent.parent for path in tmp_path.rglob("manifest.json"))
    with pytest.raises(dl.CheckpointError, match="holds a population"):
        dl.Checkpoints(folder).load()
