"""Averages over cycles and seeds."""

import math

import numpy as np

from masf_jax.metrics import mean_and_standard_error, time_average


def test_time_average_leaves_out_the_burn_in():
    assert time_average([9.0, 9.0, 1.0, 3.0], 2) == 2.0
    assert math.isnan(time_average([1.0], 1))
    assert math.isnan(time_average([1.0, np.nan], 0))  # a diverged run is not averaged away


def test_mean_and_standard_error():
    mean, error = mean_and_standard_error([1.0, 2.0, 3.0, 6.0])
    assert mean == 3.0
    assert math.isclose(error, np.std([1, 2, 3, 6], ddof=1) / 2)
    mean, error = mean_and_standard_error([2.0])
    assert mean == 2.0
    assert math.isnan(error)
    assert all(map(math.isnan, mean_and_standard_error([])))
