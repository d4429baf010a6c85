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
    under `withheld`. `sensors_differ`: their noise does. Empty where the measurement is no list of values.
    """
    given = cycles.given
    noise = noise_axis(given.dynamics, given.measurement)
    if not noise or len(noise[0].values) > _MOST or "mean" not in cycles.result.forecast:
        return {}
    std = noise[0].values

    def numbers(scaled: np.ndarray) -> dict[str, Any]:
        found = {}
        for i, values in enumerate(scaled.T):
            if (one := of_sensor(values)) is not None:
                found[_name(problem, i)] = one._asdict()
        return found

    used = cycles.each(lambda part: cycles.residual("forecast", part))[burn_in:] / std[None]
    by_sensor = numbers(used)
    out: dict[str, Any] = {}
    if by_sensor:
        out = {"by_sensor": by_sensor, "sensors_differ": float(np.ptp(std)) > 0}
    if (withheld := problem.withheld) is not None:
        there = np.isfinite(withheld)
        each = cycles.each(lambda part: cycles.departure("forecast", part, withheld, there[part]))
        out["withheld"] = numbers(each[burn_in:] / std[None])
    return out


def sensor_remarks(metrics: dict[str, Any]) -> list[str]:
    """What is to be said of sensors whose mean is far from 0."""
    both = {**metrics.get("by_sensor", {}), **metrics.get("withheld", {})}
    return biased({name: Sensor(**numbers) for name, numbers in both.items()})


def _name(problem: Problem, number: int) -> str:
    return f"value_{number}" if problem.stations is None else problem.stations[number]
