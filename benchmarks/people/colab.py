"""Quickstart: Lorenz-96 with every second variable measured, LETKF beside MASF, a figure."""

import jax
import matplotlib.pyplot as plt

from masf_jax import assimilate, dynamics, filters, masf, measurements, simulate
from masf_jax.ensemble import Inflation

model = dynamics.Lorenz96()
sensor = measurements.Measurement(measurements.Subset(range(0, 40, 2)), measurements.Gaussian(1.0))
keys = jax.random.split(jax.random.key(1), 4)
start = model.sample_climatology(keys[0])
twin = simulate(keys[1], model, sensor, n_cycles=300, x0=start)
members = start + jax.random.normal(keys[2], (20, 40))
letkf = filters.LETKF(radius=7.0, inflation=Inflation(1.05))
for filter in (letkf, masf.MASF(masf.GaussianPrior(7.0), inflation=Inflation(1.05))):
    run = assimilate(keys[3], filter, model, sensor, twin.observations, members, truth=twin.truth)
    rmse = run.analysis_scores["rmse"]
    plt.plot(rmse, label=f"{type(filter).__name__} {rmse[100:].mean():.2f}")
plt.legend()
plt.savefig("colab.png")
