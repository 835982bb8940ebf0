"""Small data sets as they should be, and the blocks of tar archives by hand; for
`benchmarks.malicious`.
"""

import gzip
import hashlib
import io
import itertools
import lzma
import pickle
import struct
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 512


@dataclass(frozen=True)
class Attack:
    """A data folder, and the loader that is to read it.

    Attributes:
        kind: what the table calls it.
        name: which of its kind it is.
        loader: a key of `LOADERS`.
        files: what the folder holds, by path: bytes, or what makes the path.
        expected: the content that the loader is told to expect.
        honest: how many bytes an honest archive unpacks to.
    """

    kind: str
    name: str
    loader: str
    files: Mapping[str, bytes | Callable[[Path], object]]
    expected: Any
    honest: int


@dataclass(frozen=True)
class Honest:
    """A small data set as it should be, and the archive it comes in."""

    loader: str
    archive: str
    files: dict[str, bytes]
    expected: Any
    prefix: str
    packed: dict[str, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.members()) + 2 * BLOCK

    def members(self, names: Sequence[str] | None = None, prefix: str | None = None) -> bytes:
        chosen = [*self.files] if names is None else names
        start = self.prefix if prefix is None else prefix
        return b"".join(member(start + name, self.files[name]) for name in chosen)

    def packing(self, packing: str, part: str) -> bytes:
        """All files, none, all but the last, or the last one, packed."""
        if (key := f"{packing} {part}") not in self.packed:
            chosen = {
                "all": slice(None),
                "none": slice(0),
                "most": slice(-1),
                "last": slice(-1, None),
            }[part]
            self.packed[key] = PACKINGS[packing](self.members([*self.files][chosen]))
        return self.packed[key]

    def attack(self, kind: str, name: str, archive: bytes, packing: str) -> Attack:
        suffix = ".xz" if packing == "xz" else ".gz"
        return Attack(
            kind, name, self.loader, {self.archive + suffix: archive}, self.expected, self.size
        )


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": lambda data: gzip.compress(data, 1, mtime=0),
    "xz": lambda data: lzma.compress(data, preset=0),
}


def honest_cifar(size: int) -> Honest:
    """Six batches of noise, as CIFAR-10 has."""
    draws, rows = np.random.default_rng(0), size // 6 // 3072
    names = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
    files = {
        name: batch(
            draws.integers(0, 256, (rows, 3072), np.uint8), [row % 10 for row in range(rows)]
        )
        for name in names
    }
    return Honest(
        "cifar10", "cifar-10-python.tar", files, contents_of(files), "cifar-10-batches-py/"
    )


def batch(pixels: object, labels: object, protocol: int = 4) -> bytes:
    return pickle.dumps({b"data": pixels, b"labels": labels}, protocol)


def honest_imdb(size: int) -> Honest:
    """Some hundred long reviews of letters."""
    count, draws = 200, np.random.default_rng(1)
    letters = draws.integers(97, 123, (count, size // count), np.uint8)
    parts = list(itertools.product(("train", "test"), ("neg", "pos")))
    files = {
        f"{part}/{kind}/{row}_{1 + 6 * (kind == 'pos')}.txt": b""
        for row in range(count // 4)
        for part, kind in parts
    }
    files = {name: row.tobytes() for name, row in zip(files, letters, strict=True)}
    pattern = r"(?:train|test)/(?:neg|pos)/[0-9]+_[0-9]+\.txt"
    return Honest("imdb", "aclImdb_v1.tar", files, collection_of(pattern, files), "aclImdb/")


def honest_sounds(size: int) -> Honest:
    """Some hundred recordings of noise."""
    names = [
        f"{digit}_{speaker}_{number}.wav"
        for digit in range(10)
        for speaker in ("ann", "bob")
        for number in range(20)
    ]
    draws = np.random.default_rng(2)
    files = {
        name: recording(draws.integers(-9999, 9999, size // len(names) // 2)) for name in names
    }
    archive = "free-spoken-digit-dataset.tar"
    return Honest(
        "spoken_digits",
        archive,
        files,
        collection_of(r"[0-9]_[a-z]+_[0-9]+\.wav", files),
        "set/recordings/",
    )


def recording(samples: np.ndarray, rate: int = 8000) -> bytes:
    packed = io.BytesIO()
    with wave.open(packed, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    return packed.getvalue()


def honest_digits(size: int) -> dict[str, bytes]:
    """Four IDX files."""
    draws, files = np.random.default_rng(3), {}
    for part, rows in (("train", size // 784 // 2), ("t10k", size // 784 // 2)):
        files[f"{part}-images-idx3-ubyte"] = idx((rows, 28, 28), draws.bytes(rows * 784))
        files[f"{part}-labels-idx1-ubyte"] = idx(
            (rows,), bytes(row % 10 for row in range(rows))
        )
    return files


def idx(shape: Sequence[int], data: bytes, kind: int = 8) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, kind, len(shape), *shape) + data


def contents_of(files: Mapping[str, bytes]) -> list[tuple[str, int, str]]:
    return [(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()]


def collection_of(pattern: str, files: Mapping[str, bytes]) -> tuple[str, int, int, str]:
    lines = "".join(
        f"{name} {size} {digest}\n" for name, size, digest in sorted(contents_of(files))
    )
    return (
        pattern,
        len(files),
        sum(map(len, files.values())),
        hashlib.sha256(lines.encode()).hexdigest(),
    )


def header(
    name: str | bytes,
    size: int | bytes = 0,
    kind: bytes = b"0",
    link: str | bytes = b"",
    ending: bytes = bytes(12),
) -> bytes:
    """One block that announces a member, with whatever is put into its fields."""
    field_of_size = size if isinstance(size, bytes) else b"%011o\0" % size
    raw = b"".join(
        (
            _bytes(name)[:100].ljust(100, b"\0"),
            b"0000644\0",
            b"0000000\0" * 2,
            field_of_size,
            b"00000000000\0",
            b" " * 8,
            kind,
        )
    )
    raw += _bytes(link)[:100].ljust(100, b"\0") + b"ustar\x0000" + bytes(235) + ending
    return raw[:148] + b"%06o\0 " % sum(raw) + raw[156:]


def member(
    name: str | bytes, data: bytes = b"", kind: bytes = b"0", link: str | bytes = b""
) -> bytes:
    """A header, with one more before it where the name is long, and the content."""
    return (
        _long(name, b"L")
        + _long(link, b"K")
        + header(name, len(data), kind, link)
        + padded(data)
    )


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def pax(records: Mapping[str, str | bytes] | bytes, kind: bytes = b"x") -> bytes:
    """An extended header of the given records."""
    data = (
        records
        if isinstance(records, bytes)
        else b"".join(pax_record(*record) for record in records.items())
    )
    return member("pax", data, kind)


def pax_record(keyword: str, value: str | bytes) -> bytes:
    body = b" %s=%s\n" % (_bytes(keyword), _bytes(value))
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length += 1
    return str(length).encode() + body


def _long(name: str | bytes, kind: bytes) -> bytes:
    data = _bytes(name)
    return (
        header("././@LongLink", len(data) + 1, kind) + padded(data + b"\0")
        if len(data) > 100
        else b""
    )


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
