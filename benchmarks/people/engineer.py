"""NumPy model, a CSV of dates with empty cells and missing rows: analysed levels by date into a file."""

import jax
import numpy as np
import pandas as pd
from tanks import step

from masf_jax import assimilate, dynamics, filters, measurements, observations

model = dynamics.ModelError(dynamics.BlackBox(step, (2,), dt=10.0), 0.01 / np.sqrt(10.0))
sensor = measurements.Measurement(measurements.Identity(), measurements.Gaussian(0.05))
found = observations.read(
    "levels.csv",
    model,
    sensor,
    columns=["timestamp", "upper", "lower"],
    time_unit="minutes",
    time_origin="2026-03-01",
)
members = 1.5 + jax.random.normal(jax.random.key(0), (50, 2))
run = assimilate(jax.random.key(1), filters.ETKF(), model, sensor, found.observations, members)
levels = pd.DataFrame(np.asarray(run.analysis["mean"]), found.dates, found.stations)
levels.to_csv("analysed.csv")
print(levels.tail(2))
