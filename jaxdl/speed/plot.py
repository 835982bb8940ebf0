"""Plots of a speed report."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdl.core.plotting import new_figure, save_figure
from jaxdl.core.units import seconds as in_seconds
from jaxdl.speed.execution import ExecutionSpeed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_UNITS = ((1, "s"), (1e3, "ms"), (1e6, "µs"), (1e9, "ns"))
_NO_TIME = "not reported:\nthe rounds\nspread too far"


def plot_report(report: Any, path: str | Path | None = None) -> "Figure":
    """Draws the time of a step in each execution mode as bars, and each mode under the machine's
    roofline.

    Args:
        report: what was measured.
        path: where to save the figure; None does not save it.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    figure = new_figure(10.4, 4.2)
    left, right = figure.subplots(1, 2)
    _bars(left, report)
    _roofline(right, report)
    figure.suptitle(f"{report.name} on {report.device.kind}", fontsize="medium")
    save_figure(figure, path)
    return figure


def _bars(axis: "Axes", report: Any) -> None:
    """Bars from zero, since lengths are compared; a mode whose time is not known has none."""
    seconds = [each.seconds for each in report.executions if each.seconds is not None]
    largest = max(seconds, default=1.0)
    factor, unit = _unit(largest)
    tops = [largest * factor]
    for position, execution in enumerate(report.executions):
        tops.append(_bar(axis, position, execution, factor))
    positions = np.arange(len(report.executions))
    axis.set_xticks(positions, [each.name for each in report.executions])
    axis.set_xlim(-0.6, len(positions) - 0.4)
    axis.set_ylim(0, 1.12 * max(tops))
    axis.set_ylabel(f"time a {report.unit} ({unit})")
    axis.set_title("median, and the middle half of the rounds", fontsize="small")
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)


def _unit(largest: float) -> tuple[float, str]:
    """The largest unit in which a time is at least 1, and how many of it a second has."""
    for factor, unit in _UNITS:
        if largest * factor >= 1:
            return factor, unit
    return _UNITS[-1]


def _bar(axis: "Axes", position: int, execution: ExecutionSpeed, factor: float) -> float:
    """Draws the bar of one mode; how high it reaches."""
    if execution.seconds is None:
        axis.annotate(_NO_TIME, (position, 0), ha="center", va="bottom", fontsize="small")
        return 0.0
    low, high = factor * np.percentile(execution.rounds, [25, 75])
    axis.bar(position, execution.seconds * factor, color=f"C{position}", width=0.6)
    axis.plot([position, position], [low, high], color="black", marker="_", markersize=10)
    axis.annotate(
        in_seconds(execution.seconds),
        (position, high),
        (0, 4),
        textcoords="offset points",
        ha="center",
        fontsize="small",
    )
    return float(high)


def _roofline(axis: "Axes", report: Any) -> None:
    """What arithmetic and memory allow at each intensity, min(peak, bandwidth · intensity)."""
    from matplotlib.ticker import EngFormatter, NullFormatter

    peak = report.device.matrix_product[report.dtype]
    bandwidth = report.device.bandwidth
    points = [
        (each.flops / each.bytes, each.flops_a_second, position, each.name)
        for position, each in enumerate(report.executions)
        if each.flops and each.flops_a_second and each.bytes
    ]
    drawn = [point[0] for point in points] + [peak / bandwidth]
    intensities = np.geomspace(min(drawn) / 4, max(drawn) * 8, 200)
    roof = np.minimum(peak, bandwidth * intensities)
    axis.plot(intensities, roof, color="black", label="the machine, as measured")
    for intensity, speed, position, name in points:
        axis.plot(intensity, speed, "o", color=f"C{position}", markersize=8, label=name)
    axis.annotate(
        f"{report.dtype} matrix product",
        (intensities[-1], peak),
        (0, 4),
        textcoords="offset points",
        ha="right",
    )
    axis.set(xscale="log", yscale="log")
    axis.set_xlabel("operations a byte moved (FLOP/B)")
    axis.set_ylabel("speed (FLOP/s)")
    heights = [peak, bandwidth * intensities[0], *(point[1] for point in points)]
    axis.set_ylim(min(heights) / 10, 4 * max(heights))
    axis.yaxis.set_major_formatter(EngFormatter())
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize="small")
    title = "the roofline" if points else "the roofline; no execution mode has a speed to show"
    axis.set_title(title, fontsize="small")
