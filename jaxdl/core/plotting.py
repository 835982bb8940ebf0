"""How every picture begins and ends."""

from pathlib import Path
from typing import Any


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib `Figure` of that size in inches, which a notebook shows by itself.

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
    """Writes a picture where a path is given, in the format of its ending; folders above it are
    made.
    """
    if path is None:
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
