"""Files of observations for a run in Python: read, placed, and timed in model steps."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..dynamics.base import Dynamics
from ..dynamics.function import as_dynamics
from ..measurements.base import places
from ..measurements.measurement import Measurement, Observations
from ..numbers import as_float
from .reading import read_observations
from .source import ObservationFile

__all__ = ["FromFile", "read"]


class FromFile(NamedTuple):
    """What a file of observations gives for K cycles.

    observations: for `assimilate`. withheld: those that no analysis is to see, else None.
    times: (K,) in the model's unit of time, in double precision. dates: (K,) datetime64 for
    `run.to_xarray(dates=…)`, where the times are dates; else None.
    units: of the values; None: not known. stations: what each measured value's place is called, where all
    have a name.
    """

    observations: Observations
    withheld: Observations | None
    times: np.ndarray
    dates: np.ndarray | None
    units: str | None
    stations: tuple[str, ...] | None


def read(
    path: str | os.PathLike[str],
    dynamics: Dynamics,
    measurement: Measurement,
    *,
    n_cycles: int | None = None,
    variable: str = "value",
    units: str | None = None,
    time_unit: str | None = None,
    time_origin: float | str | None = None,
    nearest: bool = False,
    valid_range: tuple[float, float] | None = None,
    stations: Sequence[str | int] | None = None,
    columns: Sequence[str] | None = None,
    withhold: float | Sequence[str | int] = (),
    withhold_seed: int = 0,
) -> FromFile:
    """Observations of a CSV, NetCDF or zarr file, by the rules of the command line (docs/observations.md).

    Args:
        path: ends in .csv, .nc or .zarr.
        dynamics: says dt, what its coordinates are, and the shape of its states.
        measurement: says how many values there are at a time, and where they are.
        n_cycles: the first so many times; None: all.
        variable: of a NetCDF or zarr file, the one that holds the values.
        units: compared with the file's where both are given.
        time_unit: in which the model counts time ("hours"): needed for dates and "hours since …".
        time_origin: time of step 0, a number or an ISO date; None: the first time in the file.
        nearest: move each time to its nearest step; else one between steps is refused.
        valid_range: values outside count as missing, with a warning.
        stations: what the file calls the measured values, in their order.
        columns: what a CSV file with a row for each time calls its columns: that of the times, then those of
            the measured values in their order, ["timestamp", "upper", "lower"]; of one with a row for each
            value those of times and values, then the others by their roles, ["timestamp", "level",
            "station:sensor"] (index, station, x, y, valid). Others are not read.
        withhold: stations by name or values by number that no analysis is to see, or a share of the values
            (0 < share < 1), drawn with `withhold_seed`.

    Raises:
        FileError: says what the file holds and what was expected; arguments are called by their keys on the
            command line, `observations.NAME`.
    """
    dynamics = as_dynamics(dynamics, None)
    known = None
    if dynamics.coordinates is not None:
        known = places(measurement.operator, dynamics.state_shape, dynamics.coordinates)
    about = {"valid_range": valid_range, "stations": None if stations is None else tuple(stations)}
    named = None if columns is None else tuple(columns)
    hidden = tuple(withhold) if isinstance(withhold, Sequence) else withhold
    source = ObservationFile(
        os.fspath(path), variable, units, time_unit, time_origin, nearest,
        **about, columns=named, withhold=hidden, withhold_seed=withhold_seed,
    )  # fmt: skip
    shape = measurement.output_shape(dynamics.state_shape)
    positions = None if known is None else known.wrapped()
    record = read_observations(source, shape, as_float(dynamics.dt), n_cycles, positions)
    for text in record.warnings:
        warnings.warn(text, stacklevel=2)
    steps = record.steps.astype(np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said above, with the file's name
        withheld = None if record.withheld is None else Observations(record.withheld, steps)
        observations = Observations(record.values, steps, record.mask)
    return FromFile(observations, withheld, record.times, record.dates, record.units, record.stations)
