"""A run as a dataset of xarray: the one way, of `to_xarray` and of the command line's files."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .cycles import Cycles
from .netcdf import write_netcdf
from .places import measured_axes, measured_components, model_name, noise_axis, space_axes
from .variables import Variable, units_of_values, variables

if TYPE_CHECKING:
    import xarray as xr

    from ..driver import Assimilation
    from ..plots.shown import Shown
    from ..smoothers.smoothing import Smoothing

__all__ = ["Times", "dataset", "frame", "to_netcdf"]


_SYMBOLS = {"seconds": "s", "minutes": "min", "hours": "h", "days": "d"}
"""Of UDUNITS: what xarray, which reads numbers in units of the long names as differences of dates, leaves."""


class Times(NamedTuple):
    """When the cycles were, beside their model time.

    dates: (K,) datetime64; observed: (K,) times as an observation file gives them; units: what those count.
    """

    dates: np.ndarray | None = None
    observed: np.ndarray | None = None
    units: str | None = None


def dataset(result: Assimilation | Smoothing | Shown, **options: Any) -> xr.Dataset:
    """The result with its observations, truth, scores and flags; options: see `Assimilation.to_xarray`."""
    _, made, found = _described(result, **options)
    for name, each in found.items():
        made[name] = (each.dims, each.read(slice(None)), each.about)
    return made


def to_netcdf(result: Assimilation | Smoothing | Shown, path: str | os.PathLike[str], **options: Any) -> Path:
    """Writes the dataset, whole or not at all, some cycles at a time, and returns the path.

    Raises:
        FileNotFoundError: the folder to write into is not there.
        ValueError: dates that are not one a cycle.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"there is no folder {target.parent} to write {target.name} into: make it first."
        )
    cycles, made, found = _described(result, **options)
    part = target.with_name(f".{target.name}.part")
    try:
        write_netcdf(part, made, found, cycles)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _described(
    result: Assimilation | Smoothing | Shown,
    *,
    dates: Any = None,
    units: str | None = None,
    title: str | None = None,
    burn_in: int = 0,
) -> tuple[Cycles, xr.Dataset, dict[str, Variable]]:
    cycles = Cycles(result)
    called = model_name(cycles.given.dynamics)
    found = None if dates is None else np.asarray(dates, "datetime64[ns]")
    if found is not None and found.shape != (cycles.n,):
        raise ValueError(f"dates must be one for each of the {cycles.n} cycles; got shape {found.shape}.")
    made = frame(cycles, Times(found), units)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    made.attrs |= {"title": title or called, "history": f"{now}: masf_jax.results", "burn_in": burn_in}
    return cycles, made, variables(cycles, units)


def frame(cycles: Cycles, times: Times = Times(), observed_in: str | None = None) -> xr.Dataset:
    """A dataset of the coordinates alone: cycle, time, step, places, names of variables, members.

    Args:
        observed_in: units of the observations, where they are given.
    """
    import xarray as xr

    from .. import __version__

    made = xr.Dataset(attrs={"Conventions": "CF-1.11", "source": f"masf-jax {__version__}"})

    def add(name: str, dim: str, values: Any, long_name: str, units: str | None = "1", **more: str) -> None:
        about = {"long_name": long_name} | ({} if units is None else {"units": units}) | more
        made.coords[name] = (dim, values, about)

    given, steps = cycles.given, np.asarray(cycles.result.steps)
    first = int(getattr(getattr(cycles.result, "end", None), "cycle", cycles.n)) - cycles.n
    add("cycle", "cycle", first + np.arange(cycles.n, dtype=np.int32), "assimilation cycle")
    model_time = steps * float(
        str(np.asarray(given.dynamics.dt))
    )  # 0.05, not 0.0500000007 of single precision
    units = given.dynamics.time_units or "1"
    units = _SYMBOLS.get(units, units)
    told = "model time since the first ensemble"
    if times.dates is None:
        add("time", "cycle", model_time, told, units, axis="T")
    else:
        date = np.asarray(times.dates, "datetime64[ns]")
        add("time", "cycle", date, "time", None, standard_name="time", axis="T")
        made["time"].encoding = _encoding(date)
        add("model_time", "cycle", model_time, told, units)
    add("step", "cycle", steps, "model step number")
    if times.observed is not None:
        counted = f", {times.units}" if times.units else ""
        add("observation_time", "cycle", times.observed, f"time in the observation file{counted}")
    measured = measured_axes(given.dynamics, given.measurement)[1]
    measured += measured_components(given.dynamics, given.measurement)
    of_values = {"units": units_of_values(cycles, observed_in)}
    noise = noise_axis(given.dynamics, given.measurement)
    measured += [axis._replace(about=axis.about | of_values) for axis in noise]
    for axis in (*space_axes(given.dynamics), *measured):
        made.coords[axis.name] = (axis.dim, axis.values, {"units": "1"} | axis.about)
    members = getattr(cycles.result, "analysis", {}).get("ensemble")
    if members is not None:
        number = np.arange(members.shape[1], dtype=np.int32)
        add("member", "member", number, "member of the ensemble", standard_name="realization")
    return made


def _encoding(dates: np.ndarray) -> dict[str, Any]:
    """Whole numbers of days, seconds or nanoseconds in a file, of the longest of them that is exact."""
    since, unit = dates - np.datetime64(0, "ns"), "nanoseconds"
    for name, length in (("seconds", 10**9), ("days", 86400 * 10**9)):
        unit = unit if np.any(since % np.timedelta64(length, "ns")) else name
    return {"units": f"{unit} since 1970-01-01", "dtype": "int64", "calendar": "proleptic_gregorian"}
