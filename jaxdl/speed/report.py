"""The outcome of a comparison: a table, a plot, and JSON from which the same table is read."""

import dataclasses
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jaxdl.core.units import percent, scaled
from jaxdl.core.units import seconds as in_seconds
from jaxdl.speed.device import DeviceSpeed
from jaxdl.speed.execution import ExecutionSpeed, PrecisionCost

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType
    from rich.table import Table

FORMAT = "jaxdl speed report, version 2"
NONE = "—"

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, repr=False)
class SpeedReport:
    """The outcome of `compare` and `compare_function`; `print` shows it as a table.

    Args:
        name: what was compared.
        unit: what a time is of: "step" or "call".
        executions: the execution modes, in the order in which they were timed.
        device: the machine and its own speed, measured in the same minute.
        dtype: of the matrix product that shares are taken of.
        examples: of a step; None for a function.
        widest_spread: the spread above which no time is reported.
        compared: after how many steps results were compared.
        results: what was compared: "parameters" or "outputs".
        exact: whether all loops inside a step have a known length; operations of others are counted
            once.
        peak_of: what the peak memory is of.
        versions: of Python and the packages.
        date: ISO 8601, in UTC.
        precision: what computing in another precision changed, where it was requested.
    """

    name: str
    unit: str
    executions: tuple[ExecutionSpeed, ...]
    device: DeviceSpeed
    dtype: str
    examples: int | None
    widest_spread: float
    compared: int
    results: str
    exact: bool
    peak_of: str
    versions: dict[str, str]
    date: str
    precision: PrecisionCost | None = None

    def __getitem__(self, name: str) -> ExecutionSpeed:
        """What was measured of one execution mode.

        Args:
            name: of the execution mode.

        Raises:
            KeyError: the report has no such mode.
        """
        for each in self.executions:
            if each.name == name:
                return each
        known = ", ".join(repr(each.name) for each in self.executions)
        raise KeyError(f"{name!r}: the report has {known}.")

    @property
    def difference(self) -> float | None:
        """The largest difference between the results of any execution mode and those of the
        first.
        """
        known = [each.difference for each in self.executions if each.difference is not None]
        return max(known, default=None)

    @property
    def refused(self) -> tuple[str, ...]:
        """A sentence for each execution mode whose rounds differ so much that its time means
        nothing.
        """
        return tuple(
            f"{each.name}: no time is reported, since the middle half of its {len(each.rounds)} "
            f"rounds spreads over {percent(each.spread)} of their median, more than "
            f"{percent(self.widest_spread)} — the machine was busy: measure again, or ask for more "
            f"rounds or longer ones."
            for each in self.executions
            if each.seconds is None
        )

    def __repr__(self) -> str:
        times = [f"{each.name} {_cell(each.seconds, in_seconds)}" for each in self.executions]
        return f"SpeedReport({self.name!r}, a {self.unit}: {', '.join(times)})"

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        console = Console(
            file=text, width=100, highlight=False, color_system=None, force_jupyter=False
        )
        console.print(self)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def __rich__(self) -> "RenderableType":
        from rich.console import Group
        from rich.text import Text

        return Group(Text(self._title()), self.table(), *map(Text, self._notes()))

    def table(self) -> "Table":
        """The measurements as a `rich.table.Table`.

        Returns:
            A column for each execution mode.
        """
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("", no_wrap=True)
        for each in self.executions:
            table.add_column(each.name, justify="right", no_wrap=True)
        for heading, cell in self._rows().items():
            cells = [cell(each) for each in self.executions]
            if any(each != NONE for each in cells):
                table.add_row(heading, *cells)
        return table

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draws the times as bars, and the speeds under the machine's roofline.

        Args:
            path: where to save the figure; None does not save it.

        Returns:
            The figure.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        from jaxdl.speed.plot import plot_report

        return plot_report(self, path)

    def to_json(self, path: str | Path | None = None) -> str:
        """The report as JSON; what is not known is null.

        Args:
            path: a file to write it to.

        Returns:
            The text.
        """
        fields = {"format": FORMAT, **_plain(dataclasses.asdict(self))}
        text = json.dumps(fields, indent=2, allow_nan=False) + "\n"
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(text, encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, path: str | Path) -> "SpeedReport":
        """The report that `to_json` wrote.

        Args:
            path: of the file.

        Raises:
            ValueError: the file holds something else.
        """
        fields = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
            raise ValueError(
                f"{path}: expected a {FORMAT!r}, as SpeedReport.to_json writes it."
            )
        fields["executions"] = tuple(map(_execution, fields["executions"]))
        fields["device"] = DeviceSpeed(**fields["device"])
        if fields.get("precision"):
            fields["precision"] = PrecisionCost(**fields["precision"])
        return cls(**fields)

    def _title(self) -> str:
        batch = "" if self.examples is None else f" of {self.examples} examples"
        return f"{self.name}: a {self.unit}{batch}"

    def _rows(self) -> dict[str, Callable[[ExecutionSpeed], str]]:
        """The headings of the rows, and what makes a cell of an execution mode."""
        first = self.executions[0]
        one = self.unit

        def in_bytes(value: float | None) -> str:
            return _cell(value, lambda known: f"{scaled(known)}B")

        return {
            f"time a {one}": lambda each: _cell(each.seconds, in_seconds),
            "spread": lambda each: percent(each.spread) if math.isfinite(each.spread) else NONE,
            f"times as fast as {first.name}": lambda each: _cell(
                _ratio(first.seconds, each.seconds), "{:.3g}".format
            ),
            "examples a second": lambda each: _cell(each.examples_a_second, "{:,.0f}".format),
            "operations a second": lambda each: _cell(
                each.flops_a_second, lambda known: f"{scaled(known)}FLOP/s"
            ),
            "of the matrix product": lambda each: _cell(each.share_of_matrix_product, percent),
            "of the memory's speed": lambda each: _cell(each.share_of_bandwidth, percent),
            f"operations a {one}": lambda each: _cell(
                each.flops, lambda known: f"{scaled(known)}FLOP"
            ),
            f"bytes a {one}": lambda each: in_bytes(each.bytes),
            f"to the first {one}": lambda each: in_seconds(each.first_seconds),
            "  of it tracing": lambda each: in_seconds(each.trace_seconds),
            "  of it compiling": lambda each: in_seconds(each.compile_seconds),
            "programs compiled": lambda each: str(each.programs),
            "memory of the program": lambda each: in_bytes(each.program_bytes),
            "peak memory": lambda each: in_bytes(each.peak_bytes),
            f"Δ {self.results}": lambda each: _cell(each.difference, "{:.1e}".format),
        }

    def _notes(self) -> list[str]:
        first = self.executions[0]
        after = f"after {self.compared} {self.unit}{'s' * (self.compared != 1)}"
        notes = [
            *self.refused,
            f"{self.device}.",
            f"Times are medians of {len(first.rounds)} rounds taken in turn; spread is the "
            f"interquartile range over the median.",
            f"Operations and bytes are of the compiled {self.unit}, for eager too; the matrix "
            f"product is of {self.dtype}.",
            f"Peak memory is {self.peak_of}.",
            f"Δ is the largest difference from {first.name}'s {self.results}, {after}.",
        ]
        if self.precision is not None:
            notes.append(f"{self.precision}, {after}.")
        notes += self._warnings()
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return [*notes, f"{versions}; {self.date}."]

    def _warnings(self) -> list[str]:
        """What makes some of the measurements inexact."""
        warnings = []
        if any((each.share_of_matrix_product or 0) > 1 for each in self.executions):
            warnings.append(
                "A share above 100 %: the machine was slower while its own matrix product was "
                "measured."
            )
        if not self.exact:
            warnings.append(
                "A loop whose length is not known before it runs is counted once: operations and "
                "bytes are too few."
            )
        if any(each.cached for each in self.executions):
            warnings.append(
                "Some programs came from JAX's persistent cache: compiling them takes longer than "
                "it did here."
            )
        return warnings


def _cell(value: T | None, as_text: Callable[[T], str]) -> str:
    return NONE if value is None else as_text(value)


def _ratio(reference: float | None, value: float | None) -> float | None:
    return None if reference is None or value is None else reference / value


def _plain(value: Any) -> Any:
    """What JSON can hold: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _execution(fields: dict[str, Any]) -> ExecutionSpeed:
    """What `_plain` made null was NaN where only a number can stand."""
    rounds = tuple(map(_or_nan, fields["rounds"]))
    spread = _or_nan(fields["spread"])
    return ExecutionSpeed(**fields | {"rounds": rounds, "spread": spread})


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
