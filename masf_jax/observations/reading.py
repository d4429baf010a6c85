"""Real observations from a file: found, read, placed into the measured array, timed in model steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..fill_values import likely_fill
from .csv_files import read_csv, roles_of
from .errors import FileError, printable
from .safety import check_kind, check_memory
from .source import ObservationFile
from .stations import names_of, of_stations, withheld_values
from .table import Table
from .times import ModelTimes, dates_of, in_nanoseconds, model_times

__all__ = ["Record", "first_of", "read_observations"]

_TOLERANCE, _MOST_TOLERANCE = 1e-3, 0.25
"""Of a step: by which a time may miss its step; where times were stored in single precision, at most."""
_LONGEST_UNITS = 100


class Record(NamedTuple):
    """Observations as `masf_jax.measurements.Observations` takes them, and the file's own times and units.

    values, mask: (K, *z); steps: (K,) int32; times: (K,) double precision, in the model's unit.
    units: the file's, or those expected where the file gives none; time_units: what `times` count.
    warnings: what the user should know, a sentence each; outside: number of values out of the valid range.
    dates: (K,) datetime64, where the times are dates. stations: what each measured value's place is called.
    withheld: (K, *z) values that no analysis is to see, NaN elsewhere.
    """

    values: np.ndarray
    mask: np.ndarray
    steps: np.ndarray
    times: np.ndarray
    units: str | None = None
    time_units: str | None = None
    warnings: tuple[str, ...] = ()
    outside: int = 0
    dates: np.ndarray | None = None
    stations: tuple[str, ...] | None = None
    withheld: np.ndarray | None = None


def read_observations(
    source: ObservationFile,
    shape: tuple[int, ...],
    dt: float,
    n_cycles: int | None = None,
    positions: np.ndarray | None = None,
) -> Record:
    """Reads a NetCDF, CSV or zarr file (docs/observations.md).

    Args:
        source: the path, the units expected, the model's unit of time and time of step 0, the valid range.
        shape: of one cycle's measured array.
        dt: model time of one step; every time must be a whole number of steps from the origin.
        n_cycles: take the first so many; None: all.
        positions: (values, d) where the measurement sits, for files that give positions.

    Raises:
        FileError: naming the file, the row or variable, what it holds and what was expected.
    """
    if source.valid_range is not None and not source.valid_range[0] < source.valid_range[1]:
        raise FileError(f"observations.valid_range must be [least, largest]; got {list(source.valid_range)}.")
    path = _find(source.path or "")
    table = _read(path, source.variable, source.columns)
    _check_columns(source, math.prod(shape))
    _check_units(path, source.units, table.units)
    clock = model_times(path, table.clock, source.time_unit, source.time_origin)
    stations = None if source.stations is None else [str(name) for name in source.stations]
    placed, names = _place(path, table, shape, positions, stations)
    steps = _steps(path, clock, dt, table.clock.rounding, source.nearest)
    if table.rows:
        steps, placed, clock = _merged(path, steps, placed, clock)
    _check_order(path, steps, clock)
    n_found = len(steps)
    if n_cycles is not None and n_found < n_cycles:
        raise FileError(
            f"{path} holds {n_found} times, but n_cycles = {n_cycles}: give a smaller n_cycles, "
            "or null for all."
        )
    kept = slice(0, n_cycles)
    times, values, steps = clock.times[kept], placed[kept], steps[kept]
    warnings: list[str] = []
    count = 0
    if table.outside is not None and (of_file := int(table.outside[kept].sum())):
        count = of_file
        warnings.append(f"{path}: {of_file} values outside the file's own valid range count as missing.")
    if source.valid_range is not None:
        least, most = source.valid_range
        outside = (values < least) | (values > most)
        if outside.any():
            count += int(outside.sum())
            warnings.append(
                f"{path}: {int(outside.sum())} values outside observations.valid_range = [{least:g}, "
                f"{most:g}] "
                f"count as missing, first {first_of(outside, values, times)}."
            )
            values = np.where(outside, np.nan, values)
    mask = np.isfinite(values)
    if not mask.any() and count:
        raise FileError(f"no value of {path} is left. {' '.join(warnings)}")
    if not mask.any():
        raise FileError(f"{path} holds no valid value (all missing) in its {len(times)} times.")
    units = printable(table.units, _LONGEST_UNITS) if table.units else source.units
    time_units = printable(clock.units, _LONGEST_UNITS) if clock.units else None
    values = np.where(mask, values, 0.0)
    if clock.dates is None:
        dates = dates_of(times, clock.units, table.clock.calendar)
    else:
        dates = in_nanoseconds(clock.dates[kept])
    if (found := likely_fill(values[mask])) is not None:
        fill, said = found
        most = abs(fill) / 2
        warnings.append(f"{path}: {said}give observations.valid_range=[{-most:g},{most:g}], or NaN in the file.")
    withheld = None
    if source.withhold != ():
        which = withheld_values(source.withhold, source.withhold_seed, names, np.logical_or.reduce(mask))
        withheld, mask = np.where(mask & which, values, np.nan), mask & ~which
        if not mask.any():
            raise FileError(f"observations.withhold leaves no value of {path} for the analyses.")
    about = (units, time_units, tuple(warnings), count, dates, names, withheld)
    return Record(values, mask, steps, times, *about)


def first_of(found: np.ndarray, values: np.ndarray, times: np.ndarray) -> str:
    """The first of the values where `found` is True, and its place, in words."""
    flat = found.reshape(len(found), -1)
    cycle, which = divmod(int(np.argmax(flat)), flat.shape[1])
    value = values.reshape(flat.shape)[cycle, which]
    return f"{value:g} (cycle {cycle}, time {times[cycle]:.12g}, value {which})"


def _find(path: str) -> Path:
    try:
        if Path(path).exists():
            return Path(path)
    except (OSError, ValueError) as error:
        raise FileError(
            f"observations.path: {path[:100]!r} is no path of a file ({type(error).__name__})."
        ) from error
    raise FileError(f"observations.path: there is no file {path} (working folder {Path.cwd()}).")


def _read(path: Path, variable: str, columns: Sequence[str] | None) -> Table:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".nc", ".nc3", ".nc4", ".netcdf", ".h5", ".zarr"):
        raise FileError(f"{path}: the name must end in .csv, .nc or .zarr (docs/observations.md).")
    check_kind(path)
    try:
        if suffix == ".csv":
            if variable != "value":
                raise FileError(
                    f"observations.variable is of NetCDF and zarr files; in {path} call the column value."
                )
            return read_csv(path, columns)
        if columns is not None:
            raise FileError(f"observations.columns is of CSV files; {path} is none.")
        from .dataset_files import read_dataset

        return read_dataset(path, variable)
    except FileError:
        raise
    except Exception as error:  # whatever else is wrong with a file is said in one line too
        raise FileError(f"cannot read {path}: {type(error).__name__}: {error}") from error


def _check_columns(source: ObservationFile, size: int) -> None:
    columns = source.columns
    if columns is None or roles_of(columns):
        return
    if source.stations is not None:
        raise FileError("give observations.columns or observations.stations: both name the measured values.")
    if len(columns) - 1 != size:
        raise FileError(
            f"observations.columns names {len(columns) - 1} column(s) of values, but the measurement has "
            f"{size} value(s): name the column of times, then one column for each value."
        )


def _check_units(path: Path, expected: str | None, found: str | None) -> None:
    if expected is not None and found is not None and expected.split() != found.split():
        raise FileError(
            f"{path} gives its values in {printable(found, _LONGEST_UNITS)!r}, but observations.units = "
            f"{expected!r}: convert the values, or correct one of the two."
        )


def _place(
    path: Path,
    table: Table,
    shape: tuple[int, ...],
    positions: np.ndarray | None,
    stations: Sequence[str] | None,
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Values at their places in the measured array, (K, *shape), NaN where the file has none; and what the
    places are called, where all have a name."""
    size, n_times = math.prod(shape), len(table.values)
    values = table.values.reshape(n_times, -1)
    columns = values.shape[1]
    index = table.index
    if index is None and table.positions is not None:
        index = _nearest(path, table.positions, positions)
    if index is None and (stations is not None or table.stations is not None):
        index = of_stations(path, table.stations, stations, size)
    if index is None:
        if columns != size:
            raise FileError(
                f"{path} has {columns} value(s) per time, but the measurement has {size} (shape {shape}): "
                "choose a measurement that fits (measurement=subset), or give each value its index."
            )
        rest = table.values.shape[1:]
        if len(rest) > 1 and len(shape) > 1 and rest != shape:
            named = f" ({', '.join(table.dims)})" if table.dims else ""
            raise FileError(
                f"{path}: 'value' has shape {rest}{named} at a time, but the measurement has shape "
                f"{shape}: bring its "
                "dimensions into this order."
            )
        index = np.arange(size)
    bad = index[(index < 0) | (index >= size)]
    if bad.size:
        raise FileError(f"{path}: index {bad[0]} is outside the {size} measured values (0 … {size - 1}).")
    if np.unique(index).size != index.size:
        raise FileError(f"{path}: two of its values share one index (or position) at the same time.")
    check_memory(path, n_times * size)
    out = np.full((n_times, size), np.nan)
    out[:, index] = values
    return out.reshape(n_times, *shape), names_of(table.stations, stations, index, size)


def _nearest(path: Path, found: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    """Which measured value sits at each position of the file."""
    if known is None:
        raise FileError(f"{path} gives positions, but the measurement has none: give an index instead.")
    if found.shape[1] != known.shape[1]:
        raise FileError(
            f"{path} gives positions in {found.shape[1]} dimension(s); the model has {known.shape[1]}."
        )
    from scipy.spatial import KDTree

    distance, index = KDTree(known).query(found)
    spacing = max(float(np.ptp(known, axis=0).max()), 1.0)
    far = np.flatnonzero(distance > 1e-6 * spacing)
    if far.size:
        raise FileError(
            f"{path}: nothing is measured at position {found[far[0]].tolist()}; the nearest measured "
            f"position is {known[int(np.asarray(index)[far[0]])].tolist()}."
        )
    return np.asarray(index)


def _steps(path: Path, clock: ModelTimes, dt: float, rounding: float, nearest: bool) -> np.ndarray:
    """The model step number of each time; `rounding`: relative, of the times as they were stored."""
    times, origin = clock.times, clock.origin
    exact = (times - origin) / dt
    steps = np.round(exact)
    tolerance = np.minimum(_TOLERANCE + rounding * np.abs(times) / dt, _MOST_TOLERANCE)
    off = np.flatnonzero(~(np.abs(exact - steps) <= tolerance)) if not nearest else np.zeros(0, int)
    if off.size:
        i = int(off[0])
        single = " (its times are in single precision: store them in double)" if rounding else ""
        raise FileError(
            f"{path}: time {times[i]:.12g} (number {i + 1}) is not on a model step: with "
            f"observations.time_origin = {origin:.12g} and dynamics.dt = {dt:.12g} it is step "
            f"{exact[i]:.9g}; the "
            f"nearest, {steps[i]:.0f}, is at {origin + steps[i] * dt:.12g}{single}. "
            "observations.nearest=true moves each time to its nearest step; or take a "
            "dynamics.dt that divides all times."
        )
    if np.abs(steps).max() >= 2**31:
        i = int(np.abs(steps).argmax())
        raise FileError(
            f"{path}: time {times[i]:.12g} is step {steps[i]:.0f}, too far from the origin "
            f"{origin:.12g}: give "
            "observations.time_origin, or a longer dynamics.dt."
        )
    return steps.astype(np.int64)


def _merged(
    path: Path, steps: np.ndarray, values: np.ndarray, clock: ModelTimes
) -> tuple[np.ndarray, np.ndarray, ModelTimes]:
    """Times that are one step, differing by round-off, as one."""
    kept, first, group = np.unique(steps, return_index=True, return_inverse=True)
    if len(kept) == len(steps):
        return steps, values, clock
    out = values[first]
    for i in np.setdiff1d(np.arange(len(steps)), first):
        if np.any(np.isfinite(values[i]) & np.isfinite(out[group[i]])):
            raise FileError(
                f"{path}: two values of one place at times that are one step, {clock.times[i]:.12g}."
            )
        out[group[i]] = np.where(np.isfinite(values[i]), values[i], out[group[i]])
    dates = None if clock.dates is None else clock.dates[first]
    return kept, out, clock._replace(times=clock.times[first], dates=dates)


def _check_order(path: Path, steps: np.ndarray, clock: ModelTimes) -> None:
    times = clock.times
    backwards = np.flatnonzero(np.diff(steps) <= 0)
    if backwards.size:
        i = int(backwards[0])
        if times[i + 1] > times[i]:
            raise FileError(
                f"{path}: times {times[i]:.12g} and {times[i + 1]:.12g} are both nearest to model step "
                f"{steps[i]}: average their values in the file, or take a smaller dynamics.dt."
            )
        raise FileError(
            f"{path}: times must increase; {times[i]:.12g} is followed by {times[i + 1]:.12g} (number "
            f"{i + 2})."
        )
    if steps[0] < 0:
        raise FileError(
            f"{path}: its first time {times[0]:.12g} lies before model step 0 "
            f"(observations.time_origin = {clock.origin:.12g})."
        )
