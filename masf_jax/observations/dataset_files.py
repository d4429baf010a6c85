"""Observations in NetCDF and zarr: read by a process of its own, decoded by the CF conventions."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import FileError, printable
from .flags import valid_by_flags
from .known_files import is_known, remember
from .safety import memory_limit
from .table import Table, of_rows
from .times import Clock

__all__ = ["Variable", "check_readable", "read_dataset"]

_DEGREES = ("lat", "latitude", "lon", "longitude")
_NAMES = ("value", "time", "mask", "index", "station", "x", "y", *_DEGREES)
_HDF5, _NETCDF3 = b"\x89HDF\r\n\x1a\n", (b"CDF\x01", b"CDF\x02")
_SECONDS, _SECONDS_PER_BYTE = 30.0, 1 / 5e6
_DEFAULT_FILLS = {
    "i2": -32767,
    "i4": -2147483647,
    "i8": -9223372036854775806,
    "u2": 65535,
    "u4": 4294967295,
    "u8": 18446744073709551614,
    "f4": 2.0**123 * 0.9375,
    "f8": 2.0**123 * 0.9375,
}
"""What netCDF writes where nothing was written, by type."""
_SPACE = {
    "y": ("y", "lat", "latitude"),
    "x": ("x", "lon", "longitude"),
    "channel": ("channel", "component"),
}
"""Axes of fields, in the order of names below, by the names that files give them."""
_ORDER = ("channel", "y", "x")


class Variable(NamedTuple):
    """A variable as it is stored, undecoded."""

    dims: tuple[str, ...]
    data: np.ndarray
    attributes: dict[str, str | np.ndarray]

    def text(self, name: str) -> str:
        """An attribute that is text, or ""."""
        found = self.attributes.get(name, "")
        return found if isinstance(found, str) else ""


def read_dataset(path: Path, variable: str = "value") -> Table:
    """Reads variables value (time, …), time (time), and optionally mask, index, station, x, y.

    Args:
        variable: what the file calls value; messages of what is wrong with it say 'value'.

    Raises:
        FileError: naming file and variable.
    """
    if variable in _NAMES[1:]:
        raise FileError(f"observations.variable={variable}: that is no variable of measured values.")
    variables, held = _variables(path, variable)
    for name in ("value", "time"):
        if name not in variables:
            called = printable(variable, 60) if name == "value" else name
            hint = "observations.variable=NAME says which one; " if name == "value" else ""
            raise FileError(
                f"{path} has no variable '{called}'; its variables are {', '.join(held) or 'none'} "
                f"({hint}docs/observations.md)."
            )
    value, time = variables["value"], variables["time"]
    if len(time.dims) != 1 or time.dims[0] not in value.dims:
        raise FileError(
            f"{path}: 'value' has the dimensions ({', '.join(value.dims)}) of shape {value.data.shape} "
            "and 'time' "
            f"({', '.join(time.dims)}) {time.data.shape}; expected one dimension of 'time' that 'value' "
            "has too."
        )
    cycle = time.dims[0]
    if cycle.startswith("phony_dim") and value.data.shape.count(time.data.size) > 1:
        raise FileError(
            f"{path}: which of the dimensions of 'value', shape {value.data.shape}, is that of the "
            f"{time.data.size} "
            "times? They have no names in the file: write it as NetCDF."
        )
    dims = (cycle, *_ordered([dim for dim in value.dims if dim != cycle]))
    for name in _DEGREES:
        if name in dims[1:] and name in variables:
            _check_increasing(path, name, variables[name])
    if " since " in f" {value.text('units')} ":
        raise FileError(
            f"{path}: 'value' holds dates ({printable(value.text('units'), 60)}), no measured values."
        )
    clock = _clock(path, time)
    array, outside = _decoded(path, "value", value)
    array = np.where(_valid(path, variables, value, cycle), array, np.nan)
    array, outside = (
        np.transpose(each, [value.dims.index(dim) for dim in dims]) for each in (array, outside)
    )
    units = value.text("units") or None
    index, station = (variables.get(name) for name in ("index", "station"))
    listed = [each for each in (index, station) if each is not None and each.dims == (cycle,)]
    if len(dims) == 1 and listed:  # one value a row
        kind = "index" if listed[0] is index else "station"
        return _rows(path, clock, array, outside, listed[0], kind)._replace(units=units)
    columns = int(np.prod(array.shape[1:]))
    places = _per_value(path, "index", variables, dims, columns)
    if places is not None and np.any(places != np.round(places)):
        raise FileError(f"{path}: 'index' must hold whole numbers.")
    names = None
    of_columns = station is not None and len(station.dims) <= 1 and set(station.dims) <= set(dims[1:])
    if station is not None and of_columns and station.data.size == columns:
        names = [str(name).strip() for name in station.data.reshape(-1).tolist()]
    positions = None if places is not None else _positions(path, variables, dims, array.shape[1:])
    index = None if places is None else places.astype(np.int64)
    return Table(clock, array, index, positions, names, units, dims[1:], outside=outside)


def check_readable(path: Path) -> None:
    """Reads every variable of a NetCDF file in a process of its own, if this one does not know it already.

    Raises:
        FileError: that does not come to a good end.
    """
    if not is_known(path):
        _header(path, "*")
        remember(path)


def _header(path: Path, *names: str) -> tuple[dict[str, Any], io.BytesIO]:
    """What the reading process says of the file, and the arrays to come."""
    engine = _engine(path)
    stream = io.BytesIO(_answer(path, engine, names))
    header = json.loads(stream.readline())
    if "error" in header:
        text = printable(header["error"].split("\n")[0], 300).rstrip(".")
        raise FileError(f"cannot read {path} as {_FORMATS[engine]}: {text}.")
    return header, stream


def _variables(path: Path, value: str) -> tuple[dict[str, Variable], list[str]]:
    """The variables there are among those we know, the values' under "value", and the names of all."""
    header, stream = _header(path, value, *_NAMES[1:])
    found = {}
    for name, about in header["variables"].items():
        data = np.load(stream, allow_pickle=False)
        attributes = {
            key: each if isinstance(each, str) else np.asarray(each["values"], each["type"])
            for key, each in about["attributes"].items()
        }
        found["value" if name == value else name] = Variable(tuple(about["dims"]), data, attributes)
    return found, [printable(name, 60) for name in header["all"]]


def _answer(path: Path, engine: str, names: tuple[str, ...]) -> bytes:
    """What the reading process writes (reader.py), which is ended where it takes too long."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    limit = _SECONDS + sum(each.stat().st_size for each in files) * _SECONDS_PER_BYTE
    command = [sys.executable, "-P", str(_READER), str(path.absolute())]
    command += [engine, str(memory_limit()), *names]
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    environment = {**os.environ, **one_thread, "HDF5_PLUGIN_PRELOAD": "::"}
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(
        command, stdin=nowhere, stdout=subprocess.PIPE, stderr=nowhere, env=environment
    ) as process:
        try:
            answer, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired as error:
            raise FileError(f"cannot read {path}: it took more than {limit:.0f} s, and was ended.") from error
        finally:
            process.kill()
    if process.returncode != 0:
        raise FileError(f"cannot read {path}: {_end(process.returncode)}.")
    return answer


_READER = Path(__file__).with_name("reader.py")
_FORMATS = {"h5netcdf": "NetCDF-4", "scipy": "NetCDF-3", "zarr": "zarr"}


def _engine(path: Path) -> str:
    """By what the file begins with, not by its name."""
    if path.is_dir():
        return "zarr"
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if start[:4] in _NETCDF3:
                return "scipy"
            for place in (0, *(512 * 2**i for i in range(12))):  # HDF5 may begin after a user block
                file.seek(place)
                if file.read(8) == _HDF5:
                    return "h5netcdf"
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}.") from error
    kind = "NetCDF-3 with 64-bit data (CDF-5)" if start[:4] == b"CDF\x05" else "no NetCDF file"
    raise FileError(f"cannot read {path}: it is {'empty' if not start else kind}; write it as NetCDF-4.")


def _end(code: int) -> str:
    """Why a reading process ended with this code."""
    if hasattr(signal, "SIGXCPU") and code == -signal.SIGXCPU:
        return "the library did not come to an end with it (damaged?), and was ended"
    if hasattr(signal, "SIGKILL") and code == -signal.SIGKILL:
        return "it took too much memory or time, and was ended"
    return f"the library broke down on it (code {code}): it is damaged"


def _ordered(dims: list[str]) -> list[str]:
    """Channel, y and x in this order where all dimensions are such; others as they come."""
    kinds = [next((kind for kind, names in _SPACE.items() if dim.lower() in names), "") for dim in dims]
    if len(set(kinds)) < len(kinds) or "" in kinds:
        return dims
    return [dims[kinds.index(kind)] for kind in _ORDER if kind in kinds]


def _numbers(path: Path, name: str, variable: Variable) -> np.ndarray:
    """As stored; `_Unsigned` says how integers are meant."""
    data = variable.data
    if data.dtype.kind not in "fiub":
        kind = "text" if data.dtype.kind == "U" else str(data.dtype)
        raise FileError(f"{path}: '{name}' must hold numbers; it holds {kind}.")
    unsigned = variable.text("_Unsigned").lower()
    if (unsigned == "true" and data.dtype.kind == "i") or (unsigned == "false" and data.dtype.kind == "u"):
        return data.view(f"{'u' if unsigned == 'true' else 'i'}{data.dtype.itemsize}")
    return data


def _attribute(
    path: Path, name: str, variable: Variable, key: str, like: np.ndarray | None = None
) -> np.ndarray | None:
    """A numeric attribute, turned as the values are where these are given."""
    found = variable.attributes.get(key)
    if isinstance(found, str):
        raise FileError(
            f"{path}: the attribute {key} of '{name}' must be a number; it is {printable(found, 60)!r}."
        )
    return found if found is None or like is None else _meant(found, variable, like)


def _meant(found: np.ndarray, variable: Variable, like: np.ndarray) -> np.ndarray:
    """An attribute of the stored type, as `_Unsigned` turns the values into those `like`."""
    stored = variable.data.dtype
    if like.dtype == stored or found.dtype.kind not in "iu":
        return found
    known = (found >= np.iinfo(stored).min) & (found <= np.iinfo(stored).max)
    return found.astype(stored).view(like.dtype) if known.all() else found


def _rounded(values: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The values as the other's type has them, where both are real and that is the coarser."""
    real = values.dtype.kind == other.dtype.kind == "f"
    return values.astype(other.dtype) if real and other.dtype.itemsize < values.dtype.itemsize else values


def _missing(path: Path, name: str, variable: Variable, data: np.ndarray) -> np.ndarray:
    """Where what is stored stands for missing."""
    missing = np.isnan(data) if data.dtype.kind == "f" else np.zeros(data.shape, bool)
    given = [_attribute(path, name, variable, key, data) for key in ("_FillValue", "missing_value")]
    fills = [fill for each in given if each is not None for fill in each.ravel()]
    default = _DEFAULT_FILLS.get(variable.data.dtype.str[1:])
    if not fills and default is not None:
        missing |= variable.data == np.asarray(default, variable.data.dtype)
    for fill in fills:
        with np.errstate(all="ignore"):
            missing |= _rounded(data, fill) == _rounded(fill, data)
    other = _attribute(path, name, variable, "zarr_fill", data)
    if other is not None and np.any((data == other) & ~missing):
        raise FileError(
            f"{path}: '{name}' holds {other.item():g}, its fill_value: missing, or a value? Say so by "
            "an attribute missing_value, or write it with another fill_value."
        )
    return missing


def _decoded(path: Path, name: str, variable: Variable) -> tuple[np.ndarray, np.ndarray]:
    """Unpacked values in double precision, NaN where missing or outside the valid range; where outside.

    CF conventions 2.5.1 and 8.1. (xarray unpacks 16-bit integers to single precision.)
    """
    data = _numbers(path, name, variable)
    missing = _missing(path, name, variable, data)
    scale, offset = (_attribute(path, name, variable, key) for key in ("scale_factor", "add_offset"))
    keys = ("valid_range", "valid_min", "valid_max")
    both, least, most = (_attribute(path, name, variable, key, data) for key in keys)
    values = data.astype(np.float64)
    unpacked = values
    for key, each in (("scale_factor", scale), ("add_offset", offset)):
        if each is not None and (
            each.size != 1 or not np.isfinite(each).all() or (key == "scale_factor" and each == 0)
        ):
            raise FileError(
                f"{path}: the attribute {key} of '{name}' must be one finite number; it is {each.tolist()}."
            )
    if scale is not None:
        unpacked = unpacked * float(scale.reshape(()))
    if offset is not None:
        unpacked = unpacked + float(offset.reshape(()))
    outside = np.zeros(data.shape, bool)
    if both is not None and both.size != 2:
        raise FileError(
            f"{path}: the attribute valid_range of '{name}' must be two numbers; it is {both.tolist()}."
        )
    ends = [] if both is None else [(both[:1], False), (both[1:], True)]
    ends += [(each, above) for each, above in ((least, False), (most, True)) if each is not None]
    for end, above in ends:
        if end.size != 1:
            raise FileError(
                f"{path}: an end of the valid range of '{name}' must be one number; it is {end.tolist()}."
            )
        packed = end.dtype.kind == data.dtype.kind or (end.dtype.kind in "iu" and data.dtype.kind in "iu")
        compared = _rounded(data if packed else unpacked, end)
        end = _rounded(end.reshape(()), compared)
        outside |= compared > end if above else compared < end
    outside &= ~missing
    return np.where(missing | outside, np.nan, unpacked), outside


def _clock(path: Path, time: Variable) -> Clock:
    if time.data.dtype.kind in "U":
        raise FileError(f"{path}: 'time' must hold numbers (hours since 2000-01-31 06:00); it holds text.")
    numbers, _ = _decoded(path, "time", time)
    if not np.isfinite(numbers).all():
        bad = int(np.argmin(np.isfinite(numbers))) + 1
        raise FileError(f"{path}: 'time' holds a missing value (number {bad}).")
    if not numbers.size:
        raise FileError(f"{path} holds no times.")
    kind = time.data.dtype
    rounding = float(np.finfo(kind).eps) if kind.kind == "f" and kind.itemsize < 8 else 0.0
    return Clock(numbers, time.text("units") or None, time.text("calendar") or "standard", rounding=rounding)


def _valid(path: Path, variables: dict[str, Variable], value: Variable, cycle: str) -> np.ndarray:
    """Where the mask, or quality flags that 'value' names as its own, let a value be used."""
    flags = {"mask": variables["mask"]} if "mask" in variables else {}
    for name in value.text("ancillary_variables").split():
        about = variables.get(name)
        if about is None or name in flags:
            continue
        says = about.text("standard_name").lower()
        if "flag_meanings" in about.attributes or says.endswith(("status_flag", "quality_flag")):
            flags[name] = about
    valid = np.ones(value.data.shape, bool)
    for name, mask in flags.items():
        if set(mask.dims) not in ({cycle}, set(value.dims)):
            raise FileError(
                f"{path}: '{name}' has shape {mask.data.shape} ({', '.join(mask.dims)}); expected that "
                "of 'value', "
                f"{value.data.shape} ({', '.join(value.dims)}), or of 'time'."
            )
        data = mask.data if mask.data.dtype.kind == "U" else _numbers(path, name, mask)
        about = {
            key: each if isinstance(each, str) else _meant(each, mask, data)
            for key, each in mask.attributes.items()
        }
        used = valid_by_flags(path, name, data, about)
        used = np.transpose(used, [mask.dims.index(dim) for dim in value.dims if dim in mask.dims])
        valid &= used.reshape(
            [n if dim in mask.dims else 1 for dim, n in zip(value.dims, value.data.shape, strict=True)]
        )
    return valid


def _rows(
    path: Path, clock: Clock, values: np.ndarray, outside: np.ndarray, place: Variable, kind: str
) -> Table:
    """One value a row: each with its time and its index or station."""
    data = place.data
    if kind == "index":
        data = _decoded(path, kind, place)[0]
        if np.any(data != np.round(data)):
            raise FileError(f"{path}: 'index' must hold whole numbers.")
    else:
        data = np.array([str(each).strip() for each in data.tolist()])
    table, found = of_rows(path, clock, values, data[:, None], lambda row: f"value number {row + 1}")
    assert found is not None
    _, row = np.unique(clock.numbers, return_inverse=True)
    table = table._replace(outside=np.bincount(row, outside))
    if kind == "index":
        return table._replace(index=found[:, 0].astype(np.int64))
    names, order = found[:, 0].tolist(), list(dict.fromkeys(data.tolist()))
    return table._replace(stations=order, values=table.values[:, [names.index(name) for name in order]])


def _per_value(
    path: Path, name: str, variables: dict[str, Variable], dims: tuple[str, ...], columns: int
) -> np.ndarray | None:
    """A one-dimensional variable with one entry per measured value, if there is one, or one of all."""
    if name not in variables:
        return None
    array = _decoded(path, name, variables[name])[0]
    along = variables[name].dims
    if not along:
        array, along = np.full(columns, array), dims[1:]
    if array.shape != (columns,) or (len(dims) == 2 and along != dims[1:] and along == dims[:1]):
        raise FileError(
            f"{path}: '{name}' has shape {array.shape}; expected one entry per value, ({columns},)."
        )
    if not np.isfinite(array).all():
        raise FileError(f"{path}: '{name}' holds a missing value.")
    return array


def _check_increasing(path: Path, name: str, axis: Variable) -> np.ndarray:
    """The coordinates of a field's axis: in the order of the model's."""
    array = _decoded(path, name, axis)[0]
    if not np.all(np.diff(array) > 0):
        raise FileError(f"{path}: '{name}' must increase along its dimension: sort the field by it.")
    return array


def _positions(
    path: Path, variables: dict[str, Variable], dims: tuple[str, ...], shape: tuple[int, ...]
) -> np.ndarray | None:
    """Where each value was measured, (columns, d), d axes x, y; None: not said, or a field whose grid is."""
    columns = int(np.prod(shape))
    axes = [name for name in ("x", "y") if name in variables]
    grid = [name for name in axes if variables[name].dims == (name,) and name in dims[1:]]
    if not grid or len(dims) == 2:
        given = [_per_value(path, name, variables, dims, columns) for name in axes]
        return np.stack([each for each in given if each is not None], -1) if axes else None
    found = []
    for name in axes:
        if name not in grid:
            raise FileError(f"{path}: '{name}' must have the dimension ({name}), as the field has.")
        array = _check_increasing(path, name, variables[name])
        found.append(
            np.broadcast_to(
                np.expand_dims(array, [i for i, dim in enumerate(dims[1:]) if dim != name]), shape
            )
        )
    whole = len(dims) == 1 + len(grid) == 3
    return np.stack([each.ravel() for each in found], -1) if whole else None
