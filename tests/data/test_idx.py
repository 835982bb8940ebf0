"""MNIST: the IDX format on arrays of every type, the loader on small files, and the real data where they are."""

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxdl import data
from jaxdl.data.content import Content
from jaxdl.data.error import DataError
from jaxdl.data.idx import parse_idx, read_mnist

REAL = Path(os.environ.get("JAXDL_DATA", ""), "mnist", "train-images-idx3-ubyte.gz")
CODES = {"u1": 0x08, "i1": 0x09, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}


def idx(array: np.ndarray, dtype: str = "u1") -> bytes:
    return (
        struct.pack(f">HBB{array.ndim}I", 0, CODES[dtype], array.ndim, *array.shape)
        + array.astype(dtype).tobytes()
    )


RANDOM = np.random.default_rng(0)
IMAGES, LABELS = RANDOM.integers(0, 256, (12, 28, 28)), RANDOM.integers(0, 10, 12)
FILES = {
    "train-images-idx3-ubyte": idx(IMAGES[:9]),
    "train-labels-idx1-ubyte": idx(LABELS[:9]),
    "t10k-images-idx3-ubyte": idx(IMAGES[9:]),
    "t10k-labels-idx1-ubyte": idx(LABELS[9:]),
}
CONTENTS = tuple(Content.of(name, data) for name, data in FILES.items())


def write(folder: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in FILES.items():
        (folder / (name + suffix)).write_bytes(pack(content))


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 3), (2, 1, 3, 2)])
def test_idx_holds_any_array(dtype: str, shape: tuple[int, ...]):
    array = RANDOM.integers(0, 100, shape)
    parsed = parse_idx(idx(np.asarray(array), dtype))
    assert parsed.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(parsed, array)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "does not begin as an IDX file does .*none"),
        (b"\0\0\x08", "does not begin as an IDX file does .*00 00 08"),
        (b"\0\0\x07\x01\0\0\0\0", "does not begin as an IDX file does .*00 00 07 01"),
        (b"\0\0\x08\x03\0\0\0\0", "does not begin as an IDX file does .*00 00 08 03"),
        (b"<!DOCTYPE html>", "does not begin as an IDX file does .*3c 21 44 4f"),
        (idx(np.zeros((3, 4)))[:-1], "holds 23 bytes where its header promises 24"),
        (idx(np.zeros((3, 4)), ">f8") + b"!", "holds 109 bytes where its header promises 108"),
        (
            b"\0\0\x08\x41" + struct.pack(">65I", *[1] * 65) + b"a",
            "promises a shape that no array can have",
        ),
        (
            b"\0\0\x08\x04" + struct.pack(">4I", 0, *[2**32 - 1] * 3),
            "promises a shape that no array can have",
        ),
        (
            b"\0\0\x08\xff" + b"\xff" * 1020,
            "holds 1024 bytes where its header promises [0-9]{100}…$",
        ),
        (
            b"\0\0\x08\x04" + b"\xff" * 16,
            "where its header promises 340282366604025813516997721482669850645",
        ),
    ],
)
def test_what_is_no_idx_is_refused(content: bytes, sentence: str):
    with pytest.raises(DataError, match=sentence):
        parse_idx(content)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("place", ["", "mnist"])
def test_the_files_are_found_where_they_may_lie(tmp_path: Path, place: str, suffix: str):
    write(tmp_path / place, suffix, gzip.compress if suffix else bytes)
    train, test = read_mnist(tmp_path, CONTENTS, mirrors=())
    np.testing.assert_array_equal(np.concatenate([train[0], test[0]])[..., 0], IMAGES)
    np.testing.assert_array_equal(np.concatenate([train[1], test[1]]), LABELS)
    assert [array.dtype for array in (*train, *test)] == [np.uint8, np.int32] * 2
    assert all(array.flags.writeable and array.flags.c_contiguous for array in (*train, *test))


def test_missing_files_are_downloaded_from_the_mirror_that_has_them(server, tmp_path: Path):
    urls = [
        server.add(f"mirror/{name}.gz", gzip.compress(content))
        for name, content in FILES.items()
    ]
    for _ in range(2):
        train, _ = read_mnist(
            tmp_path, CONTENTS, (server.address + "/none/", server.address + "/mirror/")
        )
        np.testing.assert_array_equal(train[1], LABELS[:9])
    assert len(server.requests) == 2 * len(urls)
    assert {path.name for path in (tmp_path / "mnist").glob("*.gz")} == {
        url.rsplit("/")[-1] for url in urls
    }


def test_a_short_or_missing_file_is_named(tmp_path: Path):
    write(tmp_path, "", bytes)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(b"short")
    with pytest.raises(
        DataError,
        match=f"^mnist: 't10k-labels-idx1-ubyte' in {tmp_path} holds 5 bytes where 11 are exp",
    ):
        read_mnist(tmp_path, CONTENTS, mirrors=())
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(
        DataError, match=f"^mnist: 't10k-labels-idx1-ubyte.gz' is not in {tmp_path}/mnist, and"
    ):
        read_mnist(tmp_path, CONTENTS, mirrors=())


def test_files_that_are_not_the_official_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path, "", bytes)
    with pytest.raises(
        DataError,
        match=f"'train-images-idx3-ubyte' in {tmp_path} holds 7072 bytes where 47040016 are",
    ):
        data.mnist(tmp_path)
    monkeypatch.setenv("JAXDL_DATA", str(tmp_path))
    with pytest.raises(DataError, match=f"'train-images-idx3-ubyte' in {tmp_path} holds"):
        data.mnist()


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason="MNIST is not in JAXDL_DATA")
@pytest.mark.once
def test_the_real_digits():
    (images, labels), (test_images, test_labels) = data.mnist()
    assert images.shape == (60_000, 28, 28, 1)
    assert test_images.shape == (10_000, 28, 28, 1)
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(labels).tolist() == [
        5923,
        6742,
        5958,
        6131,
        5842,
        5421,
        5918,
        6265,
        5851,
        5949,
    ]
    assert images.mean() / 255 == pytest.approx(0.1307, abs=1e-4)  # as everyone normalises with
    assert images.std() / 255 == pytest.approx(0.3081, abs=1e-4)
