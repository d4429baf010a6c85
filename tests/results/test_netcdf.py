"""The bytes of a NetCDF file."""

import io
import traceback
from pathlib import Path
from types import SimpleNamespace

import h5netcdf
import numpy as np
import pytest
import xarray as xr

from masf_jax.results.cycles import Cycles
from masf_jax.results.netcdf import netcdf_bytes, write_netcdf


def test_bytes_of_a_file_are_those_of_the_dataset():
    data = xr.Dataset({"a": ("x", np.arange(3.0), {"units": "m"})}, attrs={"title": "three"})
    with h5netcdf.File(io.BytesIO(netcdf_bytes(data, unlimited_dims=["x"])), "r") as found:
        assert found.dimensions["x"].isunlimited()
        np.testing.assert_array_equal(found.variables["a"][:], [0, 1, 2])
        assert found.attrs["title"] == "three"


def test_an_error_keeps_no_view_of_a_buffer(tmp_path):
    """Python before 3.12.6 ends the process when it collects one (CPython's issue 77894)."""
    data, result = xr.Dataset(coords={"cycle": np.arange(2.0)}), SimpleNamespace(faults=[0, 0])
    with pytest.raises(IsADirectoryError) as failed:
        write_netcdf(Path(tmp_path), data, {}, Cycles(result))
    kept = [value for frame, _ in traceback.walk_tb(failed.tb) for value in frame.f_locals.values()]
    views = [value for value in kept if isinstance(value, memoryview)]
    assert views  # that of pathlib's write_bytes
    assert all(isinstance(view.obj, bytes) for view in views)
