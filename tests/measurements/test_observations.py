"""Observations: gaps, masks, irregular times."""

import numpy as np
import pytest

from masf_jax.measurements import Observations

VALUES = np.arange(12.0).reshape(4, 3)


def test_regular_times():
    observations = Observations(VALUES, 5)
    assert (observations.interval, observations.n_cycles) == (5, 4)
    np.testing.assert_array_equal(observations.steps, [5, 10, 15, 20])
    np.testing.assert_array_equal(observations.values, VALUES)
    assert np.asarray(observations.mask).all()


def test_irregular_times():
    observations = Observations(VALUES, [0, 3, 3, 10])
    assert observations.interval is None
    np.testing.assert_array_equal(observations.steps, [0, 3, 3, 10])


def test_not_finite_is_missing(dtype):
    values = VALUES.copy()
    values[0, 1], values[2, 0], values[3, 2] = np.nan, np.inf, -np.inf
    observations = Observations(values, 1)
    assert observations.values.dtype == dtype
    np.testing.assert_array_equal(observations.mask, np.isfinite(values))
    np.testing.assert_array_equal(observations.values, np.where(np.isfinite(values), values, 0))


def test_masks_broadcast_and_join_with_nan():
    values = VALUES.copy()
    values[1, 0] = np.nan
    whole = Observations(values, 1, mask=[True, True, False, True])
    expected = np.ones((4, 3), bool)
    expected[1, 0], expected[2] = False, False
    np.testing.assert_array_equal(whole.mask, expected)
    part = np.ones((4, 3), bool)
    part[3, 1] = False
    expected = part & np.isfinite(values)
    np.testing.assert_array_equal(Observations(values, 1, mask=part).mask, expected)
    field = Observations(np.zeros((4, 2, 3)), 1, mask=[True, False, True, True])
    assert field.mask.shape == (4, 2, 3)
    assert np.asarray(field.mask).sum() == 18


def test_integers_and_lists_become_floats(dtype):
    for values in ([[1, 2], [3, 4]], np.asarray([[1, 2], [3, 4]])):
        observations = Observations(values, 1)
        assert observations.values.dtype == dtype
        np.testing.assert_array_equal(observations.values, [[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((VALUES[0], 1), r"values must have shape \(cycles, \*z\), at least one cycle; got \(3,\)"),
        ((VALUES[:0], 1), r"at least one cycle; got \(0, 3\)"),
        ((VALUES, 0), "steps between observations must be at least 1; got 0"),
        ((VALUES, [1, 2, 3]), r"steps must hold 4 integers, one per cycle; got shape \(3,\)"),
        ((VALUES, [1.0, 2.0, 3.0, 4.0]), "steps must hold 4 integers, one per cycle; got .*float64"),
        ((VALUES, [4, 3, 5, 6]), "steps must not be negative and must not decrease; got 3 after 4"),
        ((VALUES, [-1, 3, 5, 6]), "steps must not be negative and must not decrease; got -1"),
        ((VALUES, 1, [True, False]), r"mask must have shape \(4, 3\) or \(4,\); got \(2,\)"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        Observations(*arguments)
