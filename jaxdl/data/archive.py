"""Reads files that must have a known content, plain or compressed, alone or in a tar archive.

Nothing is unpacked to disk, nothing past the expected size is decompressed, and the compression of
a file is recognised by its first bytes rather than by its name.
"""

import io
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, runtime_checkable

from jaxdl.data.content import Collection, Content
from jaxdl.data.error import CorruptionError, excerpt
from jaxdl.data.streams import (
    LimitedHeader,
    LimitedStream,
    open_decompressed,
    open_regular,
)

_CHUNK = 1 << 16
# Bytes that an archive may hold beside what is wanted of it.
_BESIDE = 1 << 20
# So much memory is reserved for each of thousands of small files.
_SMALL_CHUNK = 1 << 14
# Letters, of folders and file together: names are kept in memory.
_LONGEST_NAME = 255
# Statements about all files of an archive; Git writes one.
_MOST_GLOBALS = 64
_BROKEN = (
    EOFError,
    OSError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
)
# What tarfile raises, which trusts what it parses.
_BROKEN_HEADERS = (
    *_BROKEN,
    ValueError,
    LookupError,
    ArithmeticError,
    RecursionError,
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
        CorruptionError: it cannot be read or decompressed, or is shorter, longer or other than
            expected.
    """
    try:
        with open_decompressed(path) as stream:
            return _read_stream(stream, content)
    except OSError as error:
        raise CorruptionError(f"cannot be read ({_reason(error)})") from error


def read_members(path: Path, contents: Sequence[Content]) -> Iterator[tuple[str, bytes]]:
    """Yields name and bytes of members of a tar archive, or of a folder that holds them unpacked.

    Args:
        path: the archive (plain, gzip or xz) or the folder.
        contents: the members wanted, by their bare names, wherever in the archive they lie; others
            are skipped, and an archive is read no further than to the last one wanted.

    Raises:
        CorruptionError: a member is missing or not as expected, or the archive is broken.
    """
    if path.is_dir():
        return _read_folder(path, contents)
    return _read_tar(path, contents)


def read_collection(
    path: Path, collection: Collection, limit: int, *copies: Collection
) -> dict[str, bytes]:
    """Reads all files of a collection from a tar archive, in one pass, or from their folder.

    Args:
        path: the archive (plain, gzip or xz) or the folder.
        collection: the files; others are skipped, and an archive is read no further than to the
            last of them.
        limit: the largest size of the unpacked archive, in bytes.
        *copies: further collections that are accepted, of the same pattern and count.

    Returns:
        The bytes of each file by its name, in the order of their names.

    Raises:
        CorruptionError: there are fewer files than expected, or others, or the archive is broken.
    """
    accepted = (collection, *copies)
    wanted = re.compile(rf"(?:.*/)?({collection.pattern})")
    files: dict[str, bytes] = {}
    left = max(each.size for each in accepted)
    for name, stream in _wanted_files(path, wanted, limit):
        with stream, naming(name):
            files[name] = _read_rest(stream, left)
        left -= len(files[name])
        if len(files) == collection.count:
            break
    if len(files) != collection.count:
        raise CorruptionError(
            f"holds {len(files)} of the {collection.count} files that are expected"
        )
    found = Collection.of(collection.pattern, files)
    if found not in accepted:
        raise CorruptionError(
            f"is altered (its {found.count} files have {_described(found)}, expected "
            f"{_described(collection)})"
        )
    return {name: files[name] for name in sorted(files)}


def _described(collection: Collection) -> str:
    return f"{collection.size} bytes and SHA-256 {collection.sha256[:12]}…"


def _wanted_files(
    path: Path, wanted: re.Pattern[str], limit: int
) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and streams of the files of an archive or folder whose names match."""
    if path.is_dir():
        return _folder_files(path, wanted)
    return _tar_files(path, wanted, limit)


def _folder_files(folder: Path, wanted: re.Pattern[str]) -> Iterator[tuple[str, IO[bytes]]]:
    for parent, _, names in os.walk(folder):
        for file in names:
            path = Path(parent, file)
            match = wanted.fullmatch(path.relative_to(folder).as_posix())
            if match is not None:
                yield match[1], _open_named(match[1], path)


def _open_named(name: str, path: Path) -> IO[bytes]:
    """Opens a file of a folder, with errors about the folder.

    Raises:
        CorruptionError: it cannot be opened.
    """
    try:
        with naming(name):
            return open_regular(path)
    except OSError as error:
        raise CorruptionError(
            f"has a {name!r} that cannot be read ({_reason(error)})"
        ) from error


def _tar_files(
    path: Path, wanted: re.Pattern[str], limit: int
) -> Iterator[tuple[str, IO[bytes]]]:
    for name, stream in _regular_members(path, limit):
        match = wanted.fullmatch(name)
        if match is not None and len(match[1]) <= _LONGEST_NAME:
            yield match[1], stream


def _regular_members(path: Path, limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each regular file of a tar archive, to be read before the next one.

    Links and devices are skipped.
    """
    try:
        with (
            open_decompressed(path) as stream,
            tarfile.open(
                fileobj=LimitedStream(stream, limit),
                mode="r|",
                tarinfo=LimitedHeader,
            ) as archive,
        ):
            while member := archive.next():
                # Otherwise it keeps the headers of all.
                archive.members.clear()  # type: ignore[attr-defined]
                if len(archive.pax_headers) > _MOST_GLOBALS or member.size < 0:
                    raise CorruptionError("has headers that no honest archive has")
                file = archive.extractfile(member) if member.isreg() else None
                if file is not None:
                    yield member.name, file
    except CorruptionError:
        raise
    except _BROKEN_HEADERS as error:
        raise CorruptionError(
            f"is no tar archive, or a broken one ({_reason(error)})"
        ) from error


def _read_rest(stream: _Readable, most: int) -> bytes:
    """Reads a stream of at most some bytes to its end."""
    whole = io.BytesIO()
    try:
        _copy(stream, whole, most, _SMALL_CHUNK)
    except _BROKEN as error:
        raise CorruptionError(
            f"breaks off after {whole.tell()} bytes ({_reason(error)})"
        ) from error
    if whole.tell() > most:
        raise CorruptionError("makes the whole longer than is expected of it")
    return whole.getvalue()


def _copy(stream: _Readable, whole: io.BytesIO, most: int, chunk: int) -> None:
    """Reads up to one byte more than expected; a list of chunks would be held twice when joined."""
    while data := stream.read(min(chunk, most + 1 - whole.tell())):
        whole.write(data)


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
            # Its memory may be needed for the next.
            del data
        if not wanted:
            break
    _require(wanted)


def _read_stream(stream: _Readable, content: Content) -> bytes:
    """Reads a stream that must have the given content."""
    whole = io.BytesIO()
    try:
        _copy(stream, whole, content.size, _CHUNK)
    except _BROKEN as error:
        raise CorruptionError(
            f"breaks off after {whole.tell()} of {content.size} bytes ({_reason(error)})"
        ) from error
    size = whole.tell()
    if size != content.size:
        held = "more" if size > content.size else size
        raise CorruptionError(f"holds {held} bytes where {content.size} are expected")
    data = whole.getvalue()
    found = Content.of(content.name, data)
    if found != content:
        raise CorruptionError(
            f"is altered (its content has SHA-256 {found.sha256[:12]}…, expected "
            f"{content.sha256[:12]}…)"
        )
    return data


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Names the member of an archive or folder in a `CorruptionError` that is raised within."""
    try:
        yield
    except CorruptionError as error:
        raise CorruptionError(f"has a {name!r} that {error}") from error.__cause__


def _require(missing: Iterable[str]) -> None:
    names = ", ".join(map(repr, missing))
    if names:
        raise CorruptionError(f"lacks {names}")


def _reason(error: Exception) -> str:
    return excerpt(getattr(error, "strerror", None) or error) or type(error).__name__
