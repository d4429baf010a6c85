"""Covariances of a state whose components have units of their own: pascals, kg/kg, kelvins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import assimilate
from masf_jax.dynamics import Climatology, Linear
from masf_jax.filters import KalmanFilter, OptimalInterpolation
from masf_jax.filters.kalman.exact import square_root
from masf_jax.measurements import Gaussian, Measurement, Observations, Subset
from masf_jax.smoothers import WeakFourDVar, rts

UNITS = np.asarray([500.0, 1e-7, 3.0, 5e-4, 10.0])
MEASURED = [1, 3]
FACTOR = np.random.default_rng(0).normal(size=(5, 8))
CORRELATION = np.corrcoef(FACTOR)


@pytest.mark.parametrize("precision", ["float32", "x64"])
def test_a_square_root_has_all_digits_of_each_component(precision, request):
    if precision == "x64":
        request.getfixturevalue("x64")
    given = jnp.asarray(CORRELATION * np.outer(UNITS, UNITS), float)
    root = np.asarray(square_root(given), float) / UNITS[:, None]
    np.testing.assert_allclose(root @ root.T, CORRELATION, atol=2e-6 if precision == "float32" else 1e-13)


def test_a_component_without_variance_has_none():
    root = square_root(jnp.diag(jnp.asarray([1e-20, 0.0, 4.0])))
    np.testing.assert_allclose(root @ root.T, np.diag([1e-20, 0.0, 4.0]), rtol=1e-6)


def posterior(unit):
    """Of x ~ N(0, P), z = x[1, 3] + noise of half a deviation, in deviations: exact."""
    h, c = np.eye(5)[MEASURED], CORRELATION
    gain = c @ h.T @ np.linalg.inv(h @ c @ h.T + 0.25 * np.eye(2))
    return gain @ np.ones(2), np.sqrt(np.diag(c - gain @ h @ c))


@pytest.mark.parametrize("method", ["kalman", "interpolation", "rts", "weak_four_d_var"])
def test_an_analysis_is_the_same_in_any_units(method):
    mean, spread = posterior(UNITS)
    covariance = jnp.asarray(CORRELATION * np.outer(UNITS, UNITS), float)
    sensor = Measurement(Subset(MEASURED), Gaussian(0.5 * UNITS[MEASURED]))
    observations = Observations(UNITS[None, MEASURED], 1)
    model, key = Linear(np.eye(5)), jax.random.key(0)
    if method == "rts":
        run = rts(KalmanFilter(np.zeros(5), covariance), model, sensor, observations, scores=())
        found = run.analysis["mean"][0]
    elif method == "weak_four_d_var":  # nothing is known of the start's own error but the model's
        search = WeakFourDVar(std=jnp.asarray(1e-6 * UNITS, float), q=covariance, tolerance=1e-6)
        found = search(jnp.zeros(5), model, sensor, observations).trajectory[0]
    else:
        members = np.random.default_rng(1).normal(size=(4, 5)) * UNITS
        members = members - members.mean(0)
        filter = (
            KalmanFilter(np.zeros(5), covariance)
            if method == "kalman"
            else OptimalInterpolation(Climatology(jnp.zeros(5), covariance))
        )
        run = assimilate(key, filter, model, sensor, observations, jnp.asarray(members, float))
        found = run.analysis["mean"][0]
        np.testing.assert_allclose(run.analysis["spread"][0] / UNITS, spread, atol=1e-4)
    np.testing.assert_allclose(np.asarray(found) / UNITS, mean, atol=1e-4)
