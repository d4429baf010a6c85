"""Gross errors that a run has used are told, and runs without any are told nothing."""

import jax
import numpy as np

from masf_jax import GrossErrorCheck, assimilate, filters, simulate
from masf_jax.dynamics import Lorenz63
from masf_jax.ensemble import Inflation
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations
from masf_jax.metrics.outliers import outlying, outlying_cycles

MODEL, SENSOR = Lorenz63(), Measurement(Identity(), Gaussian(1.0))


def test_gross_errors_of_a_run_are_told():
    twin = simulate(jax.random.key(0), MODEL, SENSOR, 200, 8)
    members = np.asarray(twin.truth[0]) + np.random.default_rng(1).normal(size=(10, 3))
    given = jax.random.key(2), filters.ETKF(Inflation(1.05)), MODEL, SENSOR
    assert outlying(assimilate(*given, twin.observations, members).info) == []
    values = np.array(twin.observations.values)
    values[60, 1], values[150, 2] = 999.0, 0.0
    wrong = Observations(values, 8)
    info = assimilate(*given, wrong, members).info
    assert {60, 150} <= set(outlying_cycles(info))
    (told,) = outlying(info)
    assert "(cycle 60)" in told
    assert "quality_control.threshold=5" in told
    assert 60 not in outlying_cycles(info, burn_in=61)
    assert outlying(assimilate(*given, wrong, members, quality_control=GrossErrorCheck(5.0)).info) == []


def test_what_cannot_be_had_is_no_outlier():
    info = {"innovation": np.array([np.nan, np.inf, 6.5, 5.9])}
    assert outlying_cycles(info).tolist() == [2]
    assert outlying(info)[0].startswith("in 1 cycle a value was more than 6 forecast standard deviations")
    assert outlying({}) == []
