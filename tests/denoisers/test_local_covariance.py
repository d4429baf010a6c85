"""A tapered covariance between measured components: formulas of its matrix, by lists and dense weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import Coordinates
from masf_jax.bases import IdentityBasis
from masf_jax.denoisers import GaussianDenoiser, LocalCovariance, TaperedCovariance, ensemble_gaussian
from masf_jax.ensemble import points, taper, taper_matrix
from masf_jax.ensemble.local_taper import local_taper

SHAPE, RADIUS = (2, 17, 18), 2.0
GRID = Coordinates.grid(SHAPE[1:], (17.0, 18.0))
SCATTERED = Coordinates(np.random.default_rng(8).uniform(0, 18, (17 * 18, 2)), (0.0, 0.0))
RNG = np.random.default_rng(6)
N = int(np.prod(SHAPE))
MEASURED = np.sort(RNG.permutation(N)[:150])
MEMBERS = RNG.normal(size=(6, *SHAPE)) + 3.0
X = RNG.normal(size=SHAPE)
ANGLE = np.full(N, np.pi / 2)
ANGLE[MEASURED[:-5]] = RNG.uniform(0.2, 1.2, 145)  # the last five are missing
ANGLE = ANGLE.reshape(SHAPE)


@pytest.fixture(params=["dense", "lists"])
def of_kind(request, monkeypatch):
    monkeypatch.setattr(points, "DENSE_RATIO", 16 if request.param == "dense" else 0)
    monkeypatch.setattr("masf_jax.denoisers.local._BATCH_NUMBERS", 2**15)  # several batches

    def local(coordinates):
        found = local_taper(coordinates, MEASURED, RADIUS)
        assert (found.weights is None) == (found.near is not None) == (request.param == "lists")
        return found

    return local


@jax.jit
def analysed(members, local, x, angle):
    denoiser = ensemble_gaussian(members, None, None, "transported", local)
    denoiser = dataclasses.replace(denoiser, end=dataclasses.replace(denoiser.end, tolerance=1e-12))
    one = denoiser.for_member(members[1]).at_end()
    assert isinstance(denoiser.covariance, TaperedCovariance)
    assert isinstance(one.covariance, LocalCovariance)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    left = one.covariance.residual(x - cos * denoiser.mean, cos, sin)
    return denoiser.at_once(x, angle), one(x, angle), one.sample(jax.random.key(0), x, angle), left


@pytest.mark.quick_cases("dense-scattered", "lists-scattered")
@pytest.mark.parametrize("coordinates", [GRID, SCATTERED], ids=["grid", "scattered"])
def test_moments_and_members_are_those_of_the_matrix(coordinates, of_kind, x64):
    members, mean, one, left = analysed(jnp.asarray(MEMBERS), of_kind(coordinates), X, ANGLE)
    flat = MEMBERS.reshape(6, N)
    p = np.cov(flat.T) * np.tile(taper_matrix(coordinates, coordinates, RADIUS), (2, 2))
    c, s = np.cos(ANGLE).ravel(), np.sin(ANGLE).ravel()
    gain = p @ np.diag(c) @ np.linalg.inv(np.diag(c) @ p @ np.diag(c) + np.diag(s**2))
    expected = flat.mean(0) + gain @ (X.ravel() - c * flat.mean(0))
    r = np.diag(c / s)
    values, vectors = np.linalg.eigh(np.eye(N) + r @ p @ r)  # f(A) = (A - 1)⁻¹ (1 - A^{-1/2}), ½ at A = 1
    f = (vectors / (values + np.sqrt(values))) @ vectors.T
    moved = (flat - flat.mean(0)) @ (np.eye(N) - r @ f @ r @ p)
    np.testing.assert_allclose(np.ravel(mean), expected, atol=1e-9)
    np.testing.assert_allclose(np.reshape(members, (6, N)), expected + moved, atol=1e-4)  # the square root's
    np.testing.assert_allclose(members[1], one, atol=1e-9)
    assert left < 1e-9


def test_many_neighbours_by_transforms_of_the_grid(monkeypatch, x64):
    """Products with P in place of P[M, M]: the same."""
    monkeypatch.setattr(points, "DENSE_RATIO", 0)
    local, wide = local_taper(GRID, MEASURED, RADIUS), taper(GRID, SHAPE, RADIUS)
    found = []
    for copies in (1, 50):  # of each neighbour, with weight 0
        near, own = (
            dataclasses.replace(
                each,
                neighbours=jnp.tile(each.neighbours, (1, copies)),
                sqrt_weights=jnp.pad(each.sqrt_weights, ((0, 0), (0, (copies - 1) * local.used))),
            )
            for each in (local.near, local.own)
        )
        many = dataclasses.replace(local, near=near, own=own)
        denoiser = ensemble_gaussian(jnp.asarray(MEMBERS), wide, IdentityBasis(), "transported", many)
        end = dataclasses.replace(denoiser.end, tolerance=1e-12)
        assert (end.between is None) == (copies == 50)
        denoiser = dataclasses.replace(denoiser, end=end)
        found.append(jax.jit(lambda x, angle, denoiser=denoiser: denoiser.at_once(x, angle))(X, ANGLE))
    np.testing.assert_allclose(*found, atol=1e-4)  # two quadratures of the square root


def test_a_support_beyond_half_the_domain_has_no_such_matrix():
    assert local_taper(GRID, MEASURED, 17.0 / 4 + 0.1) is None
    assert local_taper(SCATTERED, MEASURED, 17.0) is not None


def test_draws_over_scattered_points_need_a_matrix():
    local = local_taper(SCATTERED, MEASURED, RADIUS)
    denoiser = ensemble_gaussian(jnp.asarray(MEMBERS, float), None, IdentityBasis(), "fresh", local)
    assert isinstance(denoiser, GaussianDenoiser)
    with pytest.raises(ValueError, match="serves one reverse step of moved members only"):
        denoiser.at_end().sample(jax.random.key(0), jnp.asarray(X, float), jnp.asarray(ANGLE, float))
