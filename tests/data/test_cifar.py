"""CIFAR-10: batches that are pickled as the real ones are, hostile pickles, and the real data where they are."""

import gzip
import io
import lzma
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxdl import data
from jaxdl.data.cifar import parse_batch, read_cifar
from jaxdl.data.content import Content
from jaxdl.data.error import DataError

REAL = [
    Path(os.environ.get("JAXDL_DATA", "")) / ("cifar-10-python.tar" + suffix)
    for suffix in (".gz", ".xz")
]
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3072)).astype(np.uint8)
LABELS = [3, 1, 4, 1, 5, 9]

# What Python 2 wrote with protocol 2: byte strings as SHORT_BINSTRING and BINSTRING, NumPy's old module name.
PYTHON_2 = (
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05"
    b"(K\x01K\x06M\x00\x0c\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK"
    b"\x00tb\x89T\x00\x48\x00\x00"
    + PIXELS.tobytes()
    + b"tbU\x06labelsq\x08]q\x09(K\x03K\x01K\x04K\x01K\x05K\x09eu."
)


def batch(pixels: object = PIXELS, labels: object = LABELS, protocol: int = 2) -> bytes:
    return pickle.dumps(
        {b"data": pixels, b"labels": labels, b"batch_label": b"of a test"}, protocol
    )


BATCHES = {
    "data_batch_1": batch(PIXELS[:3], LABELS[:3]),
    "data_batch_2": PYTHON_2,
    "test_batch": batch(PIXELS[3:], LABELS[3:]),
}
*TRAIN, TEST = (Content.of(name, content) for name, content in BATCHES.items())


def archive(batches: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as file:
        for name, content in batches.items():
            member = tarfile.TarInfo("cifar-10-batches-py/" + name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def images_by_hand(pixels: np.ndarray) -> np.ndarray:
    """The format in its own words: red, green and blue planes of 1024, each row by row."""
    images = np.zeros((len(pixels), 32, 32, 3), np.uint8)
    for row, column, channel in np.ndindex(32, 32, 3):
        images[:, row, column, channel] = pixels[:, 1024 * channel + 32 * row + column]
    return images


@pytest.mark.parametrize(
    "content", [PYTHON_2, *(batch(protocol=protocol) for protocol in range(5))]
)
def test_a_batch_becomes_images_and_labels(content: bytes):
    images, labels = parse_batch(content)
    np.testing.assert_array_equal(images, images_by_hand(PIXELS))
    np.testing.assert_array_equal(labels, LABELS)
    assert (images.dtype, labels.dtype, images.flags.c_contiguous) == (np.uint8, np.int32, True)


class Call:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, function: Callable[..., object], *arguments: object):
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "function",
    [os.system, eval, exec, np.save, getattr],
    ids=lambda function: function.__name__,
)
def test_a_hostile_pickle_runs_nothing(
    tmp_path: Path, function: Callable[..., object], protocol: int
):
    marker = tmp_path / "executed.npy"
    arguments = {
        os.system: (f"touch {marker}",),
        eval: (f"open({str(marker)!r}, 'w')",),
        exec: (f"open({str(marker)!r}, 'w')",),
        np.save: (str(marker), 1),
        getattr: (1, "real"),
    }[function]
    for content in (
        pickle.dumps(Call(function, *arguments), protocol),
        batch(pixels=Call(function, *arguments), protocol=protocol),
        batch(labels=[Call(function, *arguments)], protocol=protocol),
    ):
        with pytest.raises(
            DataError, match=rf"asks to run .*{function.__name__}, which no CIFAR batch needs"
        ):
            parse_batch(content)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",  # an attribute of what is allowed
        b"\x80\x02cnumpy\nload\n.",  # a neighbour of what is allowed
        b"\x80\x02cnumpy.core.multiarray\nfrombuffer\n.",
        b"\x80\x02c__builtin__\neval\n.",  # a name that Python 3 would translate
        b"(ios\nsystem\n.",  # the old opcode for instances
        b"(cos\nsystem\no.",
    ],
)
def test_a_hostile_name_is_refused(content: bytes):
    with pytest.raises(DataError, match="asks to run"):
        parse_batch(content)


def test_allowed_names_are_noted_and_not_called():
    with pytest.raises(DataError, match="no CIFAR batch"):
        parse_batch(
            b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ftR."
        )  # 4 EiB, were it made


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is no pickle that can be read"),
        (b"<html>", "is no pickle that can be read"),
        (PYTHON_2[:-3], "is no pickle that can be read"),
        (b"\x80\x02cnumpy\ndtype\n\x81.", "is no pickle that can be read"),
        (pickle.dumps([1]), "no CIFAR batch: it should be a dict with b'data' and b'labels'"),
        (pickle.dumps({b"data": PIXELS.tolist()}), "no CIFAR batch"),
        (batch(labels=[0, 1, 2, 3, 4, 10]), "labels that are no list of integers from 0 to 9"),
        (batch(labels=[0, 1, 2, 3, 4, True]), "labels that are no list of integers"),
        (batch(labels=b"012345"), "labels that are no list of integers"),
        (
            batch(labels=[1, 2]),
            r"type 'u1' and shape \(6, 3072\) where 'u1' and \(2, 3072\) are expected",
        ),
        (batch(pixels=PIXELS.tolist()), "pixels that are no NumPy array"),
        (
            batch(pixels=np.asfortranarray(PIXELS)),
            "pixels that are no NumPy array of bytes in row order",
        ),
        (batch(pixels=PIXELS.astype(np.float32)), "pixels of type 'f4'"),
        (batch().replace(b"latin1", b"utf-16"), "is a pickle, but no CIFAR batch"),
        (batch(pixels=PIXELS.astype(object)), "pixels that are no NumPy array of bytes"),
        (PYTHON_2.replace(b"K\x06M\x00\x0c\x86", b"K\x06M\x00\x0b\x86"), r"shape \(6, 2816\)"),
        (PYTHON_2.replace(b"T\x00\x48\x00\x00", b"U\x01"), "is no pickle that can be read"),
    ],
)
def test_what_is_no_batch_is_refused(content: bytes, sentence: str):
    with pytest.raises(DataError, match=sentence):
        parse_batch(content)


LAUGHS = b"K\x01" + b"".join(
    b"q%ch%c\x86" % (place, place) for place in range(1, 100)
)  # of 2^99 parts, were it printed


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04Nr\xff\xff\xff\x7f.",  # 16 GiB for the places of what is noted
        b"Np2000000000\n.",
        b"\x80\x04" + b"]" * 200_000 + b".",
        b"\x80\x04}" + LAUGHS + b"K\x01s.",
        b"\x80\x04}(C\x04data" + LAUGHS + b"C\x06labels]u.",
    ],
    ids=["places", "places as text", "lists", "a key", "pixels"],
)
def test_a_pickle_that_builds_without_end_is_refused(content: bytes):
    with pytest.raises(
        DataError, match=r"^is a pickle that builds far more than a CIFAR batch does$"
    ):
        parse_batch(content)


def test_what_a_pickle_says_stays_one_short_line():
    for content in (
        b"\x80\x04X\x40\x42\x0f\x00" + b"o\n" * 500_000 + b"\x8c\x06system\x93.",
        b"c\x1b]0;owned\x07\nsystem\n.",
    ):
        with pytest.raises(DataError, match="asks to run") as caught:
            parse_batch(content)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300


def unpacked(folder: Path) -> None:
    (folder / "cifar-10-batches-py").mkdir()
    for name, content in BATCHES.items():
        (folder / "cifar-10-batches-py" / name).write_bytes(content)


FORMS = {
    "unpacked": unpacked,
    "gz": lambda folder: (folder / "cifar-10-python.tar.gz").write_bytes(
        gzip.compress(archive(BATCHES))
    ),
    "xz": lambda folder: (folder / "cifar-10-python.tar.xz").write_bytes(
        lzma.compress(archive(BATCHES))
    ),
}


@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
def test_the_batches_are_found_in_every_form(tmp_path: Path, write: Callable[[Path], object]):
    write(tmp_path)
    train, test = read_cifar(tmp_path, tuple(TRAIN), TEST, urls=())
    np.testing.assert_array_equal(
        train[0], images_by_hand(np.concatenate([PIXELS[:3], PIXELS]))
    )
    np.testing.assert_array_equal(train[1], LABELS[:3] + LABELS)
    np.testing.assert_array_equal(test[0], images_by_hand(PIXELS[3:]))
    np.testing.assert_array_equal(test[1], LABELS[3:])
    assert [
        path.suffix for path in tmp_path.rglob("*") if path.suffix in (".part", ".lock")
    ] == []


def test_a_missing_archive_is_downloaded_once(server, tmp_path: Path):
    url = server.add("cifar-10-python.tar.gz", gzip.compress(archive(BATCHES)))
    parts = [read_cifar(tmp_path, tuple(TRAIN), TEST, (url,)) for _ in range(2)]
    assert [len(train[1]) for train, _ in parts] == [9, 9]
    assert len(server.requests) == 1


def test_an_altered_batch_is_named(tmp_path: Path):
    altered = archive({**BATCHES, "test_batch": batch(PIXELS[3:], [3, 3, 3])})
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(gzip.compress(altered))
    with pytest.raises(
        DataError,
        match=rf"^cifar10: 'cifar-10-python.tar.gz' in {tmp_path} has a 'test_batch' that is altered .* — delete it",
    ):
        read_cifar(tmp_path, tuple(TRAIN), TEST, urls=())


def test_batches_that_are_not_the_official_ones_are_refused(tmp_path: Path):
    unpacked(tmp_path)
    with pytest.raises(
        DataError,
        match=f"^cifar10: 'cifar-10-batches-py' in {tmp_path} lacks 'data_batch_3', 'data_batch_4'",
    ):
        data.cifar10(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(
    not any(path.is_file() for path in REAL), reason="CIFAR-10 is not in JAXDL_DATA"
)
@pytest.mark.once
def test_the_real_photographs():
    (images, labels), (test_images, test_labels) = data.cifar10()
    assert images.shape == (50_000, 32, 32, 3)
    assert test_images.shape == (10_000, 32, 32, 3)
    assert np.bincount(labels).tolist() == [5000] * 10
    assert np.bincount(test_labels).tolist() == [1000] * 10
    assert [data.CIFAR10_CLASSES[label] for label in test_labels[:4]] == [
        "cat",
        "ship",
        "ship",
        "airplane",
    ]
    mean = images.mean((0, 1, 2)) / 255
    np.testing.assert_allclose(
        mean, [0.4914, 0.4822, 0.4465], atol=1e-4
    )  # as everyone normalises with


def test_the_classes_stand_in_the_order_of_the_archive_s_labels():
    """Krizhevsky, *Learning multiple layers of features from tiny images* (2009): batches.meta."""
    assert data.CIFAR10_CLASSES == (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
