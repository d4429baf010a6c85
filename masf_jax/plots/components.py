"""Components of the state against time: truth, observations, analysis, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import (
    COLORS,
    LAST,
    broken,
    curve,
    last_cycles,
    legend_below,
    new_figure,
    require,
    stage_of,
    time_axis,
    times,
    with_units,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["observed", "series"]

_Z90 = 1.6448536269514722
"""The 95 % quantile of a standard normal law."""
_MOST = 4
_SHORT = {"degrees_east": "°E", "degrees_north": "°N", "degrees": "°"}
_LONGEST = 14
"""Letters that fit beside a panel."""
_EXACT = ("identity", "mask")
"""Structures of measurements that give components of the state as they are."""


def series(
    data: xr.Dataset,
    components: Sequence[int] | None = None,
    last: int | None = LAST["series"],
    stage: str | None = None,
) -> Figure:
    """Truth, observations, mean, ± 1 standard deviation (1σ) and the 90 % band, a panel for each component.

    The band is that of the members (5 to 95 %) where they were saved, else mean ± 1.645 standard deviations,
    which is that of a normal law; the legend says which. With a truth, below: truth minus mean, and the same
    bands.

    Args:
        components: numbers in the raveled state; None: the first four at most.
        last: so many last cycles are shown, and the axis says so where there are more; None: all.
        stage: "analysis", "forecast" or "smoothed"; None: the analysis, or what a smoother's result has.

    Raises:
        MissingError: the means were not saved.
    """
    stage = stage_of(data) if stage is None else stage
    require(data, "series", f"{stage}_mean")
    data, told = last_cycles(data, last)
    size = int(np.prod(data[f"{stage}_mean"].shape[1:]))
    chosen = list(range(min(size, _MOST))) if components is None else list(components)
    bad = [each for each in chosen if not 0 <= each < size]
    if bad or not chosen:
        raise ValueError(f"components are numbers 0 … {size - 1}, one or more; got {bad or 'none'}.")
    at, label = times(data)
    with_error = "truth" in data
    rows, ratios = (2, [2.0, 1.0]) if with_error else (1, [1.0])
    height = (0.62 if with_error else 1.05) if len(chosen) > 1 else 0.9
    options = {"sharex": True, "height_ratios": ratios * len(chosen)}
    figure, axes = new_figure(data.attrs.get("title"), rows * len(chosen), height=height, **options)
    seen, rejected = observed(data), observed(data, rejected=True)
    for number, pair in zip(chosen, axes[:, 0].reshape(len(chosen), rows), strict=True):
        mean = _component(data[f"{stage}_mean"], number)
        _band(pair[0], data, stage, at, number, 0.0)
        curve(pair[0], at, mean, color=COLORS[stage], lw=1.8, zorder=3, label=f"{stage} mean")
        if seen is not None and np.isfinite(seen[:, number]).any():
            style = {"color": COLORS["observations"], "ms": 2.5, "zorder": 5, "label": "observations"}
            pair[0].plot(at, seen[:, number], ".", **style)
        if rejected is not None and np.isfinite(rejected[:, number]).any():
            _mark_rejected(pair[0], at, rejected[:, number])
        pair[0].set_ylabel(_name(data, stage, number))
        if with_error:
            truth = _component(data["truth"], number)
            curve(pair[0], at, truth, color=COLORS["truth"], lw=0.8, zorder=4, label="truth")
            _band(pair[1], data, stage, at, number, mean)
            curve(pair[1], at, truth - mean, color=COLORS["truth"], lw=0.8, zorder=4)
            pair[1].axhline(0.0, color=COLORS[stage], lw=0.8)
            pair[1].set_ylabel("truth\n- mean")
    time_axis(axes[-1, 0], at, f"{label}{told}")
    figure.align_ylabels(list(axes[:, 0]))
    legend_below(figure, list(axes[:, 0]))
    return figure


def _band(axis: Any, data: xr.Dataset, stage: str, at: np.ndarray, number: int, less: Any) -> None:
    """Where the truth is expected, minus `less`."""
    bands = []
    if f"{stage}_ensemble" in data:
        members = data[f"{stage}_ensemble"].values
        members = members.reshape(*members.shape[:2], -1)[..., number]
        weights = data[f"{stage}_weights"].values if f"{stage}_weights" in data else None
        bands.append((*_quantiles(members, weights), 0.2, "90 % of the members"))
    if f"{stage}_spread" in data:
        mean, spread = (_component(data[f"{stage}_{name}"], number) for name in ("mean", "spread"))
        if not bands:
            bands.append((mean - _Z90 * spread, mean + _Z90 * spread, 0.2, "90 % band (± 1.64σ)"))
        bands.append((mean - spread, mean + spread, 0.3, "± 1σ"))
    for low, high, alpha, label in bands:
        edges = broken(at, low - less, high - less)
        axis.fill_between(*edges, color=COLORS[stage], alpha=alpha, lw=0, label=label)


def _quantiles(members: np.ndarray, weights: np.ndarray | None) -> list[np.ndarray]:
    """5 and 95 % of members (K, N), each of which counts by its weight: the first that reach the share."""
    shares = (0.05, 0.95)
    if weights is None:
        return list(np.quantile(members, shares, axis=1))
    order = np.argsort(members, 1)
    below = np.cumsum(np.take_along_axis(weights.astype(np.float64), order, 1), 1)
    last = members.shape[1] - 1
    places = [np.minimum((below < share * below[:, -1:]).sum(1), last) for share in shares]
    ordered = np.take_along_axis(members, order, 1)
    return [ordered[np.arange(len(ordered)), place] for place in places]


def _component(values: xr.DataArray, number: int) -> np.ndarray:
    return values.values.reshape(len(values), -1)[:, number]


def _name(data: xr.Dataset, stage: str, number: int) -> str:
    """What the component is called: its name, or where it is; with units."""
    field, about = data[f"{stage}_mean"], data[f"{stage}_mean"].attrs
    index, called = np.unravel_index(number, field.shape[1:]), about.get("variable")
    if len(index) == 1 and field.dims[1] == "component":
        one = field.shape[1] == 1
        if called is not None:
            return with_units(called, about) + ("" if one else f"\ncomponent {number}")
        return with_units("state" if one else f"component {number}", about).replace(" (", "\n(")
    if "variable_units" in data.coords:
        about = {"units": str(data["variable_units"].values[index[0]])}
    names, places = [] if called is None else [str(called)], []
    for dim, i in zip(field.dims[1:], index, strict=True):
        value = data[dim].values[i] if dim in data.coords else i
        units = str(data[dim].attrs.get("units", "1")) if dim in data.coords else "1"
        if isinstance(value, str):
            names.append(value)
        else:
            units = _SHORT.get(units, units)
            place = f"{dim} = {value:.4g}" + (f" {units}" if units not in ("1", "") else "")
            places.append(place if len(place) <= _LONGEST else place.replace(f" {units}", f"\n{units}"))
    if not names:
        return with_units(", ".join(places), about).replace(" (", "\n(")
    lines = [with_units(", ".join(names), about), ", ".join(places)]
    return "\n".join(lines) if places else lines[0].replace(" (", "\n(")


def _mark_rejected(axis: Axes, at: np.ndarray, values: np.ndarray) -> None:
    """Crosses; those beyond what else the panel shows lie on its edge."""
    low, high = axis.get_ylim()
    axis.plot(
        at, np.clip(values, low, high), "x", color=COLORS["other"], ms=3.5, mew=0.9, zorder=6, clip_on=False,
        label="rejected",
    )  # fmt: skip
    axis.set_ylim(low, high)


def observed(data: xr.Dataset, rejected: bool = False) -> np.ndarray | None:
    """Observed values at the raveled components they measure, (K, n), NaN where there is none.

    Missing or rejected values are NaN; with `rejected`, all others are. None where measurements are not
    of components as they are, or it is not known of which.
    """
    observation, state = data["observation"], data[f"{stage_of(data)}_mean"]
    if observation.attrs.get("structure") not in _EXACT:
        return None
    values = observation.values
    if "observation_rejected" in data:
        values = np.where((data["observation_rejected"].values != 0) == rejected, values, np.nan)
    elif rejected:
        return None
    if observation.dims == state.dims:
        return values.reshape(len(values), -1)
    if "observation_component" in data.coords and values.ndim == 2:
        found = np.full((len(values), int(np.prod(state.shape[1:]))), np.nan)
        found[:, data["observation_component"].values] = values
        return found
    if "observation_x" not in data.coords or state.dims[1:] != ("x",) or values.ndim != 2:
        return None
    away = np.abs(data["x"].values[:, None] - data["observation_x"].values[None])
    found = np.full((len(values), state.shape[1]), np.nan)
    found[:, away.argmin(0)] = values
    return found
