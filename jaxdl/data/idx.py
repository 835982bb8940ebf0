"""MNIST, and the IDX format that it comes in."""

import math
import os
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from jaxdl.data.archive import read_file
from jaxdl.data.content import Content
from jaxdl.data.download import obtain
from jaxdl.data.error import CorruptionError, excerpt
from jaxdl.data.folder import data_folder
from jaxdl.data.transfer import Remote

_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_CONTENTS = (
    Content(
        "train-images-idx3-ubyte",
        47040016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    Content(
        "train-labels-idx1-ubyte",
        60008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    Content(
        "t10k-images-idx3-ubyte",
        7840016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    Content(
        "t10k-labels-idx1-ubyte",
        10008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)
_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def mnist(
    folder: str | os.PathLike[str] | None = None,
) -> tuple[
    tuple[UInt8[np.ndarray, "train 28 28 1"], Int32[np.ndarray, " train"]],
    tuple[UInt8[np.ndarray, "test 28 28 1"], Int32[np.ndarray, " test"]],
]:
    """Loads MNIST: 70,000 handwritten digits, in its official split into 60,000 for training and
    10,000 for testing.

    The four files are looked for in the folder and in its `mnist/`, with or without `.gz`. One that
    is in neither is downloaded into `mnist/`.

    Args:
        folder: where to look and to download; else `JAXDL_DATA`, else the platform's cache folder.

    Returns:
        `(train, test)`, each `(images, labels)`: images [n, 28, 28, 1] uint8, 0 (paper) to 255
        (ink); labels [n] int32, 0 to 9.

    Raises:
        DataError: a file there is short or altered, or a missing one cannot be downloaded.

    Source: LeCun, Bottou, Bengio, Haffner, *Gradient-based learning applied to document
    recognition* (1998).
    """
    return read_mnist(data_folder(folder), _CONTENTS, _MIRRORS)


def read_mnist(folder: Path, contents: tuple[Content, ...], mirrors: tuple[str, ...]):
    """Reads four IDX files (images and labels for training, then for testing) as `mnist` does."""
    arrays = [_array(folder, content, mirrors) for content in contents]
    train_images, train_labels, test_images, test_labels = arrays
    return (train_images, train_labels), (test_images, test_labels)


def _array(folder: Path, content: Content, mirrors: tuple[str, ...]) -> np.ndarray:
    packed = content.name + ".gz"
    names = (packed, content.name)
    candidates = [parent / name for parent in (folder / "mnist", folder) for name in names]
    remote = Remote(
        owner="mnist",
        urls=tuple(mirror + packed for mirror in mirrors),
        target=folder / "mnist" / packed,
        limit=content.size + (1 << 20),
    )

    def read(path: Path) -> np.ndarray:
        return parse_idx(read_file(path, content))

    array = obtain(candidates, read, remote)
    if array.ndim > 1:
        return array[..., None].copy()
    return array.astype(np.int32)


def parse_idx(data: bytes) -> np.ndarray:
    """Turns the bytes of an IDX file into the array that it holds.

    An IDX file is two zero bytes, one for the type, one for the rank r, r sizes as big-endian
    32-bit integers, and then the elements, big-endian, last dimension fastest.

    Args:
        data: the whole file, decompressed.

    Returns:
        The array, read-only and without a copy.

    Raises:
        CorruptionError: the header is none, promises more or fewer bytes than there are, or a shape
            that no array can have.
    """
    if not _has_header(data):
        begin = data[:4].hex(" ") or "none"
        raise CorruptionError(
            f"does not begin as an IDX file does (its first bytes are {begin})"
        )
    dtype = np.dtype(_DTYPES[data[2]])
    start = 4 + 4 * data[3]
    sizes = np.frombuffer(data[4:start], ">u4")
    shape = tuple(int(size) for size in sizes)
    promised = start + math.prod(shape) * dtype.itemsize
    if len(data) != promised:
        raise CorruptionError(
            f"holds {len(data)} bytes where its header promises {excerpt(promised)}"
        )
    try:
        return np.frombuffer(data, dtype, offset=start).reshape(shape)
    # Too many dimensions, or one of length 0 beside others that are too long.
    except ValueError as error:
        raise CorruptionError(
            f"promises a shape that no array can have ({excerpt(error)})"
        ) from error


def _has_header(data: bytes) -> bool:
    """Whether bytes begin with the header of an IDX file."""
    if len(data) < 4 or data[:2] != b"\0\0":
        return False
    return data[2] in _DTYPES and len(data) >= 4 + 4 * data[3]
