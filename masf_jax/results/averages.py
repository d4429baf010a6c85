"""Several filters over several seeds as one dataset of their averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..metrics.summary import paired_difference, time_average

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["comparison", "differences", "of_numbers"]

_LONG = {
    "rmse_analysis": "RMSE of the analysis",
    "rmse_forecast": "RMSE of the forecast",
    "spread_skill_ratio": "spread / RMSE of the analysis",
    "crps_analysis": "CRPS of the analysis",
    "crps_forecast": "CRPS of the forecast",
    "seconds_per_cycle": "wall clock of a cycle",
}
_IN_STATE_UNITS = ("rmse", "spread", "crps", "energy_score")
_UNITS = {"seconds_per_cycle": "s"}


def comparison(runs: Mapping[str, Sequence[xr.Dataset]], burn_in: int | None = None) -> xr.Dataset:
    """Averages of every score over the cycles after the burn-in, along `filter` and `seed`.

    Args:
        runs: by filter, the datasets of `to_xarray`, one for each seed, in the same order for all filters.
        burn_in: first cycles that averages leave out; None: each dataset's.

    Raises:
        ValueError: no runs, or other numbers of seeds.
    """
    numbers: dict[str, list[dict[str, float]]] = {}
    for label, each in runs.items():
        numbers[label] = [_averages(data, burn_in) for data in each]
    if not numbers or not next(iter(numbers.values())):
        raise ValueError("a comparison needs at least one filter and one run of it.")
    units = {data["rmse_analysis"].attrs.get("units") for data in _all(runs) if "rmse_analysis" in data}
    return of_numbers(numbers, units=units.pop() if len(units) == 1 else None)


def differences(
    averages: xr.Dataset, reference: str | None = None, score: str = "rmse_analysis"
) -> xr.Dataset:
    """Each filter's score minus the reference's, seed by seed (`metrics.paired_difference`), along `filter`.

    Args:
        averages: of `comparison`: a seed is the same truth and observations for all filters.
        reference: a filter of it; None: the first.

    Returns:
        `difference` and `standard_error` (of the mean), in the score's units, and `pairs`, how many seeds.

    Raises:
        ValueError: no such filter or score.
    """
    import xarray as xr

    names = [str(name) for name in averages["filter"].values]
    first = names[0] if reference is None else reference
    for what, wanted, known in (("filter", first, names), ("score", score, list(map(str, averages)))):
        if wanted not in known:
            raise ValueError(f"there is no {what} {wanted!r} in the comparison: {', '.join(known)}.")
    values, about = averages[score].transpose("filter", "seed"), averages[score].attrs
    found = [paired_difference(own, values.values[names.index(first)]) for own in values.values]
    mean, error, pairs = map(np.array, zip(*found, strict=True))
    units = {"units": about["units"]} if "units" in about else {}
    told = f"{about.get('long_name', score)}, minus that of {first}"
    return xr.Dataset(
        {
            "difference": ("filter", mean, {"long_name": f"{told}: mean over seeds"} | units),
            "standard_error": ("filter", error, {"long_name": f"{told}: standard error of the mean"} | units),
            "pairs": ("filter", pairs, {"long_name": "seeds of both", "units": "1"}),
        },
        coords={"filter": names},
        attrs={"reference": first},
    )


def _all(runs: Mapping[str, Sequence[xr.Dataset]]) -> list[xr.Dataset]:
    return [data for each in runs.values() for data in each]


def _averages(data: xr.Dataset, burn_in: int | None) -> dict[str, float]:
    first = int(data.attrs.get("burn_in", 0) if burn_in is None else burn_in)
    found = {}
    for name in map(str, data):
        stage = name.rpartition("_")[2]
        if data[name].dims == ("cycle",) and stage in ("analysis", "forecast", "smoothed"):
            found[name] = time_average(data[name].values, first)
    if {"rmse_analysis", "spread_analysis"} <= set(data):
        squares = [
            time_average(data[f"{n}_analysis"].values.astype(float) ** 2, first) for n in ("spread", "rmse")
        ]
        found["spread_skill_ratio"] = float(np.sqrt(squares[0] / squares[1])) if squares[1] > 0 else np.nan
    return found


def of_numbers(
    numbers: Mapping[str, Sequence[Mapping[str, Any]]],
    seeds: Sequence[int] | None = None,
    units: str | None = "1",
) -> xr.Dataset:
    """A dataset (filter, seed) of numbers by filter, seed and name; what is not there is NaN.

    Args:
        units: of errors and spreads; None: of variables with several.

    Raises:
        ValueError: filters with other numbers of seeds (an empty one failed).
    """
    import xarray as xr

    n = max(len(rows) for rows in numbers.values())
    if any(len(rows) not in (0, n) for rows in numbers.values()):
        lengths = {label: len(rows) for label, rows in numbers.items()}
        raise ValueError(f"all filters need as many seeds; got {lengths}.")
    names = dict.fromkeys(name for rows in numbers.values() for row in rows for name in row)
    made = xr.Dataset(coords={"filter": list(numbers), "seed": list(range(n) if seeds is None else seeds)})
    for name in names:
        values = [[float(row.get(name, np.nan)) for row in rows] or [np.nan] * n for rows in numbers.values()]
        own = units if name.startswith(_IN_STATE_UNITS) and "ratio" not in name else _UNITS.get(name, "1")
        about = {"long_name": _LONG.get(name, name.replace("_", " "))}
        about |= {} if own is None else {"units": own}
        made[name] = (("filter", "seed"), np.array(values), about)
    return made
