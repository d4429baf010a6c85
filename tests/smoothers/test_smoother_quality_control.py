"""A smoother behind the gross-error check is that of what the check accepts, and rejects what filters do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from often import often

from masf_jax import GrossErrorCheck, assimilate, filters, simulate, smoothers
from masf_jax.dynamics import Linear, ModelError
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations

MODEL = ModelError(Linear(np.array([[0.9, 0.2], [-0.2, 0.9]])), 0.2)
SENSOR = Measurement(Identity(), Gaussian(0.5))
CHECK = GrossErrorCheck(4.0)
RUNS = {
    "enks": (filters.ETKF(), lambda *given, **more: smoothers.enks(jax.random.key(2), *given, lag=3, **more)),
    "ienks": (
        filters.IEnKF(),
        lambda *given, **more: smoothers.ienks(jax.random.key(2), *given, lag=1, **more),
    ),
    "rts": (filters.KalmanFilter(), smoothers.rts),
}


@pytest.mark.quick_cases("rts")
@pytest.mark.parametrize("name", often(RUNS, ("enks", "rts")))
def test_it_smooths_what_the_check_accepts(name):
    filter, smooth = RUNS[name]
    twin = simulate(jax.random.key(0), MODEL, SENSOR, 8, x0=jnp.ones(2))
    values = np.array(twin.observations.values)
    values[3, 1], values[5, 0], values[6, 1] = 40.0, -30.0, np.nan
    members = 1.0 + np.random.default_rng(0).normal(size=(12, 2))
    given = filter, MODEL, SENSOR
    observations = Observations(values, 1)
    found = smooth(*given, observations, members, quality_control=CHECK)
    expected = np.zeros((8, 2), bool)
    expected[3, 1] = expected[5, 0] = True
    np.testing.assert_array_equal(found.rejected, expected)
    clean = smooth(*given, Observations(values, 1, mask=~expected), members)
    np.testing.assert_array_equal(found.smoothed["mean"], clean.smoothed["mean"])
    assert clean.rejected is None
    run = assimilate(jax.random.key(2), *given, observations, members, quality_control=CHECK)
    np.testing.assert_array_equal(run.rejected, expected)
    if name != "ienks":  # which draws a random model's noise once
        np.testing.assert_allclose(found.analysis["mean"], run.analysis["mean"], rtol=1e-4, atol=1e-5)
    assert found.to_xarray()["rejected_values"].values.tolist() == [0, 0, 0, 1, 0, 1, 0, 0]
    with pytest.raises(ValueError, match="threshold of the gross-error check must be a number, or of"):
        smooth(*given, observations, members, quality_control=GrossErrorCheck(np.ones(3)))
