"""`observations.read`: what the command line reads of a file, as a run in Python takes it."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import xarray as xr

from masf_jax import assimilate, dynamics, filters, measurements, observations
from masf_jax.measurements import Gaussian, Measurement, Subset

STATIONS = """# units: degC
time,station,value
2000-01-01T00:00Z,north,14.2
2000-01-01T06:00Z,north,13.9
2000-01-01T03:00Z,south,99
2000-01-01T06:00Z,south,15.0
2000-01-01T12:00Z,south,
"""


@pytest.fixture
def model():
    return dynamics.Function(lambda x: 0.9 * x, (3,), dt=3.0)


def test_a_file_of_stations_and_dates_is_assimilated(tmp_path, model):
    (tmp_path / "obs.csv").write_text(STATIONS)
    sensor = Measurement(Subset([2, 0]), Gaussian(0.5))
    options = {"time_unit": "hours", "stations": ["south", "north"], "valid_range": (-50, 50)}
    with pytest.warns(UserWarning, match="1 values outside observations.valid_range"):
        found = observations.read(tmp_path / "obs.csv", model, sensor, **options)
    assert (found.units, found.stations, found.withheld) == ("degC", ("south", "north"), None)
    np.testing.assert_array_equal(found.observations.steps, [0, 1, 2, 4])
    np.testing.assert_array_equal(found.observations.mask, [[0, 1], [0, 0], [1, 1], [0, 0]])
    np.testing.assert_allclose(found.observations.values[2], [15.0, 13.9], rtol=1e-6)
    hours = np.datetime64("2000-01-01") + np.array([0, 3, 6, 12]).astype("m8[h]")
    np.testing.assert_array_equal(found.dates, hours)
    members = 14 + jax.random.normal(jax.random.key(0), (5, 3))
    run = assimilate(jax.random.key(1), filters.ETKF(), model, sensor, found.observations, members)
    data = run.to_xarray(dates=found.dates, units=found.units)
    np.testing.assert_array_equal(data["time"], hours)
    with pytest.warns(UserWarning, match="valid_range"):
        parts = observations.read(tmp_path / "obs.csv", model, sensor, **options, withhold=["south"])
    np.testing.assert_array_equal(parts.withheld.mask.sum(0), [1, 0])
    np.testing.assert_array_equal(parts.observations.mask.sum(0), [0, 2])
    drawn = observations.read(
        tmp_path / "obs.csv", model, sensor, **(options | {"valid_range": None}), withhold=0.5, n_cycles=3
    )
    assert np.asarray(drawn.withheld.mask).any(0).sum() == 1
    assert drawn.observations.n_cycles == 3


def test_a_field_with_places(tmp_path):
    model = dynamics.Lorenz96(n=8, dt=0.05)
    sensor = Measurement(measurements.Subset([1, 3, 5]), Gaussian(1.0))
    values = np.arange(6.0).reshape(2, 3)
    data = xr.Dataset(
        {"t2m": (("time", "x"), values, {"units": "K"})}, {"time": [0.1, 0.25], "x": [5.0, 1.0, 3.0]}
    )
    data.to_netcdf(tmp_path / "obs.nc", engine="h5netcdf")
    found = observations.read(tmp_path / "obs.nc", model, sensor, variable="t2m", time_origin=0.0)
    np.testing.assert_array_equal(found.observations.steps, [2, 5])
    np.testing.assert_array_equal(found.observations.values, values[:, [1, 2, 0]])
    np.testing.assert_allclose(found.times, [0.1, 0.25])
    assert found.dates is None
    with pytest.raises(observations.FileError, match=r"not on a model step: .* it is step 1\.6"):
        observations.read(tmp_path / "obs.nc", model, sensor, variable="t2m", time_origin=0.02)
    with pytest.raises(ValueError, match="states have no shape here"):
        observations.read(tmp_path / "obs.nc", lambda x: x, sensor)
