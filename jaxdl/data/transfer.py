"""Transfers over HTTP that are resumed after an interruption, from one of several URLs."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from jaxdl.data.error import DataError, excerpt

_CHUNK = 1 << 16
_ATTEMPTS = 4
# Seconds without a byte.
_TIMEOUT = 30.0
# Seconds for a chunk.
_SLOWEST = 60.0
# Refusals that a second attempt may not meet.
_PASSING = (408, 425, 429)


@dataclass(frozen=True)
class Remote:
    """A file to download, and its path here.

    Attributes:
        owner: the data set that it belongs to, for messages.
        urls: where it is offered, the preferred one first.
        target: its path here.
        limit: the largest size that it may have, in bytes.
        pause: seconds before a second attempt; each further one waits twice as long.
    """

    owner: str
    urls: tuple[str, ...]
    target: Path
    limit: int
    pause: float = 1.0


class _Interrupted(Exception):
    """A transfer ended early; `final` where another attempt would not help."""

    def __init__(self, reason: str, final: bool = False):
        super().__init__(reason)
        self.final = final


@dataclass(frozen=True)
class PartialFile:
    """The bytes of a download so far, and beside them a note of their URL and version."""

    path: Path

    @property
    def note(self) -> Path:
        """The path of the note."""
        return self.path.with_name(self.path.name + ".json")

    @property
    def size(self) -> int:
        """The number of bytes so far."""
        if not self.path.exists():
            return 0
        return self.path.stat().st_size

    def begun(self, url: str) -> tuple[int, str | None]:
        """The number of bytes of a URL so far, and the validator of the version they are of."""
        if not (_is_own(self.path) and _is_own(self.note)):
            return 0, None
        try:
            with self.note.open("r") as file:
                note = json.loads(file.read(_CHUNK))
            validator = note["validator"]
            same = note["url"] == url
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return 0, None
        known = validator is None or (isinstance(validator, str) and validator.isprintable())
        if not known or not same:
            return 0, None
        return self.size, validator

    def begin(self, url: str, validator: str | None) -> None:
        """Notes the URL and version of bytes to come, in place of those so far."""
        self.remove()
        note = {"url": url, "validator": validator}
        self.note.write_text(json.dumps(note))

    def remove(self) -> None:
        """Deletes the bytes and the note."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _is_own(path: Path) -> bool:
    """Whether a path is a file of one name, and no link of either kind, which is not written to."""
    if not path.is_file() or path.is_symlink():
        return False
    return path.stat().st_nlink == 1


def fetch(remote: Remote, part: PartialFile) -> str:
    """Downloads the bytes of a file, from the first of its URLs that works.

    Args:
        remote: the file.
        part: the bytes so far, to which the rest is appended.

    Returns:
        The URL.

    Raises:
        DataError: none works.
    """
    reasons = []
    for url in remote.urls:
        try:
            _fetch(url, remote, part)
            return url
        except _Interrupted as error:
            reasons.append(f"{url}: {error}")
    kept = ""
    if part.size:
        kept = f" ({part.size} bytes are kept, and the next call goes on from there)"
    raise DataError(
        f"{remote.owner}: {remote.target.name!r} is not in {remote.target.parent}, and downloading "
        f"it failed{kept}: {'; '.join(reasons)} — call again when there is a connection, or put "
        "the file there by hand."
    )


def _fetch(url: str, remote: Remote, part: PartialFile) -> None:
    """Downloads the bytes from one URL, in several attempts."""
    for attempt in range(_ATTEMPTS):
        try:
            _transfer(url, remote, part)
            return
        except _Interrupted as error:
            if error.final or attempt == _ATTEMPTS - 1:
                raise
        time.sleep(remote.pause * 2**attempt)


def _transfer(url: str, remote: Remote, part: PartialFile) -> None:
    """Makes one attempt to download the bytes that are missing."""
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


def _ask(url: str, start: int, validator: str | None, part: PartialFile) -> HTTPResponse | None:
    """Asks for the bytes from `start` on; None where there are no more."""
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    headers = {"User-Agent": "jaxdl"}
    if start:
        headers["Range"] = f"bytes={start}-"
    if start and validator:
        headers["If-Range"] = validator
    try:
        request = Request(url, headers=headers)
        return urlopen(request, timeout=_TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{start}":
            return None
        if error.code == 416:
            part.remove()
        final = 400 <= error.code < 500 and error.code not in (416, *_PASSING)
        raise _Interrupted(f"HTTP {error.code} {excerpt(error.reason)}", final) from error
    # ValueError: a redirection to something that is no address.
    except (OSError, HTTPException, ValueError) as error:
        unreached = isinstance(error, URLError) and not start
        reason = _reason(getattr(error, "reason", error))
        raise _Interrupted(reason, unreached) from error


def _range_start(response: HTTPResponse) -> int | None:
    """The offset of the first byte of a response to a request for a range."""
    header = response.headers.get("Content-Range", "")
    match = re.match(r"bytes (\d{1,18})-", header)
    if match is None:
        return None
    return int(match[1])


def _validator(response: HTTPResponse) -> str | None:
    """The version of a file for `If-Range`: a strong entity tag, or else its date.

    Source: RFC 9110, section 13.1.5.
    """
    tag = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return tag
    return response.headers.get("Last-Modified")


def _copy(response: HTTPResponse, remote: Remote, part: PartialFile, total: int | None) -> None:
    """Appends the bytes of a response to those so far."""
    size = part.size
    with (
        part.path.open("ab") as file,
        _progress(remote.target, response.url, total, size) as advance,
    ):
        start = time.monotonic()
        recent = 0
        while size <= remote.limit and (chunk := _received(response)):
            file.write(chunk)
            size += len(chunk)
            recent += len(chunk)
            advance(len(chunk))
            if recent >= _CHUNK:
                start = time.monotonic()
                recent = 0
            elif time.monotonic() - start > _SLOWEST:
                raise _Interrupted(f"sent no more than {recent} bytes in {_SLOWEST:g} seconds")
    if size > remote.limit:
        part.remove()
        raise _Interrupted(
            f"sent more than the {remote.limit} bytes that the file may have", final=True
        )
    if total is not None and size != total:
        raise _Interrupted(f"sent {size} of {total} bytes")


def _received(response: HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK)
    except (OSError, HTTPException, ValueError) as error:
        raise _Interrupted(f"broke off ({_reason(error)})") from error


def _reason(error: object) -> str:
    return excerpt(error) or type(error).__name__


@contextmanager
def _progress(
    target: Path, url: str, total: int | None, start: int
) -> Iterator[Callable[[int], object]]:
    """Shows a progress bar on a terminal, elsewhere a line; yields a function to advance it."""
    if not sys.stderr.isatty():
        size = ""
        if total:
            size = f" ({total / 2**20:.1f} MiB)"
        print(f"jaxdl: downloading {url}{size} to {target}", file=sys.stderr)
        yield lambda count: None
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress("{task.description}", *columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(target.name, total=total, completed=start)
        yield lambda count: bar.advance(task, count)
