"""The ensemble Kalman smoother against the exact conditional of a linear-Gaussian trajectory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import conditioned, trajectory_prior

from masf_jax import assimilate, simulate
from masf_jax.dynamics import Linear, Lorenz63, ModelError
from masf_jax.ensemble import Inflation
from masf_jax.filters import ETKF, EnKF, ParticleFilter
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations, Subset
from masf_jax.smoothers import enks

A = 0.95 * np.array([[0.9, 0.3, 0.0], [-0.3, 0.9, 0.1], [0.0, -0.1, 1.0]])
EVERY, CYCLES, STD = 2, 6, 0.5
MEASUREMENT = Measurement(Subset([0, 2]), Gaussian(STD))


def measured():
    z = np.random.default_rng(3).normal(size=(CYCLES, 2))
    z[2], z[4, 0] = np.nan, np.nan
    return z


def exact(mean, covariance, noise_variance, until=CYCLES):
    """Means (CYCLES, 3) and variances of the cycles' states given the first `until` measurements."""
    prior, joint = trajectory_prior(mean, covariance, A, noise_variance, CYCLES + 1, EVERY)
    pick = np.kron(np.eye(CYCLES + 1)[1:], np.eye(3)[[0, 2]])
    z = measured()
    z[until:] = np.nan
    mean, covariance = conditioned(prior, joint, pick, STD**2 * np.eye(len(pick)), z)
    return mean[1:], np.diag(covariance).reshape(-1, 3)[1:]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("rotation", "lag"), [(False, None), (True, 2)])
def test_without_model_error_the_transforms_are_exact(rotation, lag):
    """The ensemble is its own Gaussian: smoothed mean and spread to round-off, also with a lag."""
    ensemble = jnp.asarray(np.random.default_rng(1).normal(size=(8, 3)))
    prior = np.asarray(ensemble.mean(0)), np.cov(np.asarray(ensemble).T)
    run = enks(
        jax.random.key(0), ETKF(rotation=rotation), Linear(A), MEASUREMENT, Observations(measured(), EVERY),
        ensemble, lag=lag, scores=(),
    )  # fmt: skip
    for k in range(CYCLES):
        mean, variance = exact(*prior, 0.0, CYCLES if lag is None else min(CYCLES, k + 1 + lag))
        np.testing.assert_allclose(run.smoothed["mean"][k], mean[k], atol=1e-10)
        np.testing.assert_allclose(run.smoothed["spread"][k], np.sqrt(variance[k]), atol=1e-10)


def test_many_members_reach_the_kalman_smoother():
    """With model error and perturbed measurements: within sampling noise."""
    ensemble = jax.random.normal(jax.random.key(1), (20_000, 3))
    run = enks(
        jax.random.key(2), EnKF(), ModelError(Linear(A), 0.3), MEASUREMENT, Observations(measured(), EVERY),
        ensemble, scores=(),
    )  # fmt: skip
    mean, variance = exact(np.zeros(3), np.eye(3), 0.3**2)
    filtered, _ = exact(np.zeros(3), np.eye(3), 0.3**2, until=1)
    errors = np.abs(run.smoothed["mean"] - mean) / np.sqrt(variance)
    assert errors.max() < 0.1, errors
    np.testing.assert_allclose(run.smoothed["spread"] ** 2, variance, rtol=0.06)
    assert np.abs(filtered[0] - mean[0]).max() > 0.2  # later measurements matter here


@pytest.mark.slow
def test_lag_zero_is_the_filter_and_analyses_never_depend_on_the_lag(key):
    measurement = Measurement(Identity(), Gaussian(1.0))
    dynamics = Lorenz63(dt=0.01)
    twin = simulate(key, dynamics, measurement, 12, 10, jnp.asarray([1.0, 2.0, 20.0]))
    ensemble = jnp.asarray([[1.0, 2.0, 20.0]]) + jax.random.normal(jax.random.fold_in(key, 1), (10, 3))
    filter = ETKF(Inflation(1.02), rotation=True)
    problem = jax.random.key(5), filter, dynamics, measurement, twin.observations, ensemble
    run = assimilate(*problem, scores=())
    smooth = {lag: enks(*problem, lag=lag, truth=twin.truth, scores=("rmse",)) for lag in (0, 4)}
    for lag in (0, 4):
        np.testing.assert_allclose(smooth[lag].analysis["mean"], run.analysis["mean"], rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(smooth[0].smoothed["mean"], smooth[0].analysis["mean"])
    np.testing.assert_array_equal(smooth[4].smoothed["mean"][-1], smooth[4].analysis["mean"][-1])
    np.testing.assert_allclose(
        smooth[4].smoothed_scores["rmse"],
        np.sqrt(((smooth[4].smoothed["mean"] - twin.truth) ** 2).mean(1)),
        rtol=1e-4,
    )
    # on a chaotic model later measurements help
    before, after = smooth[4].analysis_scores["rmse"], smooth[4].smoothed_scores["rmse"]
    assert after[:8].mean() < 0.8 * before[:8].mean()


def test_what_it_cannot_do_it_says(key):
    problem = Linear(A), MEASUREMENT, Observations(measured(), EVERY), jnp.ones((4, 3))
    with pytest.raises(TypeError, match="EnSRF or LETKF; got ParticleFilter"):
        enks(key, ParticleFilter(), *problem)
    with pytest.raises(ValueError, match="inflation of the forecast"):
        enks(key, ETKF(Inflation(prior=1.1)), *problem)
    with pytest.raises(ValueError, match=r"lag .None: all cycles. must be at least 0"):
        enks(key, ETKF(), *problem, lag=-1)
    with pytest.raises(ValueError, match="ensemble must have shape"):
        enks(key, ETKF(), *problem[:3], jnp.ones((4, 2)))
