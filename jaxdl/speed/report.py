"""What a comparison found: a table, pictures, and JSON that prints the same table again."""

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

from jaxdl.core.units import percent, scaled
from jaxdl.core.units import seconds as in_seconds
from jaxdl.speed.device import DeviceSpeed

FORMAT = "jaxdl speed report, version 1"
NONE = "—"


@dataclasses.dataclass(frozen=True)
class WaySpeed:
    """How fast one way was. All times are in seconds; None is what is not known.

    Args:
        name: of the way.
        programs: how many were compiled for it; operation by operation, later steps may need more
            than the first.
        cached: how many of these came from the persistent cache.
        trace_seconds: running functions on shapes and writing programs for XLA, for the first step.
        compile_seconds: XLA's work on the programs of the first step.
        first_seconds: from the call to the end of the first step (or call), compiling included.
        rounds: of one step, in each of the rounds that were taken in turn.
        repeats: how many steps made a round.
        spread: the interquartile range of the rounds over their median.
        seconds: the median; None where the spread is too wide for it to mean anything, and so are
            all that follow from it.
        examples_a_second: none for a function's calls.
        flops: floating-point operations of one step, as XLA counts them, loops as often as they
            turn.
        bytes: that the operations of one compiled step read and write.
        flops_a_second: flops / seconds.
        share_of_matrix_product: of the operations a second that the machine's own matrix product
            reaches.
        share_of_bandwidth: of the bytes a second that the machine's memory moves; above 1 where
            caches serve.
        program_bytes: arguments, outputs and temporary memory of the largest of the programs.
        peak_bytes: the most that was held while it warmed up; the report's `peak_of` says of what.
        difference: the largest from the first way's results, after the same steps.
    """

    name: str
    programs: int
    cached: int
    trace_seconds: float
    compile_seconds: float
    first_seconds: float
    rounds: tuple[float, ...]
    repeats: int
    spread: float
    seconds: float | None
    examples_a_second: float | None
    flops: float | None
    bytes: float | None
    flops_a_second: float | None
    share_of_matrix_product: float | None
    share_of_bandwidth: float | None
    program_bytes: int | None
    peak_bytes: int | None
    difference: float | None


@dataclasses.dataclass(frozen=True)
class PrecisionCost:
    """What computing in few bits has cost: figures of the data by the model it trained, and by one
    trained in float32.

    Args:
        dtype: that the model computed in.
        figures: the loss and the metrics, by name, that are numbers.
        float32: the same after the same steps in float32.
        difference: the largest between the parameters.
    """

    dtype: str
    figures: dict[str, float]
    float32: dict[str, float]
    difference: float

    def __str__(self) -> str:
        pairs = ", ".join(
            f"{name} {value:.4g} (float32: {self.float32[name]:.4g})"
            for name, value in self.figures.items()
        )
        return f"{self.dtype} gives {pairs}; its parameters differ by {self.difference:.1e} at most"


@dataclasses.dataclass(frozen=True, repr=False)
class SpeedReport:
    """The outcome of `compare` and `compare_function`; `print` shows it as a table.

    Args:
        name: what was compared.
        unit: what a time is of: "step" or "call".
        ways: in the order they took turns in.
        device: the machine and its own speed, measured in the same minute.
        dtype: of the matrix product that shares are taken of.
        examples: of a step; None for a function.
        widest_spread: the spread above which no time is told.
        compared: after how many steps results were compared.
        results: what was: "parameters" or "outputs".
        exact: whether all loops inside a step have a known length; operations of others are counted
            once.
        peak_of: what the peak memory is of.
        versions: of Python and the packages.
        date: ISO 8601, in UTC.
        precision: what computing in another precision has cost, where that was asked for.
    """

    name: str
    unit: str
    ways: tuple[WaySpeed, ...]
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

    def __getitem__(self, way: str) -> WaySpeed:
        """The figures of one way, by its name."""
        for each in self.ways:
            if each.name == way:
                return each
        raise KeyError(
            f"{way!r}: the report has {', '.join(repr(each.name) for each in self.ways)}."
        )

    @property
    def difference(self) -> float | None:
        """The largest difference between the results of any of the ways and those of the first."""
        return max(
            (each.difference for each in self.ways if each.difference is not None), default=None
        )

    @property
    def refused(self) -> tuple[str, ...]:
        """A sentence for each way whose rounds differ so much that its time means nothing."""
        return tuple(
            f"{each.name}: no time is told, since the middle half of its {len(each.rounds)} rounds "
            f"spreads over "
            f"{percent(each.spread)} of their median, more than {percent(self.widest_spread)} — "
            f"the machine was busy: measure "
            "again, or ask for more rounds or longer ones."
            for each in self.ways
            if each.seconds is None
        )

    def __repr__(self) -> str:
        times = (
            f"{each.name} {NONE if each.seconds is None else in_seconds(each.seconds)}"
            for each in self.ways
        )
        return f"SpeedReport({self.name!r}, a {self.unit}: {', '.join(times)})"

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        Console(
            file=text, width=100, highlight=False, color_system=None, force_jupyter=False
        ).print(self)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        return Group(Text(self._title()), self.table(), *map(Text, self._notes()))

    def table(self) -> Any:
        """The figures as a `rich.table.Table`, a column a way."""
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("", no_wrap=True)
        for each in self.ways:
            table.add_column(each.name, justify="right", no_wrap=True)
        for heading, cells in self._rows().items():
            if any(cell != NONE for cell in cells):
                table.add_row(heading, *cells)
        return table

    def plot(self, path: str | Path | None = None) -> Any:
        """Draws the times as bars and the speeds under the machine's roofline; a `Figure`, saved
        where a path is given.
        """
        from jaxdl.speed.plot import plot_report

        return plot_report(self, path)

    def to_json(self, path: str | Path | None = None) -> str:
        """All figures as JSON, written to a file where a path is given; what is not known is
        null.
        """
        text = (
            json.dumps(
                {"format": FORMAT, **_plain(dataclasses.asdict(self))}, indent=2, allow_nan=False
            )
            + "\n"
        )
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(text, encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, path: str | Path) -> "SpeedReport":
        """The report that `to_json` wrote.

        Raises:
            ValueError: the file holds something else.
        """
        held = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(held, dict) or held.pop("format", None) != FORMAT:
            raise ValueError(f"{path}: expected a {FORMAT!r}, as SpeedReport.to_json writes it.")
        ways = (
            each
            | {"rounds": tuple(map(_number, each["rounds"])), "spread": _number(each["spread"])}
            for each in held["ways"]
        )
        held["ways"] = tuple(WaySpeed(**each) for each in ways)
        held["device"] = DeviceSpeed(**held["device"])
        held["precision"] = PrecisionCost(**held["precision"]) if held.get("precision") else None
        return cls(**held)

    def _title(self) -> str:
        batch = "" if self.examples is None else f" of {self.examples} examples"
        return f"{self.name}: a {self.unit}{batch}"

    def _rows(self) -> dict[str, list[str]]:
        """The cells of each row, a way after another."""
        first = self.ways[0]
        one, self_of = self.unit, f"Δ {self.results}"
        return {
            f"time a {one}": [_cell(each.seconds, in_seconds) for each in self.ways],
            "spread": [
                percent(each.spread) if math.isfinite(each.spread) else NONE for each in self.ways
            ],
            f"times as fast as {first.name}": [
                _cell(_ratio(first.seconds, each.seconds), "{:.3g}".format) for each in self.ways
            ],
            "examples a second": [
                _cell(each.examples_a_second, lambda n: f"{n:,.0f}") for each in self.ways
            ],
            "operations a second": [
                _cell(each.flops_a_second, lambda n: f"{scaled(n)}FLOP/s") for each in self.ways
            ],
            "of the matrix product": [
                _cell(each.share_of_matrix_product, percent) for each in self.ways
            ],
            "of the memory's speed": [
                _cell(each.share_of_bandwidth, percent) for each in self.ways
            ],
            f"operations a {one}": [
                _cell(each.flops, lambda n: f"{scaled(n)}FLOP") for each in self.ways
            ],
            f"bytes a {one}": [_cell(each.bytes, lambda n: f"{scaled(n)}B") for each in self.ways],
            f"to the first {one}": [in_seconds(each.first_seconds) for each in self.ways],
            "  of it tracing": [in_seconds(each.trace_seconds) for each in self.ways],
            "  of it compiling": [in_seconds(each.compile_seconds) for each in self.ways],
            "programs compiled": [str(each.programs) for each in self.ways],
            "memory of the program": [
                _cell(each.program_bytes, lambda n: f"{scaled(n)}B") for each in self.ways
            ],
            "peak memory": [
                _cell(each.peak_bytes, lambda n: f"{scaled(n)}B") for each in self.ways
            ],
            self_of: [_cell(each.difference, "{:.1e}".format) for each in self.ways],
        }

    def _notes(self) -> list[str]:
        rounds = len(self.ways[0].rounds)
        after = f"after {self.compared} {self.unit}{'s' * (self.compared != 1)}"
        notes = [
            *self.refused,
            f"{self.device}.",
            f"Times are medians of {rounds} rounds taken in turn; spread is the interquartile "
            f"range over the median.",
            f"Operations and bytes are of the compiled {self.unit}, for eager too; the matrix "
            f"product is of {self.dtype}.",
            f"Peak memory is {self.peak_of}.",
            f"Δ is the largest difference from {self.ways[0].name}'s {self.results}, {after}.",
        ]
        if self.precision is not None:
            notes.append(f"{self.precision}, {after}.")
        if any((each.share_of_matrix_product or 0) > 1 for each in self.ways):
            notes.append(
                "A share above 100 %: the machine was slower while its own matrix product was "
                "measured."
            )
        if not self.exact:
            notes.append(
                "A loop whose length is not known before it runs is counted once: operations and "
                "bytes are too few."
            )
        if any(each.cached for each in self.ways):
            notes.append(
                "Some programs came from JAX's persistent cache: compiling them takes longer than "
                "it did here."
            )
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return [*notes, f"{versions}; {self.date}."]


def _cell(value: Any, shown: Any) -> str:
    return NONE if value is None else shown(value)


def _ratio(reference: float | None, value: float | None) -> float | None:
    return None if reference is None or value is None else reference / value


def _plain(value: Any) -> Any:
    """What JSON can hold: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
