"""Dense, low-rank and tapered covariances: one algebra, three costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import Coordinates
from masf_jax.bases import FourierBasis, IdentityBasis
from masf_jax.denoisers import DenseCovariance, LowRankCovariance, TaperedCovariance
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
        np.ravel(jax.jit(lambda v: p.matvec(v))(vector)), matrix @ np.asarray(vector).ravel(), atol=1e-6
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
