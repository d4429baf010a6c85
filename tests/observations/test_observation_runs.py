"""Observation files through the command line: what is reported, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
import yaml

from masf_jax.cli.main import main

QUICK = ["dynamics=local_level", "measurement=identity", "filter=kalman", "n_cycles=null", "figures=false"]
QUICK += ["initial.mean=0", "initial.std=1", "dynamics.model_error=0.5", "scores=[]", "burn_in=0"]


def run(folder, text, *overrides):
    path = folder / "obs.csv"
    path.write_text(text)
    return main(["run", *QUICK, f"observations.path={path}", f"output_dir={folder / 'out'}", *overrides])


def test_a_far_value_is_reported_once_with_its_place(tmp_path, capsys):
    text = "# units: \x1b[31mK\ntime,value\n0,0.5\n1,1e10\n2,0.1\n3,1e10\n"
    assert run(tmp_path, text) == 3  # both cycles are left out
    out, err = capsys.readouterr()
    assert err.count("warning") == 2
    assert "in 2 of 4 cycles (first: 1); there the forecast stands as the analysis" in err
    assert "2 of 4 values lie far outside what the model gives" in err
    assert "1e+10 (cycle 1, time 1, value 0)" in err
    assert "\x1b[31m" not in out + err
    assert run(tmp_path, text, "observations.valid_range=[-10,10]", "overwrite=true") == 0
    out, err = capsys.readouterr()
    assert err.count("warning") == 1
    assert (
        "2 values outside observations.valid_range = [-10, 10] count as missing, first 1e+10 (cycle 1" in err
    )
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["values_outside_range"] == 2


def test_dates_and_stations_on_the_command_line(tmp_path):
    text = "time,station,value\n2000-01-03,1,1\n2000-01-02T12:00,1,2\n"
    keys = [
        "observations.time_origin=2000-01-01",
        "observations.time_unit=hours",
        "observations.stations=[1]",
    ]
    assert run(tmp_path, text, *keys, "dynamics.dt=12") == 0
    with xr.open_dataset(tmp_path / "out" / "result.nc", engine="h5netcdf") as data:
        assert data["step"].values.tolist() == [3, 4]
        assert data["observation_time"].attrs["long_name"].endswith("hours since 2000-01-01T00:00:00")
        dates = np.array(["2000-01-02T12:00", "2000-01-03"], "datetime64[ns]")
        np.testing.assert_array_equal(data["time"], dates)
        assert data["time"].attrs["standard_name"] == "time"
        np.testing.assert_array_equal(data["model_time"], [36, 48])


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("time,value\n0,1\n1,1e300\n", [], r"values holds 1e+300 at [1, 0], beyond float32"),
        ("time,value\n0,1\n1,2\n", ["burn_in=200"], "burn_in (200) leaves none of the 2 cycles of"),
        ("time,value\n2000-01-01,1\n2000-01-02,2\n", [], "in which unit does the model count time"),
        ("time,value\n0,1\n1,\x1b[31m\n", [], r"\x1b[31m"),
        ("time,value\n0,1\n", ["observations.valid_range=[2,1]"], "valid_range must be [least, largest]"),
    ],
)
def test_refused(tmp_path, capsys, text, overrides, message):
    assert run(tmp_path, text, *overrides) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert "\x1b" not in err
    assert not (tmp_path / "out").exists()


def test_a_long_record_has_exact_times(tmp_path):
    """A step of a tenth, in single precision: step 70 000 is there at 7000."""
    text = "time,value\n0,1\n6000,2\n7000,2\n"
    assert run(tmp_path, text, "dynamics.dt=0.1", "precision=float32") == 0
    with xr.open_dataset(tmp_path / "out" / "result.nc", engine="h5netcdf") as data:
        assert data["step"].values.tolist() == [0, 60_000, 70_000]
        np.testing.assert_allclose(data["time"], [0, 6000, 7000], rtol=1e-15)


def test_a_saved_configuration_that_lacks_a_key(tmp_path, capsys):
    assert run(tmp_path, "time,value\n0,1\n1,2\n") == 0
    path = tmp_path / "out" / "config.yaml"
    saved = yaml.safe_load(path.read_text())
    assert main(["run", f"--config={path}", f"output_dir={tmp_path / 'again'}"]) == 0
    del saved["observations"]["time_origin"], saved["seed"]
    path.write_text(yaml.safe_dump(saved))
    capsys.readouterr()
    arguments = ["run", f"--config={path}", f"output_dir={tmp_path / 'again'}"]
    assert main(arguments) == 2
    assert (
        "lacks seed, observations.time_origin: a saved configuration names every key"
        in capsys.readouterr().err
    )
    assert main([*arguments, "seed=0", "observations.time_origin=0", "overwrite=true"]) == 0
