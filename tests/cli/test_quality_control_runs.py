"""Quality control from the command line: what is rejected is in the results, and nowhere in the analysis."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from masf_jax import plots
from masf_jax.cli.config.compose import compose
from masf_jax.cli.errors import InputError
from masf_jax.cli.main import main
from masf_jax.cli.pages.report import _lost
from masf_jax.plots.components import observed


def run(folder, *overrides):
    arguments = [
        "run",
        "dynamics=linear",
        "dynamics.n=3",
        f"output_dir={folder}",
        "figures=false",
        *overrides,
    ]
    assert main(arguments) == 0
    with xr.open_dataset(folder / "result.nc", engine="h5netcdf") as data:
        return data.load(), json.loads((folder / "metrics.json").read_text())


def write(path, faulty):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 3))
    values[2, 1], values[4, 0] = faulty
    lines = ["# units: m s-1", "time,value_0,value_1,value_2"]
    lines += [",".join([str(float(t)), *map(str, row)]) for t, row in enumerate(values)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_gross_errors_that_were_used_are_told(tmp_path, capsys):
    keys = ["burn_in=0", "n_cycles=null", "initial.mean=0", "initial.std=1"]
    faulty = write(tmp_path / "faulty.csv", (60.0, -0.1))
    data, metrics = run(tmp_path / "a", *keys, f"observations.path={faulty}")
    said = capsys.readouterr()
    assert metrics["outlying_cycles"] == int((data["innovation"] > 6).sum()) > 0
    assert int(data["innovation"].values.argmax()) == 2
    assert "cycles values were more than 6 forecast standard deviations" in said.err
    assert "cycles with a value 6 forecast std off" in said.out
    (told,) = _lost(data)
    assert "(cycle 2)" in told
    assert "(cycle 2)" not in str(_lost(data.assign_attrs(burn_in=3)))


def test_a_biased_sensor_is_seen_beside_others_in_other_units(tmp_path, capsys):
    """Noise of 1 and 100: by sensor, in standard deviations of its noise; a bias of 3 is a mean of 3."""
    rng = np.random.default_rng(0)
    lines = ["time,value_0,value_1,value_2"]
    for t in range(30):
        values = rng.normal(size=3) * [1.0, 100.0, 1.0] + [0.0, 300.0, 0.0]
        lines.append(",".join([str(t), *map(str, values)]))
    path = tmp_path / "sensors.csv"
    path.write_text("\n".join(lines) + "\n")
    keys = ["burn_in=5", "n_cycles=null", "initial.mean=0", "initial.std=.01"]
    keys += ["measurement.noise.std=[1,100,1]", f"observations.path={path}"]
    data, metrics = run(tmp_path / "a", *keys)
    np.testing.assert_array_equal(data["observation_noise_std"], [1, 100, 1])
    scaled = (data["forecast_residual"] / data["observation_noise_std"])[5:]
    sensors = metrics["by_sensor"]
    for i, found in enumerate(sensors.values()):
        assert found["mean"] == pytest.approx(float(scaled[:, i].mean()), rel=1e-4)
        assert found["rms"] == pytest.approx(float(np.sqrt((scaled[:, i] ** 2).mean())), rel=1e-4)
        assert found["n"] == 25
    assert sensors["value_1"]["mean"] == pytest.approx(3.0, abs=0.6)
    assert abs(sensors["value_0"]["mean"]) < 0.6
    printed = capsys.readouterr().out
    assert "observation - forecast, in std of the noise" in printed
    assert "RMS of observation" not in printed
    assert "std of the noise" in plots.innovations(data).axes[0].get_ylabel()


def test_faulty_values_are_counted_and_left_out(tmp_path, capsys):
    keys = ["burn_in=0", "n_cycles=null", "initial.mean=0", "initial.std=1", "quality_control.threshold=6"]
    faulty = write(tmp_path / "faulty.csv", (1e7, -1e7))
    missing = write(tmp_path / "missing.csv", (np.nan, np.inf))
    data, metrics = run(tmp_path / "a", *keys, f"observations.path={faulty}")
    printed = capsys.readouterr().out
    expected, _ = run(tmp_path / "b", *keys, f"observations.path={missing}")
    np.testing.assert_array_equal(data["analysis_mean"], expected["analysis_mean"])
    np.testing.assert_array_equal(data["rejected_values"], [0, 0, 1, 0, 1, 0])
    assert data["observation_rejected"].values[2].tolist() == [0, 1, 0]
    assert data["observation"].attrs["units"] == "m s-1"
    assert (metrics["rejected_values"], metrics["observation_units"]) == (2, "m s-1")
    assert metrics["rejected_fraction"] == pytest.approx(2 / 18)
    assert metrics["innovation_rms_forecast"] < 5
    assert np.isnan(data["forecast_residual"].values[2, 1])
    np.testing.assert_array_equal(np.argwhere(np.isnan(observed(data))), [[2, 1], [4, 0]])  # not drawn
    assert "values rejected by quality control" in printed
    assert "RMS of observation - forecast (m s-1)" in printed
    assert int(expected["rejected_values"].sum()) == 0


@pytest.mark.slow
def test_figures_of_values_between_and_beyond_grid_points(tmp_path):
    arguments = ["run", "measurement=line_average", "measurement.starts=[[38.2],[-5]]", "n_cycles=3"]
    arguments += ["measurement.ends=[[41],[-4.5]]", "burn_in=0", f"output_dir={tmp_path}/a"]
    assert main([*arguments, "quality_control.threshold=1e-6", "figures=true"]) == 0
    with xr.open_dataset(tmp_path / "a" / "result.nc", engine="h5netcdf") as data:
        np.testing.assert_allclose(data["observation_x"], [39.6, 35.25], rtol=1e-6)
        np.testing.assert_array_equal(data["rejected_values"], [2, 2, 2])
        np.testing.assert_array_equal(data["analysis_mean"], data["forecast_mean"])
    assert (tmp_path / "a" / "states.png").is_file()


@pytest.mark.slow
def test_several_instruments_from_the_command_line(tmp_path):
    parts = "[{name:subset,indices:[0,2],noise:{std:0.5}},{name:arctan,stride:2,noise:{std:0.1}}]"
    overrides = ["n_cycles=4", "burn_in=0", "measurement=several", f"measurement.parts={parts}"]
    data, _ = run(tmp_path / "a", *overrides, "filter=etkf")
    assert data["observation"].shape == (4, 4)
    assert np.isfinite(data["analysis_mean"]).all()
    assert "rejected_values" not in data  # off by default


@pytest.mark.parametrize("value", ["0", "-3"])
def test_bad_threshold(value):
    with pytest.raises(InputError, match=f"quality_control.threshold must be positive; got {value}"):
        compose([f"quality_control.threshold={value}"])


def stations(path, bias):
    rng = np.random.default_rng(0)
    lines = ["# units: degC", "time,station,value"]
    for t in range(60):
        for i, name in enumerate(("ALMATY", "BREST", "SAPPORO")):
            lines.append(f"{t},{name},{rng.normal() + bias[i]}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_station_withheld_is_scored_and_no_analysis_sees_it(tmp_path, capsys):
    keys = ["burn_in=5", "n_cycles=null", "initial.mean=0", "initial.std=.1", "dynamics.model_error=.1"]
    whole = stations(tmp_path / "whole.csv", (0.0, 0.0, 2.0))
    data, metrics = run(tmp_path / "a", *keys, f"observations.path={whole}")
    said = capsys.readouterr()
    assert list(metrics["by_sensor"]) == ["ALMATY", "BREST", "SAPPORO"]
    assert data["station"].values.tolist() == ["ALMATY", "BREST", "SAPPORO"]
    assert "noise: SAPPORO +" in said.err
    assert "SAPPORO (55 values)" in said.out
    withheld, metrics = run(
        tmp_path / "b", *keys, f"observations.path={whole}", "observations.withhold=[SAPPORO]"
    )
    said = capsys.readouterr()
    assert list(metrics["by_sensor"]) == ["ALMATY", "BREST"]
    found = metrics["withheld"]["SAPPORO"]
    z, forecast = data["observation"].values[5:, 2], withheld["forecast_mean"].values[5:, 2]
    assert found["n"] == 55
    assert found["mean"] == pytest.approx(float((z - forecast).mean()), rel=1e-4)
    assert "withheld, in std of the noise" in said.out
    assert "noise: SAPPORO +" in said.err
    assert not withheld["observation_mask"].values[:, 2].any()
    other = stations(tmp_path / "other.csv", (0.0, 0.0, -7.0))
    again, _ = run(tmp_path / "c", *keys, f"observations.path={other}", "observations.withhold=[2]")
    np.testing.assert_array_equal(withheld["analysis_mean"], again["analysis_mean"])
    drawn, told = run(tmp_path / "e", *keys, f"observations.path={whole}", "observations.withhold=.4")
    (place,) = told["withheld_places"]  # 1.2 of 3
    assert told["withheld_share"] == pytest.approx(1 / 3)
    flags = drawn["observation_withheld"].values
    assert drawn["station"].values[flags == 1].tolist() == [place]
    assert not drawn["observation_mask"].values[:, flags == 1].any()
    one = told["withheld"][place]  # the noise has standard deviation 1
    assert told["withheld_rms_forecast"] == pytest.approx(one["rms"], rel=1e-6)
    assert told["withheld_mean_forecast"] == pytest.approx(one["mean"], rel=1e-6)
    assert "share of the values that is withheld" in capsys.readouterr().out
    for wrong, message in (
        ("1", "the measured value 1 alone is [1]"),
        ("-.2", "a share of the measured values lies between 0 and 1; got -0.2"),
        ("[OSLO]", "is not a station (ALMATY, BREST, SAPPORO) or a number"),
        ("[0,1,2]", "no value"),
    ):
        arguments = ["run", "dynamics=linear", "dynamics.n=3", *keys, f"observations.path={whole}"]
        assert main([*arguments, f"observations.withhold={wrong}", f"output_dir={tmp_path / 'd'}"]) == 2
        assert message in capsys.readouterr().err
