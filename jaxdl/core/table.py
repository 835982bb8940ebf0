"""Tables of results: rows of named figures, as text, CSV, or a frame of pandas."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
"""Figures, words and arrays by name."""


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Rows of named values; `run.table()` and `runs.table()` return one. It prints as text.

    Args:
        rows: a dict each; they may lack columns.

    >>> table = Table(({"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}))
    >>> [row["loss"] for row in table]
    [0.5, 0.25]
    >>> print(table.csv(), end="")
    epoch,loss
    1,0.5
    2,0.25
    """

    rows: tuple[Row, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns, in the order of the rows."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"Table({len(self)} rows of {', '.join(self.columns)})"

    def csv(self, path: str | Path | None = None) -> str:
        """The table as CSV, with a row of names first; numbers in full, arrays as JSON lists, and
        nothing where a row lacks a column.

        Args:
            path: of a file to write, too; missing folders are created.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="", lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({name: _plain(value) for name, value in row.items()})
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(text.getvalue(), encoding="utf-8", newline="")
        return text.getvalue()

    def frame(self) -> Any:
        """The table as a `pandas.DataFrame`.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        try:
            import pandas  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "Table.frame needs pandas: pip install pandas; rows are dicts, and csv() needs "
                "nothing."
            ) from error
        return pandas.DataFrame(list(self.rows), columns=list(self.columns))

    def text(self, most: int | None = None) -> str:
        """The table as text, floating numbers with four digits.

        Args:
            most: how many rows are shown, from the first; None shows all.
        """
        from rich import box
        from rich.console import Console
        from rich.table import Table as RichTable

        table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in self.columns:
            words = any(isinstance(row.get(name), str) for row in self.rows)
            table.add_column(name, justify="left" if words else "right")
        for row in self.rows[:most]:
            table.add_row(*[_shown(row.get(name)) for name in self.columns])
        text = io.StringIO()
        width = max(120, 16 * len(self.columns))
        console = Console(file=text, width=width, force_jupyter=False, color_system=None)
        console.print(table)
        lines = [line.rstrip() for line in text.getvalue().splitlines()]
        if most is not None and len(self) > most:
            lines.append(f"… and {len(self) - most} more")
        return "\n".join(lines).strip("\n")


def rows_of(history: dict[str, list[Any]]) -> tuple[Row, ...]:
    """The rows of a history, each with the number of its epoch, from 1, or of its last step."""
    count = max(map(len, history.values()), default=0)
    rows = []
    for row in range(count):
        figures = {name: values[row] for name, values in history.items() if row < len(values)}
        place = {"step": figures["step"]} if "step" in figures else {"epoch": row + 1}
        rows.append(place | figures)
    return tuple(rows)


def _plain(value: Any) -> Any:
    if hasattr(value, "dtype"):
        value = np.asarray(value).tolist()
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value)
    return "" if value is None else value


def _shown(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    return str(_plain(value))
