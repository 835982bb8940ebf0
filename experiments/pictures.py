"""The pictures that several experiments draw, as matplotlib figures that need no screen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxdl.training.history import History

WIDTH, HEIGHT = 4.6, 3.6
"""Of one panel, in inches."""
DOTS_PER_INCH = 130


def panels(columns: int, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels with a light grid, and its axes row by row."""
    figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows), layout="constrained")
    axes: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure, axes


def save(figure: Figure, out: Path, name: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / f"{name}.png", dpi=DOTS_PER_INCH)


def count_epochs(axis: Axes) -> None:
    """Epochs along x, in whole numbers."""
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def curves_of_seeds(histories: Sequence[History], name: str) -> Figure:
    """The curves of one figure over the epochs, training dashed and test solid, a colour for each
    seed.
    """
    figure, (axis,) = panels(1)
    for seed, history in enumerate(histories):
        epochs = range(1, len(history[name]) + 1)
        dots = "o" if len(epochs) <= 30 else ""
        axis.plot(
            epochs, history[name], "--", color=f"C{seed}", label=f"training, run {seed + 1}"
        )
        axis.plot(
            epochs,
            history[f"validation_{name}"],
            marker=dots,
            markersize=3,
            color=f"C{seed}",
            label=f"test, run {seed + 1}",
        )
    axis.set_ylabel(name)
    count_epochs(axis)
    axis.legend(fontsize="small")
    return figure


def images(
    grid: Num[np.ndarray, "rows columns height width"], names: Sequence[Any] = ()
) -> Figure:
    """Grey images in [0, 1] in rows and columns, black on white; rows may have names."""
    rows, columns, height, width = grid.shape
    figure, (axis,) = panels(1)
    margin = 0.1 + 0.08 * max((len(str(name)) for name in names), default=0)
    figure.set_size_inches(0.45 * columns + margin, 0.45 * rows * height / width + 0.1)
    axis.grid(False)
    framed = np.pad(grid, ((0, 0), (0, 0), (1, 1), (1, 1)))
    page = framed.transpose(0, 2, 1, 3).reshape(rows * (height + 2), columns * (width + 2))
    axis.imshow(page, cmap="gray_r", vmin=0, vmax=1)
    axis.set_xticks([])
    axis.set_yticks(
        [(row + 0.5) * (height + 2) for row in range(len(names))],
        [str(name) for name in names],
        fontsize="small",
    )
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return figure


def confusion(matrix: Num[np.ndarray, "classes classes"], classes: Sequence[Any]) -> Figure:
    """A confusion matrix: how many examples of each true class (row) were taken for each class
    (column).
    """
    figure, (axis,) = panels(1)
    figure.set_size_inches(5.4, 5.0)
    axis.grid(False)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(matrix > 0):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axis.text(
            column,
            row,
            f"{matrix[row, column]:.0f}",
            ha="center",
            va="center",
            color=colour,
            fontsize="small",
        )
    places, names = range(len(classes)), [str(name) for name in classes]
    if max(map(len, names)) > 2:
        axis.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
    else:
        axis.set_xticks(places, names)
    axis.set_yticks(places, names)
    axis.set(xlabel="predicted class", ylabel="true class")
    figure.colorbar(image, ax=axis, label="share of the true class", shrink=0.85)
    return figure
