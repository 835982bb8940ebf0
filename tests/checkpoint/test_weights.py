"""Files of weights: what was saved comes back bit by bit, or an error names what is wrong."""

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl.checkpoint import leaves, weights

pytest.importorskip("safetensors")

DTYPES = [
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "float16",
    "bfloat16",
    "float32",
    "complex64",
]
NAMES = st.text("a.\\/ é\"'0", max_size=4)
TREES = st.recursive(
    st.just(...), lambda parts: st.dictionaries(NAMES, parts, max_size=3), max_leaves=6
)


def bits(array: Any) -> bytes:
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.asarray(array).tobytes()


def assert_same(found: Any, expected: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype, bits(a)) == (b.shape, b.dtype, bits(b))


def random_bits(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    data = np.random.default_rng(0).bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    if np.dtype(dtype) == bool:
        return (np.frombuffer(data, np.uint8) % 2).astype(bool).reshape(shape)
    return np.frombuffer(data, dtype).reshape(shape)


@pytest.fixture
def model() -> dl.Layer:
    return dl.Sequential(dl.Dense(3), dl.BatchNorm(), jax.nn.relu, dl.Dropout(0.5), dl.Dense(2))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    dl.save(
        path, {"dense": {"kernel": jnp.arange(6.0).reshape(2, 3)}}, {"key": jax.random.key(1)}
    )
    return path


@pytest.mark.sampled(12)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3, 4)])
def test_each_dtype_comes_back_bit_by_bit(
    tmp_path: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    array = random_bits(shape, jnp.dtype(dtype))
    dl.save(tmp_path / "w", {"a": jnp.asarray(array)})
    params, state = dl.load(tmp_path / "w")
    assert isinstance(params["a"], jax.Array)
    assert_same(params, {"a": array})
    assert state == {}


@pytest.mark.parametrize("dtype", ["float64", "int64", "uint64", "complex128"])
def test_what_jax_has_not_enabled_comes_back_as_numpy(tmp_path: Path, dtype: str) -> None:
    array = random_bits((2, 3), dtype)
    dl.save(tmp_path / "w", {"a": array})
    found = dl.load(tmp_path / "w")[0]["a"]
    assert isinstance(found, np.ndarray)
    assert_same(found, array)


def test_arrays_that_do_not_lie_row_by_row(tmp_path: Path) -> None:
    params = {
        "a": np.arange(12.0, dtype=np.float32).reshape(3, 4).T,
        "b": np.arange(3, dtype=">i4"),
        "c": np.arange(8)[::2],
    }
    dl.save(tmp_path / "w", params)
    found = dl.load(tmp_path / "w")[0]
    for name, array in params.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_typed_keys(tmp_path: Path, implementation: str) -> None:
    keys = jax.random.split(jax.random.key(3, impl=implementation), 4)
    dl.save(tmp_path / "w", {}, {"keys": keys})
    assert_same(dl.load(tmp_path / "w"), ({}, {"keys": keys}))


@pytest.mark.slow
@hypothesis.given(TREES.filter(lambda tree: isinstance(tree, dict)))
@hypothesis.settings(
    max_examples=40, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_any_nested_names(tmp_path: Path, tree: Any) -> None:
    count = iter(range(99))
    params = jax.tree.map(lambda _: jnp.full((), next(count), jnp.int32), tree)
    dl.save(tmp_path / "w", params)
    assert_same(dl.load(tmp_path / "w")[0], params)


@pytest.mark.slow
@hypothesis.given(st.lists(st.text(), min_size=1))
def test_paths_are_taken_apart_as_they_were_joined(names: list[str]) -> None:
    assert leaves.split(leaves.joined(names)) == names


def test_safetensors_opens_it(saved: Path) -> None:
    from safetensors.numpy import load_file

    found = load_file(saved)
    np.testing.assert_array_equal(found["params.dense.kernel"], np.arange(6.0).reshape(2, 3))
    assert set(found) == {"params.dense.kernel", "state.key"}


def test_equal_weights_give_equal_files(tmp_path: Path, saved: Path) -> None:
    dl.save(tmp_path / "again", *dl.load(saved))
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_into_a_model(tmp_path: Path, model: dl.Layer) -> None:
    x = jnp.ones((4, 5))
    params, state = model.init(jax.random.key(0), x)
    dl.save(tmp_path / "w", params, state)
    like = jax.eval_shape(model.init, jax.random.key(0), x)
    found = dl.load(tmp_path / "w", like=like)
    assert_same(found, (params, state))
    np.testing.assert_array_equal(model.apply(*found, x)[0], model.apply(params, state, x)[0])


def test_a_state_of_an_optimizer_goes_into_its_own_structure(tmp_path: Path) -> None:
    state = optax.adam(1e-3).init({"kernel": jnp.ones((2, 2))})
    names = leaves.leaves_by_path(state)
    dl.save(
        tmp_path / "w",
        {},
        {
            "0": {
                "count": names["0.count"],
                "mu": {"kernel": names["0.mu.kernel"]},
                "nu": state[0].nu,
            }
        },
    )
    assert_same(dl.load(tmp_path / "w", like=({}, state))[1], state)


def test_differences_are_listed_by_path(tmp_path: Path, model: dl.Layer) -> None:
    x = jnp.ones((4, 5))
    dl.save(tmp_path / "w", *model.init(jax.random.key(0), x))
    other = dl.Sequential(
        dl.Dense(7), jax.nn.relu, dl.Dense(2, param_dtype=jnp.bfloat16), dl.Dense(1)
    )
    with pytest.raises(
        dl.CheckpointError, match="does not fit what it is loaded into"
    ) as caught:
        dl.load(tmp_path / "w", like=jax.eval_shape(other.init, jax.random.key(0), x))
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert "missing: params.dense_2.kernel, float32[2, 1]" in lines
    assert "extra: params.batch_norm_0.scale, float32[3]" in lines
    assert "params.dense_0.kernel: expected float32[5, 7], saved was float32[5, 3]" in lines
    assert "params.dense_1.bias: expected bfloat16[2], saved was float32[2]" in lines


def test_many_differences_are_cut_short(tmp_path: Path) -> None:
    dl.save(tmp_path / "w", {str(i): jnp.ones(()) for i in range(50)})
    with pytest.raises(dl.CheckpointError, match="and 30 more"):
        dl.load(tmp_path / "w", like=({}, {}))


def test_every_flipped_bit_is_seen(saved: Path) -> None:
    whole = saved.read_bytes()
    for place in [
        *range(40),
        *range(40, len(whole) - 32, 7),
        *range(len(whole) - 32, len(whole)),
    ]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        saved.write_bytes(damaged)
        with pytest.raises(dl.CheckpointError, match=r"weights\.safetensors"):
            dl.load(saved)


def test_every_truncation_is_seen(saved: Path) -> None:
    whole = saved.read_bytes()
    for end in [*range(20), *range(20, len(whole), 11), len(whole) - 1]:
        saved.write_bytes(whole[:end])
        with pytest.raises(dl.CheckpointError, match="is damaged"):
            dl.load(saved)


def sealed_again(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The file with another manifest, and a digest that fits it."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    manifest = json.loads(header["__metadata__"]["jaxdl"]) | {"digest": "0" * 64}
    change(manifest)
    header["__metadata__"]["jaxdl"] = json.dumps(manifest)
    text = json.dumps(header).encode()
    start = len(text).to_bytes(8, "little") + text
    return start.replace(b"0" * 64, hashlib.sha256(start).hexdigest().encode(), 1) + data[end:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data + b"\0", "holds 33 bytes of arrays where 32 are expected"),
        (lambda data: data[:-1], "holds 31 bytes of arrays where 32 are expected"),
        (
            lambda data: data[:-1] + bytes([data[-1] ^ 1]),
            r"is damaged: the digest of state\.key does not match",
        ),
        (lambda data: data[:20], "no safetensors file: its header ends at byte"),
        (lambda data: b"", "it ends after 0 bytes"),
        (
            lambda data: data.replace(b"params.dense", b"params.tense", 1),
            "the digest of its header does not match",
        ),
        (lambda data: data.replace(b'":{"dtype', b'": {"dtype', 1), "is damaged"),
        (
            lambda data: sealed_again(data, lambda m: m.update(version=2)),
            "is of format 2, which a newer jaxdl wrote",
        ),
        (lambda data: (2**63).to_bytes(8, "little") + data[8:], "no safetensors file"),
        (
            lambda data: (8).to_bytes(8, "little") + b"[[[[[[[[" + data,
            "another program wrote it",
        ),
        (lambda data: (10**5).to_bytes(8, "little") + b"[" * 10**5, "another program wrote it"),
    ],
)
def test_what_is_wrong_is_said(
    saved: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    saved.write_bytes(change(saved.read_bytes()))
    with pytest.raises(dl.CheckpointError, match=message):
        dl.load(saved)


def test_a_file_of_another_program(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.ones(3, np.float32)}, tmp_path / "other")
    with pytest.raises(
        dl.CheckpointError,
        match="another program wrote it — read it with the program that wrote it",
    ):
        dl.load(tmp_path / "other")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(dl.CheckpointError, match=r"none cannot be read \(No such file"):
        dl.load(tmp_path / "none")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"a": "text"}, r"params\.a is str"),
        (
            {"a": np.ones(2, ml_dtypes.int4)},
            r"params\.a is of int4, which safetensors cannot hold",
        ),
        ({"a": object()}, r"params\.a is object"),
        ({0: np.ones(2)}, "has the name 0; expected nested dicts named by strings"),
        ({"a": [np.ones(2)] * 2 + ["x"]}, r"params\.a is list"),
    ],
)
def test_what_is_no_weight_is_refused(tmp_path: Path, params: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        dl.save(tmp_path / "w", params)
    assert list(tmp_path.iterdir()) == []


def test_the_old_file_survives_a_failure(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = saved.read_bytes()

    def full(part: Path) -> None:
        part.write_bytes(part.read_bytes()[:50])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "_seal", full)
    with pytest.raises(
        dl.CheckpointError,
        match=r"cannot be written \(No space left on device\) — what was there before",
    ):
        dl.save(saved, {"b": jnp.zeros(3)})
    assert saved.read_bytes() == whole
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_file_has_the_permissions_that_the_umask_leaves_and_keeps_its_own(
    tmp_path: Path, mask: int
) -> None:
    def permissions() -> int:
        return stat.S_IMODE((tmp_path / "w").stat().st_mode)

    before = os.umask(mask)
    try:
        dl.save(tmp_path / "w", {"a": np.zeros(3)})
        (tmp_path / "plain").write_text("")
        assert permissions() == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
        for mode in (0o640, 0o600, 0o664):
            (tmp_path / "w").chmod(mode)
            dl.save(tmp_path / "w", {"a": np.ones(3)})
            assert permissions() == mode
    finally:
        os.umask(before)


def test_the_file_behind_a_link_is_written(tmp_path: Path) -> None:
    for folder in ("store", "links"):
        (tmp_path / folder).mkdir()
    first, second = tmp_path / "links" / "first", tmp_path / "links" / "second"
    first.symlink_to(Path("..") / "store" / "w")  # there is no such file yet
    second.symlink_to("first")
    for value in (1.0, 2.0):
        dl.save(second, {"a": np.full(2, value, np.float32)})
        assert second.is_symlink()
        assert first.is_symlink()
        assert [path.name for path in (tmp_path / "store").iterdir()] == ["w"]
        np.testing.assert_array_equal(dl.load(tmp_path / "store" / "w")[0]["a"], [value, value])


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, why in (
        ("circle", "Too many levels of symbolic links"),
        ("pipe", "no regular file"),
        ("folder", "no regular file"),
    ):
        with pytest.raises(dl.CheckpointError, match=rf"{name} cannot be written \(.*{why}"):
            dl.save(tmp_path / name, {"a": np.zeros(3)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circle", "folder", "pipe"]


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(dl.CheckpointError, match=r"file/w cannot be written .*"):
        dl.save(tmp_path / "file" / "w", {})


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    import pickle

    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(tmp_path / "ran"), "w"))

    (tmp_path / "w").write_bytes(pickle.dumps(Code()))
    with pytest.raises(dl.CheckpointError):
        dl.load(tmp_path / "w")
    assert not (tmp_path / "ran").exists()
