"""NetCDF of stations between grid points, dates and gaps: analyses into a file, and a forecast of a day."""

import jax
import numpy as np
import xarray as xr
from ring import step

from masf_jax import assimilate, dynamics, filters, measurements, observations
from masf_jax.coordinates import Coordinates
from masf_jax.dynamics import advance

places = xr.open_dataset("stations.nc").x.values  # km
where = Coordinates(10.0 * np.arange(40), period=(400.0,))  # km
ring = dynamics.Function(step, (40,), 1.0, coordinates=where, variable_names="temperature")
model = dynamics.ModelError(ring, 0.2)
sensor = measurements.Measurement(measurements.Stations((40,), places, where), measurements.Gaussian(0.3))
found = observations.read("stations.nc", model, sensor, time_unit="hours", time_origin="2026-03-01")
members = 14 + 3 * jax.random.normal(jax.random.key(0), (30, 40))
run = assimilate(jax.random.key(1), filters.LETKF(80.0), model, sensor, found.observations, members)
run.to_netcdf("analyses.nc", dates=found.dates, units=found.units)
tomorrow = advance(model, run.members, run.end.step, jax.random.key(2), 24)
print(tomorrow.mean(0)[:3], tomorrow.std(0)[:3])
