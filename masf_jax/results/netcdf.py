"""A result as a NetCDF file, written some cycles at a time."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cycles import Cycles
from .variables import Variable

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["UnfailingFile", "netcdf_bytes", "write_netcdf"]

_CHUNK = 2**20
"""Bytes of a variable that lie together in the file, at least one cycle: what HDF5 keeps in memory of it."""


class UnfailingFile(io.FileIO):
    """A file for the HDF5 library, which can take the process down with it when the disk fills up.

    It is told that all is well; `check` and the end of the `with` block raise what went wrong first.
    """

    failed: OSError | None = None

    def __init__(self, path: Path):
        super().__init__(path, "r+")

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        try:
            done = 0
            while self.failed is None and done < len(view):
                done += super().write(view[done:])
        except OSError as error:
            self.failed = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        try:
            if self.failed is None:
                return super().truncate(size)
        except OSError as error:
            self.failed = error
        return size or 0

    def check(self) -> None:
        if self.failed is not None:
            raise self.failed

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self.check()


def netcdf_bytes(data: xr.Dataset, **options: Any) -> bytes:
    """What a NetCDF file of the dataset has in it; options as of `xarray.Dataset.to_netcdf`.

    xarray gives a view of its buffer. Where an error's traceback keeps such a view, the garbage collector of
    Python before 3.12.6 ends the process (CPython's issue 77894): so it is copied, and released at once.
    """
    with data.to_netcdf(engine="h5netcdf", **options) as content:
        return bytes(content)


def write_netcdf(path: Path, data: xr.Dataset, variables: Mapping[str, Variable], cycles: Cycles) -> None:
    """A file of no cycles by xarray, to which those of one variable after the other are appended.

    Args:
        data: coordinates and attributes.
    """
    import h5netcdf
    from xarray.conventions import encode_cf_variable

    encoding = {}
    whole = {
        name: encode_cf_variable(each.variable, name=name).values
        for name, each in data.coords.items()
        if "cycle" in each.dims
    }
    data = data.isel(cycle=slice(0))
    for name, each in variables.items():
        first = each.read(slice(1))
        data[name] = (each.dims, first[:0], each.about)
        together = min(cycles.n, max(1, _CHUNK // max(first.nbytes, 1)))
        encoding[name] = {"chunksizes": (together, *first.shape[1:])}
    path.write_bytes(netcdf_bytes(data, unlimited_dims=["cycle"], encoding=encoding))
    with UnfailingFile(path) as file, h5netcdf.File(file, "r+") as target:
        target.resize_dimension("cycle", cycles.n)
        for name, values in whole.items():
            target.variables[name][:] = values
        for name, each in variables.items():
            for part in cycles.parts():
                target.variables[name][part] = each.read(part)
                file.check()
