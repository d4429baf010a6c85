"""Runs and smoothings as datasets: values, names, times, places, pieces, files."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from masf_jax import GrossErrorCheck, Simulation, assimilate, dynamics, filters, measurements, plots, simulate
from masf_jax.coordinates import Coordinates
from masf_jax.results.places import measured_axes, space, space_axes
from masf_jax.smoothers import enks, rts

LORENZ63 = dynamics.Lorenz63()
LORENZ96 = dynamics.Lorenz96(n=8)
EVERY = measurements.Measurement(measurements.Identity(), measurements.Gaussian(1.0))
SECOND = measurements.Measurement(measurements.Subset([0, 2, 4, 6]), measurements.Gaussian(1.0))


def problem(model, sensor, n_cycles=6, steps=2):
    twin = simulate(jax.random.key(0), model, sensor, n_cycles, steps)
    members = twin.truth[:1] + jax.random.normal(jax.random.key(1), (5, *model.state_shape))
    return twin, members


@pytest.fixture(scope="module")
def run():
    twin, members = problem(LORENZ96, SECOND)
    observations = measurements.Observations(twin.observations.values.at[1, 2].set(jnp.nan), 2)
    save = ("mean", "spread", "ensemble")
    options = {"truth": twin.truth, "save": save, "quality_control": GrossErrorCheck(2.0)}
    return assimilate(
        jax.random.key(2), filters.ETKF(), LORENZ96, SECOND, observations, members, **options
    ), observations


def test_a_dataset_holds_what_the_run_has(run):
    run, observations = run
    data = run.to_xarray(title="a ring", burn_in=2)
    assert dict(data.sizes) == {"cycle": 6, "x": 8, "measured": 4, "member": 5, "rank": 6}
    np.testing.assert_array_equal(data["analysis_ensemble"], run.analysis["ensemble"])
    np.testing.assert_array_equal(data["forecast_spread"], run.forecast["spread"])
    np.testing.assert_array_equal(data["rmse_unobserved_analysis"], run.analysis_scores["rmse_unobserved"])
    np.testing.assert_array_equal(data["rank_counts_forecast"], run.forecast_scores["rank_histogram"])
    np.testing.assert_array_equal(data["observation_mask"], observations.mask)
    np.testing.assert_array_equal(np.isnan(data["observation"]), ~np.asarray(observations.mask))
    np.testing.assert_array_equal(data["rejected_values"], np.asarray(run.rejected).sum(1))
    error = np.sqrt(((data["analysis_mean"] - data["truth"]) ** 2).mean("x"))
    np.testing.assert_allclose(data["rmse_analysis"], error, rtol=1e-5)
    np.testing.assert_array_equal(data["observation_x"], [0, 2, 4, 6])
    np.testing.assert_allclose(data["time"], [0.1, 0.2, 0.1 * 3, 0.4, 0.5, 0.6], rtol=1e-15)
    assert (data.attrs["title"], data.attrs["burn_in"]) == ("a ring", 2)
    assert data.attrs["Conventions"].startswith("CF-")
    for variable in data.variables.values():
        assert variable.attrs["long_name"]
        assert variable.attrs["units"]


def test_a_file_holds_the_dataset(run, tmp_path):
    data = run[0].to_xarray()
    assert run[0].to_netcdf(tmp_path / "run.nc") == tmp_path / "run.nc"
    assert [path.name for path in tmp_path.iterdir()] == ["run.nc"]
    with xr.open_dataset(tmp_path / "run.nc", engine="h5netcdf") as read:
        xr.testing.assert_identical(read.load().drop_attrs(), data.drop_attrs())
        assert read["observation"].attrs == data["observation"].attrs


def test_dates_are_times(run, tmp_path):
    dates = np.datetime64("2000-01-31T06:00") + 6 * np.arange(6).astype("timedelta64[h]")
    data = run[0].to_xarray(dates=dates, units="K")
    assert data["time"].attrs["standard_name"] == "time"
    np.testing.assert_array_equal(data["time"], dates)
    np.testing.assert_allclose(data["model_time"], 0.1 * np.arange(1, 7))
    run[0].to_netcdf(tmp_path / "run.nc", dates=dates)
    with xr.open_dataset(tmp_path / "run.nc", engine="h5netcdf") as read:
        np.testing.assert_array_equal(read["time"], dates)
        assert read["time"].encoding["units"] == "seconds since 1970-01-01"
        by_time = read.swap_dims(cycle="time")
        assert by_time.sel(time="2000-02-01")["observation"].shape == (3, 4)
        assert by_time["observation_x"].dims == ("measured",)
    by_time = data.swap_dims(cycle="time")
    assert by_time.sel(time="2000-02-01")["cycle"].values.tolist() == [3, 4, 5]
    assert by_time.sel(time=slice("2000-01-31T12", "2000-01-31T18")).sizes["time"] == 2
    assert by_time["analysis_mean"].dims == ("time", "x")
    assert run[0].to_xarray().swap_dims(cycle="time").sel(time=0.31, method="nearest")["cycle"] == 2
    assert data["observation"].attrs["units"] == data["analysis_mean"].attrs["units"] == "K"
    with pytest.raises(ValueError, match=r"one for each of the 6 cycles; got shape \(2,\)"):
        run[0].to_xarray(dates=dates[:2])


@pytest.mark.slow
def test_pieces_join_to_the_run():
    twin, members = problem(LORENZ63, EVERY)
    setting = (filters.ETKF(), LORENZ63, EVERY)
    whole = assimilate(jax.random.key(2), *setting, twin.observations, members, truth=twin.truth)
    values = twin.observations.values
    first = assimilate(
        jax.random.key(2), *setting, measurements.Observations(values[:4], 2), members, truth=twin.truth[:4]
    )
    rest = measurements.Observations(values[4:], 2)
    second = assimilate(None, *setting, rest, start=first.end, truth=twin.truth[4:])
    joined = xr.concat([first.to_xarray(), second.to_xarray()], "cycle")
    xr.testing.assert_equal(joined, whole.to_xarray())
    assert joined["cycle"].values.tolist() == [0, 1, 2, 3, 4, 5]
    assert joined["variable"].values.tolist() == ["x", "y", "z"]


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_simulation_leaves_its_truth(tmp_path, on_disk):
    twin = Simulation(jax.random.key(0), LORENZ63, EVERY, 6)
    members = twin.start[None] + jax.random.normal(jax.random.key(1), (5, 3))
    where = {"save_to": tmp_path / "run.zarr"} if on_disk else {}
    run = assimilate(jax.random.key(2), filters.ETKF(), LORENZ63, EVERY, twin, members, chunk=4, **where)
    data = run.to_xarray()
    assert data["truth"].shape == data["observation"].shape == (6, 3)
    error = np.sqrt(((data["analysis_mean"] - data["truth"]) ** 2).mean("variable"))
    np.testing.assert_allclose(data["rmse_analysis"], error, rtol=1e-5)


@pytest.mark.slow
def test_without_truth_there_are_residuals():
    twin, members = problem(LORENZ96, SECOND)
    run = assimilate(jax.random.key(2), filters.ETKF(), LORENZ96, SECOND, twin.observations, members)
    data = run.to_xarray()
    assert "truth" not in data
    expected = twin.observations.values - run.analysis["mean"][:, ::2]
    np.testing.assert_allclose(data["analysis_residual"], expected, atol=1e-6)


@pytest.mark.slow
def test_smoothers_share_the_kind(tmp_path):
    twin, members = problem(LORENZ63, EVERY)
    found = enks(
        jax.random.key(2), filters.ETKF(), LORENZ63, EVERY, twin.observations, members, truth=twin.truth
    )
    data = found.to_xarray()
    error = np.sqrt(((data["smoothed_mean"] - data["truth"]) ** 2).mean("variable"))
    np.testing.assert_allclose(data["rmse_smoothed"], error, rtol=1e-5)
    assert {"analysis_mean", "smoothed_spread", "observation", "faults"} <= set(data)
    found.to_netcdf(tmp_path / "smoothed.nc")
    assert found.plot("series", stage="smoothed") is not None
    model = dynamics.Linear(0.9 * np.eye(2, dtype=np.float32))
    twin, members = problem(model, EVERY)
    first = jnp.eye(2)
    kalman = filters.KalmanFilter(jnp.zeros(2), first)
    data = rts(kalman, model, EVERY, twin.observations, save=("mean", "covariance")).to_xarray()
    assert data["smoothed_covariance"].shape == (6, 2, 2)


def test_a_run_inside_jit_says_why_it_has_none():
    twin, members = problem(LORENZ63, EVERY)

    @jax.jit
    def go(key):
        return assimilate(key, filters.ETKF(), LORENZ63, EVERY, twin.observations, members)

    with pytest.raises(ValueError, match=r"made inside jax\.jit"):
        go(jax.random.key(2)).to_xarray()


@pytest.mark.slow
def test_one_variable_at_many_places_has_its_name(tmp_path):
    model = dynamics.Function(
        lambda x: 0.9 * x, (3,), variable_names=["temperature"], variable_units=["degC"]
    )
    sensor = measurements.Measurement(measurements.Subset([0]), measurements.Gaussian(1.0))
    twin = simulate(jax.random.key(0), model, sensor, 4, x0=jnp.ones(3))
    members = twin.truth[:1] + jax.random.normal(jax.random.key(1), (5, 3))
    run = assimilate(
        jax.random.key(2), filters.ETKF(), model, sensor, twin.observations, members, truth=twin.truth
    )
    run.to_netcdf(tmp_path / "run.nc")
    with xr.open_dataset(tmp_path / "run.nc", engine="h5netcdf") as data:
        assert data["analysis_mean"].dims == ("cycle", "component")
        about = {"long_name": "analysis mean, temperature", "variable": "temperature", "units": "degC"}
        assert about.items() <= data["analysis_mean"].attrs.items()
        assert data["truth"].attrs["long_name"] == "true state, temperature"
        assert "rmse_by_variable_analysis" not in data
        labels = [axis.get_ylabel() for axis in plots.series(data, components=[2]).axes]
        assert labels[0] == "temperature (degC)\ncomponent 2"
        shown = plots.hovmoeller(data).axes
        assert shown[0].get_title(loc="left") == "temperature: truth"
        assert "temperature (degC)" in [axis.get_ylabel() for axis in shown]


def test_names_and_places_of_dimensions():
    def function(shape, **more):
        return dynamics.Function(lambda x, time: x, shape, **more)

    flow = dynamics.Kolmogorov((8, 16), length=(np.pi, 4 * np.pi), forcing_waves=2)
    axes = {axis.name: axis for axis in space_axes(flow)}
    assert space(flow) == ("channel", "y", "x")
    np.testing.assert_allclose(axes["y"].values, np.pi / 8 * np.arange(8))
    np.testing.assert_allclose(axes["x"].values, np.pi / 4 * np.arange(16))
    assert axes["channel"].values.tolist() == ["u", "v"]
    picked = measurements.Measurement(measurements.Subset([17, 128 + 17]), measurements.Gaussian(1.0))
    dims, places = measured_axes(flow, picked)
    assert dims == ("measured",)
    np.testing.assert_allclose([axis.values[1] for axis in places], [np.pi / 8, np.pi / 4])
    assert space(function((4,))) == ("component",)
    assert space(function((2,), variable_names=["T", "S"])) == ("variable",)
    scattered = Coordinates(np.array([[0.0, 0], [1, 2], [3, 1], [0, 5]]), (0.0, 0.0))
    assert space(function((2, 4), coordinates=scattered)) == ("channel", "point")
    assert space(function((4,), coordinates=scattered)) == ("point",)
    box = Coordinates.grid((2, 3, 4), (1.0, 1.0, 1.0))
    assert space(function((2, 3, 4), coordinates=box)) == ("z", "y", "x")
    with pytest.raises(ValueError, match="each entry of the state's first axis"):
        function((3,), variable_names=["T", "S"])
