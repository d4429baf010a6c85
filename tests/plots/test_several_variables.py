"""Figures of states with several variables: each has a panel, a scale, a name and units of its own."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from masf_jax import plots
from masf_jax.plots.flow_data import is_flow
from masf_jax.plots.style import times
from masf_jax.results.averages import of_numbers

K, X = 8, 10


@pytest.fixture(scope="module")
def waves():
    rng = np.random.default_rng(0)
    truth = np.stack([10 + 0.1 * rng.normal(size=(K, X)), rng.normal(size=(K, X))], 1)
    dims = ("cycle", "channel", "x")
    data = xr.Dataset({"truth": (dims, truth), "analysis_mean": (dims, truth + 0.01)})
    data["observation"] = (("cycle", "measured"), truth[:, 0, ::5], {"structure": "mask", "units": "m"})
    coords = {"channel": ["h", "u"], "variable_units": ("channel", ["m", "m/s"])}
    coords |= {
        "x": ("x", 10.0 * np.arange(X), {"units": "km"}),
        "observation_component": ("measured", [0, 5]),
    }
    time = ("cycle", 14400.0 * np.arange(1, K + 1), {"units": "s"})
    return data.assign_coords(coords).assign_coords(time=time)


def test_each_variable_has_its_scale_name_and_axis(waves):
    figure = plots.states(waves)
    axes = {axis.get_title(loc="left"): axis for axis in figure.axes}
    assert {"h: truth", "u: truth", "h: observations", "u: observations (none)"} <= set(axes)
    limits = {name: axes[f"{name}: truth"].collections[0].get_clim() for name in "hu"}
    for name, (low, high) in limits.items():
        values = waves["truth"].sel(channel=name)
        assert float(values.min()) <= low < high <= float(values.max())
    assert limits["h"][0] > 9 > limits["u"][1]
    assert axes["h: truth"].get_ylabel() == "x (km)"
    assert {axis.get_ylabel() for axis in figure.axes} >= {"h (m)", "u (m/s)", "error (m/s)"}
    assert axes["u: analysis mean - truth"].get_xlabel() == "model time (h)"
    seen = axes["h: observations"].collections[0].get_array()
    np.testing.assert_array_equal(seen[5], waves["observation"][:, 1])


def test_variables_may_be_chosen(waves):
    figure = plots.hovmoeller(waves, variables=["u"])
    assert not [axis for axis in figure.axes if axis.get_title(loc="left").startswith("h")]
    with pytest.raises(ValueError, match="variables are one or more of h, u; got p"):
        plots.hovmoeller(waves, variables=["p"])
    with pytest.raises(ValueError, match="a dimension channel"):
        plots.hovmoeller(waves.isel(channel=0, drop=True), variables=["u"])


def test_a_component_is_named_with_its_units(waves):
    figure = plots.series(waves, components=[2, 12])
    assert [axis.get_ylabel() for axis in figure.axes][::2] == ["h (m)\nx = 20 km", "u (m/s)\nx = 20 km"]


def test_positions_in_degrees_fit_beside_their_panels(waves):
    data = waves.assign_coords(x=("x", 36.0 * np.arange(X), {"units": "degrees_east"}))
    axes = plots.series(data, components=[2, 12]).axes
    assert [axis.get_ylabel() for axis in axes][::2] == ["h (m)\nx = 72 °E", "u (m/s)\nx = 72 °E"]
    figure = plots.hovmoeller(data)
    figure.draw_without_rendering()
    assert {90, 180, 270} <= set(figure.axes[0].get_yticks())
    long = waves.assign_coords(x=("x", 36.0 * np.arange(X), {"units": "kilometres"}))
    assert plots.series(long, components=[2]).axes[0].get_ylabel() == "h (m)\nx = 72\nkilometres"


def test_velocities_on_a_ring_are_no_flow(waves):
    ring = waves.assign_coords(channel=["u", "v"])
    assert not is_flow(ring)
    assert plots.states(ring).axes[0].get_title(loc="left") == "u: truth"


@pytest.mark.parametrize(
    ("units", "step", "found"),
    [
        ("s", 60, "min"),
        ("s", 14400, "h"),
        ("s", 86400, "d"),
        ("s", 1, "s"),
        ("h", 24, "d"),
        ("years", 90, "years"),
    ],
)
def test_long_times_are_in_units_that_suit(units, step, found):
    time = ("cycle", step * np.arange(5.0), {"units": units})
    values, label = times(xr.Dataset(coords={"time": time}))
    assert label == f"model time ({found})"
    seconds = {"s": 1, "min": 60, "h": 3600, "d": 86400}
    factor = seconds.get(units, 1) / seconds.get(found, 1)
    np.testing.assert_allclose(values, step * np.arange(5) * factor)


@pytest.mark.parametrize(("worst", "scale"), [(0.03, "linear"), (0.1, "log")])
def test_one_bad_filter_does_not_hide_how_the_others_differ(worst, scale):
    errors = {"bad": worst, "good": 0.0076, "better": 0.0071}
    rows = {
        name: [{"rmse_analysis": e * f, "rmse_forecast": 1.1 * e} for f in (1, 1.01)]
        for name, e in errors.items()
    }
    figure = plots.comparison(of_numbers(rows, units="m"))
    axis = figure.axes[0]
    assert axis.get_xscale() == scale
    assert axis.get_xlabel().endswith("(m)")
    low, high = axis.get_xlim()
    assert low < 0.0071
    assert worst * 1.1 < high
    if scale == "linear":
        assert {bar.get_hatch() for bar in axis.patches} == {None, "////"}
    else:
        assert {"o", "s"} <= {line.get_marker() for line in axis.lines}


def test_errors_of_variables_in_several_units_have_panels_of_their_own(waves):
    rmse = np.abs(np.random.default_rng(1).normal(size=(K, 2))) + 0.1
    more = {"rmse_analysis": ("cycle", np.ones(K)), "rmse_by_variable_analysis": (("cycle", "channel"), rmse)}
    data = waves.assign(more | {"spread_by_variable_analysis": (("cycle", "channel"), 2 * rmse)})
    figure = plots.error_spread(data)
    assert [axis.get_ylabel() for axis in figure.axes] == ["h (m)\nanalysis", "u (m/s)\nanalysis"]
    for i, axis in enumerate(figure.axes):
        lines = {line.get_label(): line.get_ydata() for line in axis.lines}
        np.testing.assert_allclose(lines["RMSE, analysis"], rmse[:, i])
        np.testing.assert_allclose(lines["spread"], 2 * rmse[:, i])
        level = np.sqrt(data["truth"][:, i].var("cycle", ddof=1).mean())
        np.testing.assert_allclose(lines["climatology"], level)
    assert len(plots.error_spread(data, by_variable=False).axes) == 1
    with pytest.raises(ValueError, match="one level"):
        plots.error_spread(data, climatology=1.0, by_variable=True)
    alike = data.assign_coords(variable_units=("channel", ["m", "m"]))
    assert len(plots.error_spread(alike).axes) == 1
