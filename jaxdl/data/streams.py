"""Files as streams of what they hold once decompressed, with limits that no file can pass."""

import gzip
import io
import lzma
import stat
import tarfile
from pathlib import Path
from typing import NoReturn

from jaxdl.data.error import CorruptionError

_CHUNK = 1 << 14
# Bytes that announce one file; two of the longest paths that Linux allows take 8 KiB.
_LONGEST_HEADERS = 1 << 15
# `xz -9` needs 65 MiB; a header may claim 4 GiB.
_XZ_MEMORY = 80 << 20


def open_regular(path: Path) -> io.BufferedReader:
    """Opens a file for reading.

    Raises:
        CorruptionError: it is a pipe or a device, which might keep a reader waiting, or have no
            end.
        OSError: it cannot be opened.
    """
    kind = path.stat().st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise CorruptionError("is a pipe or a device, where a file is expected")
    return path.open("rb")


def open_decompressed(path: Path) -> io.IOBase:
    """Opens a plain, gzip or xz file, by its first bytes, for reading what it holds.

    Raises:
        CorruptionError: it is a pipe or a device.
        OSError: it cannot be opened.
    """
    with open_regular(path) as file:
        magic = file.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(path)
    if magic == b"\xfd7zXZ\x00":
        return XzStream(path)
    return path.open("rb")


class XzStream(io.RawIOBase):
    """The content of an xz file; unlike in `lzma.open`, its header may claim only some memory."""

    def __init__(self, path: Path):
        self._file = path.open("rb")
        self._unpacker = _xz_unpacker()
        self._packed = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        while not self._unpacker.eof or self._next_stream():
            if self._unpacker.needs_input and not self._packed:
                self._packed = self._file.read(_CHUNK)
                if not self._packed:
                    raise EOFError("it ends too soon")
            data = self._unpacker.decompress(self._packed, size)
            self._packed = b""
            if data or not size:
                return data
        return b""

    def close(self) -> None:
        self._file.close()
        io.RawIOBase.close(self)

    def _next_stream(self) -> bool:
        """Continues with the stream behind the one that has ended, and behind its zero padding."""
        self._packed = self._unpacker.unused_data.lstrip(b"\0")
        while not self._packed:
            padding = self._file.read(_CHUNK)
            if not padding:
                return False
            self._packed = padding.lstrip(b"\0")
        self._unpacker = _xz_unpacker()
        return True


def _xz_unpacker() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


class LimitedHeader(tarfile.TarInfo):
    """A header of limited length; tarfile's may have any, and lists the holes of sparse files."""

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
            raise CorruptionError(
                f"has headers of {announced} bytes for one file, where at most {_LONGEST_HEADERS} "
                f"are expected"
            )
        return super()._proc_member(archive)  # type: ignore[misc]

    def _proc_sparse(self, *_: object) -> NoReturn:
        raise CorruptionError("has a file with holes, which are not read")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _proc_sparse


class LimitedStream(io.RawIOBase):
    """A stream of at most a number of bytes, whatever an archive's headers claim."""

    def __init__(self, stream: io.IOBase, limit: int):
        self._stream = stream
        self._left = limit

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise CorruptionError("unpacks to far more than is expected of it")
        return data
