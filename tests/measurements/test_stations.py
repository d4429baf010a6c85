"""Sensors between grid points, against SciPy's interpolation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from masf_jax.coordinates import Coordinates
from masf_jax.dynamics import Function as Model, Lorenz96
from masf_jax.filters import LETKF
from masf_jax.measurements import Function, Gaussian, LineAverage, Measurement, Stations, join

NORTH, EAST = np.asarray([60.0, 50.0, 45.0]), np.asarray([0.0, 10.0, 25.0, 50.0])
PLACES = [[47.5, 12.0], [60.0, 0.0], [45.0, 50.0], [58.0, 49.0], [50.0, 3.3]]


def grid_of(*axes, period=(0.0, 0.0)):
    mesh = np.meshgrid(*axes, indexing="ij")
    return Coordinates(np.stack([axis.ravel() for axis in mesh], 1), period)


def test_uneven_axes_and_one_that_runs_down(x64):
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    stations = Stations((2, 3, 4), PLACES, grid_of(NORTH, EAST), channel=1)
    expected = RegularGridInterpolator((NORTH[::-1], EAST), x[1, ::-1])(PLACES)
    np.testing.assert_allclose(stations(jnp.asarray(x)), expected, atol=1e-14)
    np.testing.assert_array_equal(stations.coordinates(grid_of(NORTH, EAST)).positions, PLACES)
    assert stations.structure == "dense"


def test_a_periodic_axis_has_stations_everywhere(x64):
    x = np.random.default_rng(1).normal(size=6)
    degrees = np.arange(6) * 60.0 + 15.0
    ring = Coordinates(degrees, (360.0,))
    places = np.asarray([15.0, 0.0, 359.0, 14.999, 735.0, -30.0])
    expected = np.interp(np.mod(places - 15.0, 360.0), np.append(degrees, 375.0) - 15.0, np.append(x, x[0]))
    np.testing.assert_allclose(Stations((6,), places, ring)(jnp.asarray(x)), expected, atol=1e-12)


def test_in_grid_spacings_it_is_a_line_of_length_zero(x64):
    x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 6, 8)))
    box = Coordinates.grid((6, 8), (12.0, 4.0))
    cells = np.asarray([[0.3, 7.6], [5.5, 2.0]])
    line = LineAverage((2, 6, 8), cells, cells, channel=1)
    stations = Stations((2, 6, 8), cells * [2.0, 0.5], box, channel=1)
    np.testing.assert_allclose(stations(x), line(x), atol=1e-14)
    np.testing.assert_allclose(stations.coordinates(box).positions, line.coordinates(box).positions)


@pytest.mark.slow  # where they are is tested above, what a local filter makes of places in test_instruments
def test_a_local_filter_takes_them(x64):
    """As it takes the same interpolation as a function that is told where its values are."""
    box = grid_of(NORTH, EAST)
    stations = Stations((3, 4), PLACES, box)
    own = Function(lambda x: stations(x), positions=PLACES, linear=True)
    members = jnp.asarray(np.random.default_rng(3).normal(size=(8, 3, 4)))
    z = jnp.asarray(np.random.default_rng(4).normal(size=len(PLACES)))

    model = Model(lambda x: x, (3, 4), coordinates=box)
    found = []
    for operator in (stations, own):
        measurement = Measurement(operator, Gaussian(0.5))
        letkf = LETKF(radius=15.0).prepare(model, measurement)
        state = letkf.init(jax.random.key(0), members)
        found.append(letkf.analysis(jax.random.key(1), state, z, measurement)[0].ensemble)
    np.testing.assert_allclose(*found, rtol=1e-10)
    assert float(jnp.abs(found[0] - members).max()) > 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Stations((3, 4), [[44.9, 0.0]], grid_of(NORTH, EAST)),
            r"station 0 .* 44.9 on axis 0, .* 45 to 60",
        ),
        (lambda: Stations((3, 5), PLACES, grid_of(NORTH, EAST)), r"12 points in 2 .* no grid of .*\(3, 5\)"),
        (lambda: Stations((12,), PLACES, grid_of(NORTH, EAST)), r"no grid of a state of shape \(12,\)"),
        (lambda: Stations((2, 3, 4), PLACES, grid_of(NORTH, EAST), 2), r"channel must lie in 0 … 1 .*got 2"),
        (lambda: Stations((3, 4), [1.0, 2.0], grid_of(NORTH, EAST)), r"finite array \(stations, 2\).*\(2,\)"),
        (lambda: Stations((3, 4), [[np.nan, 0.0]], grid_of(NORTH, EAST)), "positions must be a finite array"),
        (
            lambda: Stations((3,), [1.0], Coordinates([0.0, 2.0, 1.0], (0.0,))),
            "axis 0 .* does not run one way",
        ),
        (
            lambda: Stations((2, 2), [[0, 0]], Coordinates([[0, 0], [0, 1], [1, 0.1], [1, 1]], (0.0, 0.0))),
            "axis 1 of the grid is not straight",
        ),
    ],
)
def test_what_is_no_station_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_function_joined_with_stations_has_its_places():
    model, noise = Lorenz96(), Gaussian(1.0)
    stations = Stations((40,), [1.5, 3.5], model.coordinates)
    both = join([Measurement(lambda x: x[::20], noise), Measurement(stations, noise)], (40,))
    found = both.operator.coordinates(model.coordinates)
    np.testing.assert_allclose(found.positions.ravel(), [0, 20, 1.5, 3.5])
