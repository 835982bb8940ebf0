"""What experiments share: goals, `result.json`, tables and pictures."""

import dataclasses
import json
from datetime import datetime
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import pictures, reporting
from experiments.reporting import Goal
from jaxdl.data import DataError


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Args:
        seed: of nothing.
    """

    seed: int = 0
    epochs: int = 3
    out: Path = Path("runs/none")
    quick: bool = False


FIGURES = {
    "accuracy": np.float64(0.75),
    "difference": 2e-3,
    "curve": [1.0, float("nan")],
    "matrix": np.eye(2),
    "array": jnp.arange(2),
    "count": np.int64(3),
    "words": "as they are",
}
GOALS = (Goal("accuracy", 0.7), Goal("difference", 1e-3, "at most"))


def test_a_result_holds_figures_goals_settings_versions_device_and_date(tmp_path: Path) -> None:
    path = reporting.write_result("test", Config(out=tmp_path), FIGURES, GOALS)
    result = json.loads(path.read_text())
    assert path == tmp_path / "result.json"
    assert list(result) == [
        "experiment",
        "figures",
        "goals",
        "settings",
        "versions",
        "device",
        "date",
    ]
    assert result["figures"] == {
        "accuracy": 0.75,
        "difference": 0.002,
        "curve": [1.0, None],
        "matrix": [[1.0, 0.0], [0.0, 1.0]],
        "array": [0, 1],
        "count": 3,
        "words": "as they are",
    }
    assert result["goals"] == {
        "accuracy": {"to reach": "at least 0.7", "reached": True},
        "difference": {"to reach": "at most 0.001", "reached": False},
    }
    assert result["settings"] == {"seed": 0, "epochs": 3, "out": str(tmp_path), "quick": False}
    assert result["versions"]["jax"] == jax.__version__
    assert {"python", "jaxdl", "jaxlib", "optax"} <= set(result["versions"])
    assert (result["device"]["platform"], result["device"]["cores"] > 0) == (
        jax.devices()[0].platform,
        True,
    )
    assert datetime.fromisoformat(result["date"]).tzinfo is not None


def test_a_result_says_what_was_reached_and_where_it_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reporting.write_result("test", Config(out=tmp_path), FIGURES, GOALS)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "accuracy 0.75, expected at least 0.7: reached"
    assert printed[1] == "difference 0.002, expected at most 0.001: NOT reached"
    assert printed[2] == f"written to {tmp_path}: result.json"


def test_a_quick_run_judges_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = reporting.write_result("test", Config(out=tmp_path, quick=True), FIGURES, GOALS)
    assert [goal["reached"] for goal in json.loads(path.read_text())["goals"].values()] == [
        None,
        None,
    ]
    assert "not judged in a quick run" in capsys.readouterr().out


def test_a_goal_is_reached_at_its_limit() -> None:
    assert Goal("x", 0.5).reached({"x": 0.5})
    assert Goal("x", 0.5, "at most").reached({"x": 0.5})
    assert not Goal("x", 0.5).reached({"x": float("nan")})


def test_the_command_line_becomes_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tyro")
    seen: list[Config] = []
    monkeypatch.setattr("sys.argv", ["test", "--quick", "--epochs", "5", "--out", "elsewhere"])
    reporting.run(seen.append, Config, "A test.")
    assert seen == [Config(epochs=5, out=Path("elsewhere"), quick=True)]


def test_data_that_cannot_be_had_end_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tyro")

    def experiment(config: Config) -> None:
        raise DataError("mnist: it is not there.")

    monkeypatch.setattr("sys.argv", ["test"])
    with pytest.raises(SystemExit, match=r"mnist: it is not there\."):
        reporting.run(experiment, Config, "A test.")


def test_a_table_shows_text_numbers_and_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    reporting.show_table(
        "A title",
        ["name", "value", "other"],
        [["first", 0.123456, None], ["second", 12, "text"]],
        "A note.",
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["name", "value", "other"] in lines
    assert ["first", "0.1235", "–"] in lines
    assert ["second", "12", "text"] in lines


def test_the_first_examples_of_each_part() -> None:
    images, labels = reporting.first(2, (np.zeros((5, 3)), np.arange(5)))
    assert images.shape == (2, 3)
    assert labels.tolist() == [0, 1]


def test_curves_have_a_pair_of_lines_a_run_and_named_axes(tmp_path: Path) -> None:
    history = {"accuracy": [0.5, 0.75], "validation_accuracy": [0.25, 0.5]}
    figure = pictures.curves_of_seeds([history, history], "accuracy")
    (axis,) = figure.axes
    assert [line.get_label() for line in axis.lines] == [
        "training, run 1",
        "test, run 1",
        "training, run 2",
        "test, run 2",
    ]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("epoch", "accuracy")
    pictures.save(figure, tmp_path / "new", "curves")
    assert (tmp_path / "new" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_confusion_matrix_names_its_classes_and_writes_its_counts() -> None:
    figure = pictures.confusion(np.array([[3.0, 1.0], [0.0, 2.0]]), ["cat", "dog"])
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["cat", "dog"]
    assert sorted(text.get_text() for text in axis.texts) == ["1", "2", "3"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted class", "true class")
