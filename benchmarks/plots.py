"""Draws what the benchmarks measured: `training.png`, bars of every peer's time beside jaxdl's, and
`batch_sizes.png`.

python -m benchmarks.plots
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import machine
from benchmarks.networks import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = (11.0, 3.6)
COLOURS = (*(f"C{number}" for number in range(10)), "black", "gold", "navy")
"""More than matplotlib's ten, which begin again."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plots", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=machine.results(),
        help="folder of figures and pictures: %(default)s",
    )
    out = parser.parse_args(arguments).out
    for name, draw in (("training", bars), ("batch_sizes", curves)):
        if (out / f"{name}.json").exists():
            draw(json.loads((out / f"{name}.json").read_text())).savefig(
                out / f"{name}.png", dpi=120
            )
            print(f"written: {out / f'{name}.png'}")


def bars(result: dict[str, Any]) -> "Figure":
    """Each peer's median ratio to jaxdl on a logarithmic axis, its rounds' range as a line; a group
    for each network.
    """
    from matplotlib.figure import Figure

    tasks: tuple[Task, ...] = ("training", "inference")
    shown: list[Task] = [task for task in tasks if any(ratios(result, task).values())]
    figure = Figure((PANEL[0], PANEL[1] * max(1, len(shown))), layout="constrained")
    for number, task in enumerate(shown, 1):
        axes = figure.add_subplot(len(shown), 1, number)
        grouped(axes, ratios(result, task), list(result["networks"]))
        axes.set_ylabel(f"{task}: time × jaxdl")
    figure.suptitle(
        f"{described(result['machine'])}: above 1 is slower than jaxdl", fontsize="medium"
    )
    return figure


def ratios(result: dict[str, Any], task: Task) -> dict[str, dict[str, dict[str, Any]]]:
    """By peer and network, but for jaxdl itself."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for network, measured in result["networks"].items():
        for peer, figures in measured["peers"].items():
            of_task = figures if task == "training" else figures.get(task, {})
            if peer != "jaxdl" and "ratio_to_jaxdl" in of_task:
                found.setdefault(peer, {})[network] = of_task["ratio_to_jaxdl"]
    return found


def grouped(
    axes: "Axes", by_peer: dict[str, dict[str, dict[str, Any]]], networks: Sequence[str]
) -> None:
    width = 0.86 / max(1, len(by_peer))
    for index, (peer, of_network) in enumerate(by_peer.items()):
        places = [networks.index(name) + (index + 0.5) * width - 0.43 for name in of_network]
        medians = [ratio["median"] for ratio in of_network.values()]
        below = [
            median - min(r["rounds"])
            for median, r in zip(medians, of_network.values(), strict=True)
        ]
        above = [
            max(r["rounds"]) - median
            for median, r in zip(medians, of_network.values(), strict=True)
        ]
        heights = [median - 1 for median in medians]
        line = {"elinewidth": 0.7, "ecolor": "0.3"}
        axes.bar(
            places,
            heights,
            width,
            bottom=1,
            yerr=(below, above),
            error_kw=line,
            label=peer,
            color=COLOURS[index],
        )
    axes.set_yscale("log")
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(networks)), networks)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="y", which="both", alpha=0.2)
    axes.set_axisbelow(True)
    axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))


def curves(result: dict[str, Any]) -> "Figure":
    """Examples a second over the batch size, a panel for each network and task."""
    from matplotlib.figure import Figure

    tasks: tuple[Task, ...] = ("training", "inference")
    figure = Figure((PANEL[0], PANEL[1] * len(result["networks"])), layout="constrained")
    panels = figure.subplots(len(result["networks"]), 2, squeeze=False)
    for row, (network, peers) in zip(panels, result["networks"].items(), strict=True):
        for axes, task in zip(row, tasks, strict=True):
            for peer, answers in peers.items():
                points = [
                    (answer["batch"], 1e3 * answer["batch"] / answer[task])
                    for answer in answers
                    if task in answer
                ]
                axes.loglog(
                    *zip(*points, strict=True), "o-", markersize=3, label=peer
                ) if points else None
            axes.set_title(f"{network}, {task}", fontsize="medium")
            axes.set_xlabel("batch")
            axes.set_ylabel("examples a second")
            axes.grid(alpha=0.2)
        row[-1].legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.suptitle(described(result["machine"]), fontsize="medium")
    return figure


def described(on: dict[str, Any]) -> str:
    return f"{on.get('accelerator') or on['processor']}, {on['cores']} cores, {on['date'][:10]}"


if __name__ == "__main__":
    main()
