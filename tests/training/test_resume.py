"""A run that was ended, in whatever way, goes on as if it had not been."""

import dataclasses
import functools
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
    def callback(end: dl.Stage) -> None:
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
        return jax.tree.map(
            np.asarray, (run.params, run.state, run.average, state, run.best and run.best[2:])
        )

    jax.tree.map(np.testing.assert_array_equal, bits(first), bits(second))
    assert {n: v for n, v in first.history.items() if n != "seconds"} == {
        n: v for n, v in second.history.items() if n != "seconds"
    }
    assert first.stopped == second.stopped
    assert (first.best and first.best[:2]) == (second.best and second.best[:2])


@pytest.mark.slow
@pytest.mark.parametrize("way", ["epoch", "step"])
@pytest.mark.parametrize("every", ["1 epoch", "1 step", "3 steps"])
def test_a_run_that_crashed_goes_on_to_the_same_bits(
    tmp_path: Path, way: Any, every: str
) -> None:
    whole = dl.fit(MODEL, examples(), compile=way, **SETTINGS)
    checkpoints = dl.Checkpoints(tmp_path / "run", every=every)
    for epoch in (1, 3):
        with pytest.raises(Crash):
            dl.fit(
                MODEL,
                examples(),
                compile=way,
                checkpoint=checkpoints,
                callbacks=[crash_at(epoch)],
                **SETTINGS,
            )
    assert list((tmp_path / "run").glob("*-step-*"))
    assert_same_bits(
        dl.fit(MODEL, examples(), compile=way, checkpoint=checkpoints, **SETTINGS), whole
    )


@pytest.mark.slow
def test_a_run_that_ended_is_returned_and_one_that_is_to_be_longer_goes_on(
    tmp_path: Path,
) -> None:
    checkpoints = dl.Checkpoints(tmp_path / "run", every="1 hour")
    first = dl.fit(MODEL, examples(), checkpoint=checkpoints, **SETTINGS)
    with pytest.warns(
        UserWarning, match=r"it had ended \(finished\): it is returned, and nothing was trained"
    ):
        again = dl.fit(
            MODEL, examples(), checkpoint=checkpoints, callbacks=[crash_at(0)], **SETTINGS
        )
    assert again.stopped == "finished (in an earlier call)"
    assert_same_bits(dataclasses.replace(again, stopped="finished"), first)
    longer = dl.fit(MODEL, examples(), checkpoint=checkpoints, **SETTINGS | {"epochs": 7})
    assert_same_bits(longer, dl.fit(MODEL, examples(), **SETTINGS | {"epochs": 7}))


@pytest.mark.slow
def test_early_stopping_ends_a_run_once_and_for_all(tmp_path: Path) -> None:
    settings = SETTINGS | {
        "early_stopping": dl.EarlyStopping(patience=1),
        "optimizer": optax.sgd(0.0),
    }
    checkpoints = dl.Checkpoints(tmp_path / "run")
    first = dl.fit(MODEL, examples(), checkpoint=checkpoints, **settings)
    assert first.stopped.startswith("early stopping")
    with pytest.warns(UserWarning, match="it had ended"):
        again = dl.fit(MODEL, examples(), checkpoint=checkpoints, **settings)
    assert again.stopped == f"{first.stopped} (in an earlier call)"
    assert_same_bits(dataclasses.replace(again, stopped=first.stopped), first)


@pytest.mark.slow
@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("steps_per_epoch", [None, 4])
def test_streams_are_taken_up_where_they_were(
    tmp_path: Path, stateful: bool, steps_per_epoch: int | None
) -> None:
    x, y = examples()

    def batches() -> Any:
        parts = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 100, 8)]
        return Told(parts) if stateful else parts

    settings = {
        name: value
        for name, value in SETTINGS.items()
        if name not in ("validation", "early_stopping", "batch_size")
    }
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


@pytest.mark.slow
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
    for number, make in enumerate(
        (lambda: data.RandomWindows(ids, 5, 8), lambda: bucketed(ids))
    ):
        steps = 5 if number == 0 else None
        more = {"steps_per_epoch": steps, "new_shapes": number == 1}
        net = (
            model
            if number == 0
            else dl.Sequential(dl.Embedding(7, 4), dl.GRU(4, sequence=False), dl.Dense(2))
        )
        whole = dl.fit(net, make(), **settings, **more)
        checkpoints = dl.Checkpoints(tmp_path / str(number), every="1 step")
        with pytest.raises(Crash):
            dl.fit(
                net, make(), checkpoint=checkpoints, callbacks=[crash_at(1)], **settings, **more
            )
        assert_same_bits(dl.fit(net, make(), checkpoint=checkpoints, **settings, **more), whole)


def bucketed(ids: np.ndarray) -> data.Buckets:
    sequences = [ids[i : i + 3 + i % 5] for i in range(60)]
    return data.Buckets(
        sequences, np.arange(60, dtype=np.int32) % 2, boundaries=(4, 8), batch_size=8
    )


def test_a_stream_that_cannot_say_where_it_is_is_refused_at_the_start(tmp_path: Path) -> None:
    x, y = examples()
    with pytest.raises(
        ValueError, match="cannot say where it is — give arrays, a list of batches"
    ):
        dl.fit(
            MODEL,
            lambda: iter([(x, y)]),
            checkpoint=dl.Checkpoints(tmp_path),
            **SETTINGS | {"validation": None, "early_stopping": None},
        )


def relabelled() -> tuple[np.ndarray, np.ndarray]:
    x, y = examples()
    return x, np.where(np.arange(len(y)) == 57, 1 - y, y)


def shifted(key: jax.Array, x: Any, y: Any) -> tuple[Any, Any]:
    del key
    return x + SHIFT, y


SHIFT = 0.0
RATE = optax.cosine_decay_schedule(1e-2, 30)
X, Y = examples()
PLAIN: dict[str, Any] = SETTINGS | {
    "model": MODEL,
    "data": (X, Y),
    "validation": (X[:20], Y[:20]),
    "epochs": 1,
}


def plain(**changes: Any) -> dict[str, Any]:
    return PLAIN | changes


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "one label": (
        {"data": relabelled()},
        r"data\.targets: int32\[100\], digest .{12} of all → int32\[100\], digest",
    ),
    "one input": (
        {"data": (X + (np.arange(400) == 7).reshape(100, 4), Y)},
        r"data\.inputs: float32\[100, 4\]",
    ),
    "weights": ({"data": (X, Y, np.ones(100))}, r"data\.weights: None → float32\[100\]"),
    "validation": ({"validation": (X[20:40], Y[20:40])}, r"validation\.inputs: "),
    "batch size": ({"batch_size": 8}, r"data\.batch_size: 16 → 8"),
    "order": ({"shuffle": False}, r"data\.shuffle: True → False"),
    "seed": ({"seed": 1}, r"seed\.\d: "),
    "model": (
        {
            "model": dl.Sequential(
                dl.Dense(8), dl.BatchNorm(), jax.nn.relu, dl.Dropout(0.4), dl.Dense(2)
            )
        },
        r"model\.parts\.dropout_0\.rate: 0\.5 → 0\.4",
    ),
    "another model": ({"model": dl.Dense(2)}, r"model: Sequential\(.*…? → Dense\("),
    "loss": (
        {"loss": functools.partial(losses.softmax_cross_entropy, label_smoothing=0.1)},
        r"loss: jaxdl\.softmax_cross_entropy → partial of .*0\.1",
    ),
    "own loss": (
        {"loss": lambda y, t: 2 * losses.softmax_cross_entropy(y, t)},
        r"loss: .* → <lambda>",
    ),
    "another metric": (
        {"metrics": {"accuracy": metrics.accuracy}},
        r"metrics\.auc: ROCAUC\(.*\) → none",
    ),
    "learning rate": (
        {"optimizer": optax.adam(optax.cosine_decay_schedule(2e-2, 30))},
        r"optimizer\..*init_value: 0\.01 → 0\.02",
    ),
    "decay": (
        {"optimizer": optax.adam(RATE, b1=0.8)},
        r"optimizer\.scale_by_adam\.b1: 0\.9 → 0\.8",
    ),
    "another optimizer": (
        {"optimizer": optax.sgd(1e-2)},
        r"optimizer\.scale_by_adam: scale_by_adam\(.* → none",
    ),
    "injected": (
        {"optimizer": optax.inject_hyperparams(optax.adam)(learning_rate=0.1)},
        r"hyperparameters\.learning_rate: none → 0\.1",
    ),
    "clip": (
        {"clip_norm": 1.0},
        r"optimizer\.clip_by_global_norm: none → clip_by_global_norm\(max_norm=1\.0\)",
    ),
    "class weights": (
        {"class_weight": {0: 1.0, 1: 2.0}},
        r"class_weights: None → tuple\(0=1\.0, 1=2\.0\)",
    ),
    "accumulate": ({"accumulate": 2}, "accumulate: 1 → 2"),
    "average": ({"average": 0.99}, r"average: 0\.9 → 0\.99"),
    "no average": ({"average": None}, r"average: 0\.9 → None"),
    "augment": ({"augment": shifted}, r"augment: None → shifted\(code="),
    "precision": ({"precision": "bfloat16"}, r"model: Sequential\(.* → _InPrecision\("),
    "scaled": ({"precision": "float16"}, "loss_scaling: None → LossScaling"),
    "devices": ({"devices": jax.devices()[:1]}, "mesh: None → 1 devices"),
    "patience": (
        {"early_stopping": dl.EarlyStopping(patience=3)},
        r"early_stopping\.patience: 4 → 3",
    ),
    "no early stopping": (
        {"early_stopping": None},
        r"early_stopping: EarlyStopping\(.* → None",
    ),
    "skip": ({"if_not_finite": "skip"}, "if_not_finite: stop → skip"),
    "initial": (
        {"initial": MODEL.init(jax.random.key(9), X[:2])},
        r"initial: None → '\d+ arrays, digest",
    ),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "run"
    dl.fit(**PLAIN, checkpoint=dl.Checkpoints(folder))
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:accumulate=2. the moments of BatchNorm")
@pytest.mark.parametrize("name", CHANGES)
def test_a_run_of_other_settings_is_refused_by_their_name(saved: Path, name: str) -> None:
    change, message = CHANGES[name]
    with pytest.raises(
        dl.CheckpointError, match=rf"holds a run of other settings(?s:.*)\n  {message}"
    ):
        dl.fit(**PLAIN | change, checkpoint=dl.Checkpoints(saved))
    assert len(list(saved.glob("*-step-*"))) == 1


@pytest.mark.slow
def test_what_a_function_reads_is_a_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = dl.Checkpoints(tmp_path / "run")
    dl.fit(**PLAIN, augment=shifted, checkpoint=checkpoints)
    monkeypatch.setitem(globals(), "SHIFT", 1.0)
    with pytest.raises(
        dl.CheckpointError, match="augment: other code, or other values that it reads"
    ):
        dl.fit(**PLAIN, augment=shifted, checkpoint=checkpoints)


@pytest.mark.slow
def test_a_run_that_goes_on_with_another_rate_takes_it(tmp_path: Path) -> None:
    """With plain SGD the new rate alone decides: compared with a run from the first one's parameters."""
    data = np.ones((32, 1), np.float32), np.zeros((32, 1), np.float32)
    common: dict[str, Any] = {
        "loss": losses.mean_squared_error,
        "batch_size": 16,
        "progress": False,
        "shuffle": False,
    }

    def trained(rate: float, epochs: int, **options: Any) -> dl.Run:
        make = (
            optax.inject_hyperparams(optax.sgd) if options.pop("injected", False) else optax.sgd
        )
        return dl.fit(
            dl.Dense(1),
            data,
            optimizer=make(learning_rate=rate),
            epochs=epochs,
            **common,
            **options,
        )

    for injected in (False, True):
        folder = tmp_path / str(injected)
        first = trained(0.1, 2, injected=injected, checkpoint=dl.Checkpoints(folder))
        on = dl.Checkpoints(folder, on_change="continue")
        second = trained(0.01, 3, injected=injected, checkpoint=on)
        expected = trained(0.01, 1, initial=(first.params, first.state))
        jax.tree.map(np.testing.assert_array_equal, second.params, expected.params)
        np.testing.assert_allclose(second.history["learning_rate"], [0.1, 0.1, 0.01], rtol=1e-6)
        assert second.history["loss"] == first.history["loss"] + expected.history["loss"]
        again = trained(
            0.01, 4, injected=injected, checkpoint=dl.Checkpoints(folder)
        )  # no change from there on
        assert len(again.history["loss"]) == 4


@pytest.mark.slow
def test_a_run_goes_on_with_other_metrics_and_targets(tmp_path: Path) -> None:
    fewer = plain(metrics={"accuracy": metrics.accuracy}, average=None, epochs=2)
    dl.fit(**fewer, checkpoint=dl.Checkpoints(tmp_path))
    on = dl.Checkpoints(tmp_path, on_change="continue")
    more = plain(metrics={"auc": metrics.ROCAUC()}, epochs=3, data=relabelled())
    run = dl.fit(**more, if_not_finite="rollback", checkpoint=on)
    assert np.isnan(run.history["auc"]).tolist() == [True, True, False]
    assert np.isnan(run.history["accuracy"]).tolist() == [False, False, True]
    assert len(run.history["loss"]) == 3
    assert run.average is not None
    assert run.best is not None
    assert run.best.epoch == 2  # the losses of before are of other examples' validation


@pytest.mark.slow
def test_an_epoch_that_had_begun_begins_anew_with_other_settings(tmp_path: Path) -> None:
    settings = plain(epochs=3)
    with pytest.raises(Crash):
        dl.fit(
            **settings,
            checkpoint=dl.Checkpoints(tmp_path, every="2 steps"),
            callbacks=[crash_at(1)],
        )
    made = max(int(path.name.partition("-step-")[2]) for path in tmp_path.glob("*-step-*"))
    assert made % 7  # of the 7 steps of an epoch
    run = dl.fit(
        **plain(epochs=3, batch_size=10),
        checkpoint=dl.Checkpoints(tmp_path, on_change="continue"),
    )
    assert int(run.train_state.step) == made + (3 - made // 7) * 10
    assert len(run.history["loss"]) == 3


@pytest.mark.slow
def test_a_restart_keeps_what_was_there(tmp_path: Path) -> None:
    dl.fit(**PLAIN, checkpoint=dl.Checkpoints(tmp_path))
    anew = dl.Checkpoints(tmp_path, on_change="restart")
    assert_same_bits(dl.fit(**plain(seed=1), checkpoint=anew), dl.fit(**plain(seed=1)))
    assert [path.name for path in (tmp_path / "earlier-1").iterdir()] == ["000001-step-7"]
    dl.fit(**plain(seed=2), checkpoint=anew)
    assert len(list(tmp_path.glob("earlier-*/*-step-7"))) == 2
    with pytest.warns(UserWarning, match=r"holds this run, and it had ended \(finished\)"):
        old = dl.fit(**PLAIN, checkpoint=dl.Checkpoints(tmp_path / "earlier-1"))
    assert_same_bits(dataclasses.replace(old, stopped="finished"), dl.fit(**PLAIN))


@pytest.mark.slow
def test_a_list_of_batches_and_sources_that_tell_it_are_known(tmp_path: Path) -> None:
    ids = np.arange(200, dtype=np.int32) % 7
    model = dl.Sequential(dl.Embedding(7, 4), dl.Dense(7))
    common: dict[str, Any] = {
        "loss": losses.softmax_cross_entropy,
        "optimizer": optax.sgd(0.1),
        "progress": False,
    }
    net = dl.Sequential(dl.Embedding(7, 4), dl.GRU(4, sequence=False), dl.Dense(2))
    pairs: list[tuple[Any, Any, Any, dict[str, Any]]] = [
        (model, [(ids[:8], ids[:8])], [(ids[:8], ids[1:9])], {}),
        (
            model,
            data.RandomWindows(ids, 5, 8),
            data.RandomWindows(ids, 5, 8, seed=1),
            {"steps_per_epoch": 2},
        ),
        (net, bucketed(ids), bucketed(ids[::-1].copy()), {"new_shapes": True}),
    ]
    for number, (layer, first, second, options) in enumerate(pairs):
        checkpoints = dl.Checkpoints(tmp_path / str(number))
        dl.fit(layer, first, checkpoint=checkpoints, **common, **options)
        with pytest.raises(dl.CheckpointError, match=r"data\.batches"):
            dl.fit(layer, second, checkpoint=checkpoints, **common, **options)


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
    out = started(tmp_path_factory.mktemp("undisturbed"), "run", EPOCHS).communicate(
        timeout=120
    )[0]
    return out[out.index("digest") :]


@pytest.mark.slow
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
            assert process.returncode in (
                143,
                -signal.SIGTERM,
            )  # the second before the run began
        if out.startswith("digest") or "\ndigest" in out:
            line = out[out.index("digest") :]
            if "interrupted" not in line:
                break
    assert line == undisturbed
    assert ended >= 2
