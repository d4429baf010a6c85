"""Filters side by side: bars with standard errors over seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..metrics.summary import mean_and_standard_error, with_error
from .style import COLORS, WIDTH, MissingError, legend_below, tidy, with_units

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["comparison"]

_STAGES = (("rmse_analysis", "analysis"), ("rmse_forecast", "forecast"))
_FONT = 6.5
_WIDE = 5.0


def comparison(
    data: xr.Dataset, climatology: float | None = None, notes: dict[str, str] | None = None
) -> Figure:
    """RMSE of analysis and forecast, spread over RMSE and, where measured, seconds a cycle, by filter.

    Bars are means over the seeds, with their standard errors s/√S; dots are the single seeds. Seeds with NaN
    are left out. Where filters differ by more than a factor of 5 the axis is logarithmic, with marks
    for bars.

    Args:
        data: of `masf_jax.results.comparison`, dimensions filter and seed.
        climatology: the RMSE of the model's climatology, a line where it is near.
        notes: by filter, a word below its name ("failed", "2 of 5 diverged").

    Raises:
        MissingError: no RMSE.
    """
    from .displayed import displayed_figure

    if "rmse_analysis" not in data:
        raise MissingError(
            'the figure comparison needs rmse_analysis: runs with a truth and the score "rmse".'
        )
    names, n_seeds = [str(name) for name in data["filter"].values], data.sizes["seed"]
    height = 0.34 * len(names)
    figure = displayed_figure(figsize=(WIDTH, 1.4 + 1.55 * height), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[1, 0.55])
    places = np.arange(len(names))[::-1].astype(float)
    main = figure.add_subplot(grid[0, :])
    below = [figure.add_subplot(grid[1, column]) for column in (0, 1)]
    labels = [f"{name}\n{notes[name]}" if notes and name in notes else name for name in names]
    for axis, shown in ((main, labels), (below[0], names), (below[1], [""] * len(names))):
        tidy(axis)
        axis.set_ylim(-0.6, len(names) - 0.4)
        axis.set_yticks(places, shown)
    shown = [(key, stage) for key, stage in _STAGES if key in data]
    logarithmic = _wide([data[key].values for key, _ in shown])
    for number, (key, stage) in enumerate(shown):
        _means(main, places + 0.2 - 0.4 * number, data[key].values, stage, logarithmic)
    _climatology(main, climatology)
    if logarithmic:
        _log_axis(main)
    else:
        main.set_xlim(0, main.get_xlim()[1] * 1.3)
    main.set_xlabel(
        with_units(f"RMSE, mean ± standard error over {n_seeds} seeds", data["rmse_analysis"].attrs)
    )
    if "spread_skill_ratio" in data:
        _dots(below[0], places, data["spread_skill_ratio"].values)
        below[0].axvline(1.0, color=COLORS["reference"], lw=0.8, ls="--")
    below[0].set_xlabel("spread / RMSE (1: reliable)")
    if "seconds_per_cycle" in data:
        _dots(below[1], places, data["seconds_per_cycle"].values)
        _decades(below[1])
        below[1].set_xlabel("seconds a cycle")
    else:
        below[1].set_visible(False)
    figure.suptitle(data.attrs.get("title", ""), fontsize=7.5, wrap=True)
    legend_below(figure, [main])
    return figure


def _wide(values: list[np.ndarray]) -> bool:
    """Whether means of filters differ by more than a factor of 5: one would hide how the others differ."""
    means = [np.mean(row[np.isfinite(row)]) for each in values for row in each if np.isfinite(row).any()]
    return bool(means) and min(means) > 0 and max(means) > _WIDE * min(means)


def _means(axis: Any, places: np.ndarray, values: np.ndarray, stage: str, logarithmic: bool) -> None:
    """A bar for each filter, or a mark where the axis has no zero that it could begin at."""
    analysis, color, named = stage == "analysis", COLORS[stage], False
    for place, row in zip(places, values, strict=True):
        kept = row[np.isfinite(row)]
        if not kept.size:
            continue
        mean, error = mean_and_standard_error(kept)
        label, named = (None if named else stage), True
        if logarithmic:
            mark = {"marker": "o" if analysis else "s", "mfc": color if analysis else "white", "mec": color}
            axis.plot(mean, place, ls="", ms=4.5, label=label, zorder=5, **mark)
        elif analysis:
            axis.barh(place, mean, 0.36, color=color, alpha=0.8, label=label)
        else:
            axis.barh(
                place, mean, 0.36, facecolor="white", edgecolor=color, hatch="////", lw=0.6, label=label
            )
        axis.plot(kept, np.full(kept.size, place), ".", color=COLORS["truth"], ms=2, zorder=3)
        low = min(error, 0.9 * mean) if logarithmic else error
        style = {"color": COLORS["truth"], "lw": 0.9, "capsize": 1.5, "zorder": 4}
        axis.errorbar(mean, place, xerr=[[low], [error]], **style)
        said = f" {with_error(mean, error)}"
        at = (max(kept.max(), mean + np.nan_to_num(error)), place)
        offset = {"xytext": (5, 0), "textcoords": "offset points"}
        axis.annotate(said, at, va="center", fontsize=_FONT - 0.5, **offset)


def _log_axis(axis: Any) -> None:
    """Logarithmic, with plain numbers, and room for what stands beside the marks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.dataLim.intervalx
    low = axis.dataLim.minposx if low <= 0 else low
    axis.set_xscale("log")
    axis.set_xlim(low / 1.3, high * (1.3 * high / low) ** 0.45)
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 3.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _dots(axis: Any, places: np.ndarray, values: np.ndarray) -> None:
    for place, row in zip(places, values, strict=True):
        kept = row[np.isfinite(row)]
        if kept.size:
            mean, error = mean_and_standard_error(kept)
            axis.plot(kept, np.full(kept.size, place), ".", color=COLORS["analysis"], ms=2.5, alpha=0.6)
            style = {"color": COLORS["analysis"], "fmt": "o", "ms": 3.5, "capsize": 1.5, "lw": 0.9}
            axis.errorbar(mean, place, xerr=None if np.isnan(error) else error, **style)


def _climatology(axis: Any, level: float | None) -> None:
    if level is not None and axis.get_xlim()[1] > 0.7 * level:
        axis.axvline(level, color=COLORS["reference"], lw=0.9, ls="-.", label="climatology")


def _decades(axis: Any) -> None:
    """A logarithmic axis of whole decades."""
    from matplotlib.ticker import NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_minor_formatter(NullFormatter())
    low, high = axis.dataLim.intervalx
    if 0 < low <= high < np.inf:
        low, high = np.floor(np.log10(low)), np.ceil(np.log10(high))
        axis.set_xlim(10.0**low, 10.0 ** max(high, low + 1))
