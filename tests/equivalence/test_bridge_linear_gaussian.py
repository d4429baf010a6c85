"""The bridge with a Gaussian denoiser against the textbook posterior: any H, full R, any number of steps."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from suite.posteriors import SIZES, bridge_draws, distance, gaussian_in, process_of, random_problem

from masf_jax.denoisers import GaussianDenoiser, ensemble_gaussian
from masf_jax.diffusion import bridge, measurement_aware, time_grid, vp_bridge
from masf_jax.filters import EnKF
from masf_jax.measurements import CorrelatedGaussian, Linear, Measurement

N_DRAWS = 50_000


@pytest.mark.quick_cases("tall-3", "wide-3")
@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("name", SIZES)
def test_corrected_steps_draw_from_the_posterior(name, n_steps, textbook, key):
    h, r, mean, p, z, centre, scale = random_problem(*SIZES[name])
    process = process_of(h, r, z, centre, scale)
    sample = bridge_draws(key, process, gaussian_in(process, mean, p), n_steps, N_DRAWS)
    exact = textbook(mean, p, h, r, z, np.ones(len(z), bool))
    squared, error, noise = distance(sample, *exact)
    assert squared < 26  # the 99.99% quantile of χ² with 5 degrees of freedom
    assert error < min(0.02, 2.5 * noise)


@pytest.mark.slow
def test_double_precision_too(x64, textbook, key):
    h, r, mean, p, z, centre, scale = random_problem(*SIZES["rank-deficient"])
    process = process_of(h, r, z, centre, scale)
    assert process.theta.dtype == jnp.float64
    sample = bridge_draws(key, process, gaussian_in(process, mean, p), 2, N_DRAWS)
    squared, error, noise = distance(sample, *textbook(mean, p, h, r, z, np.ones(4, bool)))
    assert squared < 26
    assert error < min(0.02, 2.5 * noise)


@pytest.mark.slow
def test_plain_steps_lose_spread_in_first_order(textbook, key):
    """Without the correction the covariance is too small, by an amount that halves with the step."""
    h, r, mean, p, z, centre, scale = random_problem(*SIZES["wide"])
    process = process_of(h, r, z, centre, scale)
    denoiser = gaussian_in(process, mean, p)
    exact = textbook(mean, p, h, r, z, np.ones(3, bool))
    errors = []
    for n_steps in (1, 10, 40):
        sample = bridge_draws(key, process, denoiser, n_steps, 20_000, corrected=False)
        assert np.trace(np.cov(sample.T)) < np.trace(exact[1])
        errors.append(distance(sample, *exact)[1])
    assert errors[0] == pytest.approx(1, abs=1e-3)  # one step gives the mean: no spread at all
    assert 0.2 < errors[1] < 0.5
    assert errors[2] == pytest.approx(errors[1] / 4, rel=0.4)


def test_measurement_aware_process_has_the_same_posterior(textbook, key):
    """H with eigenvalues in [0, 1], symmetric in the metric of R: both processes draw alike."""
    n = 4
    _, r, mean, p, _, centre, scale = random_problem(n, n, n, seed=3)
    rng = np.random.default_rng(1)
    root = np.linalg.cholesky(r)
    vectors = np.linalg.qr(rng.normal(size=(n, n)))[0]
    h = root @ vectors @ np.diag([0.0, 0.3, 0.8, 1.0]) @ vectors.T @ np.linalg.inv(root)
    z = h @ mean + rng.normal(size=n)
    exact = textbook(mean, p, h, r, z, np.ones(n, bool))
    for build in (measurement_aware, vp_bridge):
        process = process_of(h, r, z, centre, scale, build)
        sample = bridge_draws(key, process, gaussian_in(process, mean, p), 3, 50_000)
        squared, error, noise = distance(sample, *exact)
        assert squared < 24  # 99.99% for 4 degrees of freedom
        assert error < 2.5 * noise


@pytest.mark.slow
def test_one_step_from_members_is_the_enkf_with_perturbed_measurements(key):
    """Given the ensemble, both updates of a member are Gaussian with the same mean and covariance.

    The filter centres its perturbations, which takes 1/N off their variance: N is large, and that is added.
    """
    n_values, n, n_members = 3, 5, 40
    h, r, mean, p, z, centre, scale = random_problem(n_values, n, n_values, seed=5)
    rng = np.random.default_rng(2)
    ensemble = jnp.asarray(rng.multivariate_normal(mean, p, n_members), dtype=float)
    process = process_of(h, r, z, centre, scale)
    encoded = jax.vmap(process.frame.encode)(ensemble)
    denoiser = ensemble_gaussian(encoded)
    times = time_grid(1)
    measurement = Measurement(Linear(h), CorrelatedGaussian(r))
    target = jnp.asarray(z, dtype=float)
    mask = jnp.ones(n_values, bool)
    innovations = jax.vmap(lambda x: measurement.whitened_innovation(target, x))(ensemble)

    @jax.jit
    def moved(key):
        def one(key, member):
            own = GaussianDenoiser(denoiser.mean, denoiser.covariance, member=member)
            return process.frame.decode(bridge(key, process, own, times))

        return jax.vmap(one)(jax.random.split(key, n_members), encoded)

    @jax.jit
    def filtered(key):
        return EnKF().transform(key, ensemble, innovations, mask)[0]

    repeats = 5000
    keys = jax.random.split(key, repeats)
    ours = np.asarray(jax.jit(jax.vmap(moved))(keys), np.float64)
    theirs = np.asarray(jax.jit(jax.vmap(filtered))(keys), np.float64)
    gain_spread = np.stack([np.cov(theirs[:, i].T) for i in range(n_members)]).mean(0)
    gain_spread *= n_members / (n_members - 1)
    for i in range(0, n_members, 8):
        standard_error = np.sqrt(2 * np.diag(gain_spread) / repeats)
        assert np.all(np.abs(ours[:, i].mean(0) - theirs[:, i].mean(0)) < 4.5 * standard_error)
        error = np.linalg.norm(np.cov(ours[:, i].T) - gain_spread) / np.linalg.norm(gain_spread)
        assert error < 3 * math.sqrt(1 + 3) / math.sqrt(repeats)  # rank 3: (tr C)² ≤ 3 |C|²
