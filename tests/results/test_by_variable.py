"""A state of several variables: scores, units and dimensions of each apart."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from masf_jax import assimilate, dynamics, filters, measurements, simulate
from masf_jax.coordinates import Coordinates
from masf_jax.results.places import model_name, space

FIFTH = measurements.Measurement(measurements.Subset([0, 4, 8]), measurements.Gaussian(0.1))
NAMES = {"variable_names": ["h", "u"], "variable_units": ["m", "m/s"]}


def waves(x):
    return jnp.roll(x, 1, -1)


def ring(**more):
    places = Coordinates(np.arange(12) * 10.0, (120.0,))
    return dynamics.Function(waves, (2, 12), 600.0, places, **NAMES, **more)


def data_of(model, sensor=FIFTH, **options):
    start = jax.random.normal(jax.random.key(1), (7, *model.state_shape))
    twin = simulate(jax.random.key(0), model, sensor, 5, x0=start[0])
    run = assimilate(
        jax.random.key(2),
        filters.ETKF(),
        model,
        sensor,
        twin.observations,
        start[1:],
        truth=twin.truth,
        **options,
    )
    return run.to_xarray(), run


@pytest.mark.slow
def test_each_variable_has_scores_of_its_own():
    data, run = data_of(ring())
    error = data["analysis_mean"] - data["truth"]
    assert data["rmse_by_variable_analysis"].dims == ("cycle", "channel")
    for name in ("h", "u"):
        expected = np.sqrt((error.sel(channel=name) ** 2).mean("x"))
        np.testing.assert_allclose(data["rmse_by_variable_analysis"].sel(channel=name), expected, rtol=1e-5)
        variance = (data["forecast_spread"].sel(channel=name) ** 2).mean("x")
        found = data["spread_by_variable_forecast"].sel(channel=name)
        np.testing.assert_allclose(found, np.sqrt(variance), rtol=1e-5)
    whole = np.sqrt((data["rmse_by_variable_analysis"] ** 2).mean("channel"))
    np.testing.assert_allclose(run.analysis_scores["rmse"], whole, rtol=1e-5)


@pytest.mark.slow
def test_a_named_vector_has_them_and_a_single_ring_has_not():
    data, _ = data_of(dynamics.Lorenz63(), measurements.Measurement(measurements.Identity(), FIFTH.noise))
    error = abs(data["analysis_mean"] - data["truth"])
    np.testing.assert_allclose(data["rmse_by_variable_analysis"], error, rtol=1e-5)
    data, _ = data_of(dynamics.Lorenz96(n=12))
    assert not [name for name in data if "by_variable" in str(name)]


@pytest.mark.slow
def test_units_of_the_model_are_those_of_the_result(tmp_path):
    data, run = data_of(ring(time_units="seconds", length_units="km"))
    assert data["time"].attrs["units"] == "s"
    assert data["x"].attrs["units"] == data["observation_x"].attrs["units"] == "km"
    assert data["variable_units"].values.tolist() == ["m", "m/s"]
    assert "units" not in data["truth"].attrs, "it has two"
    assert data["observation"].attrs["units"] == "m", "h alone is measured"
    np.testing.assert_array_equal(data["observation_component"], [0, 4, 8])
    with xr.open_dataset(run.to_netcdf(tmp_path / "a.nc")) as read:
        np.testing.assert_array_equal(read["time"], 600.0 * np.arange(1, 6))
        assert read.attrs["title"] == "waves"
    both, _ = data_of(ring(), measurements.Measurement(measurements.Subset([0, 13]), FIFTH.noise))
    assert both["observation"].attrs["units"] == "1"
    one = dynamics.Function(waves, (12,), variable_units="K")
    assert data_of(one)[0]["analysis_mean"].attrs["units"] == "K"


@pytest.mark.parametrize(
    ("units", "name", "axis"),
    [("degrees_east", "longitude", "X"), ("degreeN", "latitude", "Y"), ("degrees", None, "X")],
)
def test_degrees_east_and_north_have_the_standard_names_of_cf(units, name, axis):
    data, run = data_of(ring(length_units=units))
    assert data["x"].attrs.get("standard_name") == data["observation_x"].attrs.get("standard_name") == name
    assert (data["x"].attrs["axis"], data["x"].attrs["units"]) == (axis, units)
    assert data["observation_noise_std"].attrs["units"] == data["observation"].attrs["units"] == "m"
    assert run.to_xarray(units="cm")["observation_noise_std"].attrs["units"] == "cm"


def test_names_make_the_first_axis_channels_without_coordinates_too():
    model = dynamics.Function(waves, (2, 12), **NAMES)
    assert space(model) == ("channel", "x")
    assert space(dynamics.Function(waves, (2, 12))) == ("y", "x")


def test_what_a_model_is_called():
    host = dynamics.BlackBox(lambda states: states, (2,), variable_units=["m", "s"], time_units="h")
    assert (host.variable_units, host.time_units, host.length_units) == (("m", "s"), "h", None)
    assert model_name(host) == "BlackBox"

    def step(x):
        return x

    step.__module__ = "mine.ring_model"
    assert model_name(dynamics.Function(step, (2,))) == "ring_model.step"
    step.__module__ = "__main__"
    assert model_name(dynamics.Function(step, (2,))) == "step"
    noisy = dynamics.ModelError(ring(time_units="s"), 0.1)
    assert model_name(noisy) == "waves"
    assert (noisy.variable_units, noisy.time_units) == (("m", "m/s"), "s")
    assert model_name(dynamics.Lorenz63()) == "Lorenz63"


def test_units_that_do_not_fit():
    with pytest.raises(ValueError, match="one for each entry of the state's first axis"):
        dynamics.Function(waves, (2, 12), variable_units=["m"])
    with pytest.raises(ValueError, match="time_units must be a text"):
        dynamics.Function(waves, (2, 12), time_units=1)  # pyright: ignore[reportArgumentType]
