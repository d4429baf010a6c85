"""Real data: the Nile against statsmodels' exact local-level filter."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from masf_jax.cli.config.compose import config_folder
from masf_jax.cli.main import main


def run(folder, *overrides):
    assert main(["run", "experiment=nile", f"output_dir={folder}", *overrides]) == 0
    with xr.open_dataset(folder / "result.nc", engine="h5netcdf") as data:
        return data.load(), json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def exact():
    """Filtered level from statsmodels with the same variances and the same first prior, N(0, 1e7)."""
    structural = pytest.importorskip("statsmodels.tsa.statespace.structural")
    flow = np.genfromtxt(config_folder() / "data" / "nile.csv", delimiter=",", comments="#", skip_header=5)[
        :, 1
    ]
    assert flow.shape == (100,)
    model = structural.UnobservedComponents(flow, "llevel")
    model.ssm.initialize_known(np.zeros(1), np.full((1, 1), 1e7))
    return model.smooth([15098.53, 1469.16])


@pytest.fixture(scope="module")
def kalman(tmp_path_factory):
    return run(tmp_path_factory.mktemp("nile"))


def test_kalman_equals_statsmodels(kalman, exact):
    data, metrics = kalman
    np.testing.assert_allclose(data["analysis_mean"].values[:, 0], exact.filtered_state[0], rtol=1e-6)
    variance = data["analysis_spread"].values[:, 0] ** 2
    np.testing.assert_allclose(variance, exact.filtered_state_cov[0, 0], rtol=1e-6)
    assert metrics["log_likelihood"] == pytest.approx(exact.llf_obs[1:].sum(), rel=1e-6)


def test_without_truth_scores_are_those_of_innovations(kalman, exact):
    data, metrics = kalman
    assert metrics["rmse_analysis"] is None
    error = exact.forecasts_error[0][1:]
    assert metrics["innovation_rms_forecast"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-6)
    assert "truth" not in data
    assert data["observation_time"].values[[0, -1]].tolist() == [1871.0, 1970.0]
    assert data["step"].values[0] == 0
    assert data["observation"].attrs["units"] == "1e8 m3"


@pytest.mark.slow
def test_large_ensemble_is_within_one_percent(tmp_path, exact):
    data, metrics = run(tmp_path, "filter=enkf", "figures=false", "scores=[rmse]")
    assert metrics["ensemble_size"] == 10_000
    np.testing.assert_allclose(data["analysis_mean"].values[:, 0], exact.filtered_state[0], rtol=1e-2)


def test_wrong_units_and_length_exit_with_code_2(tmp_path, capsys):
    common = ["run", "experiment=nile", f"output_dir={tmp_path}"]
    assert main([*common, "observations.units=m3"]) == 2
    assert "'1e8 m3'" in capsys.readouterr().err
    assert main([*common, "n_cycles=200"]) == 2
    assert "holds 100 times" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
