"""Numbers that were not known, as they were found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .style import COLORS, MissingError, legend_below, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["estimates"]


def estimates(data: xr.Dataset) -> Figure:
    """Each estimated number after each cycle, with ± 1 standard deviation, or after each step of a search.

    Raises:
        MissingError: nothing was estimated.
    """
    names = [str(name) for name in data if str(name).startswith("estimated_")]
    names = [name for name in names if not (name.endswith("_std") and name.removesuffix("_std") in names)]
    if not names:
        raise MissingError("the figure estimates is of runs that estimate numbers (docs/estimation.md).")
    figure, axes = new_figure(data.attrs.get("title"), len(names), height=1.3)
    for name, axis in zip(names, axes[:, 0], strict=True):
        values, (dim,) = data[name].values, data[name].dims
        at = np.arange(len(values))
        axis.plot(at, values, color=COLORS["analysis"], lw=1.2, label="estimate")
        if f"{name}_std" in data:
            std = data[f"{name}_std"].values
            band = {"color": COLORS["analysis"], "alpha": 0.2, "lw": 0, "label": "± 1σ"}
            axis.fill_between(at, values - std, values + std, **band)
        axis.set(xlabel=dim, ylabel=name.removeprefix("estimated_"))
    legend_below(figure, list(axes[:, 0]))
    return figure
