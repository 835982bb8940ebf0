"""CIFAR-10, and its pickled batches, read without executing anything that is in them."""

import io
import math
import os
import pickle
import pickletools
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from jaxdl.data.archive import naming, read_members
from jaxdl.data.content import Content
from jaxdl.data.download import obtain
from jaxdl.data.error import CorruptionError, excerpt
from jaxdl.data.folder import data_folder
from jaxdl.data.transfer import Remote

CIFAR10_CLASSES = (
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

_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
_TRAIN = (
    Content(
        "data_batch_1",
        31035704,
        "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
    ),
    Content(
        "data_batch_2",
        31035320,
        "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
    ),
    Content(
        "data_batch_3",
        31035999,
        "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
    ),
    Content(
        "data_batch_4",
        31035696,
        "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
    ),
    Content(
        "data_batch_5",
        31035623,
        "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
    ),
)
_TEST = Content(
    "test_batch", 31035526, "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831"
)
_MOST_STEPS = 100_000  # in a pickle; an official batch takes 30,000
# Of objects built before, where each can double what is compared, hashed or printed.
_MOST_RECALLS = 16
# The quickest to read first.
_FORMS = (
    "cifar-10-batches-py",
    "cifar-10-python.tar.gz",
    "cifar-10-python.tar.xz",
)

_Part = tuple[np.ndarray, np.ndarray]


def cifar10(
    folder: str | os.PathLike[str] | None = None,
) -> tuple[
    tuple[UInt8[np.ndarray, "train 32 32 3"], Int32[np.ndarray, " train"]],
    tuple[UInt8[np.ndarray, "test 32 32 3"], Int32[np.ndarray, " test"]],
]:
    """Loads CIFAR-10: 60,000 photographs of ten kinds of things, in its official split into 50,000
    and 10,000.

    It is looked for in the folder as `cifar-10-batches-py/`, `cifar-10-python.tar.gz` or
    `cifar-10-python.tar.xz`, and downloaded (170 MB) where it is there in no form. The `.tar.xz`
    takes some ten seconds to decompress, the `.tar.gz` two, and what is unpacked a fraction of one.

    Args:
        folder: where to look and to download; else `JAXDL_DATA`, else the platform's cache folder.

    Returns:
        `(train, test)`, each `(images, labels)`: images [n, 32, 32, 3] uint8, red, green and blue
        from 0 to 255; labels [n] int32, positions in `CIFAR10_CLASSES`.

    Raises:
        DataError: what is there is short or altered, or if it is missing and cannot be
            downloaded.

    Source: Krizhevsky, *Learning multiple layers of features from tiny images* (2009).
    """
    return read_cifar(data_folder(folder), _TRAIN, _TEST, (_URL,))


def read_cifar(
    folder: Path, train: tuple[Content, ...], test: Content, urls: tuple[str, ...]
) -> tuple[_Part, _Part]:
    """Reads the given batches as `cifar10` does."""
    contents = (*train, test)

    def read(path: Path) -> dict[str, _Part]:
        batches = {}
        for name, data in read_members(path, contents):
            batches[name] = _named_batch(name, data)
            # Otherwise it stays until the next one is there.
            del data
        return batches

    remote = Remote(
        owner="cifar10",
        urls=urls,
        target=folder / "cifar-10-python.tar.gz",
        limit=sum(content.size for content in contents) + (1 << 20),
    )
    candidates = [folder / form for form in _FORMS]
    batches = obtain(candidates, read, remote)
    images = []
    labels = []
    for content in train:
        part = batches.pop(content.name)
        images.append(part[0])
        labels.append(part[1])
        del part
    return (_concatenated(images), np.concatenate(labels)), batches[test.name]


def _concatenated(parts: list[np.ndarray]) -> np.ndarray:
    """Arrays as one; each is freed when it is copied, so that there are never two of all."""
    end = sum(map(len, parts))
    whole = np.empty((end, *parts[0].shape[1:]), parts[0].dtype)
    while parts:
        part = parts.pop()
        whole[end - len(part) : end] = part
        end -= len(part)
    return whole


def _named_batch(name: str, data: bytes) -> _Part:
    with naming(name):
        return parse_batch(data)


def parse_batch(data: bytes) -> tuple[UInt8[np.ndarray, "n 32 32 3"], Int32[np.ndarray, " n"]]:
    """Images and labels of the bytes of a CIFAR batch; nothing is executed.

    Args:
        data: a pickled dict with `b"data"` [n, 3072] uint8, each row three planes of 32 rows of 32,
            and `b"labels"`.

    Returns:
        `(images, labels)`: images [n, 32, 32, 3] uint8, labels [n] int32.

    Raises:
        CorruptionError: the pickle needs anything but NumPy's arrays, or is no such dict.
    """
    batch = _unpickle(data)
    if not isinstance(batch, dict) or not {b"data", b"labels"} <= batch.keys():
        raise CorruptionError(
            "is a pickle, but no CIFAR batch: it should be a dict with b'data' and b'labels'"
        )
    labels = batch[b"labels"]
    if not isinstance(labels, list) or not all(map(_is_label, labels)):
        raise CorruptionError("has labels that are no list of integers from 0 to 9")
    pixels = _pixels(batch[b"data"], (len(labels), 3072))
    planes = pixels.reshape(-1, 3, 32, 32)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return images, np.array(labels, np.int32)


def _is_label(label: object) -> bool:
    return type(label) is int and 0 <= label < 10


class _Note:
    """A record of how a pickle builds one object: its class or function, arguments and state.

    It stands in for NumPy's own functions and classes, so that a pickle's calls are recorded and
    not executed.
    """

    def __init__(self, name: str, arguments: tuple[object, ...] = ()):
        self.name = name
        self.arguments = arguments
        self.state: object = None

    def __call__(self, *arguments: object) -> "_Note | bytes":
        match self.name, arguments:
            case "encode", (str(text), "latin1" | b"latin1"):
                return text.encode("latin1")
        return _Note(self.name, arguments)

    def __setstate__(self, state: object) -> None:
        self.state = state


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),  # how Python 3 writes bytes in the old protocols
}


class _Notes(pickle.Unpickler):
    """Resolves the names that NumPy's arrays are pickled with to notes, and refuses all others."""

    def find_class(self, module_name: str, global_name: str, /) -> _Note:
        if (module_name, global_name) not in _ALLOWED:
            name = excerpt(f"{module_name}.{global_name}")
            raise CorruptionError(
                f"asks to run {name}, which no CIFAR batch needs and which was not run"
            )
        return _Note(global_name)


def _unpickle(data: bytes) -> object:
    try:
        _count_steps(data)
        return _Notes(io.BytesIO(data), encoding="bytes").load()
    except CorruptionError:
        raise
    # A broken pickle can raise nearly anything.
    except Exception as error:
        raise CorruptionError(
            f"is no pickle that can be read ({excerpt(error) or type(error).__name__})"
        ) from error


def _count_steps(data: bytes) -> None:
    """Refuses a pickle that would fill the memory or never end, without executing its steps.

    Ten bytes are enough for such a pickle.
    """
    recalls = 0
    for steps, (step, argument, _) in enumerate(pickletools.genops(data)):
        recalls += step.name in ("GET", "BINGET", "LONG_BINGET", "DUP")
        largest = steps
        if step.name in ("PUT", "LONG_BINPUT") and isinstance(argument, int):
            largest = max(steps, argument)
        if largest > _MOST_STEPS or recalls > _MOST_RECALLS:
            raise CorruptionError("is a pickle that builds far more than a CIFAR batch does")


def _pixels(note: object, expected: tuple[int, int]) -> np.ndarray:
    """The pixels of a note of an array of NumPy's, of some shape.

    Raises:
        CorruptionError: it is of another array, or of something else.
    """
    match note:
        case _Note(
            name="_reconstruct",
            state=(_, shape, _Note(name="dtype", arguments=(kind, *_)), False, bytes(data)),
        ):
            pass
        case _:
            raise CorruptionError("has pixels that are no NumPy array of bytes in row order")
    if kind not in ("u1", b"u1") or shape != expected:
        raise CorruptionError(
            f"has pixels of type {excerpt(repr(kind))} and shape {excerpt(shape)} where 'u1' and "
            f"{expected} are expected"
        )
    if len(data) != math.prod(expected):
        raise CorruptionError(
            f"has {len(data)} bytes of pixels where its shape {shape} promises "
            f"{math.prod(expected)}"
        )
    return np.frombuffer(data, np.uint8).reshape(expected)
