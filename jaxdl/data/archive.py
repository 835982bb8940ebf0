"""Reads files that must have a known content, plain or compressed, alone or in a tar archive.

Nothing is unpacked to disk, nothing past the expected size is decompressed, and what a file is
packed in is read from its first bytes rather than from its name.
"""

import gzip
import hashlib
import io
import lzma
import os
import re
import stat
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NoReturn, Protocol, runtime_checkable

from jaxdl.data.error import Damage, excerpt

_CHUNK = 1 << 16
_BESIDE = 1 << 20  # bytes that an archive may hold beside what is wanted of it
_SMALL_CHUNK = 1 << 14  # room for as much is set aside for each of thousands of small files
_LONGEST_NAME = 255  # letters, of folders and file together: names are kept in memory
_LONGEST_HEADERS = (
    1 << 15
)  # bytes that announce one file; two of the longest paths that Linux allows take 8 KiB
_MOST_GLOBALS = 64  # statements about all files of an archive; Git writes one
_XZ_MEMORY = 80 << 20  # `xz -9` needs 65 MiB; a header may ask for 4 GiB
_BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError, tarfile.TarError)
_BROKEN_HEADERS = (
    *_BROKEN,
    ValueError,
    LookupError,
    ArithmeticError,
    RecursionError,
)  # tarfile trusts what it parses


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


@dataclass(frozen=True)
class Collection:
    """Many files as they must be once unpacked, under one digest, wherever their folder lies and
    whatever lies beside them.

    Attributes:
        pattern: a regular expression for the name of each, with as many of its folders as tell it
            from the others.
        count: how many there are.
        size: how many bytes they have together.
        sha256: the digest, in hexadecimal, of the lines `NAME SIZE SHA-256` of all files, in the
            order of their names.
    """

    pattern: str
    count: int
    size: int
    sha256: str

    @classmethod
    def of(cls, pattern: str, files: Mapping[str, bytes]) -> "Collection":
        """The collection that these files are."""
        contents = (Content.of(name, files[name]) for name in sorted(files))
        lines = "".join(f"{content.name} {content.size} {content.sha256}\n" for content in contents)
        return cls(
            pattern,
            len(files),
            sum(map(len, files.values())),
            hashlib.sha256(lines.encode()).hexdigest(),
        )


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
    """Yields name and bytes of members of a tar archive (plain, gzip or xz), or of a folder that
    holds them unpacked.

    Args:
        path: the archive or the folder.
        contents: the members wanted, by their bare names, wherever in the archive they lie; others
            are passed over, and an archive is read no further than to the last one wanted.

    Raises:
        Damage: if a member is missing or not as expected, or if the archive is broken.
    """
    return _read_folder(path, contents) if path.is_dir() else _read_tar(path, contents)


def read_collection(
    path: Path, collection: Collection, limit: int, *copies: Collection
) -> dict[str, bytes]:
    """Reads all files of a collection from a tar archive (plain, gzip or xz), in one pass, or from
    their unpacked folder.

    Args:
        path: the archive or the folder.
        collection: the files; others are passed over, and an archive is read no further than to the
            last of them.
        limit: the most bytes that the archive may unpack to.
        copies: what else the collection may be, of the same pattern and count.

    Returns:
        The bytes of each file by its name, in the order of their names.

    Raises:
        Damage: if there are fewer files than expected, or others, or if the archive is broken.
    """
    wanted = re.compile(rf"(?:.*/)?({collection.pattern})")
    files: dict[str, bytes] = {}
    left = max(accepted.size for accepted in (collection, *copies))
    for name, stream in (
        _folder_files(path, wanted) if path.is_dir() else _tar_files(path, wanted, limit)
    ):
        with stream, naming(name):
            files[name] = _read_rest(stream, left)
        left -= len(files[name])
        if len(files) == collection.count:
            break
    if len(files) != collection.count:
        raise Damage(f"holds {len(files)} of the {collection.count} files that are expected")
    found = Collection.of(collection.pattern, files)
    if found not in (collection, *copies):
        was, expected = (
            f"{one.size} bytes and SHA-256 {one.sha256[:12]}…" for one in (found, collection)
        )
        raise Damage(f"is altered (its {found.count} files have {was}, expected {expected})")
    return {name: files[name] for name in sorted(files)}


def _folder_files(folder: Path, wanted: re.Pattern[str]) -> Iterator[tuple[str, IO[bytes]]]:
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            if match := wanted.fullmatch(path.relative_to(folder).as_posix()):
                try:
                    with naming(match[1]):
                        stream = open_regular(path)
                except OSError as error:
                    raise Damage(
                        f"has a {match[1]!r} that cannot be read ({_reason(error)})"
                    ) from error
                yield match[1], stream


def _tar_files(path: Path, wanted: re.Pattern[str], limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    for name, stream in _regular_members(path, limit):
        if (match := wanted.fullmatch(name)) and len(match[1]) <= _LONGEST_NAME:
            yield match[1], stream


def _regular_members(path: Path, limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each regular file of a tar archive, to be read before the next; links and
    devices are nothing.
    """
    try:
        with (
            _open_plain(path) as stream,
            tarfile.open(fileobj=_Limited(stream, limit), mode="r|", tarinfo=_Header) as archive,
        ):
            while member := archive.next():
                archive.members.clear()  # type: ignore[attr-defined]  # else it keeps the headers of all
                if len(archive.pax_headers) > _MOST_GLOBALS or member.size < 0:
                    raise Damage("has headers that no honest archive has")
                if member.isreg() and (file := archive.extractfile(member)):
                    yield member.name, file
    except Damage:
        raise
    except _BROKEN_HEADERS as error:
        raise Damage(f"is no tar archive, or a broken one ({_reason(error)})") from error


def _read_rest(stream: _Readable, most: int) -> bytes:
    whole, came = io.BytesIO(), 0
    try:
        while chunk := stream.read(min(_SMALL_CHUNK, most + 1 - came)):
            came += whole.write(chunk)
    except _BROKEN as error:
        raise Damage(f"breaks off after {came} bytes ({_reason(error)})") from error
    if came > most:
        raise Damage("makes the whole longer than is expected of it")
    return whole.getvalue()


def _read_folder(folder: Path, contents: Sequence[Content]) -> Iterator[tuple[str, bytes]]:
    _require(content.name for content in contents if not (folder / content.name).is_file())
    for content in contents:
        with naming(content.name):
            data = read_file(folder / content.name, content)
        yield content.name, data


def _read_tar(path: Path, contents: Sequence[Content]) -> Iterator[tuple[str, bytes]]:
    wanted = {content.name: content for content in contents}
    limit = sum(content.size for content in contents) + _BESIDE
    for name, stream in _regular_members(path, limit):
        if content := wanted.pop(PurePosixPath(name).name, None):
            with stream, naming(content.name):
                data = _read_stream(stream, content)
            yield content.name, data
            del data  # it may be needed no more
        if not wanted:
            break
    _require(wanted)


def _read_stream(stream: _Readable, content: Content) -> bytes:
    whole, came = io.BytesIO(), 0  # a list of chunks would be held twice while it is joined
    try:
        while chunk := stream.read(min(_CHUNK, content.size + 1 - came)):
            came += whole.write(chunk)
    except _BROKEN as error:
        raise Damage(
            f"breaks off after {came} of {content.size} bytes ({_reason(error)})"
        ) from error
    if came != content.size:
        raise Damage(
            f"holds {came if came < content.size else 'more'} bytes where {content.size} are "
            f"expected"
        )
    data = whole.getvalue()
    found = Content.of(content.name, data)
    if found != content:
        raise Damage(
            f"is altered (its content has SHA-256 {found.sha256[:12]}…, expected "
            f"{content.sha256[:12]}…)"
        )
    return data


def open_regular(path: Path) -> io.BufferedReader:
    """Opens a file for reading.

    Raises:
        Damage: if it is a pipe or a device, which might keep a reader waiting, or have no end.
        OSError: if it cannot be opened.
    """
    kind = path.stat().st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise Damage("is a pipe or a device, where a file is expected")
    return path.open("rb")


def _open_plain(path: Path) -> io.IOBase:
    with open_regular(path) as file:
        magic = file.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(path)
    return _Xz(path) if magic == b"\xfd7zXZ\x00" else path.open("rb")


class _Xz(io.RawIOBase):
    """What an xz file unpacks to; unlike in `lzma.open`, its header may ask for no more than some
    memory.
    """

    def __init__(self, path: Path):
        self._file, self._unpacker, self._packed = path.open("rb"), _xz_unpacker(), b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        while not self._unpacker.eof or self._next_stream():
            if self._unpacker.needs_input and not self._packed:
                self._packed = self._file.read(_SMALL_CHUNK)
                if not self._packed:
                    raise EOFError("it ends too soon")
            data, self._packed = self._unpacker.decompress(self._packed, size), b""
            if data or not size:
                return data
        return b""

    def close(self) -> None:
        self._file.close()
        io.RawIOBase.close(self)

    def _next_stream(self) -> bool:
        """Goes on with the stream that lies behind the one at its end, and behind its padding with
        zeros.
        """
        self._packed = self._unpacker.unused_data.lstrip(b"\0")
        while not self._packed:
            if not (padding := self._file.read(_SMALL_CHUNK)):
                return False
            self._packed = padding.lstrip(b"\0")
        self._unpacker = _xz_unpacker()
        return True


def _xz_unpacker() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


class _Header(tarfile.TarInfo):
    """A header as honest archives have them; tarfile's own believes in any length, and keeps a list
    of a file's holes.
    """

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        kinds = (
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
        )
        announced = self.offset - archive.offset + self.size
        if self.size < 0 or (self.type in kinds and announced > _LONGEST_HEADERS):
            raise Damage(
                f"has headers of {announced} bytes for one file, where at most {_LONGEST_HEADERS} "
                f"are expected"
            )
        return super()._proc_member(archive)  # type: ignore[misc]

    def _proc_sparse(self, *_: object) -> NoReturn:
        raise Damage("has a file with holes, which are not read")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _proc_sparse


class _Limited(io.RawIOBase):
    """A stream that refuses to give more than a number of bytes, whatever an archive's headers
    claim.
    """

    def __init__(self, stream: io.IOBase, limit: int):
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
    return excerpt(getattr(error, "strerror", None) or error) or type(error).__name__
