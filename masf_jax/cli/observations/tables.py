"""What files of observations hold: CSV, long (one value a row) or wide (one time a row), NetCDF and zarr."""

from __future__ import annotations

import csv
import importlib.util
import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Table", "read_csv", "read_xarray"]

_MISSING = ("", "nan", "na")
_VALID = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_COLUMNS = "time,value[,index | ,x[,y]][,valid] or time,value_0,value_1,…"


class Table(NamedTuple):
    """What a file holds, before it is fitted to the model.

    times (K,), values (K, columns) with NaN where missing; index (columns,): which measured value
    each column is, None: in order; positions (columns, d): where each was measured, or None.
    """

    times: np.ndarray
    values: np.ndarray
    index: np.ndarray | None = None
    positions: np.ndarray | None = None
    units: str | None = None


def read_csv(path: Path) -> Table:
    """Reads `# key: value` comments, a header row, and the rows.

    Raises:
        InputError: naming file, line and column.
    """
    units, lines = None, []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.startswith("#"):
                    key, _, text = line[1:].partition(":")
                    units = text.strip() if key.strip() == "units" else units
                elif line.strip():
                    lines.append((number, line))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if len(lines) < 2:
        raise InputError(f"{path} holds no rows: expected a header {_COLUMNS} and a row per value.")
    rows = [[cell.strip() for cell in row] for row in csv.reader(line for _, line in lines)]
    header, cells = rows[0], []
    for (number, _), row in zip(lines[1:], rows[1:], strict=True):
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {number}: {len(row)} cells, but the header has {len(header)} columns."
            )
        cells.append((number, dict(zip(header, row, strict=True))))
    if "time" not in header:
        raise InputError(
            f"{path} has no column 'time'; its columns are {', '.join(header)}. Expected {_COLUMNS}."
        )
    wide = [f"value_{i}" for i in range(len(header) - 1)]
    long = "value" in header and set(header) <= {"time", "value", "index", "x", "y", "valid"}
    if ("index" in header and "x" in header) or ("y" in header and "x" not in header):
        long = False
    if long:
        return _long(path, header, cells, units)
    if header[1:] != wide or not wide:
        raise InputError(f"{path} has columns {', '.join(header)}; expected {_COLUMNS}.")
    times = [_number(path, line, row, "time") for line, row in cells]
    values = [[_number(path, line, row, name, missing=True) for name in wide] for line, row in cells]
    return Table(np.array(times), np.array(values), units=units)


def _long(path: Path, header: list[str], cells: list[tuple[int, dict[str, str]]], units: str | None) -> Table:
    """Rows of one value each; rows of equal time are one cycle."""
    axes = [name for name in ("index", "x", "y") if name in header]
    entries: dict[tuple[float, tuple[float, ...]], float] = {}
    for line, row in cells:
        time = _number(path, line, row, "time")
        place = tuple(_number(path, line, row, name) for name in axes)
        if "index" in header and not place[0].is_integer():
            raise InputError(f"{path}, line {line}: index must be a whole number; got {row['index']!r}.")
        if (time, place) in entries:
            where = "" if not axes else f" and {', '.join(axes)} {', '.join(row[name] for name in axes)}"
            raise InputError(f"{path}, line {line}: a second value for time {row['time']}{where}.")
        value = _number(path, line, row, "value", missing=True)
        entries[time, place] = value if _is_valid(path, line, row) else math.nan
    times = list(dict.fromkeys(time for time, _ in entries))
    places = sorted({place for _, place in entries})
    values = np.array([[entries.get((time, place), math.nan) for place in places] for time in times])
    where = np.array(places).reshape(len(places), -1)
    index = where[:, 0].astype(int) if "index" in header else None
    return Table(np.array(times), values, index, where if "x" in header else None, units)


def _number(path: Path, line: int, row: dict[str, str], column: str, missing: bool = False) -> float:
    text = row[column]
    try:
        number = math.nan if missing and text.lower() in _MISSING else float(text)
    except ValueError as error:
        hint = " (dates: give numbers in the model's unit of time)" if column == "time" else ""
        raise InputError(f"{path}, line {line}: {column} must be a number; got {text!r}{hint}.") from error
    if not missing and not math.isfinite(number):
        raise InputError(f"{path}, line {line}: {column} must be a finite number; got {text!r}.")
    return number if math.isfinite(number) else math.nan


def _is_valid(path: Path, line: int, row: dict[str, str]) -> bool:
    text = row.get("valid", "1").lower()
    if text not in _VALID:
        raise InputError(f"{path}, line {line}: valid must be 1 or 0 (true or false); got {row['valid']!r}.")
    return _VALID[text]


def read_xarray(path: Path) -> Table:
    """Reads variables value (cycle, …), time (cycle), and optionally mask, index, x, y.

    Raises:
        InputError: naming file and variable.
    """
    import xarray as xr

    engine = "zarr" if path.suffix.lower() == ".zarr" else "h5netcdf"
    if engine == "zarr" and importlib.util.find_spec("zarr") is None:
        raise InputError(f"{path}: reading zarr needs the package zarr: pip install 'masf-jax[zarr]'.")
    try:
        options = {"consolidated": False} if engine == "zarr" else None
        with xr.open_dataset(path, engine=engine, decode_times=False, backend_kwargs=options) as data:
            data.load()
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"cannot read {path} as {engine}: {error}") from error
    for name in ("value", "time"):
        if name not in data.variables:
            held = ", ".join(map(str, data.variables)) or "none"
            raise InputError(
                f"{path} has no variable '{name}'; its variables are {held} (docs/observations.md)."
            )
    values, times = data["value"], _numbers(path, "time", data["time"].values)
    if values.ndim < 1 or times.ndim != 1 or values.shape[0] != times.size:
        raise InputError(
            f"{path}: 'value' has shape {values.shape} and 'time' {times.shape}; "
            "expected (cycles, …) and (cycles,)."
        )
    if not np.isfinite(times).all():
        raise InputError(
            f"{path}: 'time' holds a missing value (number {int(np.argmin(np.isfinite(times))) + 1})."
        )
    array = _numbers(path, "value", values.values).reshape(times.size, -1)
    if "mask" in data.variables:
        mask = data["mask"].values
        if mask.shape not in (values.shape, values.shape[:1]):
            raise InputError(
                f"{path}: 'mask' has shape {mask.shape}; expected {values.shape} or ({times.size},)."
            )
        array = np.where(mask.reshape(times.size, -1).astype(bool), array, np.nan)
    index = _per_value(path, "index", data, array.shape[1])
    if index is not None and np.any(index != np.round(index)):
        raise InputError(f"{path}: 'index' must hold whole numbers.")
    axes = [_per_value(path, name, data, array.shape[1]) for name in ("x", "y")]
    given = [axis for axis in axes if axis is not None]
    positions = np.stack(given, -1) if given and index is None else None
    units = str(values.attrs["units"]) if "units" in values.attrs else None
    return Table(times, array, None if index is None else index.astype(int), positions, units)


def _numbers(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if not np.issubdtype(array.dtype, np.number):
        raise InputError(f"{path}: '{name}' must hold numbers; it holds {array.dtype}.")
    return array.astype(np.float64)


def _per_value(path: Path, name: str, data: xr.Dataset, columns: int) -> np.ndarray | None:
    """A one-dimensional variable with one entry per measured value, if there is one."""
    if name not in data.variables:
        return None
    array = _numbers(path, name, data[name].values)
    if array.shape != (columns,):
        raise InputError(
            f"{path}: '{name}' has shape {array.shape}; expected one entry per value, ({columns},)."
        )
    return array
