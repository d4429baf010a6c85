"""Rank histograms with what chance alone would do to them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .style import COLORS, burn_in_of, heading, legend_below, new_figure, require, stage_of

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["effective_number", "rank_histogram", "sampling_band"]

_FEWEST = 20
"""Cycles from which on it can be seen how they go together."""


def rank_histogram(data: xr.Dataset, burn_in: int | None = None) -> Figure:
    """How often the truth has each rank among the members, over that of a reliable ensemble (1).

    Ties share their ranks (`metrics.rank_counts`). The band is where a reliable ensemble's bars lie 90 times
    of 100: 5 to 95 % of a binomial law, of as many independent values as the counts are worth
    (`effective_number`), since neighbouring cells and cycles after one another go together; the heading says
    of how many. Runs shorter than some 20 times what their errors last have too narrow a band.

    Args:
        burn_in: first cycles that are left out; None: the dataset's.

    Raises:
        MissingError: the score rank_histogram was not computed.
    """
    from matplotlib.ticker import MaxNLocator

    require(data, "rank_histogram", f"rank_counts_{stage_of(data, 'rank_counts_{}')}")
    first = burn_in_of(data, burn_in)
    stages = [stage for stage in ("forecast", "analysis", "smoothed") if f"rank_counts_{stage}" in data]
    figure, axes = new_figure(data.attrs.get("title"), len(stages), height=1.05, sharex=True, sharey=True)
    for stage, axis in zip(stages, axes[:, 0], strict=True):
        counts = data[f"rank_counts_{stage}"].values[first:].astype(np.float64)
        total, bins = counts.sum(), counts.shape[1]
        edges = np.arange(bins + 1) - 0.5
        worth = effective_number(counts)
        low, high = sampling_band(worth, 1 / bins)
        axis.stairs(counts.sum(0) / max(total, 1) * bins, edges, color=COLORS[stage], fill=True, alpha=0.75)
        band = {"color": COLORS["truth"], "lw": 0.7, "zorder": 3}
        axis.hlines([low * bins, high * bins], edges[0], edges[-1], ls="--", label="90 % if reliable", **band)
        axis.hlines(1.0, edges[0], edges[-1], label="reliable", **band)
        heading(axis, f"{stage}: {total:.0f} values, worth {worth:.0f} independent")
        axis.set_ylabel("relative frequency")
        axis.set_xlim(edges[0], edges[-1])
        axis.set_ylim(0, 1.08 * max(axis.get_ylim()[1], axis.dataLim.y1))
    axes[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1, 0].set_xlabel("rank of the truth among the members (bin)")
    legend_below(figure, list(axes[:, 0]))
    return figure


def effective_number(counts: np.ndarray) -> float:
    """As how many independent values the ranks of (cycles, bins) scatter: components and cycles go together.

    n / d with n = Σ counts and d (Kish's design effect, at least 1) the variance of n times a bin's share
    over that of independent values, n p (1 - p), both summed over bins. With r_b(t) the count of bin b in
    cycle t minus its expectation, that variance is Σ_l Σ_t Σ_b r_b(t) r_b(t + l) over lags |l| up to the
    first pair of them that go together no more, the pairs made decreasing (Geyer 1992,
    doi 10.1214/ss/1177011137), over 1 - (2 M + 1) / K for the M lags and K cycles, since the bins' shares are
    those found. Components of a cycle may go together in any way. Fewer than 20 cycles: n / (values a cycle),
    as if each cycle were one value.
    """
    n, n_cycles = counts.sum(), len(counts)
    if n == 0:
        return 0.0
    if n_cycles < _FEWEST:
        return float(n_cycles)
    p = counts.sum(0) / n
    independent = n * (p * (1 - p)).sum()
    if independent == 0:
        return float(n)
    apart = np.fft.rfft(counts - counts.sum(1, keepdims=True) * p, 2 * n_cycles, axis=0)
    together = np.fft.irfft((np.abs(apart) ** 2).sum(1), 2 * n_cycles)[:n_cycles]  # by lag
    pairs = together[: n_cycles // 2 * 2].reshape(-1, 2).sum(1)
    m = int(np.argmax(pairs <= 0)) if (pairs <= 0).any() else len(pairs)
    variance = 2 * np.minimum.accumulate(pairs[:m]).sum() - together[0] if m else together[0]
    variance /= max(1 - max(4 * m - 1, 1) / n_cycles, 0.1)
    return float(max(n / max(variance / independent, 1.0), 1.0))


def sampling_band(n: float, p: float) -> tuple[float, float]:
    """5 % and 95 % quantiles of the share of n independent values that have a property of probability p."""
    n = max(round(n), 1)
    low, high = (_binomial_quantile(q, n, p) for q in (0.05, 0.95))
    return low / n, high / n


def _binomial_quantile(q: float, n: int, p: float) -> int:
    """The least k with P(X ≤ k) ≥ q. (SciPy's own, in scipy.stats, takes a second to import.)"""
    from scipy.special import bdtr, bdtrik

    if not 0 < p < 1:
        return n if p >= 1 else 0
    k = math.ceil(bdtrik(q, n, p))
    return k - 1 if k > 0 and bdtr(k - 1, n, p) >= q else k
