"""What a run shows while it goes on: a bar on a terminal, plain lines elsewhere, or nothing."""

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Where the loop says how far it is."""

    def moved(self, epoch: int, step: int, figures: dict[str, Any], rate: float) -> None:
        """`step` steps of the epoch are done, at `rate` examples a second."""

    def ended(self, epoch: int, figures: dict[str, Any]) -> None:
        """The epoch is over, with these figures."""


class Silent:
    """Says nothing."""

    def moved(self, epoch: int, step: int, figures: dict[str, Any], rate: float) -> None: ...

    def ended(self, epoch: int, figures: dict[str, Any]) -> None: ...


@contextlib.contextmanager
def progress(show: bool, epochs: int, steps: int | None) -> Iterator[Progress]:
    """The progress of a run of so many epochs of `steps` steps each (None where that is not
    known).
    """
    if not show:
        yield Silent()
        return
    from rich.console import Console

    console = Console()
    if (
        console.is_jupyter and importlib.util.find_spec("ipywidgets") is None
    ):  # rich would show a warning, and no bar
        console = Console(force_jupyter=False, force_terminal=False)
    if not (console.is_terminal or console.is_jupyter):
        yield Lines(console, epochs)
        return
    with _bar(console) as bar:
        yield Bar(bar, epochs, steps)


class Lines:
    """One plain line an epoch; at most one for each run of a program."""

    def __init__(self, console: Any, epochs: int) -> None:
        self.console = console
        self.epochs = epochs

    def moved(self, epoch: int, step: int, figures: dict[str, Any], rate: float) -> None: ...

    def ended(self, epoch: int, figures: dict[str, Any]) -> None:
        self.console.print(
            f"epoch {epoch + 1}/{self.epochs}  {shown(figures)}",
            highlight=False,
            soft_wrap=True,
        )


class Bar:
    """rich's bar over all steps of the run: epoch, batch, figures, examples a second and time
    left.
    """

    def __init__(self, bar: Any, epochs: int, steps: int | None) -> None:
        self.bar = bar
        self.epochs = epochs
        self.steps = steps
        total = None if steps is None else epochs * steps
        self.task = bar.add_task("", total=total, batch="", figures="", rate="")
        self.done = 0

    def moved(self, epoch: int, step: int, figures: dict[str, Any], rate: float) -> None:
        done = self.done + step if self.steps is None else epoch * self.steps + step
        of = "" if self.steps is None else f"/{self.steps}"
        self.bar.update(
            self.task,
            completed=done,
            description=f"epoch {epoch + 1}/{self.epochs}",
            batch=f"batch {step}{of}",
            figures=shown(figures),
            rate=f"{rate:,.0f} examples/s",
        )

    def ended(self, epoch: int, figures: dict[str, Any]) -> None:
        self.bar.update(self.task, figures=shown(figures))


def shown(figures: dict[str, Any]) -> str:
    """`loss 0.123  accuracy 0.957`: what was measured, where it is a single number."""
    measured = {
        name: value
        for name, value in figures.items()
        if not name.endswith(("learning_rate", "seconds"))
    }
    place = f"step {figures['step']:,}  " if "step" in figures else ""
    short = {
        name.replace("validation_", "val "): value
        for name, value in measured.items()
        if isinstance(value, float)
    }
    return place + "  ".join(f"{name} {value:.4g}" for name, value in short.items())


def _bar(console: Any) -> Any:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[batch]}"),
        TextColumn("[cyan]{task.fields[figures]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
        refresh_per_second=4,
    )
