"""IMDB: the loader on small archives, and the real reviews where they are."""

import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxdl import data
from jaxdl.data.content import Collection
from jaxdl.data.error import DataError
from jaxdl.data.imdb import _PATTERN, read_imdb

FORMS = ("aclImdb/train/pos", "aclImdb_v1.tar.gz", "aclImdb_v1.tar.xz")
REAL = [Path(os.environ.get("JAXDL_DATA", ""), form) for form in FORMS]
REVIEWS = {
    "train/pos/0_9.txt": "Worth it.<br /><br />Go!",
    "train/pos/10_7.txt": "Quite good",
    "train/pos/9_10.txt": "Best",
    "train/neg/0_1.txt": "Worst",
    "train/neg/10_3.txt": "",
    "train/neg/9_4.txt": "Café noir, “bof”",
    "test/pos/1_8.txt": "Good",
    "test/neg/0_2.txt": "Bad",
}
FILES = {name: text.encode() for name, text in REVIEWS.items()}
OTHERS = {
    "README": b"",
    "imdb.vocab": b"the\n",
    "train/unsup/0_0.txt": b"Who knows",
    "train/urls_pos.txt": b"",
    "train/x.feat": b"",
}
EXPECTED = Collection.of(_PATTERN, FILES)


def archive(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as file:
        for name, content in files.items():
            member = tarfile.TarInfo("aclImdb/" + name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def unpacked(folder: Path) -> None:
    for name, content in (OTHERS | FILES).items():
        path = folder / "aclImdb" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


PLACED = {
    "unpacked": unpacked,
    "gz": lambda folder: (folder / "aclImdb_v1.tar.gz").write_bytes(
        gzip.compress(archive(OTHERS | FILES))
    ),
    "xz": lambda folder: (folder / "aclImdb_v1.tar.xz").write_bytes(
        lzma.compress(archive(FILES))
    ),
}


@pytest.mark.parametrize("place", PLACED.values(), ids=PLACED)
def test_reviews_come_by_number_the_negative_one_first(
    tmp_path: Path, place: Callable[[Path], object]
):
    place(tmp_path)
    (reviews, labels), (test_reviews, test_labels) = read_imdb(tmp_path, (EXPECTED,), urls=())
    assert reviews == [
        "Worst",
        "Worth it.<br /><br />Go!",
        "Café noir, “bof”",
        "Best",
        "",
        "Quite good",
    ]
    assert (labels.tolist(), labels.dtype) == ([0, 1, 0, 1, 0, 1], np.int32)
    assert (test_reviews, test_labels.tolist()) == (["Bad", "Good"], [0, 1])


def test_a_missing_archive_is_downloaded_once(server, tmp_path: Path):
    url = server.add("aclImdb_v1.tar.gz", gzip.compress(archive(OTHERS | FILES)))
    parts = [read_imdb(tmp_path, (EXPECTED,), (url,)) for _ in range(2)]
    assert [len(train[0]) for train, _ in parts] == [6, 6]
    assert len(server.requests) == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == [
        "aclImdb_v1.tar.gz"
    ]


def test_an_altered_download_is_not_kept(server, tmp_path: Path):
    url = server.add(
        "aclImdb_v1.tar.gz", gzip.compress(archive(FILES | {"test/pos/1_8.txt": b"Goof"}))
    )
    with pytest.raises(DataError, match=rf"{url}.* is altered"):
        read_imdb(tmp_path, (EXPECTED,), (url,))
    assert not (tmp_path / "aclImdb_v1.tar.gz").exists()


def test_a_known_copy_is_accepted(tmp_path: Path):
    files = FILES | {"test/pos/1_8.txt": b"Such a wonderful app"}
    (tmp_path / "aclImdb_v1.tar.gz").write_bytes(archive(files))
    _, (reviews, _) = read_imdb(tmp_path, (EXPECTED, Collection.of(_PATTERN, files)), urls=())
    assert reviews == ["Bad", "Such a wonderful app"]


def test_an_altered_archive_is_named_with_the_remedy(tmp_path: Path):
    (tmp_path / "aclImdb_v1.tar.xz").write_bytes(
        lzma.compress(archive(dict(list(FILES.items())[:-1])))
    )
    with pytest.raises(
        DataError,
        match=rf"^imdb: 'aclImdb_v1.tar.xz' in {tmp_path} holds 7 of the 8 files that are expected — delete it",
    ):
        read_imdb(tmp_path, (EXPECTED,), urls=())


def test_reviews_that_are_not_the_official_ones_are_refused(tmp_path: Path):
    unpacked(tmp_path)
    with pytest.raises(
        DataError,
        match=f"^imdb: 'aclImdb' in {tmp_path} holds 8 of the 50000 files that are expected",
    ):
        data.imdb(tmp_path)


def test_a_review_that_is_no_text_is_named(tmp_path: Path):
    files = FILES | {"train/neg/0_1.txt": b"Wor\xff"}
    (tmp_path / "aclImdb_v1.tar.gz").write_bytes(archive(files))
    with pytest.raises(
        DataError, match=r"has a 'train/neg/0_1.txt' that is no UTF-8 \(.* at byte 3\)"
    ):
        read_imdb(tmp_path, (Collection.of(_PATTERN, files),), urls=())


@pytest.mark.slow
@pytest.mark.skipif(not any(path.exists() for path in REAL), reason="IMDB is not in JAXDL_DATA")
@pytest.mark.once
def test_the_real_reviews():
    (reviews, labels), (test_reviews, test_labels) = data.imdb()
    assert len(reviews) == len(test_reviews) == 25_000
    assert np.bincount(labels).tolist() == np.bincount(test_labels).tolist() == [12_500, 12_500]
    assert reviews[3].startswith(
        "If you like adult comedy cartoons, like South Park, then this is nearly a similar format"
    )
    assert (len(set(reviews)), len(set(test_reviews)), len({*reviews, *test_reviews})) == (
        24_904,
        24_801,
        49_582,
    )
    assert (max(map(len, reviews)), min(map(len, test_reviews))) == (13_704, 32)
    wonderful, awful = (
        np.array([word in review for review in reviews]) for word in ("wonderful", "awful")
    )
    assert labels[wonderful].mean() > 0.75 > 0.25 > labels[awful].mean()
