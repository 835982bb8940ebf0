"""Downloads of files that must have a known content, and are kept only when they have it."""

import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from jaxdl.data.error import CorruptionError, DataError
from jaxdl.data.transfer import PartialFile, Remote, fetch

Result = TypeVar("Result")


def obtain(
    candidates: Sequence[Path], read: Callable[[Path], Result], remote: Remote
) -> Result:
    """Reads the first of several files that exists and is good; where none exists, downloads it.

    Args:
        candidates: paths that the file may have, the preferred one first.
        read: reads the file of a path; raises `CorruptionError` if it is not as it should be.
        remote: the file to download.

    Returns:
        What `read` returns.

    Raises:
        DataError: files exist and none is good, or none exists and it cannot be downloaded.
    """
    faults = []
    for path in filter(os.path.exists, candidates):
        try:
            return read(path)
        except CorruptionError as error:
            faults.append(f"{path.name!r} in {path.parent} {error}")
    if faults:
        what = f"{remote.owner}: {'; '.join(faults)}"
        raise DataError(
            f"{what} — delete it so that it is downloaded again, or put the official one there."
        )
    return download(read, remote)


def download(read: Callable[[Path], Result], remote: Remote) -> Result:
    """Downloads a file, reads it, and keeps it if reading finds nothing wrong.

    The bytes are written to `NAME.part`, from the first of the URLs that works; an interrupted
    transfer is resumed, in this call or in a later one. `NAME` appears only when it is complete and
    good. Of several processes that need the file at once, one downloads and the others wait.

    Args:
        read: reads the file of a path; raises `CorruptionError` if it is not as it should be.
        remote: the file.

    Returns:
        What `read` returns.

    Raises:
        DataError: it cannot be downloaded or written, or is not as it should be.
    """
    target = remote.target
    with _disk(remote):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            # Another process was faster.
            if target.exists():
                return obtain([target], read, remote)
            part = PartialFile(target.with_name(target.name + ".part"))
            url = fetch(remote, part)
            result = _accepted(read, remote, part, url)
            os.replace(part.path, target)
            part.remove()
            return result


def _accepted(
    read: Callable[[Path], Result],
    remote: Remote,
    part: PartialFile,
    url: str,
) -> Result:
    """Reads a downloaded file, and deletes it where it is not as it should be."""
    try:
        return read(part.path)
    except CorruptionError as error:
        part.remove()
        raise DataError(
            f"{remote.owner}: {remote.target.name!r}, as downloaded from {url}, {error} — it was "
            "thrown away; call again, and if that does not help, put the official file into "
            f"{remote.target.parent} by hand."
        ) from error


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Holds the lock of a file that is downloaded, and waits for another process that does."""
    from filelock import FileLock, Timeout

    path = target.with_name(target.name + ".lock")
    if path.is_symlink() or (path.exists() and path.stat().st_nlink > 1):
        # Some versions of filelock would empty the file that it leads to.
        path.unlink()
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(
            f"jaxdl: waiting for another process that is downloading {target.name}",
            file=sys.stderr,
        )
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _disk(remote: Remote) -> Iterator[None]:
    """Turns errors of the disk into a sentence; those of the network have become `DataError`s."""
    try:
        yield
    except OSError as error:
        folder = remote.target.parent
        advice = f"make {folder} writable"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            advice = "free some space (what came so far is kept)"
        what = f"{remote.owner}: cannot write into {folder} ({error.strerror or error})"
        raise DataError(f"{what} — {advice}, or let JAXDL_DATA name another folder.") from error
