"""What all figures share: size, fonts, colours, legends beside the data, and what a dataset must have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLORS",
    "LAST",
    "WIDTH",
    "MissingError",
    "broken",
    "burn_in_of",
    "curve",
    "heading",
    "last_cycles",
    "legend_below",
    "new_figure",
    "require",
    "shade_burn_in",
    "stage_of",
    "time_axis",
    "times",
    "with_units",
]

WIDTH = 3.3
"""Inches."""
COLORS = {
    "truth": "#000000",
    "analysis": "#0072B2",
    "forecast": "#D55E00",
    "smoothed": "#009E73",
    "observations": "#E69F00",
    "other": "#CC79A7",
    "reference": "#6b6b6b",
}
"""Okabe & Ito (2008): told apart with every kind of colour vision. By what is drawn."""
_SMALL, _NORMAL, _TITLE = 6.5, 7.0, 7.5
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SAVE = {"mean": "mean", "spread": "spread", "ensemble": "ensemble"}


LAST = {"series": 50, "hovmoeller": 200}
"""So many last cycles a figure shows by itself."""


class MissingError(ValueError):
    """A dataset that lacks what a figure shows; the message says what to save."""


def stage_of(data: xr.Dataset, name: str = "{}_mean") -> str:
    """Whose states a figure shows: "analysis", or "smoothed" of a result that has these alone."""
    alone = name.format("analysis") not in data and name.format("smoothed") in data
    return "smoothed" if alone else "analysis"


def require(data: xr.Dataset, figure: str, *names: str) -> None:
    """Raises MissingError, saying how to get it, where the dataset lacks a variable."""
    lacking = [name for name in names if name not in data]
    if not lacking:
        return
    name = lacking[0]
    kind = name.rpartition("_")[2]
    score = name.rpartition("_")[0].replace("rank_counts", "rank_histogram")
    if name == "truth" or (name.startswith(("rmse", "rank_counts")) and "truth" not in data):
        hint = "give assimilate the truth (truth=…); observations of a real record have none"
    elif kind in _SAVE:
        kinds = list(dict.fromkeys(("mean", "spread", kind)))
        quoted = ", ".join(f'"{each}"' for each in kinds)
        hint = f"save it: assimilate(save=({quoted})), or save=[{','.join(kinds)}] on the "
        hint += "command line" if kind == "ensemble" else "command line (the default saves mean and spread)"
    else:
        hint = (
            f'have it computed: assimilate(scores=(…, "{score}")), or scores=[…,{score}] on the command line'
        )
        if score == "rank_histogram":
            hint += "; weighted particles and a mean without members have no ranks"
    raise MissingError(f"the figure {figure} needs {', '.join(lacking)}, which this result lacks: {hint}.")


def new_figure(
    title: str | None, rows: int = 1, columns: int = 1, height: float = 1.6, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure outside pyplot (no global state, no display needed) and its axes, (rows, columns).

    Args:
        height: of a row, inches.
        options: of `Figure.subplots`.
    """
    from .displayed import displayed_figure

    figure = displayed_figure(figsize=(WIDTH, 0.75 + height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.ravel():
        tidy(axis)
    if title:
        figure.suptitle(title, fontsize=_TITLE, wrap=True)
    return figure, axes


def tidy(axis: Axes) -> None:
    """Small fonts, thin lines, no box."""
    axis.spines[["top", "right"]].set_visible(False)
    for spine in axis.spines.values():
        spine.set_linewidth(0.6)
    axis.tick_params(labelsize=_SMALL, width=0.6, length=2.5)
    axis.tick_params(which="minor", labelsize=_SMALL, width=0.4, length=1.5)
    for text in (axis.xaxis.label, axis.yaxis.label):
        text.set_fontsize(_NORMAL)
    for each in (axis.xaxis, axis.yaxis):
        each.get_offset_text().set_fontsize(_SMALL)


def legend_below(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend for all axes, below them: never over data."""
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if not found:
        return
    longest = max(map(len, found)) * 0.55 * _SMALL / 72 + 0.35  # inches, with its handle
    columns = min(len(found), max(1, int(figure.get_figwidth() / longest)))
    figure.legend(
        list(found.values()),
        list(found),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=_SMALL,
        handlelength=1.6,
        columnspacing=1.0,
    )


def heading(axis: Axes, text: str) -> None:
    """What a panel is, above its left end."""
    axis.set_title(text, loc="left", fontsize=_NORMAL)


def last_cycles(data: xr.Dataset, last: int | None) -> tuple[xr.Dataset, str]:
    """The last cycles (None: all), and what the time axis says of it: nothing where these are all."""
    n = data.sizes["cycle"]
    if last is not None and last < 1:
        raise ValueError(f"last must be 1 or more cycles, or None for all; got {last}.")
    if last is None or last >= n:
        return data, ""
    return data.isel(cycle=slice(-last, None)), f"; last {last} of {n} cycles"


def times(data: xr.Dataset) -> tuple[np.ndarray, str]:
    """Of each cycle, and what to call the axis: dates, those of the observation file, or the model's.

    A model's long times in seconds are in minutes, hours or days.
    """
    if np.issubdtype(data["time"].dtype, np.datetime64):
        return data["time"].values, "date"
    if "observation_time" in data.coords:
        counted = str(data["observation_time"].attrs.get("long_name", "")).partition(", ")[2]
        return data["observation_time"].values, f"time ({counted})" if counted else "time"
    values, units = readable_times(data["time"].values, data["time"].attrs)
    return values, with_units("model time", {"units": units})


def readable_times(values: np.ndarray, about: Mapping[str, Any]) -> tuple[np.ndarray, str]:
    """Times and their units ("1": none); long ones in seconds, minutes or hours in longer units."""
    units = str(about.get("units", "1"))
    if units in _SECONDS:
        return _readable(values * _SECONDS[units], values, units)
    return values, units


def _readable(seconds: np.ndarray, values: np.ndarray, units: str) -> tuple[np.ndarray, str]:
    """Times in days, hours or minutes where they span three of them and more, in the model's units else."""
    span = float(np.ptp(seconds)) if seconds.size else 0.0
    for name in ("d", "h", "min"):
        if _SECONDS[name] > _SECONDS[units] and span >= 3 * _SECONDS[name]:
            return seconds / _SECONDS[name], name
    return values, units


def broken(at: np.ndarray, *values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Times and values with a NaN in every gap, so that no line crosses it.

    A gap is three times the usual (median) step or longer.
    """
    steps = np.diff(at)
    if not len(steps):
        return at, *values
    (after,) = np.nonzero(steps >= 3 * np.median(steps))
    moments = at[after] + steps[after] / 2
    more = (np.insert(np.asarray(each, float), after + 1, np.nan) for each in values)
    return np.insert(at, after + 1, moments.astype(at.dtype)), *more


def curve(axis: Axes, at: np.ndarray, values: np.ndarray, **style: Any) -> None:
    """A line over time that gaps break; a value without a neighbour, of which there is no line, is a dot."""
    at, values = broken(at, np.asarray(values))
    there = np.concatenate([[False], np.isfinite(values), [False]])
    (alone,) = np.nonzero(there[1:-1] & ~there[:-2] & ~there[2:])
    dots = {"marker": ".", "markevery": alone.tolist(), "ms": 4} if len(alone) else {}
    axis.plot(at, values, **{**dots, **style})


def time_axis(axis: Axes, values: np.ndarray, label: str) -> None:
    """Labels along a time axis; of dates as few letters as tell them apart."""
    axis.set_xlabel(label)
    if np.issubdtype(values.dtype, np.datetime64):
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(minticks=3, maxticks=6)
        axis.xaxis.set_major_locator(locator)
        axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    elif values.size and np.abs(values).max() >= 1e5:
        axis.locator_params(axis="x", nbins=4)


def with_units(name: str, about: Mapping[str, Any]) -> str:
    """The name with its units, where it has any."""
    units = str(about.get("units", "1"))
    return name if units in ("1", "") else f"{name} ({units})"


def burn_in_of(data: xr.Dataset, burn_in: int | None) -> int:
    """First cycles that averages leave out: the given number, or else that of the dataset.

    Raises:
        ValueError: none would be left.
    """
    n = data.sizes["cycle"]
    found = int(data.attrs.get("burn_in", 0) if burn_in is None else burn_in)
    if not 0 <= found < n:
        raise ValueError(f"burn_in must leave some of the {n} cycles, 0 … {n - 1}; got {found}.")
    return found


def shade_burn_in(axis: Axes, at: np.ndarray, burn_in: int) -> None:
    """Marks the cycles that averages leave out."""
    if burn_in > 0:
        axis.axvspan(at[0], at[burn_in], color=COLORS["reference"], alpha=0.15, lw=0, label="burn-in")
