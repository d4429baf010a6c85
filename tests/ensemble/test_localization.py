"""Gaspari-Cohn tapers and neighbour lists against brute force."""

import itertools

import numpy as np
import pytest

from masf_jax import Coordinates
from masf_jax.ensemble import gaspari_cohn, localize, taper_matrix

RNG = np.random.default_rng(11)


def brute_force_distance(first, second):
    """Minimum over all periodic images."""
    images = [range(-4, 5) if length > 0 else (0,) for length in first.period]
    shifts = np.asarray(list(itertools.product(*images))) * np.asarray(first.period)
    difference = first.positions[:, None, None] - second.positions[None, :, None] - shifts[None, None]
    return np.sqrt((difference**2).sum(-1)).min(-1)


def dense(localization, p, m):
    weights = np.zeros((p, m))
    neighbours, roots = np.asarray(localization.neighbours), np.asarray(localization.sqrt_weights)
    for i in range(p):
        np.add.at(weights[i], neighbours[i], roots[i] ** 2)
    return weights


def test_gaspari_cohn_values():
    """Against the published polynomials, and the integral that defines them."""
    r = np.asarray([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, np.inf])
    expected = [1, 0.684895833333, 5 / 24, 0.0164930555556, 0, 0, 0]
    np.testing.assert_allclose(gaspari_cohn(r), expected, atol=1e-12)
    np.testing.assert_array_equal(gaspari_cohn(-r), gaspari_cohn(r))
    s = np.linspace(0, 3, 3001)
    weight = gaspari_cohn(s)
    assert np.all(np.diff(weight) <= 1e-15)
    assert np.all(weight >= 0)
    assert np.all(weight[s >= 2] == 0)


@pytest.mark.parametrize("knot", [1.0, 2.0])
def test_gaspari_cohn_is_smooth_at_its_knots(knot):
    h = 1e-4
    below = gaspari_cohn(knot - h * np.arange(4))
    above = gaspari_cohn(knot + h * np.arange(4))
    assert abs(below[0] - above[0]) < 1e-14
    slope = ((below[0] - below[1]) / h, (above[1] - above[0]) / h)
    curvature = ((below[2] - 2 * below[1] + below[0]) / h**2, (above[2] - 2 * above[1] + above[0]) / h**2)
    np.testing.assert_allclose(*slope, atol=5e-4)
    np.testing.assert_allclose(*curvature, atol=5e-3)


GEOMETRIES = {
    "ring": (Coordinates.grid((12,), (12.0,)), Coordinates(np.asarray([0.3, 4.0, 11.9, -2.5]), (12.0,))),
    "line": (
        Coordinates.grid((12,), (12.0,), periodic=False),
        Coordinates(np.asarray([0.3, 4.0, 11.9]), (0.0,)),
    ),
    "torus": (
        Coordinates.grid((6, 5), (6.0, 10.0)),
        Coordinates(RNG.uniform(-5, 15, (9, 2)), (6.0, 10.0)),
    ),
    "box": (
        Coordinates.grid((6, 5), (6.0, 10.0), periodic=False),
        Coordinates(RNG.uniform(0, 8, (9, 2)), (0.0, 0.0)),
    ),
    "channel": (
        Coordinates(RNG.uniform(0, 6, (20, 2)), (6.0, 0.0)),
        Coordinates(RNG.uniform(0, 6, (9, 2)), (6.0, 0.0)),
    ),
}


@pytest.mark.slow_cases(
    "0.9-channel", "0.9-ring", "0.9-torus", "2.0-box", "2.0-line", "2.0-ring", "2.0-torus"
)
@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("radius", [0.9, 2.0, 7.0])
def test_neighbour_lists_and_taper_against_brute_force(name, radius):
    state, measured = GEOMETRIES[name]
    expected = gaspari_cohn(brute_force_distance(state, measured) / radius)
    np.testing.assert_allclose(taper_matrix(state, measured, radius), expected, atol=1e-12)
    found = dense(localize(state, measured, radius), state.n_points, measured.n_points)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_infinite_radius_keeps_everything():
    state, measured = GEOMETRIES["torus"]
    np.testing.assert_array_equal(dense(localize(state, measured, np.inf), 30, 9), 1.0)
    np.testing.assert_array_equal(taper_matrix(state, measured, np.inf), 1.0)


@pytest.mark.parametrize("name", ["ring", "torus", "box"])
def test_taper_is_positive_semidefinite(name):
    """For supports up to half a period, as theory has it (on the line and box always)."""
    state = GEOMETRIES[name][0]
    taper = taper_matrix(state, state, 1.5)
    np.testing.assert_allclose(np.diag(taper), 1.0)
    np.testing.assert_allclose(taper, taper.T, atol=1e-14)
    assert np.linalg.eigvalsh(taper).min() > -1e-12


def test_lists_are_as_long_as_the_busiest_point_needs():
    """A ring observed everywhere: 2·(2c)+1 neighbours, the last pair of weight zero."""
    ring = Coordinates.grid((40,), (40.0,))
    localization = localize(ring, ring, 4.0)
    assert localization.neighbours.shape == (40, 17)
    assert (np.asarray(localization.sqrt_weights) > 0).sum(1).tolist() == [15] * 40


@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan")])
def test_bad_radius(radius):
    ring = Coordinates.grid((4,), (4.0,))
    for call in (localize, taper_matrix):
        with pytest.raises(ValueError, match=f"localisation radius must be positive .* got {radius}"):
            call(ring, ring, radius)


def test_radius_that_reaches_nothing():
    ring, far = Coordinates.grid((4,), (0.0,)), Coordinates(np.asarray([100.0]), (0.0,))
    with pytest.raises(
        ValueError, match=r"radius 1.0 leaves every grid point without .*check the coordinates"
    ):
        localize(ring, far, 1.0)
