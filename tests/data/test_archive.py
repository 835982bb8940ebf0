"""Files that must have a known content: plain, compressed, archived, broken, altered and hostile."""

import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.honest import header, member, pax
from benchmarks.hostile_archives import asking_for
from jaxdl.data.archive import read_collection, read_file, read_members
from jaxdl.data.content import Collection, Content
from jaxdl.data.error import CorruptionError

FIRST, SECOND = np.random.default_rng(0).bytes(50_000), np.random.default_rng(1).bytes(30_000)
CONTENTS = (Content.of("first", FIRST), Content.of("second", SECOND))
PACKERS = {"plain": bytes, "gzip": gzip.compress, "xz": lzma.compress}
packings = pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)


def tar(members: dict[str, bytes], *links: tuple[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, target in links:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@packings
def test_a_file_is_read_whatever_it_is_packed_in_and_called(
    tmp_path: Path, pack: Callable[[bytes], bytes]
):
    assert read_file(write(tmp_path / "first.zip", pack(FIRST)), CONTENTS[0]) == FIRST


def test_the_digest_is_of_the_content_and_not_of_the_packing(tmp_path: Path):
    packed = [
        gzip.compress(FIRST, level, mtime=time) for level, time in ((1, 0), (9, 1_000_000))
    ]
    assert packed[0] != packed[1]
    assert all(
        read_file(write(tmp_path / "first.gz", data), CONTENTS[0]) == FIRST for data in packed
    )


@packings
def test_a_file_of_the_wrong_content_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]):
    path = tmp_path / "first"
    with pytest.raises(CorruptionError, match=r"^holds 49999 bytes where 50000 are expected$"):
        read_file(write(path, pack(FIRST[:-1])), CONTENTS[0])
    with pytest.raises(CorruptionError, match=r"^holds more bytes where 50000 are expected$"):
        read_file(write(path, pack(FIRST + b"!")), CONTENTS[0])
    with pytest.raises(
        CorruptionError,
        match=rf"^is altered \(its content has SHA-256 .*, expected {CONTENTS[0].sha256[:12]}…\)$",
    ):
        read_file(write(path, pack(FIRST[::-1])), CONTENTS[0])


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress], ids=["gzip", "xz"])
def test_a_broken_compression_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]):
    packed = pack(FIRST)
    with pytest.raises(CorruptionError, match=r"^breaks off after [0-9]+ of 50000 bytes"):
        read_file(write(tmp_path / "first", packed[:-1000]), CONTENTS[0])
    with pytest.raises(CorruptionError, match=r"^breaks off after 0 of 50000 bytes"):
        read_file(write(tmp_path / "first", packed[:20] + bytes(1000)), CONTENTS[0])


def test_no_more_is_decompressed_than_is_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bomb = write(tmp_path / "first", gzip.compress(bytes(20_000_000)))
    largest, read = [], gzip.GzipFile.read
    monkeypatch.setattr(
        gzip.GzipFile, "read", lambda file, size: largest.append(size) or read(file, size)
    )
    with pytest.raises(CorruptionError, match="holds more bytes where 50000 are expected"):
        read_file(bomb, CONTENTS[0])
    assert sum(largest) == 50_001


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path):
    with pytest.raises(CorruptionError, match=r"^cannot be read \(Is a directory\)$"):
        read_file(tmp_path, CONTENTS[0])


@packings
def test_members_are_found_by_name_in_any_folder_and_order(
    tmp_path: Path, pack: Callable[[bytes], bytes]
):
    archive = tar({"a/readme": b"hello", "./a/second": SECOND, "first": FIRST})
    assert dict(read_members(write(tmp_path / "archive", pack(archive)), CONTENTS)) == {
        "first": FIRST,
        "second": SECOND,
    }


def test_members_are_found_unpacked(tmp_path: Path):
    write(tmp_path / "first", FIRST)
    with pytest.raises(CorruptionError, match=r"^lacks 'second'$"):
        dict(read_members(tmp_path, CONTENTS))
    write(tmp_path / "second", SECOND[:10])
    with pytest.raises(
        CorruptionError, match=r"^has a 'second' that holds 10 bytes where 30000 are expected$"
    ):
        dict(read_members(tmp_path, CONTENTS))
    write(tmp_path / "second", SECOND)
    assert dict(read_members(tmp_path, CONTENTS)) == {"first": FIRST, "second": SECOND}


def test_an_archive_is_read_no_further_than_needed(tmp_path: Path):
    third = np.random.default_rng(2).bytes(200_000)
    packed = gzip.compress(tar({"first": FIRST, "second": SECOND, "third": third}))
    broken_in_the_third = write(tmp_path / "archive", packed[: len(packed) * 2 // 3])
    assert len(dict(read_members(broken_in_the_third, CONTENTS))) == 2


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"first": FIRST}, "^lacks 'second'$"),
        ({}, "^lacks 'first', 'second'$"),
        (
            {"first": FIRST, "second": SECOND[:-1]},
            "^has a 'second' that holds 29999 bytes where 30000 are expected$",
        ),
        (
            {"first": FIRST + b"!", "second": SECOND},
            "^has a 'first' that holds more bytes where 50000 are expected$",
        ),
        (
            {"first": SECOND + FIRST[:20_000], "second": SECOND},
            "^has a 'first' that is altered",
        ),
        (
            {"filler": bytes(5_000_000), "first": FIRST, "second": SECOND},
            "^unpacks to far more than is expected of it$",
        ),
    ],
    ids=["one missing", "all missing", "short", "long", "altered", "bomb"],
)
@packings
def test_an_archive_of_the_wrong_content_is_refused(
    tmp_path: Path, pack: Callable[[bytes], bytes], members: dict[str, bytes], sentence: str
):
    with pytest.raises(CorruptionError, match=sentence):
        dict(read_members(write(tmp_path / "archive", pack(tar(members))), CONTENTS))


@packings
def test_a_truncated_archive_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]):
    packed = pack(tar({"first": FIRST, "second": SECOND}))
    for length in (len(packed) // 4, len(packed) // 4 * 3):
        with pytest.raises(
            CorruptionError, match=r"breaks off after|holds \d+ bytes|lacks|broken"
        ):
            dict(read_members(write(tmp_path / "archive", packed[:length]), CONTENTS))


def test_what_is_no_archive_is_refused(tmp_path: Path):
    with pytest.raises(CorruptionError, match=r"^is no tar archive, or a broken one"):
        dict(
            read_members(
                write(tmp_path / "archive", b"<html>please log in</html>" * 100), CONTENTS
            )
        )


def test_links_and_paths_in_an_archive_lead_nowhere(tmp_path: Path):
    write(tmp_path / "secret", FIRST)
    folder = tmp_path / "folder"
    folder.mkdir()
    hostile = tar({"../../second": SECOND}, ("first", str(tmp_path / "secret")))
    with pytest.raises(CorruptionError, match=r"^lacks 'first'$"):
        dict(read_members(write(folder / "archive", hostile), CONTENTS))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["archive", "folder", "secret"]


NEGATIVE = b"\xff" * 10 + b"\xfe\x00"
HEADERS = {
    "a name of 8 GiB": (
        header("a", (8 << 30) - 1, b"L"),
        "headers of 8589934591 bytes for one file, where at most 32768",
    ),
    "a name of less than nothing": (
        header("a", NEGATIVE, b"L"),
        "headers of -512 bytes for one file",
    ),
    "a file of less than nothing": (
        header("a", NEGATIVE),
        "headers of -512 bytes for one file",
    ),
    "headers upon headers": (
        header("a", 0, b"x") * 5000,
        "headers of 33280 bytes for one file",
    ),
    "statements about all files": (
        pax({f"key{row}": "v" for row in range(65)}, b"g") + member("a"),
        "no honest archive has",
    ),
    "a size of less than nothing": (
        pax({"size": "-512"}) + member("a"),
        "no honest archive has",
    ),
    "holes": (header("a", 0, b"S"), "has a file with holes, which are not read"),
    "holes by pax": (pax({"GNU.sparse.map": "a"}) + member("a"), "has a file with holes"),
    "no number of bytes": (
        pax({"GNU.sparse.realsize": "a"}) + member("a"),
        "is no tar archive, or a broken one",
    ),
    "a record of 5000 digits": (
        pax(b"9" * 5000 + b" a=b\n") + member("a"),
        "is no tar archive, or a broken one",
    ),
}


@pytest.mark.parametrize(("blocks", "sentence"), HEADERS.values(), ids=HEADERS)
def test_headers_that_lie_are_refused(tmp_path: Path, blocks: bytes, sentence: str):
    with pytest.raises(CorruptionError, match=sentence) as caught:
        dict(
            read_members(
                write(tmp_path / "archive", blocks + tar({"first": FIRST, "second": SECOND})),
                CONTENTS,
            )
        )
    assert len(str(caught.value)) < 300


def test_headers_of_many_members_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept, following = [], tarfile.TarFile.next
    monkeypatch.setattr(
        tarfile.TarFile,
        "next",
        lambda archive: kept.append(len(archive.members)) or following(archive),
    )
    many = b"".join(member(f"{row}") for row in range(300))
    assert (
        len(
            dict(
                read_members(
                    write(tmp_path / "archive", many + tar({"first": FIRST, "second": SECOND})),
                    CONTENTS,
                )
            )
        )
        == 2
    )
    assert max(kept) <= 1


def test_names_that_no_disk_takes_are_no_files_of_a_collection(tmp_path: Path):
    expected = Collection.of("[0-9]+", {"1": b"a"})
    archive = member("2" * 256, b"b") + member("1", b"a") + bytes(1024)
    assert read_collection(write(tmp_path / "archive", archive), expected, 1 << 20) == {
        "1": b"a"
    }


def test_an_xz_file_may_come_in_pieces_with_padding(tmp_path: Path):
    pieces = lzma.compress(FIRST[:20_000]) + bytes(8) + lzma.compress(FIRST[20_000:]) + bytes(4)
    assert read_file(write(tmp_path / "first", pieces), CONTENTS[0]) == FIRST
    with pytest.raises(CorruptionError, match="holds more bytes"):
        read_file(write(tmp_path / "first", pieces + lzma.compress(b"!")), CONTENTS[0])
    assert (
        read_file(write(tmp_path / "first", lzma.compress(FIRST, preset=9)), CONTENTS[0])
        == FIRST
    )


@pytest.mark.parametrize("exponent", [30, 40])
def test_an_xz_file_that_asks_for_much_memory_is_refused(tmp_path: Path, exponent: int):
    asking = asking_for(lzma.compress(FIRST), exponent)
    with pytest.raises(
        CorruptionError,
        match=r"breaks off after 0 of 50000 bytes \(Memory usage limit exceeded\)",
    ):
        read_file(write(tmp_path / "first", asking), CONTENTS[0])


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "first")
    write(tmp_path / "second", SECOND)
    with pytest.raises(
        CorruptionError, match=r"^is a pipe or a device, where a file is expected$"
    ):
        read_file(tmp_path / "first", CONTENTS[0])
    with pytest.raises(CorruptionError, match=r"^is a pipe or a device"):
        dict(read_members(tmp_path / "first", CONTENTS))
    with pytest.raises(CorruptionError, match=r"^lacks 'first'$"):
        dict(read_members(tmp_path, CONTENTS))
    with pytest.raises(
        CorruptionError,
        match=r"^has a 'first' that is a pipe or a device, where a file is expected$",
    ):
        read_collection(tmp_path, Collection.of("first", {"first": FIRST}), 1 << 20)


def test_what_a_broken_file_says_stays_one_line(tmp_path: Path):
    with pytest.raises(CorruptionError, match="holes") as caught:
        dict(
            read_members(
                write(tmp_path / "archive", pax({"GNU.sparse.map": "a\n\x1b"}) + member("a")),
                CONTENTS,
            )
        )
    assert str(caught.value).isprintable()
