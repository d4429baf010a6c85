"""Scores against time: error and spread with a truth, innovations without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .style import (
    COLORS,
    MissingError,
    burn_in_of,
    curve,
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


class _Row(NamedTuple):
    """A panel: of a stage, over all components or of one variable."""

    stage: str
    label: str
    rmse: np.ndarray
    spread: np.ndarray | None
    level: float | None


def error_spread(
    data: xr.Dataset,
    burn_in: int | None = None,
    climatology: float | None = None,
    by_variable: bool | None = None,
) -> Figure:
    """RMSE of the mean and spread of each stage against time, on a logarithmic axis.

    A good filter's spread lies on its RMSE, far below the climatology's level: the error of one who knows
    the model's averages alone.

    Args:
        burn_in: first cycles that averages leave out; None: the dataset's.
        climatology: its level; None: the root of the truth's variance in time, mean over components.
        by_variable: a panel for each variable, each with its own level; None: where they have several units
            and no level is given.

    Raises:
        MissingError: no RMSE, since no truth was given; or (by_variable) no means.
        ValueError: by_variable with one level for all.
    """
    require(data, "error_spread", f"rmse_{stage_of(data, 'rmse_{}')}")
    first, (at, label) = burn_in_of(data, burn_in), times(data)
    rows = _rows(data, climatology, by_variable)
    whole = len(rows) == len({row.stage for row in rows})
    options = {"height": 1.15 if whole else 0.9, "sharex": True, "sharey": whole}
    figure, axes = new_figure(data.attrs.get("title"), len(rows), **options)
    window = max(5, data.sizes["cycle"] // 40) if data.sizes["cycle"] >= _MANY else 1
    lows = [np.nanpercentile(row.rmse, 1) if np.isfinite(row.rmse).any() else np.inf for row in rows]
    for row, axis in zip(rows, axes[:, 0], strict=True):
        if row.spread is not None:
            style = {"color": COLORS["truth"], "ls": "--", "label": "spread"}
            _curve(axis, at, row.spread, window, **style)
        _curve(axis, at, row.rmse, window, color=COLORS[row.stage], label=f"RMSE, {row.stage}")
        if row.level is not None:
            axis.axhline(row.level, color=COLORS["reference"], lw=0.9, ls="-.", label="climatology")
        shade_burn_in(axis, at, first)
        axis.set_yscale("log")
        axis.set_ylabel(row.label)
    for low, axis in [(min(lows), axes[0, 0])] if whole else zip(lows, axes[:, 0], strict=True):
        if 0 < low < np.inf:
            axis.set_ylim(bottom=0.8 * low)
    for axis in axes[:, 0]:
        _log_ticks(axis)
    time_axis(axes[-1, 0], at, label if window == 1 else f"{label}; thick: mean of {window} cycles")
    legend_below(figure, list(axes[:, 0]))
    return figure


def _rows(data: xr.Dataset, climatology: float | None, by_variable: bool | None) -> list[_Row]:
    stages = [stage for stage in _STAGES if f"rmse_{stage}" in data]
    if by_variable is None:
        units = set(data["variable_units"].values.tolist()) if "variable_units" in data.coords else set()
        by_variable = climatology is None and len(units) > 1 and f"rmse_by_variable_{stages[-1]}" in data
    if not by_variable:
        level = climatology_level(data) if climatology is None else climatology
        rows = []
        for stage in stages:
            spread = data[f"spread_{stage}"].values if f"spread_{stage}" in data else None
            rmse = data[f"rmse_{stage}"]
            rows.append(_Row(stage, with_units(stage, rmse.attrs), rmse.values, spread, level))
        return rows
    if climatology is not None:
        raise ValueError(
            "climatology is one level, and by_variable has one for each variable: give one of them."
        )
    require(data, "error_spread", *(f"rmse_by_variable_{stage}" for stage in stages))
    return [
        row for i in range(data[f"rmse_by_variable_{stages[0]}"].shape[1]) for row in _of(data, stages, i)
    ]


def _of(data: xr.Dataset, stages: list[str], number: int) -> list[_Row]:
    """The panels of one variable."""
    rows, dim = [], str(data[f"rmse_by_variable_{stages[0]}"].dims[1])
    own = data.isel({dim: number})
    about = {"units": str(own["variable_units"].values)} if "variable_units" in own.coords else {}
    level = climatology_level(own)
    name = str(own[dim].values) if dim in own.coords else f"{dim} {number}"
    for stage in stages:
        spread = f"spread_by_variable_{stage}"
        values = own[spread].values if spread in own else None
        label = f"{with_units(name, about)}\n{stage}"
        rows.append(_Row(stage, label, own[f"rmse_by_variable_{stage}"].values, values, level))
    return rows


def _curve(axis: Any, at: np.ndarray, values: np.ndarray, window: int, **style: Any) -> None:
    """The values; of many, faint, with their running mean."""
    positive = np.where(values > 0, values, np.nan)
    if window == 1:
        curve(axis, at, positive, lw=1.0, **style)
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

    In standard deviations of the noise where sensors differ in that: centimetres and litres are not added.

    Raises:
        MissingError: the means were not saved.
    """
    if "forecast_residual" not in data:
        if "smoothed_mean" in data and "forecast_mean" not in data:
            raise MissingError(
                "the figure innovations needs forecasts, which a smoother's result does not have: draw it of "
                "the filter's run (assimilate)."
            )
        require(data, "innovations", "forecast_mean")
        raise MissingError("the figure innovations is of runs without truth; with one: error_spread.")
    at, label = times(data)
    figure, axes = new_figure(data.attrs.get("title"))
    axis, noise = axes[0, 0], np.asarray(1.0)
    if "observation_noise_std" in data.coords and np.ptp(data["observation_noise_std"].values) > 0:
        noise = data["observation_noise_std"].values
    for stage in ("forecast", "analysis"):
        residual = data[f"{stage}_residual"]  # read cycle by cycle
        sizes = [_root_mean_square(residual[cycle].values / noise) for cycle in range(len(residual))]
        curve(axis, at, np.array(sizes), color=COLORS[stage], lw=0.9, label=f"observation - {stage}")
    time_axis(axis, at, label)
    of_values = data["observation"].attrs if np.ndim(noise) == 0 else {"units": "std of the noise"}
    axis.set_ylabel(with_units("root mean square", of_values))
    axis.set_ylim(bottom=0)
    legend_below(figure, [axis])
    return figure


def _root_mean_square(values: np.ndarray) -> float:
    """Of those that are there."""
    there = values[np.isfinite(values)]
    return float(np.sqrt((there.astype(np.float64) ** 2).mean())) if there.size else np.nan
