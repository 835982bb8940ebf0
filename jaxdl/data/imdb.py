"""IMDB: film reviews as they were written, and whether their writers liked the film."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from jaxdl.data.archive import read_collection
from jaxdl.data.content import Collection
from jaxdl.data.download import obtain
from jaxdl.data.error import CorruptionError
from jaxdl.data.folder import data_folder
from jaxdl.data.transfer import Remote

_URL = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
_PATTERN = r"(?:train|test)/(?:neg|pos)/[0-9]+_[0-9]+\.txt"
_REVIEWS = Collection(
    _PATTERN,
    50_000,
    65483508,
    "bdf6dc79930e5d0d044c8e7b18b78e1feed0ace7b65c366ffd2ceac2f7274120",
)
_COPY = Collection(
    _PATTERN,
    50_000,
    65477753,
    "d0c18a23311d86571af4af5d795efc49cf313a4eaf40bdc62e6b59ee2eb58ac8",
)
_FORMS = ("aclImdb", "aclImdb_v1.tar.gz", "aclImdb_v1.tar.xz")
_LIMIT = (
    1 << 29
)  # the official archive holds 50,000 unlabelled reviews and counts of words besides

_Part = tuple[list[str], np.ndarray]


def imdb(
    folder: str | os.PathLike[str] | None = None,
) -> tuple[
    tuple[list[str], Int32[np.ndarray, " train"]], tuple[list[str], Int32[np.ndarray, " test"]]
]:
    """Loads IMDB: 50,000 film reviews, in their official split into 25,000 for training and 25,000
    for testing.

    The reviews come in the order of their numbers, and of two with one number the negative one
    first: negative and positive ones alternate. A film's reviews have neighbouring numbers, so that
    the last tenth of the training part, set aside for validation, is of other films than the rest
    (but for one on the border), as the test part is.

    They are looked for in the folder as `aclImdb/`, `aclImdb_v1.tar.gz` or `aclImdb_v1.tar.xz`, and
    downloaded (84 MB) where they are there in no form. An archive takes two or three seconds to
    read.

    A copy is about in which eight reviews are not of films but of apps (0_9 and 7_7 in `train/pos`,
    2_1 and 9_1 in `train/neg`, 0_10, 2_7, 7_9 and 9_7 in `test/pos`), under the same names. It is
    accepted, too; these are 4 in 25,000.

    Args:
        folder: where to look and to download; else `JAXDL_DATA`, else the platform's cache folder.

    Returns:
        `(train, test)`, each `(reviews, labels)`: reviews a list of n texts as they are in their
        files, with `<br />` for a new line; labels [n] int32, 0 for a negative review (1 to 4 of 10
        stars) and 1 for a positive one (7 to 10).

    Raises:
        DataError: what is there is short or altered, or if it is missing and cannot be
            downloaded.

    Source: Maas, Daly, Pham, Huang, Ng, Potts, *Learning word vectors for sentiment analysis*
    (2011).
    """
    return read_imdb(data_folder(folder), (_REVIEWS, _COPY), (_URL,))


def read_imdb(
    folder: Path, accepted: tuple[Collection, ...], urls: tuple[str, ...]
) -> tuple[_Part, _Part]:
    """Reads the given reviews as `imdb` returns them."""
    official, *copies = accepted

    def read(path: Path) -> tuple[_Part, _Part]:
        files = read_collection(path, official, _LIMIT, *copies)
        return _part("train", files), _part("test", files)

    return obtain(
        [folder / form for form in _FORMS],
        read,
        Remote("imdb", urls, folder / "aclImdb_v1.tar.gz", _LIMIT),
    )


def _part(name: str, files: dict[str, bytes]) -> _Part:
    numbered = sorted(_numbered(file) for file in files if file.startswith(name + "/"))
    reviews = [_text(file, files.pop(file)) for _, _, file in numbered]
    return reviews, np.array([label for _, label, _ in numbered], np.int32)


def _numbered(file: str) -> tuple[int, int, str]:
    """The number, label and name of `test/pos/123_8.txt`."""
    _, label, name = file.split("/")
    return int(name.partition("_")[0]), int(label == "pos"), file


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise CorruptionError(
            f"has a {name!r} that is no UTF-8 ({error.reason} at byte {error.start})"
        ) from error
