"""What 4D-Var finds, and draws of SDA, as datasets, files and figures."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from masf_jax import dynamics, measurements, simulate
from masf_jax.measurements import Observations
from masf_jax.smoothers import FourDVar, Variational, WeakVariational, from_draws
from masf_jax.smoothers.trajectories import given_of

MODEL = dynamics.Lorenz63()
SENSOR = measurements.Measurement(measurements.Subset([0]), measurements.Gaussian(0.5))


@pytest.fixture(scope="module")
def problem():
    start = jnp.asarray([1.0, 2.0, 20.0])
    return simulate(jax.random.key(0), MODEL, SENSOR, 4, 2, x0=start), start


def variational(kind, twin, **more):
    """As 4D-Var makes it (tests/smoothers/test_four_d_var.py); to find one takes seconds to compile."""
    number, states = jnp.asarray(0.5), twin.truth + 0.3
    names = ("cost", "background_cost", "gradient_norm", "rounding")
    given = given_of(MODEL, SENSOR, twin.observations)
    numbers = dict.fromkeys(names, number) | {"iterations": jnp.asarray(3)} | more
    return kind(start=states[0], trajectory=states, steps=twin.observations.steps, given=given, **numbers)


WEAK = {"error_cost": jnp.asarray(0.1), "errors": jnp.zeros((4, 2, 3))}


@pytest.mark.quick_cases("WeakVariational-more1")
@pytest.mark.parametrize(("kind", "more"), [(Variational, {}), (WeakVariational, WEAK)])
def test_what_4d_var_finds_is_a_dataset(problem, kind, more, tmp_path):
    twin, _ = problem
    found = variational(kind, twin, **more)
    data = found.to_xarray(truth=twin.truth, title="a window")
    np.testing.assert_array_equal(data["smoothed_mean"], found.trajectory)
    error = np.sqrt(((data["smoothed_mean"] - data["truth"]) ** 2).mean("variable"))
    np.testing.assert_allclose(data["rmse_smoothed"], error, rtol=1e-5)
    np.testing.assert_array_equal(data["step"], [2, 4, 6, 8])
    np.testing.assert_allclose(data["time"], 2 * 0.01 * np.arange(1, 5))
    np.testing.assert_array_equal(data["observation"], twin.observations.values)
    assert data.attrs["title"] == "a window"
    assert "truth" not in found.to_xarray()
    with xr.open_dataset(found.to_netcdf(tmp_path / "found.nc", truth=twin.truth), engine="h5netcdf") as read:
        xr.testing.assert_equal(read.load(), data)
    with pytest.raises(ValueError, match=r"states of the trajectory, \(4, 3\); got shape \(3, 3\)"):
        found.to_xarray(truth=twin.truth[:3])


def test_it_has_figures(problem):
    twin, _ = problem
    found = variational(Variational, twin)
    series = found.plot(truth=twin.truth)
    assert "smoothed mean" in [text.get_text() for text in series.legends[0].get_texts()]
    errors = found.plot("error_spread", truth=twin.truth)
    assert [axis.get_ylabel() for axis in errors.axes] == ["smoothed"]
    with pytest.raises(ValueError, match="there is no figure 'eror'"):
        found.plot("eror")


def test_found_inside_jit_it_says_why_it_is_none(problem):
    twin, start = problem
    found = jax.eval_shape(lambda x: FourDVar(0.5, iterations=2)(x, MODEL, SENSOR, twin.observations), start)
    with pytest.raises(ValueError, match=r"made inside jax\.jit"):
        jax.tree.map(lambda each: jnp.zeros(each.shape, each.dtype), found).to_xarray()


def test_draws_are_members(problem):
    twin, _ = problem
    draws = jax.random.normal(jax.random.key(1), (6, 5, 3))
    observations = Observations(twin.observations.values[:2], steps=np.asarray([1, 4]))
    truth = jax.random.normal(jax.random.key(2), (5, 3))
    found = from_draws(draws, MODEL, SENSOR, observations, truth, interval=25)
    data = found.to_xarray()
    np.testing.assert_array_equal(data["smoothed_ensemble"], np.swapaxes(draws, 0, 1))
    np.testing.assert_allclose(data["smoothed_spread"], np.std(draws, 0, ddof=1), rtol=1e-5)
    np.testing.assert_array_equal(data["step"], 25 * np.arange(5))
    assert np.isfinite(data["observation"].values[[1, 4]]).all()
    assert np.isnan(data["observation"].values[[0, 2, 3]]).all()
    error = np.sqrt(((np.mean(draws, 0) - truth) ** 2).mean(1))
    np.testing.assert_allclose(data["rmse_smoothed"], error, rtol=1e-5)
    np.testing.assert_allclose(data["rank_counts_smoothed"].sum("rank"), 3, rtol=1e-5)
    assert found.plot("spread_skill") is not None
    for bad, said in (
        (draws[:1], "two or more"),
        (draws[..., :2], "two or more"),
        (draws[:, :4], "number 4"),
    ):
        with pytest.raises(ValueError, match=said):
            from_draws(bad, MODEL, SENSOR, observations)
