"""Observation minus forecast of each sensor: a mean that chance does not explain is a bias."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["BIASED", "Sensor", "biased", "of_sensor"]

BIASED = (3.0, 0.3)
"""Standard errors, and standard deviations of the noise: a mean beyond both is told."""
_FEWEST = 20


class Sensor(NamedTuple):
    """Of the values of one sensor, in standard deviations of its noise; n: their number."""

    mean: float
    standard_error: float
    rms: float
    n: int


def of_sensor(scaled: ArrayLike) -> Sensor | None:
    """Mean, its standard error, and root mean square of (z - H(forecast mean)) / std; None of no value.

    The standard error is s/√n′ with n′ = n (1 - r)/(1 + r), r ≥ 0 the correlation of values that follow each
    other (0 where a filter is optimal): a wrong forecast that lasts is one error, not many. NaN of one value.

    Args:
        scaled: (K,), NaN where nothing was measured.
    """
    values = np.asarray(scaled, np.float64)
    values = values[np.isfinite(values)]
    n = len(values)
    if n == 0:
        return None
    mean, error = float(values.mean()), math.nan
    if n > 1:
        apart = values - mean
        variance = float((apart**2).sum())
        r = float((apart[1:] * apart[:-1]).sum()) / variance if variance > 0 else 0.0
        r = min(max(r, 0.0), 1 - 1 / n)
        error = math.sqrt(variance / (n - 1) / n * (1 + r) / (1 - r))
    return Sensor(mean, error, float(np.sqrt((values**2).mean())), n)


def biased(sensors: dict[str, Sensor]) -> list[str]:
    """A sentence where sensors' means are more than `BIASED` off 0, of 20 values or more; else none."""
    errors, stds = BIASED
    found = {
        name: each
        for name, each in sensors.items()
        if each.n >= _FEWEST and abs(each.mean) > max(errors * each.standard_error, stds)
    }
    if not found:
        return []
    worst = sorted(found, key=lambda name: -abs(found[name].mean))
    shown = [f"{name} {found[name].mean:+.2g} ± {found[name].standard_error:.1g}" for name in worst[:5]]
    more = f" and {len(worst) - 5} more" if len(worst) > 5 else ""
    return [
        "observation - forecast has a mean far from 0, in standard deviations of the noise: "
        f"{', '.join(shown)}{more}. A biased sensor, or a neighbour of one, or a biased model: "
        "observations.withhold=[NAME] runs without a sensor and scores it (docs/observations.md)."
    ]
