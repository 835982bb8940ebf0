"""A population that was ended goes on as if it had not been."""

import functools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, metrics
from jaxdl.population.members import MembersLoop

pytestmark = pytest.mark.usefixtures("quickly_compiled")


class Crash(Exception):
    """Ends a run as a fault would."""


def examples() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(size=(100, 4)).astype(np.float32)
    return x, (x.sum(1) > 0).astype(np.int32)


MODEL = dl.Sequential(dl.Dense(8), dl.BatchNorm(), jax.nn.relu, dl.Dropout(0.5), dl.Dense(2))
SETTINGS: dict[str, Any] = {
    "over": {"learning_rate": [1e-2, 3e-2, 1e3]},
    "seeds": 2,
    "loss": losses.softmax_cross_entropy,
    "optimizer": optax.sgd,
    "epochs": 6,
    "batch_size": 16,
    "metrics": {"accuracy": metrics.accuracy, "auc": metrics.ROCAUC()},
    "validation": 0.2,
    "early_stopping": dl.EarlyStopping(patience=4),
    "halving": [3],
    "at_a_time": 2,
    "progress": False,
}


def trained(**options: Any) -> dl.Runs:
    return dl.sweep(MODEL, examples(), **SETTINGS | options)


def assert_same_bits(first: dl.Runs, second: dl.Runs) -> None:
    def told(run: dl.Run) -> Any:
        state = run.train_state._replace(key=jax.random.key_data(run.train_state.key))
        arrays = jax.tree.map(
            np.asarray, (run.params, run.state, state, run.best and run.best[2:])
        )
        history = {name: values for name, values in run.history.items() if name != "seconds"}
        return arrays, history, run.stopped, run.best and run.best[:2]

    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_equal(told(one), told(other))


def end_at(monkeypatch: pytest.MonkeyPatch, calls: int, error: type[BaseException]) -> None:
    """Raises at the end of an epoch of some group, the so-manieth of all."""
    whole, made = MembersLoop.watch, iter(range(10**6))

    @functools.wraps(whole)
    def watch(self: MembersLoop, *arguments: Any) -> Any:
        if next(made) == calls:
            raise error
        return whole(self, *arguments)

    monkeypatch.setattr(MembersLoop, "watch", watch)


@pytest.mark.slow
@pytest.mark.once
def test_a_population_that_crashed_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained()
    assert any(run.stopped.startswith("dropped after epoch 3") for run in whole)
    saved = dl.Checkpoints(tmp_path / "many", every="2 steps")
    for calls in (1, 8):
        with monkeypatch.context() as patch:
            end_at(patch, calls, Crash)
            with pytest.raises(Crash):
                trained(checkpoint=saved)
    assert_same_bits(trained(checkpoint=saved), whole)
    with pytest.warns(UserWarning, match=r"it had ended \(finished\)"):
        assert_same_bits(trained(checkpoint=saved), whole)


@pytest.mark.slow
def test_an_interrupted_population_stops_at_once_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = dl.Checkpoints(tmp_path / "many")
    with monkeypatch.context() as patch:
        end_at(patch, 4, KeyboardInterrupt)
        stopped = trained(checkpoint=saved)
    assert {run.stopped for run in stopped} == {"finished", "interrupted"}
    assert [len(run.history.get("loss", ())) for run in stopped] == [3, 3, 1, 1, 0, 0]
    assert_same_bits(trained(checkpoint=saved), trained())


@pytest.mark.slow
@pytest.mark.once
def test_the_groups_stay_as_they_were_cut(tmp_path: Path) -> None:
    saved = dl.Checkpoints(tmp_path / "many")
    first = trained(checkpoint=saved, at_a_time=4)
    with pytest.warns(UserWarning, match="it had ended"):
        again = trained(checkpoint=saved, at_a_time=2)
    assert_same_bits(first, again)
    assert len(list((tmp_path / "many").glob("rung-0-*"))) == 2


@pytest.mark.slow
def test_a_population_of_one_and_a_longer_one(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "over": {},
        "seeds": 1,
        "halving": (),
        "optimizer": optax.sgd(0.1),
    }
    saved = dl.Checkpoints(tmp_path / "one")
    trained(checkpoint=saved, **options | {"epochs": 3})
    assert_same_bits(trained(checkpoint=saved, **options), trained(**options))
    options |= {"seeds": 3, "at_a_time": 3}
    saved = dl.Checkpoints(tmp_path / "three")
    trained(checkpoint=saved, **options | {"epochs": 3})
    assert_same_bits(trained(checkpoint=saved, **options), trained(**options))


@pytest.mark.slow
def test_other_members_in_the_folder_are_refused(tmp_path: Path) -> None:
    saved = dl.Checkpoints(tmp_path / "many")
    trained(checkpoint=saved)
    with pytest.raises(ValueError, match=r"members.0.seed: 0 → 5"):
        trained(checkpoint=saved, seeds=[5, 6])
    with pytest.raises(ValueError, match="leave out best of Checkpoints"):
        trained(checkpoint=dl.Checkpoints(tmp_path / "best", best="loss"))
    (tmp_path / "many" / "population.json").write_text("{")
    with pytest.raises(ValueError, match=r"population\.json is damaged"):
        trained(checkpoint=saved)


@pytest.mark.slow
def test_other_settings_are_refused_gone_on_with_or_begun_anew(tmp_path: Path) -> None:
    """One parameter and a gradient of 1: each update of a member is its rate."""
    ones, zeros = np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32)

    def swept(
        rates: list[float], epochs: int, targets: np.ndarray = zeros, **options: Any
    ) -> dl.Runs:
        model = dl.Dense(1, use_bias=False, kernel_init=jax.nn.initializers.zeros)
        return dl.sweep(
            model, (ones, targets), {"learning_rate": rates}, loss=lambda y, t: y[:, 0] - t[:, 0], optimizer=optax.sgd,
            epochs=epochs, batch_size=4, progress=False, **options,
        )  # fmt: skip

    def weights(runs: dl.Runs) -> list[float]:
        return [float(run.params["kernel"][0, 0]) for run in runs]

    folder = tmp_path / "many"
    assert weights(swept([1.0, 2.0], 2, checkpoint=dl.Checkpoints(folder))) == [-2.0, -4.0]
    with pytest.raises(dl.CheckpointError, match=r"members\.1\.learning_rate: 2\.0 → 4\.0"):
        swept([1.0, 4.0], 3, checkpoint=dl.Checkpoints(folder))
    with pytest.raises(dl.CheckpointError, match=r"data\.targets"):
        swept([1.0, 2.0], 3, ones, checkpoint=dl.Checkpoints(folder))
    on = swept([1.0, 4.0], 3, checkpoint=dl.Checkpoints(folder, on_change="continue"))
    assert weights(on) == [-3.0, -8.0]
    np.testing.assert_allclose(on.history["learning_rate"], [[1, 2], [1, 2], [1, 4]])
    anew = swept([1.0, 2.0], 3, ones, checkpoint=dl.Checkpoints(folder, on_change="restart"))
    assert weights(anew) == [-3.0, -6.0]
    assert list(folder.glob("rung-0-member-0/earlier-1/*-step-*"))


PROGRAM = """
import sys, hashlib, jax, numpy as np, optax, jaxdl as dl
from jaxdl import losses
random = np.random.default_rng(0)
x = random.normal(size=(400, 16)).astype(np.float32)
model = dl.Sequential(dl.Dense(32), jax.nn.relu, dl.Dropout(0.3), dl.Dense(1))
print("begins", flush=True)
runs = dl.fit_many(
    model, (x, x[:, :1]), seeds=6, loss=losses.mean_squared_error, optimizer=optax.adam(1e-3), epochs=80, batch_size=16,
    validation=0.2, progress=False, checkpoint=dl.Checkpoints(sys.argv[1], every="150 steps"),
)
digest = hashlib.sha256()
for run in runs:
    for leaf in jax.tree.leaves((run.params, run.best.params)):
        digest.update(np.asarray(leaf).tobytes())
    digest.update(repr(run.history["validation_loss"]).encode())
print("digest", digest.hexdigest(), {run.stopped for run in runs}, flush=True)
"""


@pytest.mark.slow
@pytest.mark.once
def test_sigterm_saves_the_groups_of_all_devices(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(root / ".jax_cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment = (
        cache | dict(os.environ) | {"PYTHONPATH": str(root), "JAX_NUM_CPU_DEVICES": "2"}
    )

    def begun(folder: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / folder)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    undisturbed = begun("undisturbed").communicate(timeout=300)[0]
    assert "digest" in undisturbed
    process = begun("disturbed")
    many = tmp_path / "disturbed"
    while len(list(many.glob("rung-0-member-*/*-step-*"))) < 2 and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    out = process.communicate(timeout=300)[0]
    assert process.returncode == 143
    assert "digest" not in out
    assert begun("disturbed").communicate(timeout=300)[0] == undisturbed
