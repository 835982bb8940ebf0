"""Spoken digits: the loader on a small archive of tones, and the real recordings where they are."""

import gzip
import io
import lzma
import os
import tarfile
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxdl import data
from jaxdl.data.content import Collection
from jaxdl.data.error import DataError
from jaxdl.data.spoken_digits import _FORMS, _RECORDINGS, Features, read_spoken_digits

REAL = [Path(os.environ.get("JAXDL_DATA", ""), form) for form in _FORMS]


def recording(digit: int, number: int, rate: int = 8000) -> bytes:
    samples = np.sin(2 * np.pi * (300 + 300 * digit) * np.arange(600 + 40 * number) / 8000)
    samples += 0.1 * np.random.default_rng(number).normal(size=len(samples))
    packed = io.BytesIO()
    with wave.open(packed, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((10_000 * samples).astype("<i2").tobytes())
    return packed.getvalue()


NAMES = [
    (digit, speaker, number)
    for digit in range(3)
    for speaker in ("ann", "bob")
    for number in (0, 4, 5, 10, 49)
]
FILES = {
    f"{digit}_{speaker}_{number}.wav": recording(digit, number)
    for digit, speaker, number in NAMES
}
EXPECTED = Collection.of(_RECORDINGS.pattern, FILES)


def archive(
    files: dict[str, bytes], folder: str = "free-spoken-digit-dataset-1.0.10/recordings/"
) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as file:
        for name, content in {"../README.md": b"hello", **files}.items():
            member = tarfile.TarInfo(folder + name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def unpacked(folder: Path, into: str) -> None:
    (folder / into).mkdir(parents=True)
    for name, content in FILES.items():
        (folder / into / name).write_bytes(content)


PLACED = {
    "recordings": lambda folder: unpacked(folder, "recordings"),
    "clone": lambda folder: unpacked(folder, "free-spoken-digit-dataset/recordings"),
    "gz": lambda folder: (folder / "free-spoken-digit-dataset.tar.gz").write_bytes(
        gzip.compress(archive(FILES))
    ),
    "xz": lambda folder: (folder / "free-spoken-digit-dataset.tar.xz").write_bytes(
        lzma.compress(archive(FILES, "recordings/"))
    ),
}


@pytest.mark.parametrize("place", PLACED.values(), ids=PLACED)
def test_the_first_five_numbers_are_the_tests(tmp_path: Path, place: Callable[[Path], object]):
    place(tmp_path)
    train, test = read_spoken_digits(tmp_path, EXPECTED, (), "mfcc")
    assert (train[0].shape, test[0].shape) == ((18, 100, 10), (12, 100, 10))
    assert (train[0].dtype, train[1].dtype) == (np.float32, np.int32)
    assert train[1].tolist() == [0, 1, 2] * 6  # by number, then speaker, then digit
    assert test[1].tolist() == [0, 1, 2] * 4


@pytest.mark.parametrize("features", ["mfcc", "log_mel"])
def test_features_are_standardised_by_the_training_part(tmp_path: Path, features: Features):
    unpacked(tmp_path, "recordings")
    (train, _), (test, _) = read_spoken_digits(tmp_path, EXPECTED, (), features)
    function = {"mfcc": data.mfcc, "log_mel": data.log_mel}[features]
    numbers = {True: (0, 4), False: (5, 10, 49)}
    raw = {
        tested: np.stack(
            [
                function(
                    data.read_wav(tmp_path / "recordings" / f"{digit}_{speaker}_{number}.wav")
                )
                for number in numbers[tested]
                for speaker in ("ann", "bob")
                for digit in range(3)
            ]
        ).astype(np.float64)
        for tested in (True, False)
    }
    mean, deviation = raw[False].mean((0, 1)), raw[False].std((0, 1))
    np.testing.assert_allclose(train, (raw[False] - mean) / deviation, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(test, (raw[True] - mean) / deviation, rtol=1e-5, atol=1e-5)


def test_a_missing_archive_is_downloaded_once(server, tmp_path: Path):
    url = server.add("v1.0.10.tar.gz", gzip.compress(archive(FILES)))
    parts = [read_spoken_digits(tmp_path, EXPECTED, (url,), "log_mel") for _ in range(2)]
    assert [len(train[1]) for train, _ in parts] == [18, 18]
    assert len(server.requests) == 1
    assert (tmp_path / "free-spoken-digit-dataset.tar.gz").is_file()


def test_an_altered_recording_is_refused(tmp_path: Path):
    unpacked(tmp_path, "recordings")
    (tmp_path / "recordings" / "0_ann_5.wav").write_bytes(FILES["1_ann_5.wav"])
    with pytest.raises(
        DataError,
        match=rf"^spoken_digits: 'recordings' in {tmp_path} is altered .* — delete it",
    ):
        read_spoken_digits(tmp_path, EXPECTED, (), "mfcc")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (recording(0, 0, rate=16000), "has 16000 samples a second where 8000 are expected"),
        (recording(0, 0)[:-2], "holds 1198 bytes of sound where its header promises 1200"),
        (b"", "is no WAV file"),
    ],
    ids=["another rate", "short", "empty"],
)
def test_a_recording_of_another_kind_is_named(tmp_path: Path, content: bytes, sentence: str):
    files = FILES | {"0_ann_0.wav": content}
    (tmp_path / "free-spoken-digit-dataset.tar.gz").write_bytes(archive(files))
    with pytest.raises(DataError, match=rf"has a '0_ann_0.wav' that {sentence}"):
        read_spoken_digits(tmp_path, Collection.of(_RECORDINGS.pattern, files), (), "mfcc")


def test_recordings_that_are_not_the_official_ones_and_unknown_features_are_refused(
    tmp_path: Path, unchecked: None
):
    unpacked(tmp_path, "recordings")
    with pytest.raises(
        DataError,
        match=f"'recordings' in {tmp_path} holds 30 of the 3000 files that are expected",
    ):
        data.spoken_digits(tmp_path)
    unknown: Features = "spectrum"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="features are 'mfcc' or 'log_mel', got 'spectrum'"):
        data.spoken_digits(tmp_path, features=unknown)


@pytest.mark.slow
@pytest.mark.skipif(
    not any(path.exists() for path in REAL), reason="the spoken digits are not in JAXDL_DATA"
)
@pytest.mark.once
def test_the_real_recordings():
    (train, labels), (test, test_labels) = data.spoken_digits()
    assert (train.shape, test.shape) == ((2700, 100, 10), (300, 100, 10))
    assert np.bincount(labels).tolist() == [270] * 10
    assert np.bincount(test_labels).tolist() == [30] * 10
    np.testing.assert_allclose(train.mean((0, 1), np.float64), 0, atol=1e-5)
    np.testing.assert_allclose(train.std((0, 1), np.float64), 1, rtol=1e-5)
    known, asked = train[:, ::4].reshape(2700, -1), test[:, ::4].reshape(300, -1)
    nearest = ((known**2).sum(1)[None] - 2 * asked @ known.T).argmin(1)
    assert (labels[nearest] == test_labels).mean() > 0.85
