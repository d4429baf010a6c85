"""Unknown numbers from the command line: found, written with their course, refused where there are none."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from often import often

from masf_jax.cli.config.compose import compose, repeat
from masf_jax.cli.config.settings import read_settings, write_settings
from masf_jax.cli.errors import InputError
from masf_jax.cli.main import main

SMALL = ["dynamics=lorenz96", "dynamics.n=8", "n_cycles=30", "burn_in=10", "figures=false"]


def run(folder, *overrides):
    assert main(["run", *SMALL, f"output_dir={folder}", *overrides]) == 0
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("result", often(["netcdf", "zarr"], ["zarr"]))
def test_the_course_of_a_parameter_is_in_the_results(tmp_path, capsys, result):
    given = ["filter=etkf", "estimate.forcing={prior:[6,1]}", f"result={result}", "save=[mean]"]
    metrics = run(tmp_path / "a", *given)
    if result == "netcdf":
        data = xr.open_dataset(tmp_path / "a" / "result.nc", engine="h5netcdf")
    else:
        data = xr.open_zarr(tmp_path / "a" / "result.zarr", consolidated=False, chunks=None)
    course, std = data["estimated_forcing"].values, data["estimated_forcing_std"].values
    assert course.shape == std.shape == (30,)
    assert std[-1] < std[0]
    assert abs(course[-1] - 8) < abs(course[0] - 8)
    assert metrics["estimated_forcing"] == pytest.approx(course[-1])
    assert metrics["estimated_forcing_std"] == pytest.approx(std[-1])
    assert data["analysis_mean"].shape == data["truth"].shape == (30, 8)
    rmse = np.sqrt(((data["analysis_mean"] - data["truth"]).values ** 2).mean(1))
    np.testing.assert_allclose(data["rmse_analysis"].values, rmse, rtol=1e-5)
    assert "analysis_spread" not in data
    assert "forcing, estimated" in capsys.readouterr().out
    assert run(tmp_path / "a", *given) == metrics  # it is there already
    assert not (tmp_path / "a" / "estimates.png").exists()
    assert "nothing was computed" in capsys.readouterr().err


@pytest.mark.slow
def test_an_optimisation_is_followed_by_the_run_with_what_it_found(tmp_path):
    """Slow: tests/estimation has the engines, the tests around this one have the run after an estimate."""
    em = "{name:em,steps:3,laplace:false}"
    prior = "{name:log_normal,median:2}"
    given = ["filter=etkf", f"estimate.measurement.noise.std={{prior:{prior},engine:{em}}}"]
    metrics = run(tmp_path / "a", *given)
    with xr.open_dataset(tmp_path / "a" / "result.nc", engine="h5netcdf") as data:
        course = data["estimated_measurement_noise_std"].values
        assert data["estimated_measurement_noise_std"].dims == ("iteration",)
    assert main(["plot", str(tmp_path / "a")]) == 0
    assert (tmp_path / "a" / "estimates.png").stat().st_size > 1000
    assert course.shape == (3,)
    assert course[-1] < 2
    assert metrics["estimated_measurement_noise_std"] == pytest.approx(course[-1])
    assert metrics["rmse_analysis"] < 1


@pytest.mark.slow
def test_several_numbers_keep_their_names(tmp_path):
    """Whatever their order: priors that never move say which is which."""
    given = ["estimate.radius={prior:[4,1e-4],engine:{name:gradient,steps:1,laplace:false}}"]
    metrics = run(tmp_path / "a", "filter=letkf", *given, "estimate.dynamics.forcing={prior:[8,1e-4]}")
    assert metrics["estimated_radius"] == pytest.approx(4, abs=1e-3)
    assert metrics["estimated_dynamics_forcing"] == pytest.approx(8, abs=1e-3)
    with xr.open_dataset(tmp_path / "a" / "result.nc", engine="h5netcdf") as data:
        assert float(data["estimated_radius"][-1]) == pytest.approx(4, abs=1e-3)


def test_settings_come_back_from_their_file():
    engine = "{name:gradient,steps:7}"
    given = ["estimate.forcing={prior:[6,2]}", f"estimate.filter.radius={{prior:log_normal,engine:{engine}}}"]
    with pytest.raises(InputError, match="median"):
        compose([*SMALL, *given])
    given[1] = given[1].replace("log_normal", "{name:log_normal,median:4}")
    settings = compose([*SMALL, "filter=letkf", *given])
    assert settings.estimate["forcing"]["engine"]["steps"] == 7  # one engine finds all
    assert settings.estimate["filter"]["radius"]["prior"]["median"] == 4
    assert read_settings(write_settings(settings)) == settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["estimate.forcing=8"], "needs a prior"),
        (["estimate.forcing={prior:[8]}"], r"\[MEAN, STD\]"),
        (["estimate.forcing={prior:[8,0]}"], "std"),
        (["estimate.forcing={prior:[8,1],walk:1}"], "unknown key"),
        (["estimate.forcing={prior:{name:norml,mean:8,std:1}}"], "Did you mean 'normal'"),
        (["estimate.forcing={prior:[8,1],engine:{name:gradient,step:3}}"], "Did you mean 'engine.steps'"),
        (["estimate.a={prior:[8,1],engine:em}", "estimate.b={prior:[8,1],engine:gradient}"], "one engine"),
    ],
)
def test_what_is_no_unknown_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        compose([*SMALL, *given])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("estimate.focring={prior:[8,1]}", "Did you mean 'dynamics.forcing'"),
        ("estimate.noise.std={prior:[1,1]}", "moves no state"),
    ],
)
def test_a_number_that_is_not_there_is_named(tmp_path, capsys, given, message):
    assert main(["run", *SMALL, "filter=etkf", f"output_dir={tmp_path}/a", given]) == 2
    assert message in capsys.readouterr().err


def test_an_ambiguous_name_needs_more_of_its_path(tmp_path, capsys):
    given = [*SMALL, "dynamics.model_error=0.1", "filter=etkf", f"output_dir={tmp_path}/a"]
    assert main(["run", *given, "estimate.std={prior:[1,1]}"]) == 2
    assert "dynamics.std, measurement.noise.std" in capsys.readouterr().err


def test_comparisons_have_no_unknowns(tmp_path, capsys):
    given = ["filters=[etkf]", f"output_dir={tmp_path}/a", "estimate.forcing={prior:[8,1]}"]
    assert main(["compare", "dynamics=lorenz96", *given]) == 2
    assert "known numbers" in capsys.readouterr().err


def test_a_saved_configuration_repeats_the_estimate(tmp_path):
    run(tmp_path / "a", "filter=etkf", "estimate.forcing={prior:[6,1]}")
    settings = repeat(str(tmp_path / "a" / "config.yaml"), ["estimate.forcing.prior.std=2"])
    assert settings.estimate["forcing"]["prior"] == {"name": "normal", "mean": 6, "std": 2}
