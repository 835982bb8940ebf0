"""`python -m jaxdl`: the speed of this machine, the experiments there are, and what compiling gains
them.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jaxdl.core.units import scaled
from jaxdl.data.error import DataError
from jaxdl.speed.compare import EXECUTIONS
from jaxdl.speed.device import DeviceSpeed, measure_device
from jaxdl.speed.experiments import compare_experiment, found
from jaxdl.training.program import Execution

EXPERIMENTS = Path("experiments")
DTYPES = ("float32", "bfloat16")
NONE = "—"


def devices(seconds: float = 0.4) -> None:
    """Shows the devices, with the speeds of the matrix product and of the memory that they reach.

    Args:
        seconds: how long each measurement may take.
    """
    speeds = [measure_device(device, seconds=seconds) for device in _first_devices()]
    rows = [
        ["devices", *(f"{each.count} × {each.platform}" for each in speeds)],
        ["kind", *(each.kind for each in speeds)],
        ["cores of the host", *(str(each.cores) for each in speeds)],
        ["memory", *map(_memory, speeds)],
    ]
    for dtype in DTYPES:
        if any(dtype in each.matrix_product for each in speeds):
            products = [_product(each, dtype) for each in speeds]
            rows.append([f"matrix product, {dtype}", *products])
    rows.append(["memory's speed", *(f"{scaled(each.bandwidth)}B/s" for each in speeds)])
    _show_table(["", *(each.platform for each in speeds)], rows)


def list_experiments(folder: Path = EXPERIMENTS) -> None:
    """Shows the experiments of a folder, with the result that each expects.

    Args:
        folder: of the experiments.
    """
    rows = [
        [each.name + " *" * each.comparable, each.idea, each.expect] for each in found(folder)
    ]
    _show_table(["experiment", "idea", "expect"], rows)
    print(
        f"Run one by `python -m {folder.name}.NAME`; those with * can be compared: `python -m "
        f"jaxdl compare NAME`."
    )


def compare(
    experiment: str,
    executions: tuple[Execution, ...] = EXECUTIONS,
    rounds: int = 9,
    seconds: float = 0.3,
    widest_spread: float = 0.25,
    quick: bool = False,
    json: Path | None = None,
    plot: Path | None = None,
    folder: Path = EXPERIMENTS,
) -> None:
    """Trains an experiment's model in several execution modes, and shows what each costs.

    Args:
        experiment: its name, as `list` shows it.
        executions: some of eager, step and epoch.
        rounds: how many rounds there are, in each of which every execution mode is timed once.
        seconds: about how long one of them takes in a round.
        widest_spread: the interquartile range over the median above which no time is reported.
        quick: whether to train the experiment's quick form.
        json: where to write the report.
        plot: where to write the plot.
        folder: of the experiment.
    """
    report = compare_experiment(
        folder,
        experiment,
        quick,
        executions=executions,
        rounds=rounds,
        seconds=seconds,
        widest_spread=widest_spread,
    )
    print(report)
    if json is not None:
        report.to_json(json)
        print(f"written to {json}")
    if plot is not None:
        report.plot(plot)
        print(f"written to {plot}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; an error of the user's ends it with one sentence.

    Args:
        arguments: None reads `sys.argv`.

    Raises:
        SystemExit: a command cannot be run.
    """
    try:
        import tyro
    except ModuleNotFoundError as error:
        raise SystemExit(
            'python -m jaxdl needs tyro: pip install "jaxdl[experiments]".'
        ) from error
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


def _memory(speed: DeviceSpeed) -> str:
    return NONE if speed.memory_bytes is None else f"{scaled(speed.memory_bytes)}B"


def _product(speed: DeviceSpeed, dtype: str) -> str:
    if dtype not in speed.matrix_product:
        return NONE
    return f"{scaled(speed.matrix_product[dtype])}FLOP/s"


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
