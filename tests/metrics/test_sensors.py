"""A biased sensor stands out; noise, correlated or not, does not."""

import math

import numpy as np
import pytest

from masf_jax.metrics.sensors import biased, of_sensor


def test_mean_standard_error_and_root_mean_square():
    values = np.array([1.0, np.nan, -1.0, 2.0, -2.0, 0.5])  # alternating: no correlation that counts
    found = of_sensor(values)
    kept = values[np.isfinite(values)]
    assert found.n == 5
    assert found.mean == pytest.approx(kept.mean())
    assert found.standard_error == pytest.approx(kept.std(ddof=1) / math.sqrt(5))
    assert found.rms == pytest.approx(np.sqrt((kept**2).mean()))
    assert of_sensor([np.nan]) is None
    assert math.isnan(of_sensor([2.0]).standard_error)
    assert of_sensor([2.0, 2.0]).standard_error == 0


def test_the_error_of_what_lasts_is_that_of_fewer_values():
    """Of AR(1) series the means' deviation over 500 series, which the formula is made for."""
    rng, r, n = np.random.default_rng(0), 0.7, 400
    x = np.zeros((500, n))
    x[:, 0] = rng.normal(size=500)
    for k in range(1, n):
        x[:, k] = r * x[:, k - 1] + math.sqrt(1 - r**2) * rng.normal(size=500)
    found = [of_sensor(each) for each in x]
    true = np.std([each.mean for each in found])
    assert np.mean([each.standard_error for each in found]) == pytest.approx(true, rel=0.1)
    assert true > 2 / math.sqrt(n)
    told = [bool(biased({"a": each})) for each in found]
    assert np.mean(told) < 0.02


def test_a_biased_sensor_is_named():
    rng = np.random.default_rng(1)
    values = {f"s{i}": rng.normal(size=200) for i in range(6)}
    assert biased({name: of_sensor(each) for name, each in values.items()}) == []
    values["s4"] = values["s4"] + 0.8
    (said,) = biased({name: of_sensor(each) for name, each in values.items()})
    assert "noise: s4 +0." in said
    assert "s3" not in said
    few = {"s4": of_sensor(values["s4"][:15] + 9)}
    assert biased(few) == []
