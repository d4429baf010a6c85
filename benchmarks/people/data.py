"""Files of the engineer and the forecaster: levels.csv (dates, gaps), stations.nc (between grid points)."""

import numpy as np
import pandas as pd
import xarray as xr

rng = np.random.default_rng(0)


def levels():
    """Two tanks every 10 minutes for a day; a fifth of the values empty, an hour and a half without rows."""
    dates = pd.date_range("2026-03-01", periods=145, freq="10min")[1:]
    x, rows = np.array([2.0, 1.0]), []
    for _ in dates:
        x = x + np.array([0.05 - 0.04 * x[0], 0.04 * x[0] - 0.05 * x[1]]) + 0.01 * rng.standard_normal(2)
        rows.append(x + 0.05 * rng.standard_normal(2))
    values = np.where(rng.random((144, 2)) < 0.2, np.nan, rows)
    table = pd.DataFrame(values.round(3), dates.rename("timestamp"), ["upper", "lower"])
    table.drop(table.index[60:69]).to_csv("levels.csv", date_format="%Y-%m-%dT%H:%M")


def stations():
    """Ten stations on a ring of 400 km, every 3 hours for 5 days, a tenth missing."""
    x = np.sort(rng.uniform(0, 400, 10))
    hours = np.arange(3, 121, 3)
    phase = 2 * np.pi * (x[None] - 7.2 * hours[:, None]) / 400
    value = 14 + 3 * np.sin(phase) + np.cos(2 * phase) + 0.3 * rng.standard_normal(phase.shape)
    value[rng.random(value.shape) < 0.1] = np.nan
    xr.Dataset(
        {"value": (("time", "station"), value, {"units": "degC"}), "x": ("station", x, {"units": "km"})},
        {"time": np.datetime64("2026-03-01", "ns") + hours * np.timedelta64(1, "h")},
    ).to_netcdf("stations.nc", engine="h5netcdf")


if __name__ == "__main__":
    levels()
    stations()
