"""Figures of a run, from its dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import write_all
from .flow_data import is_flow
from .flow_plots import default_cycles, spectra_figure, vorticity_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "write_figures"]

FIGURES = ("error_spread.png", "states.png", "spectra.png", "rank_histogram.png")
_SMALL = 4
"""States of up to so many components are drawn as lines, larger ones as space-time diagrams."""
_RECENT_LINES, _RECENT = 100, 200
"""So many last cycles are shown in the one and the other."""
_BLUE, _RED, _GREY = "#1f5fa8", "#c0392b", "#7f8c8d"


def write_figures(
    folder: Path, data: xr.Dataset, burn_in: int, cycles: Sequence[int] | None = None, dpi: int = 130
) -> list[Path]:
    """Draws error and spread, states, spectra of a flow, and the rank histogram, each where its data exist.

    Args:
        cycles: those shown of a flow's states; None: the first, the middle and the last.
        dpi: pixels per inch.
    """
    figures = (
        _error_and_spread(data, burn_in),
        _states(data, cycles),
        spectra_figure(data, burn_in) if is_flow(data) else None,
        _ranks(data, burn_in),
    )
    drawn = zip(FIGURES, figures, strict=True)

    def saver(figure: Figure) -> Any:
        return lambda path: figure.savefig(path, dpi=dpi)  # without bbox_inches: that draws twice

    return write_all(folder, {name: saver(figure) for name, figure in drawn if figure is not None})


def _figure(rows: int = 1, height: float = 3.0) -> tuple[Figure, list[Any]]:
    """A figure outside pyplot: no global state, no display needed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, height * rows), layout="constrained")
    axes = [figure.add_subplot(rows, 1, row + 1) for row in range(rows)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _error_and_spread(data: xr.Dataset, burn_in: int) -> Figure | None:
    if "rmse_analysis" not in data:
        return _innovations(data) if "forecast_residual" in data else None
    figure, (axis,) = _figure()
    cycle = data["cycle"].values
    for stage, color in (("forecast", _RED), ("analysis", _BLUE)):
        axis.plot(cycle, data[f"rmse_{stage}"], color=color, lw=0.9, label=f"{stage} RMSE")
        if f"spread_{stage}" in data:
            axis.plot(cycle, data[f"spread_{stage}"], color=color, lw=0.9, ls=":", label=f"{stage} spread")
    if 0 < burn_in < cycle.size:
        axis.axvspan(0, burn_in, color=_GREY, alpha=0.15, lw=0, label="burn-in")
    axis.set(xlabel="cycle", ylabel="RMSE and spread", title=data.attrs["title"])
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, ncols=5, fontsize="small", loc="lower right")
    return figure


def _innovations(data: xr.Dataset) -> Figure:
    figure, (axis,) = _figure()
    for stage, color in (("forecast", _RED), ("analysis", _BLUE)):
        residual = data[f"{stage}_residual"].values.reshape(data.sizes["cycle"], -1)
        axis.plot(
            _times(data),
            np.sqrt((residual**2).mean(1)),
            color=color,
            lw=0.9,
            label=f"|observation - {stage}|",
        )
    axis.set(xlabel="time", ylabel="root mean square", title=data.attrs["title"])
    axis.legend(frameon=False, fontsize="small")
    return figure


def _times(data: xr.Dataset) -> np.ndarray:
    return data["observation_time" if "observation_time" in data.coords else "time"].values


def _states(data: xr.Dataset, cycles: Sequence[int] | None) -> Figure | None:
    if "analysis_mean" not in data:
        return None
    if is_flow(data):
        return vorticity_figure(data, default_cycles(data) if cycles is None else cycles)
    recent = data.isel(cycle=slice(-_RECENT, None))
    mean = recent["analysis_mean"]
    if mean[0].size <= _SMALL:
        return _lines(data.isel(cycle=slice(-_RECENT_LINES, None)))
    return _hovmoeller(recent)


def _observed(data: xr.Dataset) -> np.ndarray:
    """Observed values, NaN where missing or rejected by quality control."""
    values = data["observation"].values
    if "observation_rejected" not in data:
        return values
    return np.where(data["observation_rejected"].values == 0, values, np.nan)


def _lines(data: xr.Dataset) -> Figure:
    """Truth, observations and the analysis with its spread, a panel per component."""
    n = int(data["analysis_mean"][0].size)
    figure, axes = _figure(n, 2.2 if n > 1 else 3.0)
    time = _times(data)
    same = data["observation"].dims == data["analysis_mean"].dims
    for i, axis in enumerate(axes):
        mean = data["analysis_mean"].values.reshape(len(time), -1)[:, i]
        if "truth" in data:
            axis.plot(
                time, data["truth"].values.reshape(len(time), -1)[:, i], color="k", lw=1.0, label="truth"
            )
        if same:
            observed = _observed(data).reshape(len(time), -1)[:, i]
            axis.plot(time, observed, ".", color=_RED, ms=4, label="observations")
        axis.plot(time, mean, color=_BLUE, lw=1.2, label="analysis")
        if "analysis_spread" in data:
            spread = data["analysis_spread"].values.reshape(len(time), -1)[:, i]
            axis.fill_between(
                time, mean - spread, mean + spread, color=_BLUE, alpha=0.2, lw=0, label="± spread"
            )
        axis.set_ylabel(f"component {i}" if n > 1 else f"value ({data['analysis_mean'].attrs['units']})")
    figure.suptitle(data.attrs["title"], wrap=True)
    axes[0].legend(frameon=False, fontsize="small", ncols=3, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    axes[-1].set_xlabel("time")
    return figure


def _hovmoeller(data: xr.Dataset) -> Figure:
    """Space-time diagrams of truth, observations, analysis and its error on a shared colour scale."""
    panels = {"analysis": data["analysis_mean"].values}
    if "truth" in data:
        panels = {"truth": data["truth"].values} | panels
        panels["analysis - truth"] = panels["analysis"] - panels["truth"]
    observed = data["observation"]
    if observed.dims == data["analysis_mean"].dims:
        panels["observations"] = _observed(data)
    elif "observation_x" in data.coords and observed.ndim == 2:
        field = np.full(data["analysis_mean"].shape, np.nan)
        away = np.abs(data["x"].values[:, None] - data["observation_x"].values[None])
        field[:, away.argmin(0)] = _observed(data)
        panels["observations"] = field
    order = ("truth", "observations", "analysis", "analysis - truth")
    names = [name for name in order if name in panels]
    figure, axes = _figure(len(names), 1.9)
    reference = panels.get("truth", panels["analysis"])
    low, high = np.nanpercentile(reference, [0.5, 99.5]) if np.isfinite(reference).any() else (0.0, 1.0)
    time, x = _times(data), data["x"].values
    same_units = observed.attrs["structure"] in ("identity", "mask")
    for axis, name in zip(axes, names, strict=True):
        own = name == "analysis - truth" or (name == "observations" and not same_units)
        half = np.nanmax(np.abs(panels[name])) if own and np.isfinite(panels[name]).any() else None
        limits = (low, high) if half is None else (-half, half)
        image = axis.pcolormesh(
            time,
            x,
            panels[name].T,
            cmap="RdBu_r" if own else "viridis",
            vmin=limits[0],
            vmax=limits[1],
            rasterized=True,
        )
        figure.colorbar(image, ax=axis, pad=0.01)
        axis.set(ylabel="x", title=name)
    axes[-1].set_xlabel("time")
    figure.suptitle(data.attrs["title"], wrap=True)
    return figure


def _ranks(data: xr.Dataset, burn_in: int) -> Figure | None:
    if "rank_counts_analysis" not in data:
        return None
    figure, (axis,) = _figure()
    for stage, color in (("forecast", _RED), ("analysis", _BLUE)):
        counts = data[f"rank_counts_{stage}"].values[burn_in:].sum(0).astype(float)
        share = counts / counts.sum() if counts.sum() else counts
        axis.stairs(share, np.arange(counts.size + 1) - 0.5, color=color, lw=1.4, label=stage)
    axis.axhline(1.0 / data.sizes["rank"], color=_GREY, lw=0.8, ls="--", label="reliable")
    axis.set(
        xlabel="rank of the truth among the members (bins)", ylabel="frequency", title=data.attrs["title"]
    )
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize="small")
    return figure
