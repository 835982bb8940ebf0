"""Tables of results as rows, text, CSV and frames."""

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses

pytestmark = pytest.mark.usefixtures("quickly_compiled")
X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
DATA = (X, X[:, :1])
SETTINGS: dict[str, Any] = {
    "loss": losses.mean_squared_error,
    "epochs": 3,
    "progress": False,
    "validation": 0.2,
}
TABLE = dl.Table(
    (
        {"name": "a, b", "loss": 0.1, "each": np.array([1.0, 2.0])},
        {"name": 'c "d"', "count": 3, "loss": float("nan")},
    )
)


def test_rows() -> None:
    assert len(TABLE) == 2
    assert list(TABLE) == list(TABLE.rows)
    assert TABLE[1]["count"] == 3
    assert TABLE.columns == ("name", "loss", "each", "count")
    assert repr(TABLE) == "Table(2 rows of name, loss, each, count)"
    assert dl.Table(()).csv() == "\n"
    assert str(dl.Table(())) == ""


def test_csv_is_read_back(tmp_path: Path) -> None:
    text = TABLE.csv(tmp_path / "new" / "table.csv")
    assert (tmp_path / "new" / "table.csv").read_text() == text
    rows = list(csv.DictReader(text.splitlines()))
    assert rows == [
        {"name": "a, b", "loss": "0.1", "each": "[1.0, 2.0]", "count": ""},
        {"name": 'c "d"', "loss": "nan", "each": "", "count": "3"},
    ]


def test_text() -> None:
    lines = str(TABLE).splitlines()
    assert lines[0].split() == ["name", "loss", "each", "count"]
    assert lines[2].split() == ["a,", "b", "0.1", "[1.0,", "2.0]"]
    assert TABLE.text(1).endswith("… and 1 more")


def test_a_frame() -> None:
    pandas = pytest.importorskip("pandas")
    frame = TABLE.frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(TABLE.columns)


def test_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"Table\.frame needs pandas: pip install"):
        TABLE.frame()


def test_the_table_of_a_run() -> None:
    run = dl.fit(dl.Dense(1), DATA, optimizer=optax.sgd(0.1), **SETTINGS)
    table = run.table()
    assert [row["epoch"] for row in table] == [1, 2, 3]
    for name, values in run.history.items():
        assert [row[name] for row in table] == values
    read = list(csv.DictReader(table.csv().splitlines()))
    assert [float(row["loss"]) for row in read] == run.history["loss"]


def test_the_table_of_a_population() -> None:
    over = {"learning_rate": [1e-2, 1e-1]}
    runs = dl.sweep(dl.Dense(1), DATA, over, seeds=2, optimizer=optax.sgd, **SETTINGS)
    table = runs.table()
    assert [row["member"] for row in table] == list(runs.ranking)
    for row in table:
        run = runs[row["member"]]
        assert (
            row["learning_rate"] == runs.members[row["member"]].hyperparameters["learning_rate"]
        )
        assert row["score"] == row["validation_loss"] == run.history["validation_loss"][-1]
        assert run.best is not None
        assert (row["best_epoch"], row["best_value"]) == (run.best.epoch + 1, run.best.value)
        assert (row["epochs"], row["stopped"]) == (3, "finished")
    assert len(runs.table(most=2)) == 2
    lines = str(runs).splitlines()
    assert lines[0].startswith("4 members by validation loss: best ")
    assert lines[2].split() == [
        "member",
        "seed",
        "learning_rate",
        "validation",
        "loss",
        "epochs",
        "ended",
    ]
    assert len(lines) == 4 + 4
