"""Own shallow-water model, ten gauges, a twin with a localised filter: error of the unseen current."""

import jax
import numpy as np
from canal import DT, N, any_waves, step

from masf_jax import assimilate, dynamics, filters, measurements, simulate
from masf_jax.coordinates import Coordinates
from masf_jax.ensemble import Inflation

where = Coordinates(2.0 * np.arange(N), period=(2.0 * N,))  # km
model = dynamics.Function(step, (2, N), DT, coordinates=where, climatology=any_waves)
sensor = measurements.Measurement(lambda x: x[0, ::5], measurements.Gaussian(0.05))
keys = jax.random.split(jax.random.key(0), 4)
twin = simulate(keys[1], model, sensor, n_cycles=36, steps_per_cycle=10, x0=any_waves(keys[0]))
members = jax.vmap(any_waves)(jax.random.split(keys[2], 20))
letkf = filters.LETKF(radius=15.0, inflation=Inflation(1.05))
run = assimilate(keys[3], letkf, model, sensor, twin.observations, members)
error = run.analysis["mean"] - twin.truth
print(f"current, RMSE of the last two hours: {np.sqrt(np.mean(error[-12:, 1] ** 2)):.3f} m/s")
