"""Scores against time: error and spread with a truth, innovations without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .style import (
    COLORS,
    MissingError,
    broken,
    burn_in_of,
    legend_below,
    new_figure,
    require,
    shade_burn_in,
    stage_of,
    time_axis,
    times,
    with_units,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["climatology_level", "error_spread", "innovations"]

_STAGES = ("forecast", "analysis", "smoothed")
_MANY = 150
"""From so many cycles on a running mean is drawn over the values."""


def error_spread(data: xr.Dataset, burn_in: int | None = None, climatology: float | None = None) -> Figure:
    """RMSE of the mean and spread of each stage against time, on a logarithmic axis.

    A good filter's spread lies on its RMSE, far below the climatology's level: the error of one who knows
    the model's averages alone.

    Args:
        burn_in: first cycles that averages leave out; None: the dataset's.
        climatology: its level; None: the root of the truth's variance in time, mean over components.

    Raises:
        MissingError: no RMSE, since no truth was given.
    """
    require(data, "error_spread", f"rmse_{stage_of(data, 'rmse_{}')}")
    first, (at, label) = burn_in_of(data, burn_in), times(data)
    stages = [stage for stage in _STAGES if f"rmse_{stage}" in data]
    figure, axes = new_figure(data.attrs.get("title"), len(stages), height=1.15, sharex=True, sharey=True)
    level = climatology_level(data) if climatology is None else climatology
    window = max(5, data.sizes["cycle"] // 40) if data.sizes["cycle"] >= _MANY else 1
    lows = []
    for stage, axis in zip(stages, axes[:, 0], strict=True):
        if f"spread_{stage}" in data:
            _curve(
                axis,
                at,
                data[f"spread_{stage}"].values,
                window,
                color=COLORS["truth"],
                ls="--",
                label="spread",
            )
        rmse = data[f"rmse_{stage}"]
        _curve(axis, at, rmse.values, window, color=COLORS[stage], label=f"RMSE, {stage}")
        lows += [np.nanpercentile(rmse.values, 1)] if np.isfinite(rmse.values).any() else []
        if level is not None:
            axis.axhline(level, color=COLORS["reference"], lw=0.9, ls="-.", label="climatology")
        shade_burn_in(axis, at, first)
        axis.set_yscale("log")
        axis.set_ylabel(with_units(stage, rmse.attrs))
    if lows and min(lows) > 0:
        axes[0, 0].set_ylim(bottom=0.8 * min(lows))
    for axis in axes[:, 0]:
        _log_ticks(axis)
    time_axis(axes[-1, 0], at, label if window == 1 else f"{label}; thick: mean of {window} cycles")
    legend_below(figure, list(axes[:, 0]))
    return figure


def _curve(axis: Any, at: np.ndarray, values: np.ndarray, window: int, **style: Any) -> None:
    """The values; of many, faint, with their running mean."""
    positive = np.where(values > 0, values, np.nan)
    if window == 1:
        axis.plot(*broken(at, positive), lw=1.0, **style)
        return
    mean = np.convolve(positive, np.full(window, 1 / window), "valid")
    middle = at[window // 2 : window // 2 + len(mean)]
    axis.plot(at, positive, color=style["color"], lw=0.4, alpha=0.3)
    axis.plot(middle, mean, lw=1.2, **style)


def _log_ticks(axis: Any) -> None:
    """Plain numbers, also within a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_ylim()
    subs = (1.0,) if high > 100 * low else (1.0, 2.0, 5.0) if high > 8 * low else (1.0, 2.0, 3.0, 5.0, 7.0)
    axis.yaxis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def climatology_level(data: xr.Dataset) -> float | None:
    """√ of the truth's variance in time, mean over components; None without a truth of three cycles."""
    if "truth" not in data or data.sizes["cycle"] < 3:
        return None
    count, mean, square = 0, 0.0, 0.0
    for part in range(0, data.sizes["cycle"], 100):  # of Welford and Chan; read some cycles at a time
        values = data["truth"].isel(cycle=slice(part, part + 100)).values.astype(np.float64)
        n = len(values)
        own = values.mean(0)
        square = square + ((values - own) ** 2).sum(0) + (own - mean) ** 2 * (count * n / (count + n))
        mean, count = mean + (own - mean) * (n / (count + n)), count + n
    level = float(np.sqrt(np.mean(square) / (count - 1)))
    return level if level > 0 else None


def innovations(data: xr.Dataset) -> Figure:
    """Root mean square of observation minus forecast and minus analysis, of runs without truth.

    Raises:
        MissingError: the means were not saved.
    """
    if "forecast_residual" not in data:
        require(data, "innovations", "forecast_mean")
        raise MissingError("the figure innovations is of runs without truth; with one: error_spread.")
    at, label = times(data)
    figure, axes = new_figure(data.attrs.get("title"))
    axis = axes[0, 0]
    for stage in ("forecast", "analysis"):
        residual = data[f"{stage}_residual"]  # read cycle by cycle
        sizes = [_root_mean_square(residual[cycle].values) for cycle in range(len(residual))]
        axis.plot(*broken(at, np.array(sizes)), color=COLORS[stage], lw=0.9, label=f"observation - {stage}")
    time_axis(axis, at, label)
    axis.set_ylabel(with_units("root mean square", data["observation"].attrs))
    axis.set_ylim(bottom=0)
    legend_below(figure, [axis])
    return figure


def _root_mean_square(values: np.ndarray) -> float:
    """Of those that are there."""
    there = values[np.isfinite(values)]
    return float(np.sqrt((there.astype(np.float64) ** 2).mean())) if there.size else np.nan
