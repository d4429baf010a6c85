"""The figures of this package: outside pyplot, and shown by notebooks all the same."""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DPI", "displayed_figure"]

DPI = 160
"""Pixels per inch on a screen: a column of 84 mm is 528 pixels wide."""


def displayed_figure(**keys: Any) -> Figure:
    """A figure that a notebook shows as the last value of a cell, whether pyplot is imported or not."""
    return _kind()(**keys)


@functools.cache
def _kind() -> type[Figure]:
    from matplotlib.figure import Figure

    class DisplayedFigure(Figure):
        def _repr_png_(self) -> bytes:
            content = io.BytesIO()
            self.savefig(content, format="png", dpi=DPI)
            return content.getvalue()

    return DisplayedFigure
