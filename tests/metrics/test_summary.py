"""Averages over cycles and seeds."""

import math

import numpy as np
import pytest
from scipy import stats

from masf_jax.metrics import mean_and_standard_error, paired_difference, time_average


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


def test_pairs_of_seeds():
    rng = np.random.default_rng(0)
    hard = 5 * rng.normal(size=8)  # what both share
    first, other = hard + 0.1 * rng.normal(size=8), hard + 0.3 + 0.1 * rng.normal(size=8)
    first[3], other[5] = np.nan, np.inf
    mean, error, n = paired_difference(other, first)
    kept = [0, 1, 2, 4, 6, 7]
    assert n == 6
    assert mean == pytest.approx(np.mean(other[kept] - first[kept]))
    assert mean / error == pytest.approx(stats.ttest_rel(other[kept], first[kept]).statistic)
    assert error < 0.1 * mean_and_standard_error(first[kept])[1]
    assert paired_difference([np.nan], [1.0])[2] == 0
    with pytest.raises(ValueError, match="as many values as references; got 1 and 2"):
        paired_difference([1.0], [1.0, 2.0])
