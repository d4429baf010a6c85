"""The iterative ensemble smoother: exact where the model is linear, 4D-Var's minimum where it is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import conditioned, trajectory_prior

from masf_jax import assimilate, simulate
from masf_jax.dynamics import Linear, Lorenz63, ModelError
from masf_jax.ensemble import Inflation
from masf_jax.filters import ETKF, IEnKF
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations, Subset, arctan
from masf_jax.smoothers import FourDVar, enks, ienks

A = 0.95 * np.array([[0.9, 0.3, 0.0], [-0.3, 0.9, 0.1], [0.0, -0.1, 1.0]])
CYCLES, STD = 6, 0.5
MEASUREMENT = Measurement(Subset([0, 2]), Gaussian(STD))


def measured():
    z = np.random.default_rng(3).normal(size=(CYCLES, 2))
    z[2], z[4, 0] = np.nan, np.nan
    return z


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("lag", [1, 3])
def test_of_a_linear_model_it_is_the_exact_smoother(lag):
    """The ensemble is its own Gaussian: smoothed mean and spread to round-off, over a gap too."""
    ensemble = jnp.asarray(np.random.default_rng(1).normal(size=(8, 3)))
    observations = Observations(measured(), 2)
    run = ienks(
        jax.random.key(0), IEnKF(rotation=True), Linear(A), MEASUREMENT, observations, ensemble, lag=lag,
        scores=(),
    )  # fmt: skip
    prior = np.asarray(ensemble.mean(0)), np.cov(np.asarray(ensemble).T)
    means, covariance = trajectory_prior(*prior, A, 0.0, CYCLES + 1, 2)
    pick = np.kron(np.eye(CYCLES + 1)[1:], np.eye(3)[[0, 2]])
    for k in range(CYCLES):
        z = measured()
        z[k + 1 + lag :] = np.nan
        mean, smoothed = conditioned(means, covariance, pick, STD**2 * np.eye(len(pick)), z)
        spread = np.sqrt(np.diag(smoothed)).reshape(-1, 3)[k + 1]
        np.testing.assert_allclose(run.smoothed["mean"][k], mean[k + 1], atol=1e-10)
        np.testing.assert_allclose(run.smoothed["spread"][k], spread, atol=1e-10)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_irregular_steps_and_the_smoother_by_transforms():
    """Of a linear model both ensemble smoothers are the same, at any steps."""
    ensemble = jnp.asarray(np.random.default_rng(1).normal(size=(8, 3)))
    problem = Linear(A), MEASUREMENT, Observations(measured(), [1, 2, 5, 6, 9, 10]), ensemble
    runs = [
        smoother(jax.random.key(0), filter, *problem, lag=3, scores=())
        for smoother, filter in ((ienks, IEnKF()), (enks, ETKF()))
    ]
    for stage in ("smoothed", "analysis"):
        for kind in ("mean", "spread"):
            first, second = (getattr(run, stage)[kind] for run in runs)
            np.testing.assert_allclose(first, second, atol=1e-10)


def lorenz63(key, cycles, every=10):
    dynamics, measurement = Lorenz63(dt=0.01), Measurement(Identity(), Gaussian(1.0))
    start = jnp.asarray([1.0, 2.0, 20.0])
    twin = simulate(key, dynamics, measurement, cycles, every, start)
    ensemble = start[None] + jax.random.normal(jax.random.fold_in(key, 1), (10, 3))
    return twin, dynamics, measurement, twin.observations, ensemble


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_lag_one_is_the_filter(key):
    """With rotation, inflation and relaxation."""
    twin, *problem = lorenz63(key, 12)
    filter = IEnKF(Inflation(1.02, rtps=0.2), rotation=True)
    run = assimilate(jax.random.key(5), filter, *problem, truth=twin.truth)
    smooth = ienks(jax.random.key(5), filter, *problem, lag=1, truth=twin.truth)
    for kind in ("mean", "spread"):
        np.testing.assert_allclose(smooth.analysis[kind], run.analysis[kind], rtol=1e-8)
    np.testing.assert_allclose(smooth.info["iterations"], run.info["iterations"])
    np.testing.assert_allclose(smooth.analysis_scores["rmse"], run.analysis_scores["rmse"], rtol=1e-8)
    error = smooth.smoothed["mean"] - twin.truth
    np.testing.assert_allclose(smooth.smoothed_scores["rmse"], np.sqrt((error**2).mean(1)), rtol=1e-8)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_first_state_is_that_of_four_d_var(key):
    """One measurement at the end of a window of Lorenz-63, members so close that differences are tangents."""
    dynamics, measurement = Lorenz63(dt=0.01), Measurement(arctan() @ Subset([0, 1]), Gaussian(1e-4))
    centre = jnp.asarray([1.0, 2.0, 20.0])
    ensemble = centre[None] + 1e-3 * jax.random.normal(key, (6, 3), jnp.float64)
    mean = ensemble.mean(0)
    truth = mean + 1e-3 * jnp.asarray([1.0, -0.5, 0.8])
    twin = simulate(jax.random.fold_in(key, 1), dynamics, measurement, 3, 10, truth)
    z = twin.observations.values.at[:2].set(jnp.nan)
    observations = Observations(z, 10)
    run = ienks(
        key, IEnKF(tolerance=1e-16, iterations=20), dynamics, measurement, observations, ensemble, lag=2,
        scores=(),
    )  # fmt: skip
    columns = (ensemble - mean[None]) / jnp.sqrt(5.0)
    found = FourDVar(columns=columns, tolerance=1e-8)(mean, dynamics, measurement, observations)
    moved = np.abs(found.trajectory - simulate(key, dynamics, measurement, 3, 10, mean).truth).max(1)
    difference = np.abs(run.smoothed["mean"] - found.trajectory).max(1)
    assert (moved > 1e-4).all(), moved
    assert (difference < 2e-3 * moved).all(), (moved, difference)


@pytest.mark.slow
def test_a_longer_window_helps_on_a_chaotic_model(key):
    """Analyses too, which is what a smoother by transforms cannot do; over several truths, as one is luck."""
    inflation, cycles = Inflation(1.02), slice(50, 990)
    methods = {
        "enks": (enks, ETKF(inflation, rotation=True)),
        "ienks": (ienks, IEnKF(inflation, rotation=True)),
    }
    rmse = {name: [] for name in methods}
    for seed in jax.random.split(key, 8):
        twin, *problem = lorenz63(seed, 1000)
        for name, (smooth, filter) in methods.items():
            run = smooth(seed, filter, *problem, lag=8, truth=twin.truth, scores=("rmse",))
            scores = run.analysis_scores, run.smoothed_scores
            rmse[name].append([float(x["rmse"][cycles].mean()) for x in scores])
    mean = {name: np.mean(values, axis=0) for name, values in rmse.items()}
    assert (mean["ienks"] < 0.85 * mean["enks"]).all(), rmse


@pytest.mark.slow
def test_model_noise_is_drawn_once(key):
    """A second pass over the same steps is the same forecast, so that J has a minimum to find."""
    _, dynamics, *problem = lorenz63(key, 6)
    run = ienks(key, IEnKF(tolerance=1e-6, iterations=20), ModelError(dynamics, 0.1), *problem, lag=3)
    assert float(run.info["iterations"].max()) < 20
    assert np.isfinite(run.smoothed["mean"]).all()


def test_what_it_cannot_do_it_says(key):
    problem = Linear(A), MEASUREMENT, Observations(measured(), 2), jnp.ones((4, 3))
    with pytest.raises(TypeError, match="got ETKF"):
        ienks(key, ETKF(), *problem, lag=2)
    with pytest.raises(ValueError, match=r"lag .None: all cycles. must be at least 1; got 0"):
        ienks(key, IEnKF(), *problem, lag=0)
    with pytest.raises(ValueError, match="ensemble must have shape"):
        ienks(key, IEnKF(), *problem[:3], jnp.ones((4, 2)), lag=2)
