"""What must hold (python -m pytest): of the model alone, and of a filter that runs with model and sensor."""

import jax
import jax.numpy as jnp
import numpy as np
from model import start, step
from sensor import sensor

from masf_jax import assimilate, dynamics, filters, measurements, simulate
from masf_jax.coordinates import Coordinates
from masf_jax.ensemble import Inflation

MODEL = dynamics.Function(step, (40,), 0.05, Coordinates(np.arange(40), (40.0,)), climatology=start)
NETWORK = measurements.Measurement(sensor, measurements.Gaussian(0.5))


def test_a_step_is_of_fourth_order():
    x, dt = start(jax.random.key(0)), 0.1

    def after(n):
        return jax.lax.fori_loop(0, n, lambda i, x: step(x, 0.0, dt=dt / n), x)

    errors = [float(jnp.abs(after(n) - after(64)).max()) for n in (1, 2)]
    assert errors[0] / errors[1] > 10  # 2⁴, were the steps shorter


def test_the_filter_does_better_than_the_sensor():
    key = jax.random.key(1)
    twin = simulate(key, MODEL, NETWORK, n_cycles=60, steps_per_cycle=2)
    members = jax.vmap(start)(jax.random.split(jax.random.key(2), 20))
    filter = filters.LETKF(radius=5, inflation=Inflation(1.05), rotation=True)
    run = assimilate(key, filter, MODEL, NETWORK, twin.observations, members, truth=twin.truth)
    assert float(run.analysis_scores["rmse"][30:].mean()) < 0.5
