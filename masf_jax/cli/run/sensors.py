"""The numbers of each sensor of a run without truth, those withheld from the analyses apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...metrics.sensors import Sensor, biased, of_sensor
from ...results.cycles import Cycles
from ...results.places import noise_axis
from .problem import Problem

__all__ = ["sensor_metrics", "sensor_remarks"]

_MOST = 100


def sensor_metrics(problem: Problem, cycles: Cycles, burn_in: int) -> dict[str, Any]:
    """By name of a sensor: mean of observation - forecast with its standard error, root mean square, number.

    In standard deviations of its noise, after the burn-in, under `by_sensor`; of values that were withheld
    under `withheld`; of all of these together as `_withheld` says. `sensors_differ`: their noise does. Empty
    where the measurement is no list of values and none was withheld.
    """
    given, out = cycles.given, _withheld(problem, cycles, burn_in)
    noise = noise_axis(given.dynamics, given.measurement)
    if not noise or len(noise[0].values) > _MOST or "mean" not in cycles.result.forecast:
        return out
    std = noise[0].values

    def numbers(scaled: np.ndarray) -> dict[str, Any]:
        found = {}
        for i, values in enumerate(scaled.T):
            if (one := of_sensor(values)) is not None:
                found[_name(problem, i)] = one._asdict()
        return found

    used = cycles.each(lambda part: cycles.residual("forecast", part))[burn_in:] / std[None]
    by_sensor = numbers(used)
    if by_sensor:
        out |= {"by_sensor": by_sensor, "sensors_differ": float(np.ptp(std)) > 0}
    if problem.withheld is not None:
        out["withheld"] = numbers(_departures(problem.withheld, cycles, burn_in) / std[None])
    return out


def _departures(withheld: np.ndarray, cycles: Cycles, burn_in: int) -> np.ndarray:
    """Withheld value - H(forecast mean), (cycles, *z), NaN elsewhere."""
    there = np.isfinite(withheld)
    return cycles.each(lambda part: cycles.departure("forecast", part, withheld, there[part]))[burn_in:]


def _withheld(problem: Problem, cycles: Cycles, burn_in: int) -> dict[str, Any]:
    """Which values no analysis saw, and mean and root mean square of these minus forecast, in their units."""
    if problem.withheld is None:
        return {}
    places = np.isfinite(problem.withheld).any(0).ravel()
    names = [_name(problem, int(i)) for i in np.flatnonzero(places)]
    out: dict[str, Any] = {"withheld_places": names, "withheld_share": len(names) / places.size}
    if "mean" in cycles.result.forecast:
        each = _departures(problem.withheld, cycles, burn_in)
        there = each[np.isfinite(each)].astype(np.float64)
        if there.size:
            out |= {"withheld_rms_forecast": float(np.sqrt((there**2).mean()))}
            out |= {"withheld_mean_forecast": float(there.mean())}
    return out


def sensor_remarks(metrics: dict[str, Any]) -> list[str]:
    """What is to be said of sensors whose mean is far from 0."""
    both = {**metrics.get("by_sensor", {}), **metrics.get("withheld", {})}
    return biased({name: Sensor(**numbers) for name, numbers in both.items()})


def _name(problem: Problem, number: int) -> str:
    return f"value_{number}" if problem.stations is None else problem.stations[number]
