"""Every filter on a linear-Gaussian problem, where the answer is known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import assimilate
from masf_jax.dynamics import Linear, ModelError
from masf_jax.filters import ETKF, EnKF, EnSRF, KalmanFilter, OptimalInterpolation, ParticleFilter, ThreeDVar
from masf_jax.measurements import CorrelatedGaussian, Linear as LinearOperator, Measurement, Observations

pytestmark = pytest.mark.usefixtures("x64")


@eqx.filter_jit
def analyse(filter, key, ensemble, z, measurement, mask=None):
    state, info = filter.analysis(key, filter.init(key, ensemble), z, measurement, mask)
    return state, info


def parts(problem):
    dynamics = ModelError(Linear(problem.model, dt=problem.dt), problem.model_std)
    return dynamics, Measurement(LinearOperator(problem.h), CorrelatedGaussian(problem.r))


def sample(problem, n, seed=7):
    rng = np.random.default_rng(seed)
    factor = np.linalg.cholesky(problem.covariance)
    return problem.mean + rng.normal(size=(n, problem.mean.size)) @ factor.T


def test_kalman_filter_is_exact_over_cycles_with_gaps(problem, textbook, key):
    """Against NumPy: model error, several steps a cycle, missing values, a cycle without any."""
    dynamics, measurement = parts(problem)
    mask = np.asarray(
        [[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 0, 1], [1, 1, 1, 1]], bool
    )
    z = np.where(mask, problem.z, np.nan)
    filter = KalmanFilter(problem.mean, problem.covariance, inflation=1.05)
    out = assimilate(
        key, filter, dynamics, measurement, Observations(z, 3), jnp.asarray(sample(problem, 5)), scores=()
    )
    mean, covariance = problem.mean, problem.covariance
    q = problem.model_std**2 * problem.dt * np.eye(mean.size)
    for k in range(6):
        for _ in range(3):
            mean, covariance = problem.model @ mean, problem.model @ covariance @ problem.model.T + q
        covariance = 1.05 * covariance
        np.testing.assert_allclose(out.forecast["mean"][k], mean, atol=1e-10)
        np.testing.assert_allclose(out.forecast["spread"][k], np.sqrt(np.diag(covariance)), atol=1e-10)
        mean, covariance = textbook(mean, covariance, problem.h, problem.r, problem.z[k], mask[k])
        np.testing.assert_allclose(out.analysis["mean"][k], mean, atol=1e-10)
        np.testing.assert_allclose(out.analysis["spread"][k], np.sqrt(np.diag(covariance)), atol=1e-10)
    np.testing.assert_allclose(out.final.covariance, covariance, atol=1e-10)
    assert out.final.mean.dtype == jnp.float64
    alone = assimilate(key, filter, dynamics, measurement, Observations(z, 3), scores=())  # it has a start
    np.testing.assert_array_equal(alone.analysis["mean"], out.analysis["mean"])
    np.testing.assert_array_equal(alone.final.covariance, out.final.covariance)
    with pytest.raises(ValueError, match="the first covariance must be"):
        assimilate(key, KalmanFilter(problem.mean, np.eye(2)), dynamics, measurement, Observations(z, 3))
    with pytest.raises(ValueError, match="give KalmanFilter"):
        assimilate(key, KalmanFilter(), dynamics, measurement, Observations(z, 3))


def test_kalman_filter_starts_from_the_ensemble_by_default(problem, key):
    x = sample(problem, 7)
    state = KalmanFilter().init(key, jnp.asarray(x))
    np.testing.assert_allclose(state.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(state.covariance, np.cov(x.T), rtol=1e-12)


@pytest.mark.quick_cases("ensrf")
@pytest.mark.parametrize("filter", [EnKF(), ETKF(), EnSRF()], ids=["enkf", "etkf", "ensrf"])
def test_ensemble_filters_agree_within_monte_carlo_error(filter, problem, textbook, key):
    """One analysis of N = 5000 draws of the prior, against the oracle with the true prior.

    The analysed mean is a regression of x on z estimated from N draws: its variance is at most
    P_ii (1 + dᵀD⁻¹d)/N, D the innovation covariance. Entries of a sample covariance have standard
    errors √((C_ii C_jj + C_ij²)/N) ≤ √(2 C_ii C_jj / N); twice that allows for the noise of the
    gain and of the EnKF's perturbations. Bounds are 4 standard errors.
    """
    _, measurement = parts(problem)
    z, p, h = problem.z[0], problem.covariance, problem.h
    mean, covariance = textbook(problem.mean, p, h, problem.r, z, np.ones(4, bool))
    d = z - h @ problem.mean
    surprise = 1 + d @ np.linalg.solve(h @ p @ h.T + problem.r, d)
    n_members = 5000
    state, _ = analyse(filter, key, jnp.asarray(sample(problem, n_members)), jnp.asarray(z), measurement)
    x = np.asarray(state.ensemble)
    assert np.all(np.abs(x.mean(0) - mean) < 4 * np.sqrt(np.diag(p) * surprise / n_members))
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert np.all(np.abs(np.cov(x.T) - covariance) < 4 * 2 * scale * np.sqrt(2 / n_members))
    assert np.abs(mean - problem.mean).max() > 10 * np.abs(x.mean(0) - mean).max()  # it did something


@pytest.mark.quick_cases("40-etkf", "40-ensrf", "8-ensrf")
@pytest.mark.parametrize("filter", [ETKF(), ETKF(rotation=True), EnSRF()], ids=["etkf", "etkf-rot", "ensrf"])
@pytest.mark.parametrize("n_members", [3, 8, 40])
def test_square_root_filters_are_exact_in_their_sample_moments(filter, n_members, problem, textbook, key):
    """Whatever N: mean and covariance are those of a Kalman update of the sample moments."""
    _, measurement = parts(problem)
    x = sample(problem, n_members)
    mask = np.asarray([True, True, False, True])
    mean, covariance = textbook(x.mean(0), np.cov(x.T), problem.h, problem.r, problem.z[1], mask)
    state, _ = analyse(filter, key, jnp.asarray(x), jnp.asarray(problem.z[1]), measurement, jnp.asarray(mask))
    np.testing.assert_allclose(state.mean, mean, atol=1e-10)
    np.testing.assert_allclose(np.cov(np.asarray(state.ensemble).T), covariance, atol=1e-10)


@pytest.mark.quick_cases("12")
@pytest.mark.parametrize("n_members", [3, 4, 12])
def test_enkf_is_the_textbook_formula_in_both_branches(n_members, problem, key):
    """N ≤ m solves in ensemble space, N > m in measurement space; noise drawn as documented."""
    _, measurement = parts(problem)
    x, z = sample(problem, n_members), problem.z[2]
    state, _ = analyse(EnKF(), key, jnp.asarray(x), jnp.asarray(z), measurement)
    noise = np.asarray(jax.random.normal(jax.random.split(key)[0], (n_members, 4)))
    noise = (noise - noise.mean(0)) @ np.linalg.cholesky(problem.r).T
    p = np.cov(x.T)
    gain = p @ problem.h.T @ np.linalg.inv(problem.h @ p @ problem.h.T + problem.r)
    expected = x + (z + noise - x @ problem.h.T) @ gain.T
    np.testing.assert_allclose(state.ensemble, expected, atol=1e-10)


def test_particle_filter_agrees_with_the_oracle(problem, textbook, key):
    """10⁵ particles, one analysis with weights kept; standard error √(P_ii/ESS) of the mean."""
    _, measurement = parts(problem)
    n = 100_000
    filter = ParticleFilter(threshold=1e-9, regularization=0.0)
    state, info = analyse(
        filter, key, jnp.asarray(sample(problem, n)), jnp.asarray(problem.z[3]), measurement
    )
    mean, covariance = textbook(
        problem.mean, problem.covariance, problem.h, problem.r, problem.z[3], np.ones(4, bool)
    )
    size = float(info["effective_sample_size"])
    assert 100 < size < n
    variance = np.diag(covariance)
    assert np.all(np.abs(np.asarray(state.mean) - mean) < 5 * np.sqrt(variance / size))
    assert np.all(np.abs(np.asarray(state.variance) - variance) < 5 * variance * np.sqrt(2 / size))
    np.testing.assert_allclose(jnp.exp(state.log_weights).sum(), 1.0, rtol=1e-10)


@pytest.mark.slow
def test_particle_filter_over_cycles_with_resampling(problem, textbook, key):
    """Three cycles with model error, resampled: twice the standard error, accumulated."""
    dynamics, measurement = parts(problem)
    n = 20_000
    filter = ParticleFilter(threshold=1.0, regularization=0.0)
    observations = Observations(0.3 * problem.z[:3], 2)
    out = assimilate(
        key, filter, dynamics, measurement, observations, jnp.asarray(sample(problem, n)), scores=()
    )
    exact = assimilate(
        key,
        KalmanFilter(problem.mean, problem.covariance),
        dynamics,
        measurement,
        observations,
        jnp.asarray(sample(problem, 5)),
        scores=(),
    )
    size = float(np.min(out.info["effective_sample_size"]))
    assert 1000 < size < n
    tolerance = 5 * 2 * np.asarray(exact.analysis["spread"]) / np.sqrt(size)
    assert np.all(np.abs(out.analysis["mean"] - exact.analysis["mean"]) < tolerance)
    assert np.all(np.abs(out.analysis["spread"] - exact.analysis["spread"]) < tolerance)
    np.testing.assert_array_equal(out.final.log_weights, np.full(n, -np.log(n)))


@pytest.mark.slow
def test_particle_regularisation_adds_the_bandwidth_covariance(problem, key):
    """Equal likelihoods, forced resampling: variance grows by h², h = c N^{-1/(n+4)}; both branches."""
    x = sample(problem, 4000)
    filter = ParticleFilter(regularization=1.5)
    weights = np.full(4000, 1 / 4000)
    jitter = np.asarray(filter._resample(key, jnp.asarray(x), jnp.asarray(weights))[0]) - x
    h2 = (1.5 * 4000 ** (-1 / 14)) ** 2
    ratio = np.linalg.solve(np.cov(x.T), jitter.T @ jitter / 4000)  # h² times the identity
    assert abs(np.trace(ratio) / 10 / h2 - 1) < 4 * np.sqrt(2 / 40_000)
    np.testing.assert_allclose(ratio, h2 * np.eye(10), atol=0.15)
    few = sample(problem, 6)  # N < n: random combinations of anomalies
    copies = jax.vmap(lambda k: filter._resample(k, jnp.asarray(few), jnp.full((6,), 1 / 6))[0])
    spread = np.asarray(copies(jax.random.split(key, 2000))) - few[None]  # equal weights: everyone kept
    h2 = (1.5 * 6 ** (-1 / 14)) ** 2
    covariance = np.cov(few.T, bias=True)
    found = np.einsum("kni,knj->ij", spread, spread) / (2000 * 6)
    np.testing.assert_allclose(
        found, h2 * covariance, atol=5 * h2 * np.diag(covariance).max() * np.sqrt(2 / 12_000)
    )


def test_variational_baselines_are_the_textbook_update(problem, textbook, key):
    """3D-Var = a Kalman update with B = scale · C from the forecast; OI = the same from the climatology."""
    from masf_jax.dynamics import Climatology as Moments

    _, measurement = parts(problem)
    moments = Moments(jnp.asarray(problem.mean), jnp.asarray(problem.covariance))
    x, z, mask = sample(problem, 6), problem.z[0], np.asarray([True, False, True, True])
    arguments = (key, jnp.asarray(x), jnp.asarray(z), measurement, jnp.asarray(mask))
    for iterations in (1, 3):
        state, _ = analyse(ThreeDVar(0.3, iterations, moments=moments), *arguments)
        mean, covariance = textbook(x.mean(0), 0.3 * problem.covariance, problem.h, problem.r, z, mask)
        np.testing.assert_allclose(state.mean, mean, atol=1e-10)
        np.testing.assert_allclose(state.covariance, covariance, atol=1e-10)
    state, _ = analyse(OptimalInterpolation(moments=moments), *arguments)
    mean, covariance = textbook(problem.mean, problem.covariance, problem.h, problem.r, z, mask)
    np.testing.assert_allclose(state.mean, mean, atol=1e-10)
    np.testing.assert_allclose(state.covariance, covariance, atol=1e-10)
