"""Positions and periods."""

import numpy as np
import pytest

from masf_jax import Coordinates


def test_grid_positions_first_index_slowest():
    grid = Coordinates.grid((2, 3), (4.0, 9.0))
    expected = [[0, 0], [0, 3], [0, 6], [2, 0], [2, 3], [2, 6]]
    np.testing.assert_allclose(grid.positions, expected)
    assert grid.period == (4.0, 9.0)
    assert grid.n_points == 6
    assert Coordinates.grid((2,), (4.0,), periodic=False).period == (0.0,)


def test_vectors_become_columns_and_channels_share_points():
    line = Coordinates(np.asarray([0.5, 2.0, 7.0]), (0.0,))
    assert line.positions.shape == (3, 1)
    np.testing.assert_array_equal(line.at(np.asarray([4, 2])).positions, [[2.0], [7.0]])


def test_wrapping_stays_below_the_period():
    points = Coordinates(np.asarray([[-1.0, -1.0], [7.5, 7.5], [-1e-18, 3.0], [6.0, 6.0]]), (6.0, 0.0))
    np.testing.assert_allclose(points.wrapped(), [[5, -1], [1.5, 7.5], [0, 3], [0, 6]])
    assert (points.wrapped()[:, 0] < 6.0).all()


def test_equal_by_value_and_hashable():
    one, two = Coordinates.grid((4,), (4.0,)), Coordinates.grid((4,), (4.0,))
    assert one == two
    assert hash(one) == hash(two)
    assert one != Coordinates.grid((4,), (4.0,), periodic=False)
    assert one != Coordinates.grid((4,), (5.0,))


@pytest.mark.parametrize(
    ("positions", "period", "message"),
    [
        (np.asarray([0.0, np.nan]), (0.0,), r"finite array \(points, dimensions\); got shape \(2, 1\)"),
        (np.zeros((2, 2, 2)), (0.0,), r"finite array \(points, dimensions\); got shape \(2, 2, 2\)"),
        (np.zeros((2, 2)), (1.0,), r"one non-negative length per direction \(2\).*got \(1.0,\)"),
        (np.zeros(2), (-1.0,), r"one non-negative length per direction \(1\).*got \(-1.0,\)"),
    ],
)
def test_bad_input(positions, period, message):
    with pytest.raises(ValueError, match=message):
        Coordinates(positions, period)
