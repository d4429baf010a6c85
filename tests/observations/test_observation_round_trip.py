"""Any record, written in any format, is read back as it was: values, gaps and steps."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra.numpy import arrays

FORMATS = (
    "long",
    "wide",
    "stations",
    "dates",
    "spreadsheet",
    "nc3",
    "nc4",
    "packed",
    "unsigned",
    "zarr2",
    "zarr3",
)


@st.composite
def records(draw):
    """Values with two digits (K, m), which are there, and increasing steps; some value is."""
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    values = draw(arrays(np.int64, shape, elements=st.integers(-30_000, 30_000))) / 100
    mask = draw(arrays(bool, shape))
    mask[0] = True  # a file's first time is the origin; every column is there
    gaps = draw(st.lists(st.integers(1, 10_000), min_size=shape[0] - 1, max_size=shape[0] - 1))
    return values, mask, np.cumsum([0, *gaps])


def write(folder, kind, values, mask, steps, dt):
    """The record in a file; times count `dt`, of dates hours."""
    times = 1e4 + steps * dt
    gaps = np.where(mask, values, np.nan)
    if kind in ("long", "stations", "dates"):
        dates = pd.Timestamp("1999-12-31T00:00Z") + pd.to_timedelta(steps, unit="h")
        shown = [date.isoformat() for date in dates] if kind == "dates" else [repr(float(t)) for t in times]
        place = "station" if kind == "stations" else "index"
        lines = [f"time,{place},value"]
        order = np.argwhere(mask) if kind == "dates" else np.argwhere(mask.T)[:, ::-1]  # station by station
        lines += [f"{shown[k]},{'abcd'[j] if kind == 'stations' else j},{values[k, j]}" for k, j in order]
        (folder / "obs.csv").write_text("\n".join(lines))
        return folder / "obs.csv"
    if kind == "spreadsheet":  # quoted, in local time, columns in another order, rows without anything
        dates = pd.Timestamp("2000-10-28T00:00Z") + pd.to_timedelta(steps, unit="h")
        zones = ("Europe/Berlin", "America/New_York", "Asia/Kolkata")
        shown = [dates[k].tz_convert(zones[k % 3]).isoformat() for k in range(len(steps))]
        order = np.argwhere(np.ones(mask.shape, bool))[::-1]
        lines = [("value", "valid", "index", "time")]
        lines += [(values[k, j], "no" if not mask[k, j] else "yes", j, shown[k]) for k, j in order]
        text = "".join(",".join(f'"{cell}"' for cell in line) + "\r\n" for line in lines)
        (folder / "obs.csv").write_bytes(f"\ufeff{text},,,\r\n\r\n".encode())
        return folder / "obs.csv"
    if kind == "wide":
        table = pd.DataFrame(gaps, columns=[f"value_{j}" for j in range(values.shape[1])])
        table.insert(0, "time", times)
        table.to_csv(folder / "obs.csv", index=False)
        return folder / "obs.csv"
    data = xr.Dataset({"value": (("station", "time"), gaps.T)}, {"time": times})
    path = folder / ("obs.zarr" if kind.startswith("zarr") else "obs.nc")
    if kind == "zarr2":  # zeros are values, and the mask says what is there
        data["value"] = (("station", "time"), np.where(mask, values, 0.0).T)
        data["mask"] = (("time", "station"), mask)
    if kind.startswith("zarr"):
        encoding = {"value": {"_FillValue": None}} if kind == "zarr2" else None
        data.to_zarr(path, consolidated=False, zarr_format=int(kind[-1]), encoding=encoding)
    elif kind == "packed":
        packing = {"dtype": "i2", "scale_factor": 0.01, "_FillValue": -32768}
        data.to_netcdf(path, engine="h5netcdf", encoding={"value": packing})
    elif kind == "unsigned":
        packing = {"dtype": "i2", "scale_factor": 0.01, "add_offset": -300.0, "_FillValue": -1}
        data.to_netcdf(path, engine="scipy", encoding={"value": packing | {"_Unsigned": "true"}})
    else:
        data.to_netcdf(path, engine="scipy" if kind == "nc3" else "h5netcdf")
    return path


@pytest.mark.slow_cases("long", "zarr2")
@pytest.mark.parametrize("kind", FORMATS)
@given(record=records(), dt=st.sampled_from([0.1, 0.05, 1 / 24, 1.0, 3.0]))
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_round_trip(read, kind, record, dt):
    if kind.startswith("zarr"):
        pytest.importorskip("zarr")
    values, mask, steps = record
    kept = mask.any(1) if kind in ("long", "stations", "dates") else np.ones(len(steps), bool)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), kind, values, mask, steps, dt)
        dated = {"time_unit": "hours"} if kind in ("dates", "spreadsheet") else {}
        found = read(path, values.shape[1:], 1.0 if dated else dt, **dated)
    np.testing.assert_array_equal(found.steps, steps[kept])
    np.testing.assert_array_equal(found.mask, mask[kept])
    np.testing.assert_allclose(found.values, np.where(mask, values, 0.0)[kept], rtol=1e-14, atol=1e-12)
