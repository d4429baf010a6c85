"""Figures of a run, from its dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import write_all
from .flow_data import is_flow, times
from .flow_plots import default_cycles, spectra_figure, vorticity_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "write_figures"]

FIGURES = ("error_spread.png", "states.png", "spectra.png", "rank_histogram.png", "estimates.png")
_SMALL = 4
"""States of up to so many components are drawn as lines, larger ones as space-time diagrams."""
_RECENT_LINES, _RECENT = 100, 200
"""So many last cycles are shown in the one and the other."""
_MOST_VALUES = 2**22
"""In a space-time diagram."""
_BLUE, _RED, _GREY = "#1f5fa8", "#c0392b", "#7f8c8d"
_STAGES = (("forecast", _RED), ("analysis", _BLUE))
_LEGEND: dict[str, Any] = {"frameon": False, "fontsize": "small"}


def write_figures(
    folder: Path, data: xr.Dataset, burn_in: int, cycles: Sequence[int] | None = None, dpi: int = 130
) -> list[Path]:
    """Draws error and spread, states, spectra of a flow, the rank histogram and the course of
    what was estimated, each where its data exist.

    Args:
        cycles: those shown of a flow's states; None: the first, the middle and the last.
        dpi: pixels per inch.
    """
    spectra = spectra_figure(data, burn_in) if is_flow(data) else None
    figures = (_error_and_spread(data, burn_in), _states(data, cycles), spectra, _ranks(data, burn_in))
    figures = (*figures, _estimates(data))
    drawn = {name: figure for name, figure in zip(FIGURES, figures, strict=True) if figure is not None}
    # each is drawn once: bbox_inches would draw it twice
    return write_all(
        folder, {name: lambda path, f=figure: f.savefig(path, dpi=dpi) for name, figure in drawn.items()}
    )


def _figure(title: str, rows: int = 1, height: float = 3.0) -> tuple[Figure, list[Any]]:
    """A figure outside pyplot: no global state, no display needed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, height * rows), layout="constrained")
    axes = [figure.add_subplot(rows, 1, row + 1) for row in range(rows)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, wrap=True, fontsize="medium")
    return figure, axes


def _error_and_spread(data: xr.Dataset, burn_in: int) -> Figure | None:
    if "rmse_analysis" not in data:
        return _innovations(data) if "forecast_residual" in data else None
    figure, (axis,) = _figure(data.attrs["title"])
    cycle = data["cycle"].values
    for stage, color in _STAGES:
        for name, label, style in (("rmse", "RMSE", "-"), ("spread", "spread", ":")):
            if f"{name}_{stage}" in data:
                values = data[f"{name}_{stage}"]
                axis.plot(cycle, values, color=color, lw=0.9, ls=style, label=f"{stage} {label}")
    if 0 < burn_in < cycle.size:
        axis.axvspan(0, burn_in, color=_GREY, alpha=0.15, lw=0, label="burn-in")
    axis.set(xlabel="cycle", ylabel="RMSE and spread")
    axis.set_ylim(bottom=0)
    axis.legend(ncols=5, loc="lower right", **_LEGEND)
    return figure


def _innovations(data: xr.Dataset) -> Figure:
    figure, (axis,) = _figure(data.attrs["title"])
    for stage, color in _STAGES:
        residual = data[f"{stage}_residual"]  # read cycle by cycle
        sizes = [float(np.sqrt((residual[cycle].values ** 2).mean())) for cycle in range(len(residual))]
        axis.plot(times(data), sizes, color=color, lw=0.9, label=f"|observation - {stage}|")
    axis.set(xlabel="time", ylabel="root mean square")
    axis.legend(**_LEGEND)
    return figure


def _states(data: xr.Dataset, cycles: Sequence[int] | None) -> Figure | None:
    if "analysis_mean" not in data:
        return None
    if is_flow(data):
        return vorticity_figure(data, default_cycles(data) if cycles is None else cycles)
    size = data["analysis_mean"][0].size
    if size <= _SMALL:
        return _lines(data.isel(cycle=slice(-_RECENT_LINES, None)))
    return _hovmoeller(data.isel(cycle=slice(-min(_RECENT, max(1, _MOST_VALUES // size)), None)))


def _observed(data: xr.Dataset) -> np.ndarray:
    """Observed values, NaN where missing or rejected by quality control."""
    values = data["observation"].values
    if "observation_rejected" not in data:
        return values
    return np.where(data["observation_rejected"].values == 0, values, np.nan)


def _lines(data: xr.Dataset) -> Figure:
    """Truth, observations and the analysis with its spread, a panel per component."""
    n, time = int(data["analysis_mean"][0].size), times(data)
    figure, axes = _figure(data.attrs["title"], n, 2.2 if n > 1 else 3.0)
    same = data["observation"].dims == data["analysis_mean"].dims

    def component(values: Any, i: int) -> np.ndarray:
        return np.asarray(values).reshape(len(time), -1)[:, i]

    for i, axis in enumerate(axes):
        mean = component(data["analysis_mean"], i)
        if "truth" in data:
            axis.plot(time, component(data["truth"], i), color="k", lw=1.0, label="truth")
        if same:
            axis.plot(time, component(_observed(data), i), ".", color=_RED, ms=4, label="observations")
        axis.plot(time, mean, color=_BLUE, lw=1.2, label="analysis")
        if "analysis_spread" in data:
            spread = component(data["analysis_spread"], i)
            band = {"color": _BLUE, "alpha": 0.2, "lw": 0, "label": "± spread"}
            axis.fill_between(time, mean - spread, mean + spread, **band)
        axis.set_ylabel(f"component {i}" if n > 1 else f"value ({data['analysis_mean'].attrs['units']})")
    axes[0].legend(ncols=3, loc="lower right", bbox_to_anchor=(1.0, 1.0), **_LEGEND)
    axes[-1].set_xlabel("time")
    return figure


def _hovmoeller(data: xr.Dataset) -> Figure:
    """Space-time diagrams of truth, observations, analysis and its error on a shared colour scale."""
    observed, analysis, x = data["observation"], data["analysis_mean"].values, data["x"].values
    panels = {"truth": data["truth"].values} if "truth" in data else {}
    if observed.dims == data["analysis_mean"].dims:
        panels["observations"] = _observed(data)
    elif "observation_x" in data.coords and observed.ndim == 2:
        panels["observations"] = np.full(analysis.shape, np.nan)
        away = np.abs(x[:, None] - data["observation_x"].values[None])
        panels["observations"][:, away.argmin(0)] = _observed(data)
    panels["analysis"] = analysis
    if "truth" in data:
        panels["analysis - truth"] = analysis - panels["truth"]
    figure, axes = _figure(data.attrs["title"], len(panels), 1.9)
    reference = panels.get("truth", analysis)
    low, high = np.nanpercentile(reference, [0.5, 99.5]) if np.isfinite(reference).any() else (0.0, 1.0)
    same_units = observed.attrs["structure"] in ("identity", "mask")
    for axis, (name, values) in zip(axes, panels.items(), strict=True):
        own = name == "analysis - truth" or (name == "observations" and not same_units)
        half = np.nanmax(np.abs(values)) if own and np.isfinite(values).any() else None
        vmin, vmax = (low, high) if half is None else (-half, half)
        style = {"cmap": "RdBu_r" if own else "viridis", "vmin": vmin, "vmax": vmax, "rasterized": True}
        figure.colorbar(axis.pcolormesh(times(data), x, values.T, **style), ax=axis, pad=0.01)
        axis.set(ylabel="x", title=name)
    axes[-1].set_xlabel("time")
    return figure


def _estimates(data: xr.Dataset) -> Figure | None:
    """Each number that was not known, after each cycle with its spread, or after each step."""
    names = [str(name) for name in data if str(name).startswith("estimated_")]
    names = [name for name in names if not (name.endswith("_std") and name.removesuffix("_std") in names)]
    if not names:
        return None
    figure, axes = _figure(data.attrs["title"], len(names), 2.2 if len(names) > 1 else 3.0)
    for name, axis in zip(names, axes, strict=True):
        values, (dim,) = data[name].values, data[name].dims
        at = np.arange(len(values))
        axis.plot(at, values, color=_BLUE, lw=1.2)
        if f"{name}_std" in data:
            std = data[f"{name}_std"].values
            axis.fill_between(at, values - std, values + std, color=_BLUE, alpha=0.2, lw=0)
        axis.set(xlabel=dim, ylabel=name.removeprefix("estimated_"))
    return figure


def _ranks(data: xr.Dataset, burn_in: int) -> Figure | None:
    if "rank_counts_analysis" not in data:
        return None
    figure, (axis,) = _figure(data.attrs["title"])
    for stage, color in _STAGES:
        counts = data[f"rank_counts_{stage}"].values[burn_in:].sum(0).astype(float)
        edges = np.arange(counts.size + 1) - 0.5
        axis.stairs(counts / max(counts.sum(), 1), edges, color=color, lw=1.4, label=stage)
    axis.axhline(1.0 / data.sizes["rank"], color=_GREY, lw=0.8, ls="--", label="reliable")
    axis.set(xlabel="rank of the truth among the members (bins)", ylabel="frequency")
    axis.set_ylim(bottom=0)
    axis.legend(**_LEGEND)
    return figure
