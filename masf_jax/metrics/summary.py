"""Averages over cycles and over seeds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["mean_and_standard_error", "paired_difference", "time_average", "with_error"]


def time_average(values: ArrayLike, burn_in: int) -> float:
    """Mean over the cycles after the first `burn_in`; NaN if there are none."""
    kept = np.asarray(values, dtype=np.float64)[burn_in:]
    return float(kept.mean()) if kept.size else math.nan


def mean_and_standard_error(values: ArrayLike) -> tuple[float, float]:
    """Mean over seeds and its standard error s/√S (NaN for one seed)."""
    array = np.asarray(values, dtype=np.float64).ravel()
    if array.size == 0:
        return math.nan, math.nan
    error = array.std(ddof=1) / math.sqrt(array.size) if array.size > 1 else math.nan
    return float(array.mean()), float(error)


def paired_difference(values: ArrayLike, reference: ArrayLike) -> tuple[float, float, int]:
    """Mean of values - reference over S seeds that both had the same truth and observations of, its standard
    error s/√S, and S.

    What makes a seed hard for both falls out: two filters may differ by less than either's own standard
    error, and surely. Seeds where either is not finite are left out.

    Args:
        values, reference: (seeds,), of the same seeds in the same order.

    Returns:
        Mean, standard error (NaN of one seed) and number of pairs; both NaN of none.

    Raises:
        ValueError: other numbers of seeds.
    """
    each, other = (np.asarray(a, dtype=np.float64).ravel() for a in (values, reference))
    if each.shape != other.shape:
        raise ValueError(f"a pair needs as many values as references; got {each.size} and {other.size}.")
    kept = np.isfinite(each) & np.isfinite(other)
    return *mean_and_standard_error(each[kept] - other[kept]), int(kept.sum())


def with_error(mean: float, error: float) -> str:
    """ "0.2196 ± 0.0021": the error with two digits, the mean to the same place; small and large numbers as
    "2.196e-07 ± 2.1e-09"."""
    if not math.isfinite(mean):
        return "nan"
    if not (math.isfinite(error) and error > 0):
        return f"{mean:.4g}"
    size = math.floor(math.log10(abs(mean) or 1.0))
    if not -4 < size < 6:
        digits = min(max(0, size + 1 - math.floor(math.log10(error))), 4)
        return f"{mean:.{digits}e} ± {error:.1e}"
    places = max(0, min(1 - math.floor(math.log10(error)), 4 - size))
    return f"{mean:.{places}f} ± {error:.{places}f}"
