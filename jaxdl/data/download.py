"""Downloads that can be broken off and gone on with, and that are kept only when they are what they
should be.
"""

import errno
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TypeVar

from jaxdl.data.error import Damage, DataError, excerpt

Result = TypeVar("Result")
_CHUNK = 1 << 16
_ATTEMPTS = 4
_TIMEOUT = 30.0  # seconds without a byte
_SLOWEST = 60.0  # seconds for a chunk
_PASSING = (408, 425, 429)  # refusals that a second try may not meet


@dataclass(frozen=True)
class Remote:
    """A file that is to be had elsewhere, and where it shall lie here.

    Attributes:
        owner: the data set that it belongs to, for messages.
        urls: where it is to be had, the best place first.
        target: where it shall lie.
        limit: the most bytes that it may have.
        pause: seconds before a second attempt; each further one waits twice as long.
    """

    owner: str
    urls: tuple[str, ...]
    target: Path
    limit: int
    pause: float = 1.0


def obtain(candidates: Sequence[Path], read: Callable[[Path], Result], remote: Remote) -> Result:
    """Reads the first of several files that is there and good; where none is there, downloads one
    and reads that.

    Args:
        candidates: where the file may lie, the best place first.
        read: what to make of a path; raises `Damage` if it is not as it should be.
        remote: the file to download.

    Raises:
        DataError: if files are there and none is good, or if none is there and it cannot be
            downloaded.
    """
    faults = []
    for path in filter(os.path.exists, candidates):
        try:
            return read(path)
        except Damage as damage:
            faults.append(f"{path.name!r} in {path.parent} {damage}")
    if faults:
        what = f"{remote.owner}: {'; '.join(faults)}"
        raise DataError(
            f"{what} — delete it so that it is downloaded again, or put the official one there."
        )
    return download(read, remote)


def download(read: Callable[[Path], Result], remote: Remote) -> Result:
    """Downloads a file, reads it, and keeps it if reading finds nothing wrong.

    The bytes come into `NAME.part`, from the first of the places that can give them; a transfer
    that breaks off is gone on with, in this call or in a later one. `NAME` appears only when it is
    whole and good. Of several processes that want the file at once, one downloads and the others
    wait for it.

    Args:
        read: what to make of the file; raises `Damage` if it is not what it should be.
        remote: the file.

    Returns:
        What `read` made of it.

    Raises:
        DataError: if it cannot be had or written, or is not what it should be.
    """
    target = remote.target
    with _disk(remote):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            if target.exists():  # another process was faster
                return obtain([target], read, remote)
            part = _Part(target.with_name(target.name + ".part"))
            url = _fetch_from_any(remote, part)
            result = _accepted(read, remote, part, url)
            os.replace(part.path, target)
            part.remove()
            return result


class _Interrupted(Exception):
    """A transfer that did not come to its end; `final` where trying again would not help."""

    def __init__(self, reason: str, final: bool = False):
        super().__init__(reason)
        self.final = final


@dataclass(frozen=True)
class _Part:
    """The bytes of a download so far, and beside them a note of where they are from."""

    path: Path

    @property
    def note(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def begun(self, url: str) -> tuple[int, str | None]:
        """How many bytes of this very URL there are, and what its server calls the state of the
        file they are from.
        """
        if not (_is_own(self.path) and _is_own(self.note)):
            return 0, None
        try:
            with self.note.open("r") as file:
                note = json.loads(file.read(_CHUNK))
            validator = note["validator"]
            known = validator is None or (isinstance(validator, str) and validator.isprintable())
            return (self.size, validator) if known and note["url"] == url else (0, None)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return 0, None

    def begin(self, url: str, validator: str | None) -> None:
        self.remove()
        self.note.write_text(json.dumps({"url": url, "validator": validator}))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _is_own(path: Path) -> bool:
    """Whether a path is a file of one name: what is a link, of either kind, is not written
    through.
    """
    return path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1


def _accepted(read: Callable[[Path], Result], remote: Remote, part: _Part, url: str) -> Result:
    try:
        return read(part.path)
    except Damage as damage:
        part.remove()
        raise DataError(
            f"{remote.owner}: {remote.target.name!r}, as downloaded from {url}, {damage} — it was "
            f"thrown away; "
            f"call again, and if that does not help, put the official file into "
            f"{remote.target.parent} by hand."
        ) from damage


def _fetch_from_any(remote: Remote, part: _Part) -> str:
    reasons = []
    for url in remote.urls:
        try:
            _fetch(url, remote, part)
            return url
        except _Interrupted as error:
            reasons.append(f"{url}: {error}")
    kept = (
        f" ({part.size} bytes are kept, and the next call goes on from there)" if part.size else ""
    )
    raise DataError(
        f"{remote.owner}: {remote.target.name!r} is not in {remote.target.parent}, and downloading "
        f"it failed{kept}: "
        f"{'; '.join(reasons)} — call again when there is a connection, or put the file there by "
        f"hand."
    )


def _fetch(url: str, remote: Remote, part: _Part) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            _transfer(url, remote, part)
            return
        except _Interrupted as error:
            if error.final or attempt == _ATTEMPTS - 1:
                raise
        time.sleep(remote.pause * 2**attempt)


def _transfer(url: str, remote: Remote, part: _Part) -> None:
    start, validator = part.begun(url)
    response = _ask(url, start, validator, part)
    if response is None:
        return
    with response:
        if response.status != 206:
            start = 0
        elif _range_start(response) != start:
            part.remove()
            raise _Interrupted("the server went on from another place than it was asked to")
        if start == 0:
            part.begin(url, _validator(response))
        total = None if response.length is None else start + response.length
        if total is not None and total > remote.limit:
            part.remove()
            raise _Interrupted(
                f"promises {total} bytes where the file may have {remote.limit}", final=True
            )
        _copy(response, remote, part, total)


def _ask(url: str, start: int, validator: str | None, part: _Part) -> HTTPResponse | None:
    """Asks for the bytes from `start` on; None where there are no more."""
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    going_on = {"Range": f"bytes={start}-"} if start else {}
    unchanged = {"If-Range": validator} if start and validator else {}
    try:
        return urlopen(
            Request(url, headers={"User-Agent": "jaxdl", **going_on, **unchanged}), timeout=_TIMEOUT
        )
    except HTTPError as error:
        error.close()
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{start}":
            return None
        if error.code == 416:
            part.remove()
        final = 400 <= error.code < 500 and error.code not in (416, *_PASSING)
        raise _Interrupted(f"HTTP {error.code} {excerpt(error.reason)}", final) from error
    except (
        OSError,
        HTTPException,
        ValueError,
    ) as error:  # ValueError: an address that it leads on to is none
        unreached = isinstance(error, URLError) and not start
        raise _Interrupted(_told(getattr(error, "reason", error)), unreached) from error


def _range_start(response: HTTPResponse) -> int | None:
    match = re.match(r"bytes (\d{1,18})-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _validator(response: HTTPResponse) -> str | None:
    """What `If-Range` may carry: a strong entity tag, or else the date of the last change (RFC
    9110, 13.1.5).
    """
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _copy(response: HTTPResponse, remote: Remote, part: _Part, total: int | None) -> None:
    came = part.size
    with (
        part.path.open("ab") as file,
        _progress(remote.target, response.url, total, came) as advance,
    ):
        began, lately = time.monotonic(), 0
        while came <= remote.limit and (chunk := _received(response)):
            file.write(chunk)
            came += len(chunk)
            lately += len(chunk)
            advance(len(chunk))
            if lately >= _CHUNK:
                began, lately = time.monotonic(), 0
            elif time.monotonic() - began > _SLOWEST:
                raise _Interrupted(f"sent no more than {lately} bytes in {_SLOWEST:g} seconds")
    if came > remote.limit:
        part.remove()
        raise _Interrupted(
            f"sent more than the {remote.limit} bytes that the file may have", final=True
        )
    if total is not None and came != total:
        raise _Interrupted(f"sent {came} of {total} bytes")


def _received(response: HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK)
    except (OSError, HTTPException, ValueError) as error:
        raise _Interrupted(f"broke off ({_told(error)})") from error


def _told(error: object) -> str:
    return excerpt(error) or type(error).__name__


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    path = target.with_name(target.name + ".lock")
    if path.is_symlink() or (path.exists() and path.stat().st_nlink > 1):
        path.unlink()  # some versions of filelock would empty the file that it leads to
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(
            f"jaxdl: waiting for another process that is downloading {target.name}", file=sys.stderr
        )
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _disk(remote: Remote) -> Iterator[None]:
    """Turns what the disk says into a sentence; what the network says has become `_Interrupted` by
    then.
    """
    try:
        yield
    except OSError as error:
        folder = remote.target.parent
        advice = f"make {folder} writable"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            advice = "free some space (what came so far is kept)"
        what = f"{remote.owner}: cannot write into {folder} ({error.strerror or error})"
        raise DataError(f"{what} — {advice}, or let JAXDL_DATA name another folder.") from error


@contextmanager
def _progress(
    target: Path, url: str, total: int | None, start: int
) -> Iterator[Callable[[int], object]]:
    """Shows a bar on a terminal, and elsewhere one line; gives the function to call with each
    number of bytes.
    """
    if not sys.stderr.isatty():
        size = f" ({total / 2**20:.1f} MiB)" if total else ""
        print(f"jaxdl: downloading {url}{size} to {target}", file=sys.stderr)
        yield lambda count: None
        return
    from rich import progress
    from rich.console import Console

    shown = (
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress("{task.description}", *shown, console=Console(stderr=True)) as bar:
        task = bar.add_task(target.name, total=total, completed=start)
        yield lambda count: bar.advance(task, count)
