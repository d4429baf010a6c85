"""The Gaussian denoiser: its mean, its draws, and how an ensemble gives one."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import Coordinates
from masf_jax.bases import FourierBasis, IdentityBasis
from masf_jax.denoisers import (
    DenseCovariance,
    GaussianDenoiser,
    LowRankCovariance,
    TaperedCovariance,
    ensemble_gaussian,
)
from masf_jax.ensemble.localization import taper_matrix
from masf_jax.ensemble.taper import taper

N = 6
RNG = np.random.default_rng(12)
ROOT = RNG.normal(size=(N, N)) / 2
P = ROOT @ ROOT.T + 0.1 * np.eye(N)
MEAN = RNG.normal(size=N)
ANGLE = RNG.uniform(0.1, 1.5, N)
X = RNG.normal(size=N)


def conditional(mean, p, x, angle):
    """Mean and covariance of x0 | x by dense conditioning of x = C x0 + S η."""
    c, s = np.diag(np.cos(angle)), np.diag(np.sin(angle))
    gain = p @ c @ np.linalg.inv(c @ p @ c + s @ s)
    return mean + gain @ (x - c @ mean), p - gain @ c @ p


mean_of = eqx.filter_jit(lambda denoiser, x, angle: denoiser(x, angle))
fitted = eqx.filter_jit(ensemble_gaussian)


def as_float(*values):
    return tuple(jnp.asarray(value, dtype=float) for value in values)


def test_mean_and_draws_by_dense_conditioning(dtype, key):
    mean, p, x, angle = as_float(MEAN, P, X, ANGLE)
    denoiser = GaussianDenoiser(mean, DenseCovariance(p))
    expected, covariance = conditional(MEAN, P, X, ANGLE)
    np.testing.assert_allclose(mean_of(denoiser, x, angle), expected, rtol=1e-4, atol=1e-5)
    count = 40_000
    draws = jax.jit(jax.vmap(lambda k: denoiser.sample(k, x, angle)))(jax.random.split(key, count))
    draws = np.asarray(draws, np.float64)
    away = draws.mean(0) - expected
    assert count * away @ np.linalg.solve(covariance, away) < 28  # 99.99% of χ² with 6 degrees of freedom
    norm = np.linalg.norm(covariance)
    noise = np.sqrt((np.trace(covariance) ** 2 + norm**2) / count)
    assert np.linalg.norm(np.cov(draws.T) - covariance) < 2.5 * noise


def test_ends_of_the_noise_levels():
    """Nothing seen: the mean of the forecast, and its draws; nearly everything seen: x itself."""
    mean, p, x = as_float(MEAN, P, X)
    denoiser = GaussianDenoiser(mean, DenseCovariance(p))
    for level, expected, tolerance in ((np.pi / 2, mean, 1e-5), (1e-3, x, 1e-2)):
        (angle,) = as_float(np.full(N, level))
        np.testing.assert_allclose(mean_of(denoiser, x, angle), expected, atol=tolerance)


def test_a_member_stands_in_for_the_prior_draw(key):
    """Seen almost exactly in its own noise-free place, a member stays; unseen, it is returned as it is."""
    mean, p, member = as_float(MEAN, P, X)
    denoiser = GaussianDenoiser(mean, DenseCovariance(p), member=member)
    unseen = eqx.filter_jit(denoiser.sample)(key, *as_float(np.zeros(N), np.full(N, np.pi / 2)))
    np.testing.assert_allclose(unseen, member, atol=1e-5)


def test_fields_keep_their_shape():
    mean, x, angle = as_float(MEAN, X, ANGLE)
    field = as_float(*(value.reshape(2, 3) for value in (MEAN, X, ANGLE)))
    flat = GaussianDenoiser(mean, DenseCovariance(jnp.asarray(P, dtype=float)))
    denoiser = GaussianDenoiser(field[0], flat.covariance)
    found = np.asarray(mean_of(denoiser, *field[1:]))
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found.ravel(), mean_of(flat, x, angle), rtol=1e-6)


@pytest.mark.parametrize("n_members", [4, 20])
def test_ensemble_gaussian_has_the_sample_moments(n_members, dtype, key):
    """Few members: low rank; more members than components: dense; the same conditioning."""
    ensemble = np.random.default_rng(1).normal(size=(n_members, N)) @ ROOT + MEAN[None]
    denoiser = fitted(jnp.asarray(ensemble, dtype=float))
    kind = LowRankCovariance
    assert isinstance(denoiser.covariance, kind)
    x, angle = as_float(X, ANGLE)
    expected, _ = conditional(ensemble.mean(0), np.cov(ensemble.T), X, ANGLE)
    np.testing.assert_allclose(mean_of(denoiser, x, angle), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("points", [12, 600])
def test_a_tapered_ensemble_is_the_schur_product(points, x64):
    """Dense below 513 components, conjugate gradients beyond; the taper holds for the state, in any basis."""
    grid = Coordinates.grid((points,), (float(points),))
    ensemble = np.random.default_rng(2).normal(size=(5, points))
    basis = FourierBasis(1)
    encode = jax.jit(jax.vmap(basis.to))
    denoiser = fitted(encode(jnp.asarray(ensemble)), taper(grid, (points,), 3.0), basis)
    kind = LowRankCovariance if points <= 512 else TaperedCovariance
    assert isinstance(denoiser.covariance, kind)
    p = np.cov(ensemble.T) * taper_matrix(grid, grid, 3.0)
    turn = np.asarray(encode(jnp.asarray(np.eye(points))))  # symmetric
    rng = np.random.default_rng(3)
    x, angle = rng.normal(size=points), rng.uniform(0.3, 1.5, points)
    expected, _ = conditional(turn @ ensemble.mean(0), turn @ p @ turn, x, angle)
    got = eqx.filter_jit(denoiser)(jnp.asarray(x), jnp.asarray(angle))
    np.testing.assert_allclose(got, expected, atol=1e-6 if points <= 512 else 2e-3)


@pytest.mark.quick_cases("3.0")
@pytest.mark.parametrize("radius", [None, 3.0])
def test_fourier_coordinates_in_one_program(radius, x64):
    """More members than components, or a taper: an FFT whose result LAPACK takes by columns."""
    ensemble, basis = jnp.asarray(np.random.default_rng(2).normal(size=(20, 12))), FourierBasis(1)
    local = None if radius is None else taper(Coordinates.grid((12,), (12.0,)), (12,), radius)

    def estimate(ensemble):
        denoiser = ensemble_gaussian(jax.vmap(basis.to)(ensemble), local, basis)
        return denoiser(jnp.ones(12), jnp.linspace(0.3, 1.5, 12))

    np.testing.assert_allclose(jax.jit(estimate)(ensemble), estimate(ensemble), atol=1e-10)


@pytest.mark.slow
def test_a_smooth_tapered_covariance_draws_in_single_precision(key):
    """512 components with correlations far beyond a grid spacing: eigenvalues down to rounding."""
    points = 512
    grid = Coordinates.grid((points,), (float(points),))
    waves = np.random.default_rng(4).normal(size=(10, 8))
    angles = 2 * np.pi * np.arange(points)[None] / points
    ensemble = sum(waves[:, [k]] * np.cos((k // 2 + 1) * angles + k) for k in range(8))
    denoiser = fitted(jnp.asarray(ensemble, jnp.float32), taper(grid, (points,), 60.0))
    draw = eqx.filter_jit(lambda covariance, keys: jax.vmap(covariance.draw)(keys))
    draws = np.asarray(draw(denoiser.covariance, jax.random.split(key, 2000)))
    assert np.isfinite(draws).all()
    variance = np.var(ensemble, axis=0, ddof=1)
    np.testing.assert_allclose(draws.var(0), variance, rtol=5 * np.sqrt(2 / 2000), atol=1e-3)


def transport(denoiser, mean, x, angle):
    """The matrix that takes deviations of members to those of their analyses."""

    def moved(deviation):
        return denoiser.for_member(mean + deviation).sample(jax.random.key(0), x, angle) - denoiser(x, angle)

    return np.asarray(jax.jit(jax.vmap(moved))(jnp.asarray(np.eye(N), float)), np.float64).T


def test_transported_members_have_the_posterior_covariance_by_the_smallest_change(dtype):
    """A P Aᵀ = Cov[x0 | x], with A = (I + P C² S⁻²)^{-1/2}: A P is symmetric, and the mean is no matter."""
    mean, p, x, angle = as_float(MEAN, P, X, ANGLE)
    denoiser = GaussianDenoiser(mean, DenseCovariance(p), "transported")
    a = transport(denoiser, mean, x, angle)
    tolerance = 3e-5
    np.testing.assert_allclose(a @ P @ a.T, conditional(MEAN, P, X, ANGLE)[1], atol=tolerance)
    np.testing.assert_allclose(a @ P, (a @ P).T, atol=tolerance)
    assert np.linalg.eigvals(a).real.min() > 0


def test_members_are_not_moved_where_nothing_is_seen_and_forget_where_all_is():
    mean, p, x = as_float(MEAN, P, X)
    denoiser = GaussianDenoiser(mean, DenseCovariance(p), "transported")
    np.testing.assert_allclose(
        transport(denoiser, mean, x, *as_float(np.full(N, np.pi / 2))), np.eye(N), atol=1e-5
    )
    assert np.abs(transport(denoiser, mean, x, *as_float(np.full(N, 1e-3)))).max() < 0.02


def test_transport_by_a_tapered_covariance_is_that_of_its_matrix(x64):
    drawn = np.random.default_rng(4).normal(size=(5, N))
    ensemble = jnp.asarray(drawn)
    weights = taper(Coordinates.grid((N,), (float(N),)), (N,), 1.5)
    columns = jnp.asarray((drawn - drawn.mean(0)) / 2.0)
    tapered = TaperedCovariance(columns, weights, IdentityBasis(), tolerance=1e-10)
    dense = fitted(ensemble, weights, members="transported")
    assert isinstance(dense.covariance, LowRankCovariance)
    free = GaussianDenoiser(dense.mean, tapered, "transported")
    x, angle = jnp.asarray(X), jnp.asarray(ANGLE)
    np.testing.assert_allclose(
        transport(free, dense.mean, x, angle), transport(dense, dense.mean, x, angle), atol=1e-5
    )
