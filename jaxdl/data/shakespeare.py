"""Tiny Shakespeare: a megabyte of plays in one text."""

import os
from pathlib import Path

from jaxdl.data.archive import read_file
from jaxdl.data.content import Content
from jaxdl.data.download import obtain
from jaxdl.data.folder import data_folder
from jaxdl.data.transfer import Remote

_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
_TEXT = Content(
    "input.txt", 1115394, "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
)


def shakespeare(folder: str | os.PathLike[str] | None = None) -> str:
    """Loads 1,115,394 characters of Shakespeare's plays, of 65 kinds.

    The text is looked for in the folder as `tinyshakespeare/input.txt`, with or without `.gz`, and
    downloaded (1.1 MB) where it is not there. It has no official split; the first nine tenths are
    usually trained on, and the rest validates.

    Args:
        folder: where to look and to download; else `JAXDL_DATA`, else the platform's cache folder.

    Returns:
        The text, its lines ended by "\\n".

    Raises:
        DataError: the file there is short or altered, or if it is missing and cannot be
            downloaded.

    Source: Karpathy, *The unreasonable effectiveness of recurrent neural networks* (2015).
    """
    return read_text(data_folder(folder), _TEXT, (_URL,))


def read_text(folder: Path, content: Content, urls: tuple[str, ...]) -> str:
    """Reads the given text as `shakespeare` returns it."""
    place = folder / "tinyshakespeare" / content.name
    remote = Remote("shakespeare", urls, place, limit=content.size + (1 << 20))
    return obtain(
        [place, place.with_name(place.name + ".gz")],
        lambda path: read_file(path, content),
        remote,
    ).decode()
