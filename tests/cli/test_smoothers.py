"""Smoothers from the command line: each builds, runs, and refuses in a sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from often import often

from masf_jax.cli.config.builders.smoothers import SMOOTHERS
from masf_jax.cli.config.compose import choices, compose, repeat
from masf_jax.cli.main import main
from masf_jax.cli.run.results import configuration_text

SMALL = ["dynamics.n=8", "n_cycles=12", "burn_in=2", "ensemble_size=6", "figures=false"]
RUNS = {
    "enks": ["n_cycles=200", "filter=letkf", "filter.radius=3", "smoother.lag=4"],
    "ienks": ["n_cycles=200", "filter=ienkf", "filter.radius=3", "smoother.lag=2"],
    "rts": ["n_cycles=100", "filter=kalman"],
    "four_d_var": ["smoother.std=0.2"],
    "weak_four_d_var": ["smoother.q=1e-4", "precision=float64"],
}


@pytest.mark.parametrize("choice", choices("smoother"))
def test_every_smoother_builds(choice):
    built = SMOOTHERS.build(compose([f"smoother={choice}"]).smoother)
    assert callable(built) == (choice != "none")


@pytest.mark.parametrize("name", often(RUNS, ["rts"]))
def test_it_runs(name, tmp_path):
    """What is smoothed lies beside the analyses, and nearer to the truth (over a dozen cycles by luck)."""
    arguments = [*SMALL, f"smoother={name}", *RUNS[name], f"output_dir={tmp_path}"]
    assert main(["run", *arguments]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    with xr.open_dataset(tmp_path / "result.nc", engine="h5netcdf") as data:
        error = data["smoothed_mean"] - data["truth"]
        rmse = np.sqrt((error**2).mean("x"))
        assert data["smoothed_mean"].attrs["long_name"] == "smoothed mean"
        assert ("smoothed_spread" in data) == (not name.endswith("four_d_var"))
        np.testing.assert_allclose(rmse, data["rmse_smoothed"], rtol=1e-4)
    assert metrics["rmse_smoothed"] == pytest.approx(float(rmse[2:].mean()), rel=1e-4)
    assert metrics["rmse_smoothed"] < metrics["rmse_analysis"] < 0.5
    assert compose(arguments).automatic_output_dir.endswith(f"-{name}-seed0")


def test_a_configuration_from_before_smoothers_is_read(tmp_path):
    text = configuration_text(compose(SMALL))
    assert "smoother:\n  name: none\n" in text
    (tmp_path / "config.yaml").write_text(text.replace("smoother:\n  name: none\n", ""))
    assert repeat(str(tmp_path / "config.yaml"), []).smoother == {"name": "none"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smoother=enks", "filter=kalman"], "EnSRF or LETKF; got KalmanFilter"),
        (
            ["smoother=enks", "smoother.lag=-1"],
            "lag (None: all cycles) must be at least 0; got -1",
        ),
        (["smoother=ienks"], "takes the settings of an IEnKF; got ETKF"),
        (["smoother=rts"], "goes back over a KalmanFilter; got ETKF"),
        (
            ["smoother=four_d_var", "smoother.iterations=0"],
            "iterations, history and stages must be at least 1",
        ),
        (["smoother=weak_four_d_var"], "Lorenz96 says none: give q"),
        (["smoother=weak_four_d_var", "smoother.q=-1"], "variances, 0 or more; got -1"),
        (["smoother=four_d_var", "quality_control.threshold=5"], "has no quality control"),
        (["smoother=rtss"], "'rts'"),
    ],
)
def test_what_it_cannot_do_it_says(arguments, message, tmp_path, capsys):
    assert main(["run", *SMALL, *arguments, f"output_dir={tmp_path}"]) == 2
    assert message in capsys.readouterr().err


def test_comparisons_are_of_filters(tmp_path, capsys):
    arguments = ["filters=[etkf]", *SMALL, "smoother=enks", f"output_dir={tmp_path}"]
    assert main(["compare", *arguments]) == 2
    assert "compared and tuned without smoothers" in capsys.readouterr().err
