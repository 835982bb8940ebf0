"""Checkpoints of a run: whole or reported, the newest and the best kept, one run a folder."""

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl.checkpoint import arrays, manifest
from jaxdl.checkpoint import lock as locks
from jaxdl.checkpoint.folder import Restored
from jaxdl.checkpoint.store import Store


def tree(number: float = 0.0) -> dict[str, Any]:
    return {
        "kernel": jnp.full((4, 3), number, jnp.float32),
        "key": jax.random.key(7),
        "sum": np.float64(number) / 3,
    }


def saved(store: Store, step: int, metric: float | None = None, epoch: int = 0) -> None:
    store.save(step, epoch, tree(step), {"step": step}, metric)
    assert store.wait()


def restored(store: Store) -> Restored:
    found = store.restore(lambda *_: tree())
    assert found is not None
    return found


def steps(store: Store) -> list[int]:
    return [int(path.name.partition("-step-")[2]) for path in store.paths]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    with Store(dl.Checkpoints(folder, every="10 steps")) as opened:
        yield opened


def everything() -> dict[str, Any]:
    model = dl.Sequential(dl.Dense(3), dl.BatchNorm(), dl.Dense(2, param_dtype=jnp.bfloat16))
    step = dl.Supervised(model, dl.losses.mean_squared_error, optax.adam(1e-3), average=0.9)
    batch = dl.Batch(
        jax.ShapeDtypeStruct((2, 5), jnp.float32), jax.ShapeDtypeStruct((2, 2), jnp.float32)
    )
    return {
        "train_state": jax.jit(lambda key: step.init(key, batch))(jax.random.key(0)),
        "keys": jax.random.split(jax.random.key(1, impl="rbg"), 3),
        "sums": {
            "loss": (np.float64(1) / 3, np.float64(7) * np.ones(())),
            "rows": np.random.default_rng(0).normal(size=(5, 2)),
        },
        "names.with.dots/and slashes": {"": jnp.ones((), jnp.bfloat16), ".": jnp.zeros((0, 3))},
        "small": [
            jnp.ones(3, jnp.int4),
            jnp.ones(3, jnp.float8_e4m3fn),
            jnp.array([True, False]),
            None,
            (),
        ],
        "numbers": (3, 0.1, True),
        "rate": jnp.asarray(0.1),
        "nan": jnp.array([jnp.nan, jnp.inf, -0.0]),
    }


@pytest.mark.slow
def test_everything_comes_back_as_what_it_was(store: Store) -> None:
    before = everything()
    store.save(
        5,
        1,
        before,
        {"history": {"loss": [0.1, float("nan")], "matrix": [np.eye(2), np.float32(0.1)]}},
    )
    found = store.restore(lambda *_: before)
    assert found is not None
    assert jax.tree.structure(found.tree) == jax.tree.structure(before)
    for a, b in zip(jax.tree.leaves(found.tree), jax.tree.leaves(before), strict=True):
        assert type(a) is type(b)
        if isinstance(b, jax.Array):
            assert (a.dtype, a.shape, a.sharding) == (b.dtype, b.shape, b.sharding)
            assert getattr(a, "weak_type", None) == getattr(b, "weak_type", None)
        a, b = (
            jax.random.key_data(x)
            if jnp.issubdtype(jnp.asarray(x).dtype, jax.dtypes.prng_key)
            else x
            for x in (a, b)
        )
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    history = found.description["history"]
    assert history["loss"][0] == 0.1
    assert np.isnan(history["loss"][1])
    np.testing.assert_array_equal(history["matrix"][0], np.eye(2))
    assert type(history["matrix"][1]) is np.float32


def test_into_shapes_and_into_what_the_description_says(store: Store) -> None:
    store.save(1, 0, {"rows": np.arange(6).reshape(3, 2), "best": tree(2)}, {"best": True})
    like = jax.eval_shape(
        lambda: {name: leaf for name, leaf in tree().items() if name != "sum"}
    ) | {"sum": 0.0}
    found = store.restore(
        lambda description, _: {"rows": ..., "best": like if description["best"] else None}
    )
    assert found is not None
    np.testing.assert_array_equal(found.tree["rows"], np.arange(6).reshape(3, 2))
    np.testing.assert_array_equal(found.tree["best"]["kernel"], jnp.full((4, 3), 2.0))


def test_an_empty_folder_has_nothing(store: Store) -> None:
    assert store.restore(lambda *_: tree()) is None
    store.save(0, 0, {}, {})
    found = store.restore(lambda *_: {})
    assert found is not None
    assert found.tree == {}


def test_what_is_changed_later_was_saved_as_it_was(store: Store) -> None:
    array, history = np.zeros(3), {"loss": [1.0]}
    store.save(1, 0, {"a": array}, history)
    array += 1
    history["loss"].append(2.0)
    found = store.restore(lambda *_: {"a": array})
    assert found is not None
    np.testing.assert_array_equal(found.tree["a"], np.zeros(3))
    assert found.description == {"loss": [1.0]}


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
def test_orbax_opens_it(store: Store) -> None:
    import orbax.checkpoint as ocp

    saved(store, 3)
    with ocp.PyTreeCheckpointer() as reader:
        found = reader.restore(store.paths[0].absolute() / "arrays")
    np.testing.assert_array_equal(found["array.kernel"], np.full((4, 3), 3.0))


def test_the_newest_and_the_best_stay(folder: Path) -> None:
    chosen = dl.Checkpoints(folder, keep=2, best="validation_loss")
    with Store(chosen) as store:
        for step, metric in enumerate([3.0, 1.0, 2.0, float("nan"), 1.0, 5.0]):
            saved(store, step, metric)
        assert steps(store) == [5, 4, 1]
    with Store(chosen) as store:
        assert store.best == 1.0
        assert not store.due(6, 1, 1.0)
        assert store.due(6, 1, 0.5)
        saved(store, 6, 0.5)
        assert steps(store) == [6, 5]
        assert [
            path.name for path in folder.iterdir() if path.name.startswith(".removing")
        ] == []


def test_all_stay_where_keep_is_none(folder: Path) -> None:
    with Store(dl.Checkpoints(folder, keep=None)) as store:
        for step in range(4):
            saved(store, step)
        assert steps(store) == [3, 2, 1, 0]


def test_a_step_that_is_saved_twice(store: Store) -> None:
    store.save(4, 0, tree(1), {})
    store.save(4, 1, tree(2), {})
    assert restored(store).tree["sum"] == np.float64(2) / 3
    assert steps(store) == [4, 4]


def test_an_older_step_saved_later_is_the_newest(store: Store) -> None:
    saved(store, 9)
    saved(store, 4)
    assert restored(store).step == 4


@pytest.mark.parametrize("part", ["manifest.json", "arrays"])
def test_damage_is_named_and_the_one_before_restored(store: Store, part: str) -> None:
    saved(store, 1)
    saved(store, 2)
    newest = store.paths[0]
    files = (
        [newest / part]
        if part == "manifest.json"
        else sorted(p for p in (newest / part).rglob("*") if p.is_file())
    )
    file = max(files, key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.warns(
        RuntimeWarning,
        match=rf"resuming from .*000001-step-1.*\n  000002-step-2 has a damaged {part}",
    ):
        found = restored(store)
    assert found.step == 1
    np.testing.assert_array_equal(found.tree["kernel"], tree(1)["kernel"])
    assert steps(store) == [1]
    assert [path.name[:21] for path in store.folder.glob("damaged-*")] == [
        "damaged-000002-step-2"
    ]
    saved(store, 2)
    assert restored(store).step == 2


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda path: remove(path / "manifest.json"),
            "has no manifest.json: it is incomplete, or no checkpoint of jaxdl",
        ),
        (lambda path: (path / "manifest.json").write_text("{"), "has a damaged manifest.json"),
        (
            lambda path: (path / "manifest.json").write_text("[" * 10**5),
            "has a damaged manifest.json",
        ),
        (
            lambda path: remove(path / "arrays" / "manifest.ocdbt"),
            "is missing 1 of its files, such as arrays/manifest.ocdbt",
        ),
        (
            lambda path: (path / "arrays" / "d" / "more").write_text("x"),
            "contains arrays/d/more, which was not saved with it",
        ),
        (
            lambda path: (path / "arrays" / "_METADATA").write_text("x"),
            "has 1 bytes in arrays/_METADATA, expected",
        ),
    ],
)
def test_each_fault_is_listed_where_none_is_whole(
    store: Store, wrong: Callable[[Path], None], message: str
) -> None:
    saved(store, 1)
    wrong(store.paths[0])
    with pytest.raises(
        dl.CheckpointError,
        match=rf"none of the 1 in .*run can be read.*\n  000001-step-1 {message}",
    ):
        store.restore(lambda *_: tree())
    assert steps(store) == [1]


def rewritten(path: Path, **changes: Any) -> None:
    fields = json.loads((path / "manifest.json").read_text())
    fields.pop("digest")
    (path / "manifest.json").write_bytes(manifest.digested_text(fields | changes))


@pytest.mark.parametrize(
    ("version", "age"), [(manifest.VERSION + 1, "a newer"), (manifest.VERSION - 1, "an older")]
)
def test_another_format_is_left_where_it_is(store: Store, version: int, age: str) -> None:
    saved(store, 1)
    saved(store, 2)
    rewritten(store.paths[0], version=version)
    with pytest.warns(
        RuntimeWarning, match=f"000002-step-2 is of format {version}, which {age} jaxdl wrote"
    ):
        assert restored(store).step == 1
    assert steps(store) == [2, 1]


def test_another_kind_of_manifest(store: Store) -> None:
    saved(store, 1)
    rewritten(store.paths[0], format="other")
    with pytest.raises(
        dl.CheckpointError, match=r"a manifest\.json that is not of a jaxdl checkpoint"
    ):
        store.restore(lambda *_: tree())


def test_arrays_are_checked_beside_files(store: Store) -> None:
    saved(store, 1)
    leaves = json.loads((store.paths[0] / "manifest.json").read_text())["leaves"]
    leaves["kernel"]["digest"] = "0" * 64
    rewritten(store.paths[0], leaves=leaves)
    with pytest.raises(
        dl.CheckpointError, match="has a damaged array kernel: its digest does not match"
    ):
        store.restore(lambda *_: tree())


def test_a_manifest_cannot_name_files_outside(store: Store) -> None:
    saved(store, 1)
    rewritten(store.paths[0], files={"../../../secret": [1, "0" * 64]})
    with pytest.raises(
        dl.CheckpointError,
        match=r"is missing 1 of its files, such as arrays/\.\./\.\./\.\./secret",
    ):
        store.restore(lambda *_: tree())


def test_a_run_that_differs_gets_the_list(store: Store) -> None:
    saved(store, 1)
    other = {
        "kernel": jnp.ones((4, 4)),
        "key": jax.random.key(0, impl="rbg"),
        "bias": jnp.ones(3, jnp.bfloat16),
    }
    with pytest.raises(
        dl.CheckpointError, match="saved by a run that differs from this one"
    ) as caught:
        store.restore(lambda *_: other)
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "missing: bias, bfloat16[3]",
        "kernel: expected float32[4, 4], saved was float32[4, 3]",
        "key: expected keys of rbg[], saved was keys of threefry2x32[]",
        "extra: sum, float64[]",
    ]


def test_a_save_that_fails_is_reported_and_the_run_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(store, 1)

    def full(folder: Path, named: Any) -> None:
        folder.mkdir()
        (folder / "half").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(arrays, "write", full)
        store.save(2, 0, tree(2), {})
        with pytest.warns(
            RuntimeWarning,
            match=r"step 2 was not saved in .*No space left.*; 000001-step-1 is whole, training continues",
        ):
            store.wait()
    assert restored(store).step == 1
    assert [
        path.name for path in store.folder.iterdir() if path.name.startswith(".saving")
    ] == []
    saved(store, 3)
    assert restored(store).step == 3


def test_an_older_one_goes_only_after_the_newer_is_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(dl.Checkpoints(folder, keep=1)) as store:
        saved(store, 1)
        monkeypatch.setattr(
            manifest.Manifest,
            "write",
            lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")),
        )
        store.save(2, 0, tree(), {})
        with pytest.warns(RuntimeWarning, match="step 2 was not saved"):
            store.wait()
        assert restored(store).step == 1


@pytest.mark.parametrize(("leaf", "message"), [("text", "a is str"), (object(), "a is object")])
def test_a_leaf_that_is_no_array(store: Store, leaf: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        store.save(1, 0, {"a": leaf}, {})


def test_a_description_that_json_cannot_hold(store: Store) -> None:
    with pytest.raises(
        TypeError, match="description holds numbers, strings, lists, dicts and arrays"
    ):
        store.save(1, 0, {}, {"model": object()})


def test_what_a_killed_save_left_is_taken_away(folder: Path) -> None:
    (folder / ".saving-000001-step-1-ab" / "arrays").mkdir(parents=True)
    (folder / ".removing-000001-step-1-ab").mkdir()
    (folder / "notes.txt").write_text("mine")
    with Store(dl.Checkpoints(folder)) as store:
        assert store.restore(lambda *_: tree()) is None
    assert {path.name for path in folder.iterdir()} == {".lock", ".lock.json", "notes.txt"}


@pytest.mark.slow
def test_two_runs_cannot_share_a_folder(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "GRACE_SECONDS", 0.1)
    program = (
        "import sys, jaxdl as dl\nfrom jaxdl.checkpoint import lock, store\nlock.GRACE_SECONDS = 0.1\n"
        "store.Store(dl.Checkpoints(sys.argv[1]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(store.folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert "is in use by another run (process " in ran.stderr
    with pytest.raises(dl.CheckpointError, match="give this one a folder of its own"):
        Store(store.checkpoints)


def test_a_closed_store_lets_the_next_in(folder: Path) -> None:
    for _ in range(2):
        Store(dl.Checkpoints(folder)).close()


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(dl.CheckpointError, match=r"cannot write into .*file/run"):
        Store(dl.Checkpoints(tmp_path / "file" / "run"))


def test_due_by_steps(store: Store) -> None:
    assert [step for step in range(1, 31) if store.due(step, 0)] == list(range(10, 31))
    assert [store.steps_until_due(step) for step in (0, 1, 9, 10, 25)] == [10, 9, 1, 10, 5]
    saved(store, 25)
    assert not store.due(29, 0)
    assert store.due(30, 0)
    store.started(37, 0)
    assert not store.due(39, 0)
    assert store.due(40, 0)


def test_due_by_epochs_and_seconds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(dl.Checkpoints(folder / "a", every="2 epochs")) as store:
        assert [store.due(9, epoch) for epoch in range(4)] == [False, False, True, True]
        assert store.steps_until_due(3) is None
    now = time.monotonic()
    with Store(dl.Checkpoints(folder / "b", every="1 minute")) as store:
        monkeypatch.setattr(time, "monotonic", lambda: now + 59)
        assert not store.due(1, 0)
        monkeypatch.setattr(time, "monotonic", lambda: now + 61)
        assert store.due(1, 0)


def test_nothing_is_due_while_a_save_is_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = arrays.write
    monkeypatch.setattr(arrays, "write", lambda *given: (time.sleep(0.3), write(*given)))
    store.save(1, 0, tree(), {})
    assert not store.wait(0.01)
    assert store.busy
    assert not store.due(10, 0)
    assert store.wait(10)
    assert store.due(10, 0)


def test_nothing_is_printed(store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saved(store, 1)
        restored(store)
    assert capfd.readouterr() == ("", "")


LIMITED = """
import resource, signal, sys, warnings
import numpy as np
from jaxdl import Checkpoints
from jaxdl.checkpoint.store import Store

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store(Checkpoints(sys.argv[1], every="10 steps"))
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for step in (1, 2):
        store.save(step, 0, {str(i): np.ones(30_000, np.float32) for i in range(100)}, {}, None)
        store.wait()
    store.close()
print(*(warning.message for warning in caught), sep="\\n")
"""


@pytest.mark.slow
@pytest.mark.once
def test_a_file_that_grows_too_large_is_reported_in_one_warning_a_save(folder: Path) -> None:
    """Where each array alone is too large, so that many writes fail at a time."""
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, str(folder)], capture_output=True, text=True, check=True
    )
    assert ran.stderr == ""
    lines = ran.stdout.splitlines()
    assert [line.split(" in ")[0] for line in lines] == [
        f"checkpoint: step {step} was not saved" for step in (1, 2)
    ]
    assert all(
        "(File too large); there is none before it, training continues" in line
        for line in lines
    )


def test_where_nothing_can_be_locked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    def refused(*_: object, **__: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(filelock.FileLock, "acquire", refused)
    with pytest.warns(
        RuntimeWarning, match="cannot be locked, as its file system has no locks"
    ):
        store = Store(dl.Checkpoints(folder))
    with store:
        saved(store, 1)
        assert restored(store).step == 1
