"""The trials of damage, in small numbers: no wrong number is ever read in silence."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import faults, interruptions, saving

pytest.importorskip("safetensors")
SILENT = {"silently wrong", "unnamed error"}


@pytest.fixture
def settings(tmp_path: Path) -> saving.Settings:
    (tmp_path / "out").mkdir()
    return saving.Settings(30, 12, 12, 2, 0.3, 1, 2, tmp_path, tmp_path / "out")


@pytest.mark.slow
def test_damaged_weights_are_named(settings: saving.Settings) -> None:
    result = faults.weights(settings)
    assert result["flips"] == {"named in an error": 30}
    assert result["truncations"] == {"named in an error": 12}
    assert result["flips, safetensors alone"]["silently wrong"] > 6


@pytest.mark.slow
def test_damaged_checkpoints_are_named(settings: saving.Settings) -> None:
    result = faults.checkpoints(settings)
    assert result["flips"] == {"fell back and said so": 15, "named in an error": 15}
    assert result["truncations"] == {"fell back and said so": 6, "named in an error": 6}
    assert result["flips, Orbax alone"]["silently wrong"] > 0


def test_damage_is_done() -> None:
    generator, whole = np.random.default_rng(0), bytes(100)
    damaged = faults.flipped(generator)(whole)
    assert sum(byte.bit_count() for byte in damaged) == 1
    assert len(faults.truncated(generator)(whole)) < 100


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_and_the_run_goes_on(settings: saving.Settings) -> None:
    result = faults.full_disk(settings)
    assert result["newest whole step after each save"] == [0, 0, 2]
    assert result["left over"] == []
    (told,) = result["warnings"]
    assert "step 1 was not saved" in told
    assert "(File too large); 000001-step-0 is whole" in told


@pytest.mark.slow
def test_memory_and_cost_are_measured(settings: saving.Settings) -> None:
    assert 0.8 < saving.saving_memory(settings)["ratio"] < 2.0
    cost = saving.cost(1, 0.3, 1, str(settings.folder / "cost"))
    assert cost["state_bytes"] > 5e5
    assert cost["seconds until whole"] > 0


@pytest.mark.slow
def test_runs_that_were_killed_end_as_the_undisturbed_one(
    settings: saving.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    counts = interruptions.killed(settings)
    assert counts["signals"] == counts["a whole checkpoint after it"] == 2
    assert counts["same digest"] == counts["runs"] >= 1
    assert counts["other digest"] == counts["not whole"] == 0


def test_the_table_counts_what_was_tried() -> None:
    counts = {
        "flips": {"named in an error": 7, "harmless": 2},
        "truncations": {"fell back and said so": 3},
    }
    table = faults.markdown(
        {
            "machine": {"processor": "P", "cores": 2, "date": "2026-01-02T03:04:05"},
            "weights": counts
            | {"flips, safetensors alone": {"silently wrong": 94, "error": 6}},
            "checkpoints": counts | {"flips, Orbax alone": {"harmless": 1}},
            "malicious": {
                "attacks": 5,
                "escapes": 0,
                "kinds": {"a bomb": {"outcomes": {"named in an error": 4, "harmless": 1}}},
                "most memory of a refusal over honest content": 1.234,
            },
            "full disk": {"newest whole step after each save": [0, 0, 2], "left over": []},
            "saving memory": {"state_megabytes": 500, "ratio": 1.25},
            "saving cost": {"500 MB": {"share of training, saving every minute": 0.016}},
        }
    )
    assert "| a flipped bit in a file of weights | 9 | 7 | 0 | 2 | 0 | 0 |" in table
    assert "| a flipped bit, safetensors alone | 100 | 0 | 0 | 0 | 6 | 94 |" in table
    assert "| data with a bomb | 5 | 4 | 0 | 1 | 0 | 0 |" in table
    assert "Of 5 data folders that were made to do harm, none had something written" in table
    assert "at most 1.23 times the memory" in table
    assert (
        "step 0 was whole then, as after the first (0), the run was told, and the third was whole again (2)"
        in table
    )
    assert "takes 1.6% (a state of 500 MB) of the training time" in table
