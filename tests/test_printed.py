"""What is printed of results: a few lines with numbers, also under jit and vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import GrossErrorCheck, assimilate, filters, simulate, smoothers
from masf_jax.dynamics import Linear
from masf_jax.estimation import EM, LogNormal, estimate
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations

MODEL, SENSOR = Linear(0.9 * np.eye(2)), Measurement(Identity(), Gaussian(0.5))


def test_results_are_printed_in_a_few_lines_of_numbers(x64):
    twin = simulate(jax.random.key(0), MODEL, SENSOR, 6, x0=jnp.ones(2))
    values = np.array(twin.observations.values)
    values[3, 1] = 70.0
    members = np.random.default_rng(0).normal(size=(12, 2))
    given = jax.random.key(1), filters.ETKF(), MODEL, SENSOR
    run = assimilate(*given, Observations(values, 1), members, truth=twin.truth)
    first, forecast, analysis, wrong = str(run).split("\n")
    assert first == "Assimilation: Linear, 6 cycles, 12 members"
    assert f"RMSE {float(run.forecast_scores['rmse'].mean()):.4g}, spread" in forecast
    assert "saved: mean, spread" in analysis
    assert "(cycle 3)" in wrong
    checked = assimilate(*given, Observations(values, 1), members, quality_control=GrossErrorCheck(5.0))
    assert str(checked).split("\n") == [
        "Assimilation: Linear, 6 cycles, 12 members, 1 values rejected",
        "  forecast: saved: mean, spread",
        "  analysis: saved: mean, spread",
    ]
    smoothed = smoothers.enks(*given, twin.observations, members)
    assert str(smoothed).startswith("Smoothing: Linear, 6 cycles\n")
    keys = jax.random.split(jax.random.key(2), 3)
    several = jax.vmap(lambda key: assimilate(key, *given[1:], twin.observations, members))(keys)
    assert str(several) == "Assimilation: a batch of runs, (3,), of 6 cycles"
    texts = []
    jax.eval_shape(
        lambda key: texts.append(str(assimilate(key, *given[1:], twin.observations, members))), keys[0]
    )
    assert texts == ["Assimilation (being traced)"]


@pytest.mark.slow
def test_an_estimate_is_printed_as_mean_and_standard_deviation(x64):
    values = np.random.default_rng(0).normal(size=(40, 2))
    filter = filters.KalmanFilter(np.zeros(2), np.eye(2))
    unknown = {"measurement.noise.std": LogNormal(0.5)}
    members = np.random.default_rng(1).normal(size=(8, 2))
    found = estimate(
        jax.random.key(0),
        filter,
        MODEL,
        SENSOR,
        Observations(values, 1),
        members,
        unknown=unknown,
        engine=EM(5),
    )
    mean, std = (float(x["measurement.noise.std"]) for x in (found.mean, found.std))
    assert str(found) == f"Estimate\n  measurement.noise.std: {mean:.4g} ± {std:.2g}"
