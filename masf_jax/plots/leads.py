"""Scores of forecasts against their lead time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .style import COLORS, MissingError, legend_below, new_figure, readable_times, with_units

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["lead_times"]


def lead_times(data: xr.Dataset, climatology: float | None = None) -> Figure:
    """RMSE and spread of forecasts against lead time, mean over all other dimensions, ± 1 standard error.

    Args:
        data: `rmse` and, if any, `spread` along `lead` (a coordinate, in model time), whose attributes
            `units` the axes show; the docs page docs/results.md makes one. Other dimensions are starts of
            forecasts.
        climatology: the level that forecasts end at.

    Raises:
        MissingError: no forecasts.
    """
    if "lead" not in data.coords or "rmse" not in data:
        raise MissingError(
            "the figure lead_times needs rmse along lead: make forecasts from saved analyses, "
            'save=("mean", "ensemble"), as docs/results.md does.'
        )
    figure, axes = new_figure(data.attrs.get("title"), height=1.8)
    axis, (lead, in_units) = axes[0, 0], readable_times(data["lead"].values, data["lead"].attrs)
    for name, color, style in (("rmse", COLORS["forecast"], "-"), ("spread", COLORS["truth"], "--")):
        if name not in data:
            continue
        values = data[name]
        others = [dim for dim in values.dims if dim != "lead"]
        mean, n = values.mean(others), values.size // len(lead)
        error = values.std(others, ddof=1) / n**0.5 if n > 1 else 0 * mean
        label = "RMSE of the mean" if name == "rmse" else "spread"
        axis.plot(lead, mean, color=color, ls=style, lw=1.2, label=label)
        axis.fill_between(lead, mean - error, mean + error, color=color, alpha=0.25, lw=0)
    if climatology is not None:
        axis.axhline(climatology, color=COLORS["reference"], lw=0.9, ls="-.", label="climatology")
    axis.set_xlabel(with_units("lead time", {"units": in_units}))
    axis.set_ylabel(with_units("RMSE and spread", data["rmse"].attrs))
    axis.set_ylim(bottom=0)
    legend_below(figure, [axis])
    return figure
