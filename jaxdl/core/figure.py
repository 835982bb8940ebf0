"""A matplotlib figure that a notebook displays by itself; imported by `plotting` when something is
plotted.
"""

import io

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A `Figure` that IPython displays where a cell returns it.

    A plain one needs `%matplotlib inline` or an import of pyplot; with either, IPython displays
    it its own way, once.
    """

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()
