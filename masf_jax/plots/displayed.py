"""The figures of this package: outside pyplot, and shown by notebooks all the same."""

import io

from matplotlib.figure import Figure

__all__ = ["DPI", "DisplayedFigure"]

DPI = 160
"""Pixels per inch on a screen: a column of 84 mm is 528 pixels wide."""


class DisplayedFigure(Figure):
    """A figure that a notebook shows as the last value of a cell, whether pyplot is imported or not."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=DPI)
        return content.getvalue()
