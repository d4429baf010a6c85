"""Tapers as operators against the Gaspari-Cohn matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import Coordinates
from masf_jax.ensemble.localization import taper_matrix
from masf_jax.ensemble.taper import taper

GRIDS = {
    "ring": (Coordinates.grid((40,), (40.0,)), (40,), 4.0),
    "odd-ring": (Coordinates.grid((9,), (9.0,)), (9,), 2.0),
    "periodic-field": (Coordinates.grid((8, 12), (8.0, 6.0)), (2, 8, 12), 1.5),
    "line": (Coordinates.grid((20,), (20.0,), periodic=False), (20,), 4.0),
    "scattered": (
        Coordinates(np.sort(np.random.default_rng(0).uniform(0, 30, 25)), (30.0,)),
        (25,),
        4.0,
    ),
    "half-periodic": (
        Coordinates(Coordinates.grid((4, 6), (4.0, 6.0)).positions, (4.0, 0.0)),
        (4, 6),
        0.9,
    ),
}


@pytest.mark.quick_cases("float64-scattered")
@pytest.mark.parametrize("name", GRIDS)
def test_products_and_draws_are_the_matrixs(name, dtype, key):
    coordinates, shape, radius = GRIDS[name]
    operator = taper(coordinates, shape, radius)
    assert (operator.spectrum is not None) == ("ring" in name or name == "periodic-field")
    expected = taper_matrix(coordinates, coordinates, radius)
    tolerance = 1e-5 if dtype == "float32" else 1e-6
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, coordinates.n_points)), dtype=float)

    @jax.jit
    def found(operator):
        return operator.matrix(), operator.apply(x), operator.draw(key, 20_000, x.dtype)

    matrix, products, draws = (np.asarray(array, np.float64) for array in found(operator))
    np.testing.assert_allclose(matrix, expected, atol=tolerance)
    np.testing.assert_allclose(products, np.asarray(x) @ expected, atol=10 * tolerance)
    norm = np.linalg.norm(expected)
    noise = np.sqrt((np.trace(expected) ** 2 + norm**2) / 20_000)
    assert np.linalg.norm(np.cov(draws.T) - expected) < 2 * noise


def test_a_support_wider_than_the_domain_stays_a_correlation_matrix():
    """The wrapped function is not positive definite; what comes out is, with ones on the diagonal."""
    coordinates = Coordinates.grid((16,), (16.0,))
    assert np.linalg.eigvalsh(taper_matrix(coordinates, coordinates, 7.0)).min() < -1e-3
    for shape in ((16,), (4, 4)):  # circulant, and (a shape that is no grid of these points) dense
        operator = taper(coordinates, shape, 7.0)
        matrix = np.asarray(jax.jit(lambda operator: operator.matrix())(operator), np.float64)
        np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-5)
        assert np.linalg.eigvalsh(matrix).min() > -1e-5


def test_no_localisation_is_one_shared_value(key):
    operator = taper(Coordinates.grid((10,), (10.0,)), (10,), np.inf)
    matrix, draw = jax.jit(lambda key: (operator.matrix(), operator.draw(key, 1, jnp.float32)))(key)
    draw = np.asarray(draw)
    np.testing.assert_allclose(matrix, 1, atol=1e-6)
    np.testing.assert_allclose(draw, draw[0, 0], atol=1e-5)


@pytest.mark.slow
def test_products_of_a_large_ring_need_no_matrix():
    n = 1_000_000
    operator = taper(Coordinates.grid((n,), (float(n),)), (n,), 5.0)
    x = np.zeros((1, n), np.float32)
    x[0, 7] = 1.0
    response = np.asarray(jax.jit(lambda x: operator.apply(x))(jnp.asarray(x)))[0]
    ring = Coordinates.grid((n,), (float(n),))
    expected = taper_matrix(ring.at(np.asarray([7])), ring.at(np.arange(20)), 5.0)[0]
    np.testing.assert_allclose(response[:20], expected, atol=1e-5)


def test_too_many_points_for_a_matrix_are_refused():
    line = Coordinates.grid((5000,), (5000.0,), periodic=False)
    with pytest.raises(
        ValueError, match=r"localisation radius 3.0 over 5000 points.*use radius inf, or LETKF"
    ):
        taper(line, (5000,), 3.0)
