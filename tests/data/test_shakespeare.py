"""Tiny Shakespeare: the loader on a short text, and the real one where it is."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from jaxdl import data
from jaxdl.data.content import Content
from jaxdl.data.error import DataError
from jaxdl.data.shakespeare import read_text

REAL = Path(os.environ.get("JAXDL_DATA", ""), "tinyshakespeare", "input.txt")
TEXT = "First Citizen:\nBefore we proceed any further, hear me speak.\n"
EXPECTED = Content.of("input.txt", TEXT.encode())


@pytest.mark.parametrize(
    ("name", "pack"), [("input.txt", bytes), ("input.txt.gz", gzip.compress)]
)
def test_the_text_is_found_plain_and_packed(tmp_path: Path, name: str, pack):
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / name).write_bytes(pack(TEXT.encode()))
    assert read_text(tmp_path, EXPECTED, urls=()) == TEXT


def test_a_missing_text_is_downloaded_once(server, tmp_path: Path):
    url = server.add("input.txt", TEXT.encode())
    assert [read_text(tmp_path, EXPECTED, (url,)) for _ in range(2)] == [TEXT, TEXT]
    assert len(server.requests) == 1
    assert (tmp_path / "tinyshakespeare" / "input.txt").read_text() == TEXT


def test_a_shortened_text_is_named(tmp_path: Path):
    place = tmp_path / "tinyshakespeare" / "input.txt"
    place.parent.mkdir()
    place.write_text(TEXT)
    with pytest.raises(
        DataError,
        match=rf"^shakespeare: 'input.txt' in {place.parent} holds {len(TEXT)} bytes where 1115394 are expected — delete it",
    ):
        data.shakespeare(tmp_path)


@pytest.mark.skipif(not REAL.is_file(), reason="Tiny Shakespeare is not in JAXDL_DATA")
@pytest.mark.once
def test_the_real_text():
    text = data.shakespeare()
    characters = data.Characters.of(text)
    assert (len(text), len(characters)) == (1_115_394, 65)
    assert characters.characters == "\n !$&',-.3:;?" + "".join(
        map(chr, [*range(65, 91), *range(97, 123)])
    )
    assert text.startswith("First Citizen:\nBefore we proceed")
    ids = characters.encode(text)
    assert characters.decode(ids) == text
    assert np.bincount(ids).argmax() == characters.characters.index(" ")
    inputs, targets = data.windows(ids[: int(0.9 * len(ids))], length=64)
    assert inputs.shape == targets.shape == (15_685, 64)
