"""Space-time (Hovmöller) diagrams of truth, observations, analysis and its error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .components import observed
from .flow import diverging
from .style import heading, new_figure, require, stage_of, time_axis, times, with_units

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["hovmoeller"]

_MOST_VALUES = 2**22
"""In a diagram."""
_FONT = 6.5


def hovmoeller(data: xr.Dataset, last: int = 200) -> Figure:
    """Time along, the state's one dimension up: truth, observations, analysis on one scale; error on its own.

    States of more dimensions are raveled. The error's scale is symmetric about zero.

    Args:
        last: so many last cycles are shown.

    Raises:
        MissingError: the means were not saved.
    """
    stage = stage_of(data)
    require(data, "hovmoeller", f"{stage}_mean")
    size = int(np.prod(data[f"{stage}_mean"].shape[1:]))
    data = data.isel(cycle=slice(-min(last, max(1, _MOST_VALUES // size)), None))
    field, (at, label) = data[f"{stage}_mean"], times(data)
    found, seen = field.values.reshape(len(field), -1), observed(data)
    dim = str(field.dims[-1]) if field.ndim == 2 else "component"
    x = data[dim].values if dim in data.coords and field.ndim == 2 else np.arange(size)
    panels = {"truth": data["truth"].values.reshape(found.shape)} if "truth" in data else {}
    if seen is not None:
        panels["observations"] = seen
    panels[f"{stage} mean"] = found
    if "truth" in data:
        panels[f"{stage} mean - truth"] = found - panels["truth"]
    low, high = _limits(panels.get("truth", found))
    figure, axes = new_figure(data.attrs.get("title"), len(panels), height=0.9, sharex=True, sharey=True)
    shown = {}
    for axis, (name, values) in zip(axes[:, 0], panels.items(), strict=True):
        style: dict = {"cmap": "viridis", "vmin": low, "vmax": high, "rasterized": True, "shading": "nearest"}
        if name.endswith("truth") and name != "truth":
            half = _largest(values)
            style |= {"cmap": diverging("vorticity"), "vmin": -half, "vmax": half}
        image = axis.pcolormesh(at, np.arange(len(x)) if x.dtype.kind in "OU" else x, values.T, **style)
        heading(axis, name)
        axis.set_ylabel(dim)
        shown[name] = (axis, image)
    same = [axis for name, (axis, _) in shown.items() if not name.endswith("- truth")]
    bars = [(same, shown[f"{stage} mean"][1])]
    bars += [([axis], image) for name, (axis, image) in shown.items() if name.endswith("- truth")]
    for where, image in bars:
        bar = figure.colorbar(image, ax=where, pad=0.01, aspect=12 * len(where), extend="both")
        bar.ax.tick_params(labelsize=_FONT, length=2)
        bar.set_label(with_units("state" if where is same else "error", field.attrs), fontsize=_FONT)
    time_axis(axes[-1, 0], at, label)
    return figure


def _limits(values: np.ndarray) -> tuple[float, float]:
    """That all but one in a hundred values keep."""
    if not np.isfinite(values).any():
        return 0.0, 1.0
    low, high = np.nanpercentile(values, [0.5, 99.5])
    return float(low), float(high)


def _largest(values: np.ndarray) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(np.percentile(finite, 99.5)) if finite.size and finite.max() > 0 else 1.0
