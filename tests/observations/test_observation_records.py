"""Records as long ones are, through the command line, against an independent Kalman filter: the first of each
(benchmarks/accuracy/real_records.py runs them whole)."""

from __future__ import annotations

import numpy as np
import pytest
from real_records import exact, hourly, kalman, monthly, run, weekly


@pytest.mark.parametrize(
    ("make", "n", "tolerance"),
    [
        pytest.param(hourly, 50, 2e-4, marks=pytest.mark.slow),
        (weekly, 50, 2e-4),
        pytest.param(monthly, 80, 1e-10, marks=pytest.mark.slow),
    ],
)
def test_record(tmp_path, make, n, tolerance):
    pytest.importorskip("statsmodels")
    record = make(tmp_path, n)
    steps, mean, spread, likelihood = run(record, tmp_path)
    means, stds, expected = kalman(record)
    np.testing.assert_array_equal(steps, record.steps)
    assert np.abs((mean - means) / stds).max() < tolerance
    np.testing.assert_allclose(spread, stds, rtol=tolerance)
    assert likelihood == pytest.approx(expected, rel=tolerance)
    assert likelihood == pytest.approx(exact(record), rel=tolerance)
