"""A run that was ended, in whatever way, goes on as if it had not been."""

import os
import random
import signal
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
from jaxdl import data, losses, metrics

pytestmark = pytest.mark.usefixtures("quickly_compiled")

PROGRAM = """
import sys, hashlib, signal, jax, numpy as np, optax, jaxdl as dl
from jaxdl import losses, metrics
random = np.random.default_rng(0)
x = random.normal(size=(500, 16)).astype(np.float32)
y = (x.sum(1) > 0).astype(np.int32)
model = dl.Sequential(dl.Dense(64), dl.BatchNorm(), jax.nn.relu, dl.Dropout(0.3), dl.Dense(2))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
print("begins", flush=True)
run = dl.fit(
    model, (x, y), loss=losses.softmax_cross_entropy, optimizer=optax.adam(1e-3), epochs=int(sys.argv[2]), batch_size=32,
    metrics={"accuracy": metrics.accuracy}, validation=0.2, average=0.99, progress=False, seed=3,
    early_stopping=dl.EarlyStopping(patience=10**6), callbacks=[lambda end: print("epoch", end.epoch, flush=True)],
    checkpoint=dl.Checkpoints(sys.argv[1], every="7 steps"),
)
digest = hashlib.sha256()
for leaf in jax.tree.leaves((run.params, run.state, run.best.params, run.train_state._replace(key=jax.random.key_data(run.train_state.key)))):
    digest.update(np.asarray(leaf).tobytes())
for name, values in run.history.items():
    if name != "seconds":
        digest.update(repr((name, values)).encode())
print("digest", digest.hexdigest(), run.best.epoch, run.stopped)
"""


class Crash(Exception):
    """Ends a run as a fault would."""


def crash_at(epoch: int) -> Any:
    def callback(end: dl.EpochEnd) -> None:
        if end.epoch == epoch:
            raise Crash

    return callback


def examples() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(size=(100, 4)).astype(np.float32)
    return x, (x.sum(1) > 0).astype(np.int32)


MODEL = dl.Sequential(dl.Dense(8), dl.BatchNorm(), jax.nn.relu, dl.Dropout(0.5), dl.Dense(2))
SETTINGS: dict[str, Any] = {
    "loss": losses.softmax_cross_entropy,
    "optimizer": optax.adam(optax.cosine_decay_schedule(1e-2, 30)),
    "epochs": 5,
    "batch_size": 16,
    "metrics": {"accuracy": metrics.accuracy, "auc": metrics.ROCAUC()},
    "validation": 0.2,
    "average": 0.9,
    "early_stopping": dl.EarlyStopping(patience=4),
    "progress": False,
}


def assert_same_bits(first: dl.Run, second: dl.Run) -> None:
    def bits(run: dl.Run) -> Any:
        state = run.train_state._replace(key=jax.random.key_data(run.train_state.key))
        return jax.tree.map(np.asarray, (run.params, run.state, run.average, state, run.best and run.best[2:]))

    jax.tree.map(np.testing.assert_array_equal, bits(first), bits(second))
    assert {n: v for n, v in first.history.items() if n != "seconds"} == {
        n: v for n, v in second.history.items() if n != "seconds"
    }
    assert first.stopped == second.stopped
    assert (first.best and first.best[:2]) == (second.best and second.best[:2])


@pytest.mark.parametrize("way", ["epoch", "step"])
@pytest.mark.parametrize("every", ["1 epoch", "1 step", "3 steps"])
def test_a_run_that_crashed_goes_on_to_the_same_bits(tmp_path: Path, way: Any, every: str) -> None:
    whole = dl.fit(MODEL, examples(), compile=way, **SETTINGS)
    checkpoints = dl.Checkpoints(tmp_path / "run", every=every)
    for epoch in (1, 3):
        with pytest.raises(Crash):
            dl.fit(MODEL, examples(), compile=way, checkpoint=checkpoints, callbacks=[crash_at(epoch)], **SETTINGS)
    assert list((tmp_path / "run").glob("*-step-*"))
    assert_same_bits(dl.fit(MODEL, examples(), compile=way, checkpoint=checkpoints, **SETTINGS), whole)


def test_a_run_that_ended_is_given_back_and_one_that_is_to_be_longer_goes_on(tmp_path: Path) -> None:
    checkpoints = dl.Checkpoints(tmp_path / "run", every="1 hour")
    first = dl.fit(MODEL, examples(), checkpoint=checkpoints, **SETTINGS)
    again = dl.fit(MODEL, examples(), checkpoint=checkpoints, callbacks=[crash_at(0)], **SETTINGS)
    assert_same_bits(again, first)
    longer = dl.fit(MODEL, examples(), checkpoint=checkpoints, **SETTINGS | {"epochs": 7})
    assert_same_bits(longer, dl.fit(MODEL, examples(), **SETTINGS | {"epochs": 7}))


def test_early_stopping_ends_a_run_once_and_for_all(tmp_path: Path) -> None:
    settings = SETTINGS | {"early_stopping": dl.EarlyStopping(patience=1), "optimizer": optax.sgd(0.0)}
    checkpoints = dl.Checkpoints(tmp_path / "run")
    first = dl.fit(MODEL, examples(), checkpoint=checkpoints, **settings)
    assert first.stopped.startswith("early stopping")
    assert_same_bits(dl.fit(MODEL, examples(), checkpoint=checkpoints, **settings), first)


@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("steps_per_epoch", [None, 4])
def test_streams_are_taken_up_where_they_were(tmp_path: Path, stateful: bool, steps_per_epoch: int | None) -> None:
    x, y = examples()

    def batches() -> Any:
        parts = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 100, 8)]
        return Told(parts) if stateful else parts

    settings = {name: value for name, value in SETTINGS.items() if name not in ("validation", "early_stopping", "batch_size")}
    settings |= {"steps_per_epoch": steps_per_epoch, "epochs": 3}
    whole = dl.fit(MODEL, batches(), **settings)
    checkpoints = dl.Checkpoints(tmp_path / "run", every="1 step")
    with pytest.raises(Crash):
        dl.fit(MODEL, batches(), checkpoint=checkpoints, callbacks=[crash_at(0)], **settings)
    with pytest.raises(Crash):
        dl.fit(MODEL, batches(), checkpoint=checkpoints, callbacks=[crash_at(1)], **settings)
    assert_same_bits(dl.fit(MODEL, batches(), checkpoint=checkpoints, **settings), whole)


class Told:
    """Batches that say where they are, in another order each pass."""

    def __init__(self, parts: list[Any]) -> None:
        self.parts, self.passes, self.given = parts, 0, 0

    def __iter__(self) -> Any:
        order = np.random.default_rng(self.passes).permutation(len(self.parts))
        while self.given < len(order):
            self.given += 1
            yield self.parts[order[self.given - 1]]
        self.passes, self.given = self.passes + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"passes": self.passes, "given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.passes, self.given = state["passes"], state["given"]


@pytest.mark.once
def test_buckets_and_random_windows_are_taken_up_where_they_were(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 7, 200)
    model = dl.Sequential(dl.Embedding(7, 4), dl.Dense(7))
    settings: dict[str, Any] = {
        "loss": losses.softmax_cross_entropy,
        "optimizer": optax.adam(1e-2),
        "epochs": 4,
        "progress": False,
    }
    for number, make in enumerate((lambda: data.RandomWindows(ids, 5, 8), lambda: bucketed(ids))):
        steps = 5 if number == 0 else None
        more = {"steps_per_epoch": steps, "new_shapes": number == 1}
        net = model if number == 0 else dl.Sequential(dl.Embedding(7, 4), dl.GRU(4, sequence=False), dl.Dense(2))
        whole = dl.fit(net, make(), **settings, **more)
        checkpoints = dl.Checkpoints(tmp_path / str(number), every="1 step")
        with pytest.raises(Crash):
            dl.fit(net, make(), checkpoint=checkpoints, callbacks=[crash_at(1)], **settings, **more)
        assert_same_bits(dl.fit(net, make(), checkpoint=checkpoints, **settings, **more), whole)


def bucketed(ids: np.ndarray) -> data.Buckets:
    sequences = [ids[i : i + 3 + i % 5] for i in range(60)]
    return data.Buckets(sequences, np.arange(60, dtype=np.int32) % 2, boundaries=(4, 8), batch_size=8)


def test_a_stream_that_cannot_say_where_it_is_is_refused_at_the_start(tmp_path: Path) -> None:
    x, y = examples()
    with pytest.raises(ValueError, match="cannot say where it is — give arrays, a list of batches"):
        dl.fit(
            MODEL,
            lambda: iter([(x, y)]),
            checkpoint=dl.Checkpoints(tmp_path),
            **SETTINGS | {"validation": None, "early_stopping": None},
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 8}, "batch_size: 16 → 8"),
        ({"seed": 1}, "seed"),
        ({"model": dl.Dense(2)}, "model: Sequential"),
    ],
)
def test_another_run_in_the_folder_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    arguments = {"model": MODEL, "data": examples(), "checkpoint": dl.Checkpoints(tmp_path / "run"), **SETTINGS, "epochs": 1}
    dl.fit(**arguments)
    with pytest.raises(dl.CheckpointError, match=message):
        dl.fit(**arguments | change)


def started(tmp_path: Path, folder: str, epochs: int) -> subprocess.Popen[str]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    return subprocess.Popen(
        [sys.executable, str(program), str(tmp_path / folder), str(epochs)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def environment() -> dict[str, str]:
    root = Path(__file__).parents[2]
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(root / ".jax_cache"))
    return os.environ | {
        "PYTHONPATH": str(root),
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


EPOCHS = 120


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = started(tmp_path_factory.mktemp("undisturbed"), "run", EPOCHS).communicate(timeout=120)[0]
    return out[out.index("digest") :]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.once
def test_a_process_that_is_ended_at_any_moment_goes_on_to_the_same_bits(
    tmp_path: Path, undisturbed: str, number: signal.Signals
) -> None:
    moments, line, ended = random.Random(int(number)), "", 0
    for _ in range(8):
        process = started(tmp_path, "disturbed", EPOCHS)
        assert process.stdout is not None
        process.stdout.readline()  # it begins
        if ended < 3:
            if ended:
                process.stdout.readline()  # an epoch has ended
            time.sleep(moments.uniform(0, 0.4))
            process.send_signal(number)
            ended += 1
        out = process.communicate(timeout=120)[0]
        if number == signal.SIGTERM and "digest" not in out:
            assert process.returncode in (143, -signal.SIGTERM)  # the second before the run began
        if out.startswith("digest") or "\ndigest" in out:
            line = out[out.index("digest") :]
            if "interrupted" not in line:
                break
    assert line == undisturbed
    assert ended >= 2
