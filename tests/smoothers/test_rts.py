"""The Rauch-Tung-Striebel smoother against the dense conditional of the stacked trajectory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import conditioned, trajectory_prior

from masf_jax import assimilate, simulate
from masf_jax.dynamics import Linear, Lorenz63, ModelError
from masf_jax.filters import ETKF, KalmanFilter
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations, Subset
from masf_jax.smoothers import rts

A = 0.95 * np.array([[0.9, 0.3, 0.0], [-0.3, 0.9, 0.1], [0.0, -0.1, 1.0]])
B = np.array([[1.0, 0.5, 0.0], [0.5, 2.0, 0.3], [0.0, 0.3, 0.5]])
MEAN = np.array([0.5, -1.0, 0.2])
STEPS = np.array([0, 3, 4, 9, 11])
STD = 0.5
MEASUREMENT = Measurement(Subset([0, 2]), Gaussian(STD))


def measured():
    z = np.random.default_rng(3).normal(size=(len(STEPS), 2))
    z[2], z[3, 1] = np.nan, np.nan
    return z


def exact(covariance, noise_std):
    """Means (K, 3), and the covariances (K, 3, 3) at STEPS."""
    length = STEPS[-1] + 1
    prior, joint = trajectory_prior(MEAN, covariance, A, noise_std**2, length)
    pick = np.kron(np.eye(length)[STEPS], np.eye(3)[[0, 2]])
    mean, smoothed = conditioned(prior, joint, pick, STD**2 * np.eye(len(pick)), measured())
    blocks = smoothed.reshape(length, 3, length, 3)
    return mean[STEPS], np.stack([blocks[k, :, k] for k in STEPS])


@pytest.mark.quick_cases("float64-some")
@pytest.mark.parametrize("noise_std", [0.3, np.array([0.3, 0.0, 0.1]), 0.0], ids=["error", "some", "none"])
def test_it_is_the_exact_smoother(dtype, noise_std):
    """Irregular steps (one at 0), gaps, components without error, a singular first covariance."""
    covariance = np.outer([1.0, 2.0, 0.5], [1.0, 2.0, 0.5]) if np.ndim(noise_std) else B
    model = ModelError(Linear(A), noise_std) if np.any(noise_std) else Linear(A)
    values = jnp.asarray(measured(), dtype)
    filter = KalmanFilter(jnp.asarray(MEAN, dtype), covariance)
    run = rts(
        filter,
        model,
        MEASUREMENT,
        Observations(values, STEPS),
        save=("mean", "spread", "covariance"),
        scores=(),
    )
    mean, smoothed = exact(covariance, noise_std if np.ndim(noise_std) == 0 else np.diag(noise_std))
    tolerance = 1e-10 if dtype == "float64" else 2e-5
    np.testing.assert_allclose(run.smoothed["mean"], mean, rtol=0, atol=tolerance)
    np.testing.assert_allclose(run.smoothed["covariance"], smoothed, rtol=0, atol=tolerance)
    spread = np.sqrt(np.maximum(np.diagonal(smoothed, axis1=1, axis2=2), 0.0))
    np.testing.assert_allclose(run.smoothed["spread"] ** 2, spread**2, rtol=0, atol=tolerance)
    assert run.smoothed["mean"].dtype == dtype
    assert not run.faults.any()


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_analyses_are_the_filter_s_and_an_ensemble_may_begin():
    """Fewer members than components; inflation is model error."""
    ensemble = np.random.default_rng(1).normal(size=(3, 3))
    observations = Observations(measured(), 2)
    filter = KalmanFilter(inflation=1.2)
    run = rts(filter, Linear(A), MEASUREMENT, observations, ensemble, scores=())
    wanted = assimilate(jax.random.key(0), filter, Linear(A), MEASUREMENT, observations, ensemble, scores=())
    np.testing.assert_allclose(run.analysis["mean"], wanted.analysis["mean"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(run.smoothed["mean"][-1], run.analysis["mean"][-1], rtol=0, atol=1e-12)
    # the recursion as published, whose gain is P_a Jᵀ P_f⁻¹
    step = A @ A
    mean, p = ensemble.mean(0), np.cov(ensemble.T)
    h, r = np.eye(3)[[0, 2]], STD**2 * np.eye(2)
    forecasts, analyses = [], []
    for z in measured():
        mean, p = step @ mean, 1.2 * step @ p @ step.T
        forecasts.append((mean, p))
        valid = np.isfinite(z)
        if valid.any():
            g, own = h[valid], r[np.ix_(valid, valid)]
            gain = p @ g.T @ np.linalg.inv(g @ p @ g.T + own)
            mean, p = mean + gain @ (z[valid] - g @ mean), p - gain @ g @ p
        analyses.append((mean, p))
    for k in reversed(range(len(STEPS))):
        if k < len(STEPS) - 1:
            gain = analyses[k][1] @ step.T @ np.linalg.pinv(forecasts[k + 1][1], rcond=1e-10)
            mean, p = (
                analyses[k][0] + gain @ (mean - forecasts[k + 1][0]),
                analyses[k][1] + gain @ (p - forecasts[k + 1][1]) @ gain.T,
            )
        np.testing.assert_allclose(run.smoothed["mean"][k], mean, rtol=0, atol=1e-10)
        np.testing.assert_allclose(run.smoothed["spread"][k] ** 2, np.diag(p), rtol=0, atol=1e-10)


@pytest.mark.slow
def test_on_lorenz63_later_values_help(key):
    """The extended smoother."""
    measurement, dynamics = Measurement(Identity(), Gaussian(1.0)), ModelError(Lorenz63(dt=0.01), 0.3)
    twin = simulate(key, dynamics, measurement, 30, 5, jnp.asarray([1.0, 2.0, 20.0]))
    filter = KalmanFilter(jnp.asarray([1.0, 2.0, 20.0]), np.eye(3))
    run = jax.jit(lambda z: rts(filter, dynamics, measurement, Observations(z, 5), truth=twin.truth))(
        twin.observations.values
    )
    before, after = run.analysis_scores["rmse"].mean(), run.smoothed_scores["rmse"].mean()
    assert after < 0.8 * before < 0.5


def test_what_it_cannot_do_it_says():
    problem = Linear(A), MEASUREMENT, Observations(measured(), STEPS)
    first = KalmanFilter(MEAN, B)
    with pytest.raises(TypeError, match="goes back over a KalmanFilter; got ETKF"):
        rts(ETKF(), *problem)
    with pytest.raises(ValueError, match="needs the Gaussian at step 0"):
        rts(KalmanFilter(), *problem)
    with pytest.raises(ValueError, match="must be 3 × 3"):
        rts(KalmanFilter(MEAN, np.eye(2)), *problem)
    with pytest.raises(ValueError, match="has no ensemble"):
        rts(first, *problem, save=("ensemble",))
    with pytest.raises(ValueError, match="must be at least 1"):
        rts(KalmanFilter(MEAN, B, inflation=0.9), *problem)
