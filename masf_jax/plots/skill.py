"""Spread against skill: does the filter know where, and when, it errs?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .style import COLORS, burn_in_of, legend_below, new_figure, require, stage_of, with_units

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["spread_skill", "spread_skill_points"]

_STAGES = ("forecast", "analysis", "smoothed")
_MOST = 2**22
"""Values of a stage that are looked at, evenly chosen cycles."""


def spread_skill(data: xr.Dataset, burn_in: int | None = None, bins: int = 12) -> Figure:
    """Root mean square error of the mean against spread, components and cycles in bins of equal number.

    On the diagonal the spread says how large the error is; above it the filter is too sure. Bars: standard
    error of each point from blocks of cycles. Source: Fortin et al. (2014), doi 10.1175/JHM-D-14-0008.1.

    Raises:
        MissingError: means or spreads were not saved, or there is no truth.
    """
    shown = stage_of(data)
    require(data, "spread_skill", "truth", f"{shown}_mean", f"{shown}_spread")
    first = burn_in_of(data, burn_in)
    figure, axes = new_figure(data.attrs.get("title"), height=2.4)
    axis = axes[0, 0]
    ends = [np.inf, 0.0]
    for stage in _STAGES:
        if f"{stage}_mean" not in data or f"{stage}_spread" not in data:
            continue
        spread, error, doubt = spread_skill_points(data, stage, first, bins)
        style = {"color": COLORS[stage], "ms": 3.5, "lw": 1.0, "capsize": 1.5, "label": stage}
        axis.errorbar(spread, error, yerr=doubt, fmt="o-", **style)
        both = np.concatenate([spread, error])
        both = both[np.isfinite(both) & (both > 0)]
        if both.size:
            ends = [min(ends[0], both.min()), max(ends[1], both.max())]
    if ends[1] > 0:
        line = np.array([0.9 * ends[0], 1.1 * ends[1]])
        axis.plot(line, line, color=COLORS["reference"], lw=0.9, ls="--", label="reliable")
    axis.set_xlabel(with_units("spread (standard deviation)", data[f"{shown}_spread"].attrs))
    axis.set_ylabel(with_units("RMSE of the mean", data[f"{shown}_mean"].attrs))
    legend_below(figure, [axis])
    return figure


def spread_skill_points(
    data: xr.Dataset, stage: str, first: int, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each bin: root mean variance, root mean square error, and the standard error of the latter.

    Variances are those of the members times (N + 1) / N where the members were saved.
    """
    n = data.sizes["cycle"]
    size = int(np.prod(data["truth"].shape[1:]))
    step = max(1, (n - first) * size // _MOST)
    variance, square = (np.concatenate(each) for each in zip(*_pieces(data, stage, first, step), strict=True))
    kept = np.isfinite(variance) & np.isfinite(square)
    cycle = np.repeat(np.arange(len(variance) // size), size)[kept]
    variance, square = variance[kept], square[kept]
    order = np.argsort(variance, kind="stable")
    spreads, errors, doubts = [], [], []
    for part in np.array_split(order, min(bins, max(1, len(order)))):
        if not len(part):
            continue
        spreads.append(np.sqrt(variance[part].mean()))
        error = np.sqrt(square[part].mean())
        errors.append(error)
        doubts.append(_standard_error(square[part], cycle[part]) / (2 * error) if error > 0 else np.nan)
    return np.array(spreads), np.array(errors), np.array(doubts)


def _pieces(data: xr.Dataset, stage: str, first: int, step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for part in range(first, data.sizes["cycle"], 200 * step):
        now = data.isel(cycle=slice(part, part + 200 * step, step))
        spread, mean, truth = (
            now[name].values.astype(np.float64).ravel()
            for name in (f"{stage}_spread", f"{stage}_mean", "truth")
        )
        variance = _of_members(now, stage) * spread.reshape(now.sizes["cycle"], -1) ** 2
        yield variance.ravel(), (mean - truth) ** 2


def _of_members(data: xr.Dataset, stage: str) -> np.ndarray:
    """By what the square error of a mean of members exceeds their variance, (K, 1): 1 + 1/N, 1 + Σ w²."""
    if f"{stage}_weights" in data:
        return 1 + (data[f"{stage}_weights"].values.astype(np.float64) ** 2).sum(1, keepdims=True)
    return np.array([[1 + 1 / data.sizes["member"] if f"{stage}_ensemble" in data else 1.0]])


def _standard_error(values: np.ndarray, cycle: np.ndarray, blocks: int = 20) -> float:
    """Of the mean, from blocks of cycles, whose values go together (linearised ratio of sums)."""
    block = cycle * blocks // (cycle.max() + 1)
    sums = np.bincount(block, values, minlength=blocks)
    counts = np.bincount(block, minlength=blocks)
    there = counts > 0
    m = there.sum()
    if m < 2:
        return np.nan
    residual = (sums - values.mean() * counts)[there]
    return float(np.sqrt(m / (m - 1) * (residual**2).sum()) / len(values))
