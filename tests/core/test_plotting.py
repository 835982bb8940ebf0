"""Pictures that a notebook shows by itself, and files of them."""

import io
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from jaxdl.core import plotting
from jaxdl.training.history import plot_history

HISTORY = {"loss": [2.0, 1.0], "validation_loss": [2.5, 1.5], "seconds": [1.0, 1.0]}


def pixels(png: bytes) -> np.ndarray:
    from matplotlib.image import imread

    return imread(io.BytesIO(png), format="png")


def test_a_figure_is_its_own_png() -> None:
    figure = plot_history(HISTORY)
    saved = io.BytesIO()
    figure.savefig(saved, format="png")
    np.testing.assert_array_equal(pixels(figure._repr_png_()), pixels(saved.getvalue()))
    assert pixels(figure._repr_png_()).std() > 0.05


def test_ipython_shows_it() -> None:
    formatters = pytest.importorskip("IPython.core.formatters")
    shown, _ = formatters.DisplayFormatter().format(plot_history(HISTORY))
    assert shown["image/png"][:8] == b"\x89PNG\r\n\x1a\n"


def test_a_figure_is_pickled_as_matplotlibs_are() -> None:
    again = pickle.loads(pickle.dumps(plot_history(HISTORY)))
    assert [line.get_label() for line in again.axes[0].lines] == ["training", "validation"]


def test_folders_above_a_picture_are_made(tmp_path: Path) -> None:
    for name in ("a/b/curves.png", "c/curves.pdf"):
        plot_history(HISTORY, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "jaxdl.core.figure", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        ModuleNotFoundError, match=r'plots need matplotlib: pip install "jaxdl\[experiments\]"'
    ):
        plotting.new_figure(1, 1)
