"""Routes of the score-based filter from the command line: chosen, said, kept in the results, refused."""

from __future__ import annotations

import json

import pytest
import xarray as xr
from often import often

from masf_jax.cli.main import main

PROBLEM = ["dynamics.n=8", "n_cycles=2", "burn_in=0", "ensemble_size=4", "figures=false", "scores=[rmse]"]
TINY = ["filter.network.width=8", "filter.network.depth=1", "filter.training.epochs=1"]
PAPER = ["filter=masf_paper", "measurement=arctan", "filter.n_steps=20", *TINY]
PAPER += ["filter.pretraining.states=20", "filter.pretraining.epochs=1"]
CONDITIONAL = ["filter=masf", "filter.route=conditional", "measurement=arctan"]
ROUTES = {
    "linear": ["filter=masf", "measurement=every_second"],
    "linearized": ["filter=masf", "measurement=arctan"],
    "conditional, kernel": [*CONDITIONAL, "filter.denoiser=kernel"],
    "conditional, network": [*CONDITIONAL, "filter.denoiser=network", "filter.n_steps=3", *TINY],
    "none": ["filter=letkf", "measurement=arctan"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", often(ROUTES, ("linearized",)))
def test_the_route_is_in_the_results(name, tmp_path, capsys):
    assert main(["run", *PROBLEM, *ROUTES[name], f"output_dir={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    with xr.open_dataset(tmp_path / "result.nc", engine="h5netcdf") as data:
        kept = data.attrs.get("route")
    route = None if name == "none" else name.split(",")[0]
    assert metrics.get("route") == kept == route
    line = [words for words in printed.split("\n") if "route to the analysis" in words]
    assert (len(line) == 1 and route in line[0]) if route else not line


@pytest.mark.slow
def test_two_heads_from_a_checkpoint(tmp_path):
    folder = tmp_path / "trained"
    assert main(["train", *PROBLEM, *PAPER, f"output_dir={folder}"]) == 0
    run = ["run", *PROBLEM, *PAPER, f"filter.checkpoint={folder}"]
    assert main([*run, f"output_dir={tmp_path / 'out'}"]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["seconds_train"] == 0
    assert metrics["route"] == "dual_head"
    with xr.open_dataset(tmp_path / "out" / "result.nc", engine="h5netcdf") as data:
        assert data.attrs["route"] == "dual_head"
    linear = ["measurement=identity", f"output_dir={tmp_path / 'other'}"]
    assert main([*run, *linear]) == 2, "another network for another measurement"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["filter.route=conditional"], "denoiser=kernel"),
        (
            ["filter.route=conditional", "filter.denoiser=kernel", "filter.checkpoint=here"],
            "takes no checkpoint",
        ),
        (["filter.route=conditional", "filter.denoiser=network", "filter.training.epochs=0"], "at least 1"),
        (["filter.route=exact"], "auto or linear or linearized or conditional"),
    ],
)
def test_refused(keys, message, tmp_path, capsys):
    assert main(["run", *PROBLEM, "filter=masf", *keys, f"output_dir={tmp_path / 'out'}"]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
