"""The benchmark of populations, at the smallest sizes."""

import json
from pathlib import Path

import pytest

from benchmarks import populations


@pytest.mark.slow
def test_it_measures_both_and_says_what_is_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sys.argv",
        [
            "populations",
            "--members",
            "3",
            "--epochs",
            "1",
            "--rounds",
            "2",
            "--out",
            str(tmp_path),
        ],
    )
    populations.main()
    result = json.loads((tmp_path / "populations.json").read_text())
    for run in result["runs"].values():
        assert {way: len(turns) for way, turns in run.items()} == {
            way: 20 if way in populations.SINGLE else 2 for way in run
        }
    found = populations.ratios(result)
    assert all(ratio > 0 for ratio in found.values())
    assert "one after another / fit_many, one device" in found
    lines = populations.table(result).splitlines()
    assert lines[0].startswith("| 3 runs of 10-10-10-1")
    assert lines[-1].startswith("| `fit_many`, a device for each core")
