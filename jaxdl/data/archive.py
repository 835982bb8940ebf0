"""Reads files that must have a known content, plain or compressed, alone or in a tar archive.

Nothing is unpacked to disk, nothing past the expected size is decompressed, and what a file is packed in is read from its
first bytes rather than from its name.
"""

import gzip
import hashlib
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

from jaxdl.data.error import Damage

_CHUNK = 1 << 20
_BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError, tarfile.TarError)


@dataclass(frozen=True)
class Content:
    """One file as it must be once decompressed, whatever it came packed in.

    Attributes:
        name: the file's own name, without folder or compression suffix.
        size: its length in bytes.
        sha256: its digest, in hexadecimal.
    """

    name: str
    size: int
    sha256: str

    @classmethod
    def of(cls, name: str, data: bytes) -> "Content":
        """The content that these bytes are."""
        return cls(name, len(data), hashlib.sha256(data).hexdigest())


@runtime_checkable
class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_file(path: Path, content: Content) -> bytes:
    """Reads a plain, gzip or xz file that must have the given content.

    Args:
        path: the file.
        content: what it must hold once decompressed.

    Raises:
        Damage: if it cannot be read or decompressed, or is shorter, longer or other than expected.
    """
    try:
        with _open_plain(path) as stream:
            return _read_stream(stream, content)
    except OSError as error:
        raise Damage(f"cannot be read ({_reason(error)})") from error


def read_members(path: Path, contents: Sequence[Content]) -> Iterator[tuple[str, bytes]]:
    """Yields name and bytes of members of a tar archive (plain, gzip or xz), or of a folder that holds them unpacked.

    Args:
        path: the archive or the folder.
        contents: the members wanted, by their bare names, wherever in the archive they lie; others are passed over,
            and an archive is read no further than to the last one wanted.

    Raises:
        Damage: if a member is missing or not as expected, or if the archive is broken.
    """
    return _read_folder(path, contents) if path.is_dir() else _read_tar(path, contents)


def _read_folder(folder: Path, contents: Sequence[Content]) -> Iterator[tuple[str, bytes]]:
    _require(content.name for content in contents if not (folder / content.name).is_file())
    for content in contents:
        with naming(content.name):
            data = read_file(folder / content.name, content)
        yield content.name, data


def _read_tar(path: Path, contents: Sequence[Content]) -> Iterator[tuple[str, bytes]]:
    wanted = {content.name: content for content in contents}
    limit = sum(content.size for content in contents) + _CHUNK
    try:
        with _open_plain(path) as stream, tarfile.open(fileobj=_Limited(stream, limit), mode="r|") as archive:
            while wanted and (member := archive.next()):
                content = wanted.get(PurePosixPath(member.name).name)
                if content and member.isreg():
                    yield content.name, _read_member(archive, member, content)
                    del wanted[content.name]
    except _BROKEN as error:
        raise Damage(f"is no tar archive, or a broken one ({_reason(error)})") from error
    _require(wanted)


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo, content: Content) -> bytes:
    stream = archive.extractfile(member)
    assert stream is not None  # a regular member always has one
    with stream, naming(content.name):
        return _read_stream(stream, content)


def _read_stream(stream: _Readable, content: Content) -> bytes:
    chunks, came = [], 0
    try:
        while chunk := stream.read(min(_CHUNK, content.size + 1 - came)):
            chunks.append(chunk)
            came += len(chunk)
    except _BROKEN as error:
        raise Damage(f"breaks off after {came} of {content.size} bytes ({_reason(error)})") from error
    if came != content.size:
        raise Damage(f"holds {came if came < content.size else 'more'} bytes where {content.size} are expected")
    data = b"".join(chunks)
    found = Content.of(content.name, data)
    if found != content:
        raise Damage(f"is altered (its content has SHA-256 {found.sha256[:12]}…, expected {content.sha256[:12]}…)")
    return data


def _open_plain(path: Path) -> io.BufferedIOBase:
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(path)
    return lzma.open(path) if magic == b"\xfd7zXZ\x00" else path.open("rb")


class _Limited(io.RawIOBase):
    """A stream that refuses to give more than a number of bytes, whatever an archive's headers claim."""

    def __init__(self, stream: io.BufferedIOBase, limit: int):
        self._stream, self._left = stream, limit

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise Damage("unpacks to far more than is expected of it")
        return data


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Says of which member of an archive or folder the `Damage` is that is raised within."""
    try:
        yield
    except Damage as damage:
        raise Damage(f"has a {name!r} that {damage}") from damage.__cause__


def _require(missing: Iterable[str]) -> None:
    if names := ", ".join(map(repr, missing)):
        raise Damage(f"lacks {names}")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
