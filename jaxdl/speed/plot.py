"""Pictures of a speed report."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.core.plotting import new_figure, save_figure
from jaxdl.core.units import seconds as in_seconds


def plot_report(report: Any, path: str | Path | None = None) -> Any:
    """Bars of the time a step takes in each way, and the machine's roofline with each way under it.

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


def _bars(axis: Any, report: Any) -> None:
    """From zero, since lengths are compared; a way whose time is not told has no bar."""
    known = [way for way in report.ways if way.seconds is not None]
    largest = max((way.seconds for way in known), default=1.0)
    factor, unit = next(
        (pair for pair in ((1, "s"), (1e3, "ms"), (1e6, "µs")) if largest * pair[0] >= 1),
        (1e9, "ns"),
    )
    places, top = np.arange(len(report.ways)), largest * factor
    for place, way in zip(places, report.ways, strict=True):
        color = f"C{place}"
        if way.seconds is None:
            axis.annotate(
                "not told:\nthe rounds\nspread too far",
                (place, 0),
                ha="center",
                va="bottom",
                fontsize="small",
            )
            continue
        low, high = np.percentile(way.rounds, [25, 75])
        axis.bar(place, way.seconds * factor, color=color, width=0.6)
        axis.plot(
            [place, place], [low * factor, high * factor], color="black", marker="_", markersize=10
        )
        top = max(top, high * factor)
        axis.annotate(
            in_seconds(way.seconds),
            (place, high * factor),
            (0, 4),
            textcoords="offset points",
            ha="center",
            fontsize="small",
        )
    axis.set_xticks(places, [way.name for way in report.ways])
    axis.set_xlim(-0.6, len(places) - 0.4)
    axis.set_ylim(0, 1.12 * top)
    axis.set_ylabel(f"time a {report.unit} ({unit})")
    axis.set_title("median, and the middle half of the rounds", fontsize="small")
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)


def _roofline(axis: Any, report: Any) -> None:
    """What arithmetic and memory allow at each intensity, min(peak, bandwidth · intensity)."""
    from matplotlib.ticker import EngFormatter, NullFormatter

    peak, bandwidth = report.device.matrix_product[report.dtype], report.device.bandwidth
    points = [
        (way.flops / way.bytes, way.flops_a_second, place, way.name)
        for place, way in enumerate(report.ways)
        if way.flops_a_second and way.bytes
    ]
    ridge = peak / bandwidth
    shown = [point[0] for point in points] + [ridge]
    intensities = np.geomspace(min(shown) / 4, max(shown) * 8, 200)
    axis.plot(
        intensities,
        np.minimum(peak, bandwidth * intensities),
        color="black",
        label="the machine, as measured",
    )
    for intensity, speed, place, name in points:
        axis.plot(intensity, speed, "o", color=f"C{place}", markersize=8, label=name)
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
    axis.set_title(
        "the roofline" if points else "the roofline; no way has a speed to show", fontsize="small"
    )
