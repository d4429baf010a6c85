"""Observations in NetCDF or zarr."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from .table import Table

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["read_xarray"]


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
    units = values.attrs.get("units")
    return Table(
        times,
        array,
        None if index is None else index.astype(int),
        positions,
        None if units is None else str(units),
    )


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
