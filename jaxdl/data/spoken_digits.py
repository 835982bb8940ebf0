"""The Free Spoken Digit Dataset: ten digits, six speakers."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int32

from jaxdl.data.archive import naming, read_collection
from jaxdl.data.content import Collection
from jaxdl.data.download import obtain
from jaxdl.data.error import CorruptionError
from jaxdl.data.folder import data_folder
from jaxdl.data.sound import log_mel, mfcc, parse_wav
from jaxdl.data.transfer import Remote

Features = Literal["mfcc", "log_mel"]

_URL = (
    "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz"
)
_RECORDINGS = Collection(
    r"[0-9]_[a-z]+_[0-9]+\.wav",
    3000,
    21128848,
    "22eed2aaa4f9692f65c693d4bb9c15a7a3c34db61e529c9e735ccb095c96a69a",
)
_FORMS = (
    "recordings",
    "free-spoken-digit-dataset",
    "free-spoken-digit-dataset.tar.gz",
    "free-spoken-digit-dataset.tar.xz",
)
_LIMIT = 1 << 25  # the recordings and their headers are 23 MB
_RATE = 8000
_TESTED = 5  # of each speaker's recordings of each digit, those with numbers below

_Part = tuple[np.ndarray, np.ndarray]


def spoken_digits(
    folder: str | os.PathLike[str] | None = None, *, features: Features = "mfcc"
) -> tuple[
    tuple[Float32[np.ndarray, "train 100 10"], Int32[np.ndarray, " train"]],
    tuple[Float32[np.ndarray, "test 100 10"], Int32[np.ndarray, " test"]],
]:
    """Loads 3,000 recordings of spoken digits, in their official split into 2,700 for training and
    300 for testing.

    Six speakers say each of ten digits fifty times; the recordings with numbers 0 to 4 are the
    test's. Each recording of 0.1 to 2.3 seconds becomes 100 frames of 10 features that span it from
    its beginning to its end (`jaxdl.data.mfcc`). From each feature the mean of the *training* part
    is taken, and what is left is divided by the training part's standard deviation, in both.

    The recordings are looked for in the folder as `recordings/`, `free-spoken-digit-dataset/`, or
    that with `.tar.gz` or `.tar.xz`, and downloaded (some 16 MB) where they are there in no form.
    Reading and computing take some two seconds.

    Args:
        folder: where to look and to download; else `JAXDL_DATA`, else the platform's cache folder.
        features: "mfcc", ten cepstral coefficients of 26 bands; or "log_mel", the logarithm of the
            power in ten bands, in which less of the speech is left.

    Returns:
        `(train, test)`, each `(features, labels)`: features [n, 100, 10] float32, standardised;
        labels [n] int32, 0 to 9. They lie in the order of their numbers, with all speakers and
        digits of one number together, so that every part of either has all of them.

    Raises:
        DataError: what is there is short or altered, or if it is missing and cannot be
            downloaded.
        ValueError: the features are none of these.

    Source: Jackson, Souza, Flaks, Pan, Nicolas, Thite, *Free Spoken Digit Dataset* (2018), CC BY-SA
    4.0.
    """
    if features not in ("mfcc", "log_mel"):
        raise ValueError(f"spoken_digits: features are 'mfcc' or 'log_mel', got {features!r}.")
    return read_spoken_digits(data_folder(folder), _RECORDINGS, (_URL,), features)


def read_spoken_digits(
    folder: Path, recordings: Collection, urls: tuple[str, ...], features: Features
) -> tuple[_Part, _Part]:
    """Reads the given recordings as `spoken_digits` returns them."""
    remote = Remote("spoken_digits", urls, folder / "free-spoken-digit-dataset.tar.gz", _LIMIT)
    function = {"mfcc": mfcc, "log_mel": log_mel}[features]

    def read(path: Path) -> dict[_Name, np.ndarray]:
        return _heard(read_collection(path, recordings, _LIMIT), function)

    heard = obtain([folder / form for form in _FORMS], read, remote)
    trained, tested = _split(heard)
    train_inputs = np.stack([heard[name] for name in trained])
    test_inputs = np.stack([heard[name] for name in tested])
    mean = train_inputs.mean((0, 1), np.float64)
    deviation = train_inputs.std((0, 1), np.float64)

    def scaled(inputs: np.ndarray) -> np.ndarray:
        return ((inputs - mean) / deviation).astype(np.float32)

    train = (scaled(train_inputs), _labels(trained))
    test = (scaled(test_inputs), _labels(tested))
    return train, test


_Name = tuple[int, str, int]
"""Number, speaker and digit of a recording."""


def _split(names: Iterable[_Name]) -> tuple[list[_Name], list[_Name]]:
    ordered = sorted(names)
    train = [name for name in ordered if name[0] >= _TESTED]
    test = [name for name in ordered if name[0] < _TESTED]
    return train, test


def _labels(names: list[_Name]) -> np.ndarray:
    return np.array([digit for _, _, digit in names], np.int32)


def _heard(
    files: dict[str, bytes], function: Callable[[np.ndarray, int], np.ndarray]
) -> dict[_Name, np.ndarray]:
    """The features of each recording.

    They are computed one after the other: the samples of all would take twice the memory of the
    files.
    """
    return {_name(file): function(_samples(file, data), _RATE) for file, data in files.items()}


def _name(file: str) -> _Name:
    digit, speaker, number = file.removesuffix(".wav").split("_")
    return int(number), speaker, int(digit)


def _samples(file: str, data: bytes) -> np.ndarray:
    with naming(file):
        samples, rate = parse_wav(data)
        if rate != _RATE:
            raise CorruptionError(f"has {rate} samples a second where {_RATE} are expected")
    return samples
