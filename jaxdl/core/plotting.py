"""Figures: how they are created and saved."""

from pathlib import Path
from typing import Any


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib `Figure`, which a notebook displays by itself.

    Args:
        width, height: in inches.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    try:
        from jaxdl.core.figure import ShownFigure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'plots need matplotlib: pip install "jaxdl[experiments]".'
        ) from error
    return ShownFigure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: str | Path | None) -> None:
    """Writes a figure to a file, in the format of its suffix; missing folders are created.

    Args:
        figure: a matplotlib figure.
        path: of the file; None writes nothing.
    """
    if path is None:
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
