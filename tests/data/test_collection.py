"""Many files under one digest: packed or unpacked, in any order, missing, altered and hostile."""

import gzip
import hashlib
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxdl.data.archive import read_collection
from jaxdl.data.content import Collection
from jaxdl.data.error import CorruptionError

PATTERN = r"(?:in|out)/[0-9]+\.txt"
RANDOM = np.random.default_rng(0)
FILES = {
    f"{folder}/{number}.txt": RANDOM.bytes(number + 1)
    for folder in ("in", "out")
    for number in range(40)
}
EXPECTED = Collection.of(PATTERN, FILES)
LIMIT = 1 << 20
PACKERS = {"plain": bytes, "gzip": gzip.compress, "xz": lzma.compress}
packings = pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)


def tar(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def inside(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {folder + name: data for name, data in files.items()}


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def unpack(folder: Path, members: dict[str, bytes]) -> Path:
    for name, data in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_the_digest_is_of_the_sorted_names_sizes_and_contents():
    lines = [
        f"{name} {len(FILES[name])} {hashlib.sha256(FILES[name]).hexdigest()}\n"
        for name in sorted(FILES)
    ]
    assert (
        Collection(PATTERN, 80, 2 * 820, hashlib.sha256("".join(lines).encode()).hexdigest())
        == EXPECTED
    )
    assert Collection.of(PATTERN, dict(reversed(FILES.items()))) == EXPECTED


@packings
def test_files_are_found_in_any_folder_and_order_among_others(
    tmp_path: Path, pack: Callable[[bytes], bytes]
):
    others = {
        "readme.txt": b"hello",
        "set/else/1.txt": b"no",
        "set/in/1.txt.bak": b"no",
        "set/in/._1.txt": b"no",
    }
    archive = tar({**others, **inside("./set/", dict(reversed(FILES.items())))})
    found = read_collection(write(tmp_path / "archive", pack(archive)), EXPECTED, LIMIT)
    assert found == FILES
    assert list(found) == sorted(FILES)


def test_files_are_found_unpacked(tmp_path: Path):
    folder = unpack(tmp_path / "set", {**FILES, "else/1.txt": b"no"})
    assert read_collection(folder, EXPECTED, LIMIT) == FILES
    assert read_collection(tmp_path, EXPECTED, LIMIT) == FILES


def test_a_known_copy_is_accepted(tmp_path: Path):
    files = FILES | {"in/3.txt": b"longer than it should be"}
    archive = write(tmp_path / "archive", tar(files))
    assert read_collection(archive, EXPECTED, LIMIT, Collection.of(PATTERN, files)) == files
    with pytest.raises(
        CorruptionError, match=r"^is altered .*, expected 1640 bytes and SHA-256"
    ):
        read_collection(
            write(archive, tar(files | {"in/3.txt": b""})),
            EXPECTED,
            LIMIT,
            Collection.of(PATTERN, files),
        )


def test_an_archive_is_read_no_further_than_to_the_last_file(tmp_path: Path):
    packed = gzip.compress(tar({**FILES, "filler": RANDOM.bytes(200_000)}))
    broken_in_the_filler = write(tmp_path / "archive", packed[: len(packed) * 2 // 3])
    assert read_collection(broken_in_the_filler, EXPECTED, LIMIT) == FILES


DAMAGED = {
    "one missing": (
        {name: data for name, data in FILES.items() if name != "in/3.txt"},
        "^holds 79 of the 80 files",
    ),
    "all missing": ({"readme": b""}, "^holds 0 of the 80 files that are expected$"),
    "one altered": (
        FILES | {"in/3.txt": b"four"},
        r"^is altered \(its 80 files have 1640 bytes and SHA-256 .*, expected 1640",
    ),
    "one short": (FILES | {"in/3.txt": b""}, "^is altered .* have 1636 bytes"),
    "one renamed": (
        {name.replace("in/3.", "in/99."): data for name, data in FILES.items()},
        "^is altered",
    ),
    "one long": (
        FILES | {"in/3.txt": bytes(10_000)},
        r"^has a 'in/3.txt' that makes the whole longer than is expected",
    ),
    "two swapped": (
        FILES | {"in/3.txt": FILES["out/3.txt"], "out/3.txt": FILES["in/3.txt"]},
        "^is altered",
    ),
}


@pytest.mark.parametrize(("members", "sentence"), DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("unpacked", [False, True], ids=["archive", "folder"])
def test_what_is_not_the_collection_is_refused(
    tmp_path: Path, members: dict[str, bytes], sentence: str, unpacked: bool
):
    path = (
        unpack(tmp_path / "set", members)
        if unpacked
        else write(tmp_path / "archive", tar(members))
    )
    with pytest.raises(CorruptionError, match=sentence):
        read_collection(path, EXPECTED, LIMIT)


def test_no_more_is_read_of_a_file_than_the_whole_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked, read = [], tarfile.ExFileObject.read
    monkeypatch.setattr(
        tarfile.ExFileObject, "read", lambda file, size: asked.append(size) or read(file, size)
    )
    with pytest.raises(CorruptionError, match="makes the whole longer"):
        read_collection(
            write(tmp_path / "archive", tar({"in/0.txt": bytes(500_000)})), EXPECTED, LIMIT
        )
    assert sum(asked) == EXPECTED.size + 1


@packings
def test_an_archive_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, pack: Callable[[bytes], bytes]
):
    bomb = write(tmp_path / "archive", pack(tar({"filler": bytes(2 * LIMIT), **FILES})))
    with pytest.raises(CorruptionError, match=r"^unpacks to far more than is expected of it$"):
        read_collection(bomb, EXPECTED, LIMIT)


@packings
def test_a_truncated_archive_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]):
    packed = pack(tar(FILES))
    for length in (0, len(packed) // 4, len(packed) // 2):
        with pytest.raises(
            CorruptionError, match=r"holds \d+ of the 80 files|breaks off|broken"
        ):
            read_collection(write(tmp_path / "archive", packed[:length]), EXPECTED, LIMIT)


def test_links_in_an_archive_lead_nowhere(tmp_path: Path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        link = tarfile.TarInfo("in/0.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    with pytest.raises(CorruptionError, match=r"^holds 0 of the 80 files"):
        read_collection(write(tmp_path / "archive", packed.getvalue()), EXPECTED, LIMIT)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_a_file_in_a_folder_that_cannot_be_opened_is_named(tmp_path: Path):
    unpack(tmp_path, FILES)
    (tmp_path / "in/3.txt").unlink()
    (tmp_path / "in/3.txt").symlink_to("nowhere")
    with pytest.raises(
        CorruptionError,
        match=r"^has a 'in/3.txt' that cannot be read \(No such file or directory\)$",
    ):
        read_collection(tmp_path, EXPECTED, LIMIT)
