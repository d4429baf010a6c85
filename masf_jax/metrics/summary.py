"""Averages over cycles and over seeds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["mean_and_standard_error", "time_average"]


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
