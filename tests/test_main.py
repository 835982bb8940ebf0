"""The command line, in this process."""

import json
from pathlib import Path

import pytest

from jaxdl.__main__ import main

pytest.importorskip("tyro")

SUBJECT = '''"""Does a line fit? One dense layer.

Expect: a loss below 0.1; or so.
"""

import dataclasses

import numpy as np
import optax

import jaxdl as dl


@dataclasses.dataclass(frozen=True)
class Config:
    quick: bool = False


def subject(config):
    x = np.ones((8 if config.quick else 16, 2), np.float32)
    return {
        "model": dl.Dense(1),
        "data": (x, x[:, :1]),
        "loss": dl.losses.mean_squared_error,
        "optimizer": optax.sgd(0.01),
        "batch_size": 4,
        "validation": (x, x[:, :1]),
    }


def main(config): ...
'''
OTHER = '"""Two networks play. A game.\n\nExpect: nothing."""\nclass Config: ...\ndef main(config): ...\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / f"experiments_{tmp_path.name}"
    folder.mkdir()
    (folder / "line.py").write_text(SUBJECT)
    (folder / "game.py").write_text(OTHER)
    (folder / "shared.py").write_text('"""No experiment."""\n')
    return folder


def test_list_shows_experiments_and_what_they_expect(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["list", "--folder", str(folder)])
    printed = " ".join(capsys.readouterr().out.split())
    assert "game Two networks play. nothing." in printed
    assert "line * Does a line fit? a loss below 0.1 " in printed
    assert "shared" not in printed


@pytest.mark.slow
def test_compare_prints_a_report_and_writes_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    out, picture = tmp_path / "out.json", tmp_path / "out.png"
    quick = ["--quick", "--rounds", "3", "--seconds", "0.001", "--executions", "step", "epoch"]
    main(
        [
            "compare",
            "line",
            "--folder",
            str(folder),
            *quick,
            "--json",
            str(out),
            "--plot",
            str(picture),
        ]
    )
    printed = capsys.readouterr().out
    assert "line: a step of 4 examples" in printed
    assert [way["name"] for way in json.loads(out.read_text())["executions"]] == [
        "step",
        "epoch",
    ]
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["compare", "game"], "game: this experiment has no `subject"),
        (["compare", "nothing"], "has no such experiment — these can be compared: line."),
    ],
)
def test_what_cannot_be_compared_is_said(
    folder: Path, arguments: list[str], sentence: str
) -> None:
    with pytest.raises(SystemExit, match=sentence):
        main([*arguments, "--folder", str(folder)])


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit,
        match="there is no such folder — run this in the folder above the experiments",
    ):
        main(["list", "--folder", str(tmp_path / "none")])


def test_devices_shows_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    main(["devices", "--seconds", "0.01"])
    printed = capsys.readouterr().out
    assert "matrix product, float32" in printed
    assert "FLOP/s" in printed
