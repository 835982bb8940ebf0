"""Downloads, from a server of the test's own that breaks off, ignores ranges, lies and fails."""

import errno
import io
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest

from jaxdl.data.archive import read_file
from jaxdl.data.content import Content
from jaxdl.data.download import download, obtain
from jaxdl.data.error import DataError
from jaxdl.data.transfer import Remote

TRANSFERS = import_module("jaxdl.data.transfer")
BODY = bytes(range(256)) * 1000
CONTENT = Content.of("numbers", BODY)


def read(path: Path) -> bytes:
    return read_file(path, CONTENT)


def remote(folder: Path, *urls: str, limit: int = 2 * len(BODY)) -> Remote:
    return Remote("count", urls, folder / "numbers", limit, pause=0.0)


def left_in(folder: Path) -> list[str]:
    """The files that a download has left, but for the lock, which may stay."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_download_is_read_kept_and_announced_in_one_line(server, tmp_path, capsys):
    url = server.add("numbers", BODY)
    assert download(read, remote(tmp_path / "new" / "folder", url)) == BODY
    assert left_in(tmp_path / "new" / "folder") == ["numbers"]
    assert (tmp_path / "new" / "folder" / "numbers").read_bytes() == BODY
    assert (
        capsys.readouterr().err
        == f"jaxdl: downloading {url} (0.2 MiB) to {tmp_path / 'new' / 'folder' / 'numbers'}\n"
    )


def test_a_bar_is_shown_on_a_terminal(server, tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    download(read, remote(tmp_path, server.add("numbers", BODY)))
    assert "numbers" in terminal.getvalue()
    assert "256.0/256.0 kB" in terminal.getvalue()


def test_a_transfer_that_breaks_off_is_gone_on_with_at_once(server, tmp_path):
    url = server.add("numbers", BODY, stops_at=[1000, 150_000])
    assert download(read, remote(tmp_path, url)) == BODY
    assert [headers.get("range") for _, headers in server.requests] == [
        None,
        "bytes=1000-",
        "bytes=150000-",
    ]
    assert [headers.get("if-range") for _, headers in server.requests] == [
        None,
        '"first"',
        '"first"',
    ]


def test_a_second_call_goes_on_where_the_first_gave_up(server, tmp_path):
    url = server.add("numbers", BODY, stops_at=[1000] * 4)
    with pytest.raises(DataError) as caught:
        download(read, remote(tmp_path, url))
    assert str(caught.value) == (
        f"count: 'numbers' is not in {tmp_path}, and downloading it failed (1000 bytes are kept, and the next call goes "
        f"on from there): {url}: sent 1000 of 256000 bytes — call again when there is a connection, or put the file "
        "there by hand."
    )
    assert download(read, remote(tmp_path, url)) == BODY
    assert server.requests[-1][1]["range"] == "bytes=1000-"
    assert len(server.requests) == 5
    assert left_in(tmp_path) == ["numbers"]


@pytest.mark.parametrize(
    "second",
    [
        {"honours_ranges": False},  # the whole file comes again
        {"tag": '"second"'},  # the file has changed since
        {"range_offset": 10},  # the server goes on from elsewhere, once
    ],
    ids=["ranges ignored", "file changed", "wrong place"],
)
def test_what_came_before_is_dropped_when_it_cannot_be_gone_on_with(server, tmp_path, second):
    old = bytes(len(BODY))
    with pytest.raises(DataError, match="sent 1000 of"):
        download(read, remote(tmp_path, server.add("numbers", old, stops_at=[1000] * 4)))
    assert (tmp_path / "numbers.part").stat().st_size == 1000
    assert download(read, remote(tmp_path, server.add("numbers", BODY, **second))) == BODY


def test_a_part_from_one_place_is_not_gone_on_with_at_another(server, tmp_path):
    broken = server.add("broken", bytes(len(BODY)), stops_at=[1000] * 4)
    assert download(read, remote(tmp_path, broken, server.add("mirror", BODY))) == BODY
    assert server.requests[-1][0] == "/mirror"
    assert "range" not in server.requests[-1][1]


def test_a_part_without_a_note_of_its_origin_is_dropped(server, tmp_path):
    (tmp_path / "numbers.part").write_bytes(b"from nowhere")
    assert download(read, remote(tmp_path, server.add("numbers", BODY))) == BODY


def test_a_part_that_is_whole_is_not_downloaded_again(server, tmp_path):
    url = server.add("numbers", BODY, stops_at=[len(BODY) - 1] * 4)
    with pytest.raises(DataError):
        download(read, remote(tmp_path, url))
    with (tmp_path / "numbers.part").open("ab") as part:
        part.write(BODY[-1:])
    assert download(read, remote(tmp_path, url)) == BODY
    assert server.requests[-1][1]["range"] == f"bytes={len(BODY)}-"


def test_the_wrong_file_is_thrown_away(server, tmp_path):
    url = server.add("numbers", BODY[::-1])
    with pytest.raises(
        DataError,
        match=rf"'numbers', as downloaded from {url}, is altered .* — it was thrown away",
    ):
        download(read, remote(tmp_path, url))
    assert left_in(tmp_path) == []


def test_a_short_file_without_a_length_is_thrown_away(server, tmp_path):
    url = server.add("numbers", BODY, says_length=False, stops_at=[1000])
    with pytest.raises(DataError, match="holds 1000 bytes where 256000 are expected"):
        download(read, remote(tmp_path, url))
    assert left_in(tmp_path) == []


def test_an_endless_file_is_broken_off(server, tmp_path):
    url = server.add(
        "numbers", BODY * 200, says_length=False
    )  # more than any socket's buffers hold
    with pytest.raises(
        DataError, match="sent more than the 100000 bytes that the file may have"
    ):
        download(read, remote(tmp_path, url, limit=100_000))
    assert left_in(tmp_path) == []
    assert len(server.requests) == 1
    assert server.hung_up.wait(10)


def test_a_refusal_is_believed_and_the_mirror_asked(server, tmp_path):
    assert (
        download(read, remote(tmp_path, server.address + "/none", server.add("numbers", BODY)))
        == BODY
    )
    assert [path for path, _ in server.requests] == ["/none", "/numbers"]


def test_a_passing_error_is_tried_again_but_not_for_ever(server, tmp_path):
    assert (
        download(read, remote(tmp_path, server.add("numbers", BODY, statuses=[503, 429])))
        == BODY
    )
    assert len(server.requests) == 3
    with pytest.raises(DataError, match="HTTP 503 Service Unavailable"):
        download(
            read, remote(tmp_path / "other", server.add("numbers", BODY, statuses=[503] * 9))
        )
    assert len(server.requests) == 7


def test_without_a_connection_every_place_is_named(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(
        DataError,
        match=rf"'numbers' is not in .*: {address}/a: .*refused.*; {address}/b: .*by hand",
    ):
        download(read, remote(tmp_path, address + "/a", address + "/b"))


def test_two_who_want_one_file_download_it_once(server, tmp_path, capsys):
    url = server.add("numbers", BODY, barrier=(may_answer := threading.Event()))
    came = []
    threads = [
        threading.Thread(target=lambda: came.append(download(read, remote(tmp_path, url))))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    while "waiting for another process" not in capsys.readouterr().err:
        assert any(thread.is_alive() for thread in threads)
        time.sleep(0.01)
    may_answer.set()
    for thread in threads:
        thread.join(10)
    assert came == [BODY, BODY]
    assert len(server.requests) == 1


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / "inside"
    with pytest.raises(
        DataError,
        match=rf"count: cannot write into {folder} \(Not a directory\) — make .* writable",
    ):
        download(read, remote(folder, server.add("numbers", BODY)))
    assert server.requests == []


def test_a_full_disk_is_named_and_what_came_is_kept(server, tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, data, /) -> int:
            if self.tell() + len(data) > 100_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    url, usual = server.add("numbers", BODY), Path.open
    with monkeypatch.context() as patch:
        patch.setattr(
            Path,
            "open",
            lambda path, mode, **text: (
                Full(path, mode) if mode == "ab" else usual(path, mode, **text)
            ),
        )
        with pytest.raises(
            DataError,
            match=r"cannot write into .* \(No space left on device\) — free some space",
        ):
            download(read, remote(tmp_path, url))
    assert 0 < (tmp_path / "numbers.part").stat().st_size <= 100_000
    assert download(read, remote(tmp_path, url)) == BODY
    assert server.requests[-1][1]["range"].startswith("bytes=")


def test_a_good_file_is_used_wherever_it_lies_and_nothing_asked_for(server, tmp_path):
    (tmp_path / "bad").write_bytes(BODY[:10])
    (tmp_path / "good").write_bytes(BODY)
    job = remote(tmp_path, server.add("numbers", BODY))
    assert obtain([tmp_path / "none", tmp_path / "bad", tmp_path / "good"], read, job) == BODY
    assert server.requests == []


def test_a_bad_file_is_named_and_not_replaced(server, tmp_path):
    (tmp_path / "bad").write_bytes(BODY[:10])
    job = remote(tmp_path, server.add("numbers", BODY))
    with pytest.raises(DataError) as caught:
        obtain([tmp_path / "bad"], read, job)
    assert str(caught.value) == (
        f"count: 'bad' in {tmp_path} holds 10 bytes where 256000 are expected — delete it so that it is downloaded again, "
        "or put the official one there."
    )
    assert server.requests == []


def test_a_missing_file_is_downloaded(server, tmp_path):
    assert (
        obtain([tmp_path / "numbers"], read, remote(tmp_path, server.add("numbers", BODY)))
        == BODY
    )
    assert obtain([tmp_path / "numbers"], read, remote(tmp_path)) == BODY


ALONE = """
import sys, time
from pathlib import Path
from jaxdl.data.archive import read_file
from jaxdl.data.content import Content
from jaxdl.data.download import obtain
from jaxdl.data.transfer import Remote
folder, url, name, size, sha256 = sys.argv[1:]
content = Content(name, int(size), sha256)
print("ready", flush=True)
sys.stdin.readline()
target = Path(folder, name)
data = obtain([target], lambda path: read_file(path, content), Remote("count", (url,), target, 2 * content.size, pause=0.0))
print(Content.of(name, data) == content, flush=True)
"""


def process_for(folder: Path, url: str) -> "subprocess.Popen[str]":
    """A process of its own that gets the numbers as soon as it is told to."""
    arguments = [str(folder), url, CONTENT.name, str(CONTENT.size), CONTENT.sha256]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, "-c", ALONE, *arguments],
        cwd=Path(__file__).parents[2],
        text=True,
        **pipes,
    )


def began(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()


def until(came: Callable[[], bool]) -> None:
    """Waits for what another thread or process does."""
    for _ in range(6000):
        if came():
            return
        time.sleep(0.01)
    pytest.fail("nothing came within a minute")


@pytest.mark.slow
def test_two_processes_get_whole_data_and_never_half(server, tmp_path):
    url = server.add("numbers", BODY, stalls_at=100_000)
    both = [process_for(tmp_path, url) for _ in range(2)]
    for process in both:
        began(process)
    part = tmp_path / "numbers.part"
    until(lambda: part.exists() and part.stat().st_size == 100_000)
    assert not (tmp_path / "numbers").exists()  # nobody can take the half for the whole
    server.pages["/numbers"].resumes.set()
    answers = [process.communicate(timeout=300) for process in both]
    assert [answer for answer, _ in answers] == ["True\n"] * 2
    assert sorted("waiting for another process" in said for _, said in answers) in (
        [False, True],
        [False, False],
    )
    assert left_in(tmp_path) == ["numbers"]
    assert len(server.requests) == 1


@pytest.mark.slow
def test_where_the_process_that_downloads_is_killed_the_other_goes_on(server, tmp_path):
    url = server.add("numbers", BODY, stalls_at=100_000)
    first, second = process_for(tmp_path, url), process_for(tmp_path, url)
    part = tmp_path / "numbers.part"
    began(first)
    until(lambda: part.exists() and part.stat().st_size == 100_000)
    began(second)
    assert second.stderr is not None
    assert "waiting for another process" in second.stderr.readline()
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert second.communicate(timeout=300)[0] == "True\n"
    assert [headers.get("range") for _, headers in server.requests] == [None, "bytes=100000-"]
    assert left_in(tmp_path) == ["numbers"]


def test_a_server_that_stalls_is_left(server, tmp_path, monkeypatch):
    monkeypatch.setattr(TRANSFERS, "_TIMEOUT", 0.2)
    assert (
        download(
            read, remote(tmp_path / "once", server.add("numbers", BODY, stalls_at=100_000))
        )
        == BODY
    )
    assert [headers.get("range") for _, headers in server.requests] == [None, "bytes=100000-"]
    url = server.add("numbers", BODY, stalls_at=100_000, honours_ranges=False)
    with pytest.raises(
        DataError, match=r"100000 bytes are kept.*: broke off \(timed out\) — call again"
    ):
        download(read, remote(tmp_path, url))
    assert len(server.requests) == 6


def test_a_server_that_drips_is_left(server, tmp_path, monkeypatch):
    monkeypatch.setattr(TRANSFERS, "_SLOWEST", 0.05)
    with pytest.raises(
        DataError, match=r"sent no more than \d+ bytes in 0.05 seconds — call again"
    ):
        download(read, remote(tmp_path, server.add("numbers", BODY, drips=0.01)))


def test_a_file_that_is_announced_as_too_long_is_not_begun(server, tmp_path):
    with pytest.raises(
        DataError, match="promises 256000 bytes where the file may have 100000 — call again"
    ):
        download(read, remote(tmp_path, server.add("numbers", BODY), limit=100_000))
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("length", ["many", "-5", "9" * 5000, ""])
def test_a_length_that_is_none_is_not_believed(server, tmp_path, length: str):
    job = remote(tmp_path, server.add("numbers", BODY, headers={"Content-Length": length}))
    assert download(read, job) == BODY


def test_a_place_that_is_none_is_not_believed(server, tmp_path):
    with pytest.raises(DataError, match="sent 1000 of"):
        download(read, remote(tmp_path, server.add("numbers", BODY, stops_at=[1000] * 4)))
    nowhere = {"headers": {"Content-Range": f"bytes {'9' * 5000}-9/9"}}
    assert download(read, remote(tmp_path, server.add("numbers", BODY, **nowhere))) == BODY


@pytest.mark.parametrize(
    "location",
    ["http://[", "file:///etc/passwd", f"http://{'a' * 70}.invalid/", "numbers", "//:99999/"],
)
def test_an_address_that_leads_nowhere_is_named(server, tmp_path, location: str):
    with pytest.raises(
        DataError, match=r"'numbers' is not in .*, and downloading it failed: .* — call again"
    ) as caught:
        download(
            read,
            remote(
                tmp_path,
                server.add(
                    "numbers", b"", status=(302, "Found"), headers={"Location": location}
                ),
            ),
        )
    assert "\n" not in str(caught.value)


def test_what_a_server_says_stays_one_sentence(server, tmp_path):
    url = server.add("numbers", b"", status=(404, "\x1b]0;owned\x07" + "no " * 5000))
    with pytest.raises(
        DataError, match=r"HTTP 404 \?\]0;owned\?no no .*… — call again"
    ) as caught:
        download(read, remote(tmp_path, url))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_nothing_is_written_through_links(server, tmp_path, link: Callable[[Path, Path], None]):
    folder, secret = tmp_path / "folder", tmp_path / "secret"
    folder.mkdir()
    secret.write_text("secret")
    url = server.add("numbers", BODY)
    for suffix in (".part", ".lock"):
        link(secret, folder / f"numbers{suffix}")
    (folder / "numbers.part.json").write_text(json.dumps({"url": url, "validator": None}))
    (folder / "numbers").symlink_to(tmp_path / "nowhere")
    assert download(read, remote(folder, url)) == BODY
    assert secret.read_text() == "secret"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "secret"]
    assert "range" not in server.requests[0][1]


@pytest.mark.parametrize(
    "note",
    [
        "",
        "[" * 100_000,
        "[]",
        '{"url": %s}',
        '{"url": %s, "validator": [1]}',
        '{"url": %s, "validator": "a\\nb: c"}',
        "9" * 5000,
    ],
)
def test_a_note_that_is_none_is_not_believed(server, tmp_path, note: str):
    url = server.add("numbers", BODY)
    (tmp_path / "numbers.part").write_bytes(BODY[:1000])
    (tmp_path / "numbers.part.json").write_text(note.replace("%s", json.dumps(url)))
    assert download(read, remote(tmp_path, url)) == BODY
    assert "range" not in server.requests[0][1]


@contextmanager
def readable_only() -> Iterator[Path]:
    """A folder that holds good data and may not be written into, not by root either, who is nobody meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        folder, root = Path(name), os.geteuid() == 0
        (folder / "good").write_bytes(BODY)
        folder.chmod(
            stat.S_IRUSR
            | stat.S_IXUSR
            | stat.S_IRGRP
            | stat.S_IXGRP
            | stat.S_IROTH
            | stat.S_IXOTH
        )
        try:
            if root:
                os.seteuid(65534)
            yield folder
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(stat.S_IRWXU)


def test_a_folder_that_may_only_be_read_gives_its_data_and_takes_none(server):
    with readable_only() as folder:
        job = remote(folder, server.add("numbers", BODY))
        assert obtain([folder / "numbers", folder / "good"], read, job) == BODY
        for wanted in (job, remote(folder / "new", server.address + "/numbers")):
            with pytest.raises(
                DataError,
                match=rf"^count: cannot write into {wanted.target.parent} \(Permission denied\) — make",
            ):
                obtain([wanted.target], read, wanted)
        assert left_in(folder) == ["good"]
    assert server.requests == []


def test_a_disk_that_takes_no_more_is_named_and_what_came_is_kept(server, tmp_path):
    url, limits = server.add("numbers", BODY), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(
            DataError,
            match=r"^count: cannot write into .* \(File too large\) — free some space .*is kept",
        ):
            download(read, remote(tmp_path, url))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert left_in(tmp_path) == ["numbers.part", "numbers.part.json"]
    assert download(read, remote(tmp_path, url)) == BODY
    assert server.requests[-1][1]["range"].startswith("bytes=")
