"""Reliability diagrams: does what is given a probability of 0.7 happen 7 times of 10?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .ranks import sampling_band
from .style import COLORS, burn_in_of, legend_below, new_figure, require, with_units

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["reliability", "reliability_points"]

_STAGES = ("forecast", "analysis")


def reliability(
    data: xr.Dataset, threshold: float | None = None, burn_in: int | None = None, bins: int = 10
) -> Figure:
    """How often the truth exceeds a threshold, against the share of members that do.

    Bars below: how often each probability was given. Points next to the diagonal: reliable. The grey bars are
    5 to 95 % of a binomial law about the diagonal, of as many values as lie in the bin in different cycles
    (Bröcker & Smith 2007, doi 10.1175/WAF993.1, whose values are independent; components of a cycle are not).

    Args:
        threshold: of the state; None: the truth's 75 % quantile.

    Raises:
        MissingError: no truth, or members were not saved.
    """
    require(data, "reliability", "truth", "analysis_ensemble")
    first = burn_in_of(data, burn_in)
    truth = data["truth"].isel(cycle=slice(first, None)).values
    level = float(np.nanquantile(truth, 0.75)) if threshold is None else float(threshold)
    figure, axes = new_figure(data.attrs.get("title"), 2, height=1.5, sharex=True, height_ratios=[3, 1])
    axis, counts = axes[:, 0]
    for number, stage in enumerate(_STAGES):
        if f"{stage}_ensemble" not in data:
            continue
        given, seen, count, cycles = reliability_points(data, stage, level, first, bins)
        bands = [_band(p, n) for p, n in zip(given, cycles, strict=True)]
        low, high = np.array(bands).T
        if stage == "analysis":
            axis.vlines(given, low, high, color="#c8c8c8", lw=4, label="90 % if reliable", zorder=1)
        axis.plot(given, seen, "o-", color=COLORS[stage], ms=3.5, lw=1.0, label=stage)
        width = 0.4 / bins
        counts.bar(given + (number - 0.5) * width, count / count.sum(), width, color=COLORS[stage])
    axis.plot([0, 1], [0, 1], color=COLORS["reference"], lw=0.9, ls="--", label="reliable")
    axis.set(ylabel="observed frequency", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    event = with_units(f"probability of state > {level:.3g}", data["truth"].attrs)
    counts.set(xlabel=f"{event}, share of members", ylabel="share")
    legend_below(figure, [axis])
    return figure


def reliability_points(
    data: xr.Dataset, stage: str, level: float, first: int, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each bin that has values: mean probability, frequency of the event, values, and cycles with one."""
    sums = np.zeros((4, bins))
    for cycle in range(first, data.sizes["cycle"]):  # read one by one
        members = data[f"{stage}_ensemble"].isel(cycle=cycle).values
        truth = data["truth"].isel(cycle=cycle).values.ravel()
        members = members.reshape(len(members), -1)
        kept = np.isfinite(members).all(0) & np.isfinite(truth)
        weights = data[f"{stage}_weights"].isel(cycle=cycle).values if f"{stage}_weights" in data else None
        probability = np.average(members[:, kept] > level, 0, weights)
        event = truth[kept] > level
        place = np.minimum((probability * bins + 1e-9).astype(int), bins - 1)
        count = np.bincount(place, minlength=bins)
        sums += [
            np.bincount(place, probability, bins),
            np.bincount(place, event, bins),
            count,
            count > 0,
        ]
    there = sums[2] > 0
    total, happened, count, cycles = sums[:, there]
    return total / count, happened / count, count, cycles


def _band(p: float, n: float) -> tuple[float, float]:
    if p <= 0 or p >= 1:
        return p, p
    return sampling_band(n, p)
