"""Real observations from a file: found, read, placed into the measured array, timed in model steps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..config.settings import ObservationFile
from ..errors import InputError, unknown
from ..groups import config_folder
from .tables import Table, read_csv, read_xarray

__all__ = ["Record", "read_observations"]


class Record(NamedTuple):
    """Observations as `masf_jax.measurements.Observations` takes them, and the file's own times and units.

    units: the file's, or those expected where the file gives none.
    """

    values: np.ndarray
    mask: np.ndarray
    steps: np.ndarray
    times: np.ndarray
    units: str | None = None


def read_observations(
    source: ObservationFile,
    shape: tuple[int, ...],
    dt: float,
    n_cycles: int | None = None,
    positions: np.ndarray | None = None,
) -> Record:
    """Reads a NetCDF, CSV or zarr file (docs/observations.md).

    Args:
        source: the path, the units expected and the time of model step 0.
        shape: of one cycle's measured array.
        dt: model time of one step; every time must be a whole number of steps from the origin.
        n_cycles: take the first so many; None: all.
        positions: (values, d) where the measurement sits, for files that give positions.

    Raises:
        InputError: naming the file, the row or variable, what it holds and what was expected.
    """
    path = _find(source.path or "")
    table = _read(path)
    _check_units(path, source.units, table.units)
    n_found = len(table.times)
    if n_cycles is not None and n_found < n_cycles:
        raise InputError(
            f"{path} holds {n_found} times, but n_cycles = {n_cycles}: give a smaller n_cycles, "
            "or null for all."
        )
    kept = slice(0, n_cycles)
    times = table.times[kept]
    values = _place(path, table, shape, positions)[kept]
    mask = np.isfinite(values)
    if not mask.any():
        raise InputError(f"{path} holds no valid value (all missing) in its {len(times)} times.")
    origin = float(times[0]) if source.time_origin is None else source.time_origin
    steps = _steps(path, times, origin, dt)
    return Record(np.where(mask, values, 0.0), mask, steps, times, table.units or source.units)


def _find(path: str) -> Path:
    if path.startswith("shipped:"):
        folder, name = config_folder() / "data", path.removeprefix("shipped:")
        if not (folder / name).is_file():
            raise unknown("shipped observation file", name, (file.name for file in folder.glob("*.*")))
        return folder / name
    if not Path(path).exists():
        raise InputError(f"observations.path: there is no file {path} (working folder {Path.cwd()}).")
    return Path(path)


def _read(path: Path) -> Table:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return read_csv(path)
    if suffix in (".nc", ".nc4", ".netcdf", ".h5", ".zarr"):
        return read_xarray(path)
    raise InputError(f"{path}: the name must end in .csv, .nc or .zarr (docs/observations.md).")


def _check_units(path: Path, expected: str | None, found: str | None) -> None:
    if expected is not None and found is not None and expected.split() != found.split():
        raise InputError(
            f"{path} gives its values in {found!r}, but observations.units = {expected!r}: convert "
            "the values, or correct one of the two."
        )


def _place(path: Path, table: Table, shape: tuple[int, ...], positions: np.ndarray | None) -> np.ndarray:
    """Values at their places in the measured array, (K, *shape); NaN where the file has none."""
    size, columns = math.prod(shape), table.values.shape[1]
    index = table.index
    if index is None and table.positions is not None:
        index = _nearest(path, table.positions, positions)
    if index is None:
        if columns != size:
            raise InputError(
                f"{path} has {columns} value(s) per time, but the measurement has {size} (shape {shape}): "
                "choose a measurement that fits (measurement=subset), or give each value its index."
            )
        index = np.arange(size)
    bad = index[(index < 0) | (index >= size)]
    if bad.size:
        raise InputError(f"{path}: index {bad[0]} is outside the {size} measured values (0 … {size - 1}).")
    if np.unique(index).size != index.size:
        raise InputError(f"{path}: two of its values share one index (or position) at the same time.")
    out = np.full((len(table.times), size), np.nan)
    out[:, index] = table.values
    return out.reshape(len(table.times), *shape)


def _nearest(path: Path, found: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    """Which measured value sits at each position of the file."""
    if known is None:
        raise InputError(f"{path} gives positions, but the measurement has none: give an index instead.")
    if found.shape[1] != known.shape[1]:
        raise InputError(
            f"{path} gives positions in {found.shape[1]} dimension(s); the model has {known.shape[1]}."
        )
    distance = np.linalg.norm(found[:, None, :] - known[None, :, :], axis=-1)
    index = distance.argmin(1)
    spacing = max(float(np.ptp(known, axis=0).max()), 1.0)
    far = np.flatnonzero(distance.min(1) > 1e-6 * spacing)
    if far.size:
        raise InputError(
            f"{path}: nothing is measured at position {found[far[0]].tolist()}; the nearest measured "
            f"position is {known[index[far[0]]].tolist()}."
        )
    return index


def _steps(path: Path, times: np.ndarray, origin: float, dt: float) -> np.ndarray:
    """The model step number of each time."""
    exact = (times - origin) / dt
    steps = np.round(exact)
    off = np.flatnonzero(np.abs(exact - steps) > 1e-3)
    if off.size:
        time = times[off[0]]
        raise InputError(
            f"{path}: time {time:g} (number {off[0] + 1}) is not on a model step: with "
            f"observations.time_origin = {origin:g} and dynamics.dt = {dt:g} it is step {exact[off[0]]:g}."
        )
    if steps[0] < 0:
        raise InputError(
            f"{path}: its first time {times[0]:g} lies before model step 0 "
            f"(observations.time_origin = {origin:g})."
        )
    backwards = np.flatnonzero(np.diff(steps) <= 0)
    if backwards.size:
        i = int(backwards[0])
        raise InputError(f"{path}: times must increase; {times[i]:g} is followed by {times[i + 1]:g}.")
    if steps[-1] >= 2**31:
        raise InputError(
            f"{path}: time {times[-1]:g} is step {steps[-1]:g}, too far from the origin {origin:g}."
        )
    return steps.astype(np.int32)
