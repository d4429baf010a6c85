"""The figure of a comparison: error, reliability and cost of each filter, each seed a dot."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from .comparison import Comparison, Result

__all__ = ["comparison_figure"]

_FAR = 5.0
_BLUE, _RED, _GREY = "#1f5fa8", "#c0392b", "#7f8c8d"


def comparison_figure(comparison: Comparison) -> Figure:
    """RMSE of analysis and forecast, spread over RMSE, and seconds per cycle, a line for each filter."""
    results, summaries = comparison.results, comparison.summaries
    figure = Figure(figsize=(10.0, 1.7 + 0.42 * len(results)), layout="constrained")
    places = np.arange(len(results))[::-1]
    axes = [figure.add_subplot(1, 3, column + 1) for column in range(3)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylim(-0.6, len(results) - 0.4)
        axis.set_yticks(places, [])
        axis.grid(axis="y", color=_GREY, alpha=0.25, lw=0.6)
    axes[0].set_yticks(places, [_name(row) for row in summaries])
    done = [result for result in results if result.failure is None]
    for place, result, row in zip(places, results, summaries, strict=True):
        if result.failure is not None:
            across = axes[0].get_yaxis_transform()  # x as a share of the axis, y a place
            axes[0].text(0.02, place, "failed", color=_RED, va="center", transform=across)
            continue
        first = result is done[0]
        _dots(axes[0], place + 0.12, result, row, "rmse_forecast", _RED, "forecast" if first else None)
        _dots(axes[0], place - 0.12, result, row, "rmse_analysis", _BLUE, "analysis" if first else None)
        _dots(axes[1], place, result, row, "spread_skill_ratio", _BLUE, None)
        axes[2].plot(row["seconds_per_cycle"], place, "s", color=_BLUE, ms=6)
    _limits(axes[0], comparison)
    axes[1].axvline(1.0, color=_GREY, lw=0.8, ls="--")
    for axis, label in zip(axes, ("RMSE", "spread / RMSE of the analysis", "seconds per cycle"), strict=True):
        axis.set_xlabel(label)
    _decades(axes[2], [row["seconds_per_cycle"] for row in summaries if row["runs"]])
    settings = comparison.settings
    what = settings.experiment.description or settings.dynamics["name"]
    figure.suptitle(
        f"{what}; mean ± standard error over {len(comparison.problem.seeds)} seeds", fontsize="medium"
    )
    return figure


def _name(row: dict[str, Any]) -> str:
    name = row["filter"] if row["ensemble_size"] is None else f"{row['filter']} (N={row['ensemble_size']})"
    return f"{name}\n{row['diverged']} of {row['runs']} diverged" if row["diverged"] else name


def _dots(
    axis: Axes, place: float, result: Result, row: dict[str, Any], key: str, color: str, label: str | None
) -> None:
    """Mean with its standard error, and a small dot for each run."""
    values = [run[key] for run in result.runs if math.isfinite(run[key])]
    axis.plot(values, np.full(len(values), place), ".", color=color, ms=4, alpha=0.45, zorder=2)
    error = row[f"{key}_se"] if math.isfinite(row[f"{key}_se"]) else 0.0
    axis.errorbar(row[key], place, xerr=error, fmt="o", color=color, ms=6, capsize=3, label=label, zorder=3)


def _limits(axis: Axes, comparison: Comparison) -> None:
    """From zero, or logarithmic where filters are far apart; with the climatology's error if it is near."""
    climatology = comparison.problem.climatology
    means = [row["rmse_analysis"] for row in comparison.summaries]
    means = [mean for mean in means if math.isfinite(mean)]
    if means and max(means) > _FAR * min(means):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        axis.set_xlim(left=0.0)
    if axis.get_xlim()[1] > 0.7 * climatology:
        axis.axvline(climatology, color=_GREY, lw=0.8, ls="--", label="climatology")
        axis.set_xlim(right=min(max(axis.get_xlim()[1], 1.1 * climatology), 2.5 * climatology))
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def _decades(axis: Axes, values: list[float]) -> None:
    """A logarithmic axis of whole decades."""
    axis.set_xscale("log")
    axis.xaxis.set_minor_formatter(NullFormatter())
    if values:
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        axis.set_xlim(10.0**low, 10.0 ** max(high, low + 1))
