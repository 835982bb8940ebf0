"""`python -m jaxdl`: what this machine has, which experiments there are, and what compiling buys
them.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jaxdl.core.units import scaled
from jaxdl.data.error import DataError
from jaxdl.speed.compare import WAYS
from jaxdl.speed.device import DeviceSpeed, measure_device
from jaxdl.speed.experiments import compare_experiment, found
from jaxdl.training.program import Way

EXPERIMENTS = Path("experiments")


def devices(seconds: float = 0.4) -> None:
    """What is present, with the matrix product and the memory's speed that it reaches.

    Args:
        seconds: how long each figure may be measured.
    """
    speeds = [measure_device(device, seconds=seconds) for device in _first_devices()]
    rows = {
        "devices": [f"{each.count} × {each.platform}" for each in speeds],
        "kind": [each.kind for each in speeds],
        "cores of the host": [str(each.cores) for each in speeds],
        "memory": [
            "—" if each.memory_bytes is None else f"{scaled(each.memory_bytes)}B" for each in speeds
        ],
        **{
            f"matrix product, {dtype}": [_product(each, dtype) for each in speeds]
            for dtype in ("float32", "bfloat16")
            if any(dtype in each.matrix_product for each in speeds)
        },
        "memory's speed": [f"{scaled(each.bandwidth)}B/s" for each in speeds],
    }
    _show_table(
        ["", *(each.platform for each in speeds)], [[name, *cells] for name, cells in rows.items()]
    )


def list_experiments(folder: Path = EXPERIMENTS) -> None:
    """The experiments of a folder, with the figure that each expects.

    Args:
        folder: where they lie.
    """
    rows = [[each.name + " *" * each.comparable, each.idea, each.expect] for each in found(folder)]
    _show_table(["experiment", "idea", "expect"], rows)
    print(
        f"Run one by `python -m {folder.name}.NAME`; those with * can be compared: `python -m "
        f"jaxdl compare NAME`."
    )


def compare(
    experiment: str,
    ways: tuple[Way, ...] = WAYS,
    rounds: int = 9,
    seconds: float = 0.3,
    widest_spread: float = 0.25,
    quick: bool = False,
    json: Path | None = None,
    plot: Path | None = None,
    folder: Path = EXPERIMENTS,
) -> None:
    """Trains an experiment's model in several ways, and tells what each costs.

    Args:
        experiment: its name, as `list` has it.
        ways: some of eager, step and epoch.
        rounds: how many turns each way has.
        seconds: about how long a turn takes.
        widest_spread: the interquartile range over the median above which no time is told.
        quick: whether to take the experiment's quick form.
        json: where to write the figures.
        plot: where to write the picture.
        folder: where the experiment lies.
    """
    report = compare_experiment(
        folder,
        experiment,
        quick,
        ways=ways,
        rounds=rounds,
        seconds=seconds,
        widest_spread=widest_spread,
    )
    print(report)
    if json is not None:
        report.to_json(json)
    if plot is not None:
        report.plot(plot)
    for path in (json, plot):
        if path is not None:
            print(f"written to {path}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, sys.argv where None is given; what cannot be done ends it with a
    sentence.
    """
    try:
        import tyro
    except ModuleNotFoundError as error:
        raise SystemExit('python -m jaxdl needs tyro: pip install "jaxdl[experiments]".') from error
    try:
        tyro.extras.subcommand_cli_from_dict(
            {"devices": devices, "list": list_experiments, "compare": compare},
            prog="python -m jaxdl",
            description=__doc__,
            args=arguments,
            config=(tyro.conf.PositionalRequiredArgs, tyro.conf.FlagCreatePairsOff),
        )
    except (DataError, ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        raise SystemExit(str(error)) from error


def _first_devices() -> list[Any]:
    """One of each kind: the default one, and the host's processor where JAX may use it."""
    found = {jax.default_backend(): jax.devices()[0]}
    with contextlib.suppress(RuntimeError):
        found.setdefault("cpu", jax.devices("cpu")[0])
    return list(found.values())


def _product(speed: DeviceSpeed, dtype: str) -> str:
    return f"{scaled(speed.matrix_product[dtype])}FLOP/s" if dtype in speed.matrix_product else "—"


def _show_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for index, heading in enumerate(headings):
        table.add_column(heading, no_wrap=index == 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
