"""Dense, low-rank and tapered covariances: one algebra, three costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import Coordinates
from masf_jax.bases import FourierBasis, IdentityBasis
from masf_jax.denoisers import DenseCovariance, LocalCovariance, LowRankCovariance, TaperedCovariance
from masf_jax.ensemble.local_taper import local_taper
from masf_jax.ensemble.localization import taper_matrix
from masf_jax.ensemble.taper import taper

SHAPE = (2, 4, 5)
N = 40
GRID = Coordinates.grid(SHAPE[1:], (4.0, 5.0))
RNG = np.random.default_rng(6)
COLUMNS = RNG.normal(size=(6, *SHAPE)) / np.sqrt(5)
ANGLE = RNG.uniform(0.2, 1.5, SHAPE)
Y = RNG.normal(size=SHAPE)


def dense_regression(p, y, angle):
    c, s = np.diag(np.cos(angle).ravel()), np.diag(np.sin(angle).ravel())
    return (p @ c @ np.linalg.solve(c @ p @ c + s @ s, y.ravel())).reshape(y.shape)


def covariance(kind, radius=0.9, basis=None):
    """The covariance and its matrix over raveled coordinates."""
    columns = jnp.asarray(COLUMNS, dtype=float)
    flat = COLUMNS.reshape(6, N)
    if kind == "low-rank":
        return LowRankCovariance(columns), flat.T @ flat
    correlation = np.tile(taper_matrix(GRID, GRID, radius), (2, 2)) if kind == "tapered" else np.ones((N, N))
    matrix = flat.T @ flat * correlation
    if kind == "tapered":
        chosen = IdentityBasis() if basis is None else basis
        flatly = jax.jit(jax.vmap(lambda x: chosen.to(x.reshape(SHAPE)).reshape(-1)))
        turn = np.asarray(flatly(np.eye(N, dtype=columns.dtype)), np.float64)
        tapered = TaperedCovariance(columns, taper(GRID, SHAPE, radius), chosen, tolerance=1e-6)
        return tapered, turn.T @ matrix @ turn
    matrix = matrix + 0.2 * np.eye(N)
    return DenseCovariance(jnp.asarray(matrix, dtype=float)), matrix


KINDS = ["low-rank", "dense", "tapered"]
regress = jax.jit(lambda p, y, angle: p.regress(y, jnp.cos(angle), jnp.sin(angle)))


@pytest.mark.parametrize("kind", KINDS)
def test_regression_is_the_dense_formula(kind, dtype):
    p, matrix = covariance(kind)
    angle = jnp.asarray(ANGLE, dtype=float)
    got = regress(p, jnp.asarray(Y, dtype=float), angle)
    assert got.dtype == dtype
    expected = dense_regression(matrix, Y, ANGLE)
    np.testing.assert_allclose(got, expected, atol=(2e-4 if dtype == "float32" else 1e-5))


@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_the_covariance(kind, key):
    p, matrix = covariance(kind)
    count = 20_000
    draws = np.asarray(jax.jit(jax.vmap(p.draw))(jax.random.split(key, count)), np.float64).reshape(count, N)
    norm = np.linalg.norm(matrix)
    noise = np.sqrt((np.trace(matrix) ** 2 + norm**2) / count)
    assert np.linalg.norm(np.cov(draws.T) - matrix) < 2 * noise
    assert np.all(np.abs(draws.mean(0)) < 5 * np.sqrt(np.diag(matrix) / count))


def test_tapered_in_another_basis(x64, key):
    """The taper acts on the state, whatever the coordinates; no taper at all is the low-rank covariance."""
    basis = FourierBasis(2)
    p, matrix = covariance("tapered", basis=basis)
    angle, y = jnp.asarray(ANGLE), jnp.asarray(Y)
    got = regress(p, y, angle)
    np.testing.assert_allclose(got, dense_regression(matrix, Y, ANGLE), atol=1e-5)
    vector = jnp.asarray(RNG.normal(size=SHAPE))
    np.testing.assert_allclose(
        np.ravel(jax.jit(lambda v: p.within(v))(vector)), matrix @ np.asarray(vector).ravel(), atol=1e-6
    )
    wide, _ = covariance("tapered", radius=np.inf)
    low_rank, _ = covariance("low-rank")
    np.testing.assert_allclose(regress(wide, y, angle), regress(low_rank, y, angle), atol=1e-5)


def test_a_dense_covariance_without_full_rank_still_draws(key):
    """Rank one with a large and a tiny direction, in single precision."""
    direction = np.asarray([1.0, 1e-3, 100.0])
    p = DenseCovariance(jnp.asarray(np.outer(direction, direction), jnp.float32))
    draws = np.asarray(jax.jit(jax.vmap(p.draw))(jax.random.split(key, 4000)), np.float64)
    assert np.all(np.isfinite(draws))
    np.testing.assert_allclose(draws.std(0)[[0, 2]], direction[[0, 2]], rtol=0.1)


@pytest.mark.parametrize("kind", ["tapered", "local"])
def test_precise_values_beside_none_and_beside_coarse_ones(kind, x64):
    """By iterations: E[x0 | x] and a member are right, or what the iterations leave is said."""
    rng, n, ring = np.random.default_rng(2), 240, Coordinates.grid((240,), (240.0,))
    smooth = np.exp(-np.arange(n // 2 + 1) / 8)
    columns = np.fft.irfft(np.fft.rfft(rng.normal(size=(10, n))) * smooth, n)
    columns /= np.sqrt((columns**2).sum(0))
    weights = taper(ring, (n,), 6.0)
    tapered = TaperedCovariance(jnp.asarray(columns), weights, IdentityBasis())
    root = np.linalg.cholesky(columns.T @ columns * taper_matrix(ring, ring, 6.0)).T
    found = jax.jit(
        lambda p, y, a, *levels: (p.regress(y, *levels), p.transport(a, *levels), p.residual(y, *levels))
    )
    measured, member = rng.permutation(n)[:200], 3 * columns[0]
    if kind == "local":
        tapered = LocalCovariance.of(tapered, local_taper(ring, np.sort(measured), 6.0))
    for ratio, others in ((1e2, 1e2), (1e4, 1e4), (1e5, 1e5), (1e3, 1.0), (1e5, 10.0), (1e5, 1e-3)):
        angle = np.full(n, np.pi / 2)
        angle[measured[:150]], angle[measured[150:]] = np.arctan(1 / ratio), np.arctan(1 / others)
        cos, sin = np.maximum(np.cos(angle), 0), np.sin(angle)
        y = cos * (rng.normal(size=n) @ root) + sin * rng.normal(size=n)
        u, s, vt = np.linalg.svd(root * (cos / sin), full_matrices=False)
        mean = root.T @ (u @ (s / (1 + s**2) * (vt @ (y / sin))))
        shrink = (np.hypot(1, s) - 1) / np.hypot(1, s) / np.maximum(s, 1e-300)
        moved = member - root.T @ (u @ (shrink * (vt @ (member * cos / sin))))
        std = np.sqrt((((u / np.hypot(1, s)).T @ root) ** 2).sum(0))
        *got, left = found(tapered, y, member, cos, sin)
        off = max(np.abs((a - b) / std).max() for a, b in zip(got, (mean, moved), strict=True))
        assert off < 0.1 or left > 0.1, (ratio, others, off, float(left))
        assert off < 0.01 or ratio != others, (ratio, off)
