"""A figure of matplotlib's that a notebook shows by itself; imported by `plotting` alone, once
something is drawn.
"""

import io

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A `Figure` that IPython displays where a cell returns it.

    A plain one needs `%matplotlib inline` or an import of pyplot; where either is there, IPython
    shows it in its own way, once.
    """

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()
