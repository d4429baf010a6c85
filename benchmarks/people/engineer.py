"""NumPy model, a CSV of dates with empty cells and missing rows: analysed levels by date into a file."""

import jax
import numpy as np
import pandas as pd
from tanks import step

from masf_jax import assimilate, dynamics, filters, measurements

table = pd.read_csv("levels.csv", parse_dates=["timestamp"], index_col="timestamp")
start, minutes = pd.Timestamp("2026-03-01"), pd.Timedelta(minutes=10)
steps = ((table.index - start) / minutes).to_numpy().round().astype(int)
observations = measurements.Observations(table, steps)
model = dynamics.ModelError(dynamics.BlackBox(step, (2,), dt=1.0), 0.01)
sensor = measurements.Measurement(measurements.Identity(), measurements.Gaussian(0.05))
members = 1.5 + jax.random.normal(jax.random.key(0), (50, 2))
run = assimilate(jax.random.key(1), filters.ETKF(), model, sensor, observations, members)
levels = pd.DataFrame(np.asarray(run.analysis["mean"]), table.index, table.columns)
levels.to_csv("analysed.csv")
print(levels.tail(2))
