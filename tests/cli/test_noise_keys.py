"""`filter.adaptive_noise`: the noise found along the way, and tuning by likelihood, from the command line."""

from __future__ import annotations

import csv
import json
import math

import pytest
import xarray as xr

from masf_jax.cli.config.builders.filters import FILTERS
from masf_jax.cli.config.compose import compose, repeat
from masf_jax.cli.config.filter_file import read_filter_file
from masf_jax.cli.errors import InputError
from masf_jax.cli.main import main
from masf_jax.filters import AdaptiveNoise

SMALL = ["dynamics.n=8", "burn_in=10", "ensemble_size=6", "figures=false"]
FINDS = [name for name in FILTERS.entries if "adaptive_noise" in FILTERS.keys(name)]


@pytest.mark.parametrize("name", FINDS)
def test_filters_of_members_take_the_key(name):
    required = {"letkf": {"radius": 7.0}}.get(name, {})
    section = FILTERS.check({"name": name, **required})
    assert section["adaptive_noise"] is None
    assert not isinstance(FILTERS.build(section), AdaptiveNoise)
    built = FILTERS.build(FILTERS.check({"name": name, "adaptive_noise": "each", **required}))
    assert isinstance(built, AdaptiveNoise)
    assert built.each
    assert isinstance(built.filter, type(FILTERS.build(section)))


def test_others_say_why_not():
    assert {"kalman", "particle", "climatology", "masf_amortised"}.isdisjoint(FINDS)
    assert {"letkf", "enkf", "etkf", "masf", "ensf", "enff"} <= set(FINDS)
    with pytest.raises(InputError, match="trained for the noise it is told"):
        FILTERS.build(FILTERS.check({"name": "masf", "prior": "network", "adaptive_noise": "one"}))
    with pytest.raises(InputError, match="adaptive_noise"):
        FILTERS.check({"name": "particle", "adaptive_noise": "one"})


@pytest.mark.slow
def test_a_run_finds_it_and_its_configuration_is_kept(tmp_path):
    found = ["filter.adaptive_noise=one", "filter.noise_memory=100", "filter.adaptive=true"]
    arguments = ["filter=etkf", *found, *SMALL, "n_cycles=60"]
    assert main(["run", *arguments, f"output_dir={tmp_path / 'one'}"]) == 0
    path = tmp_path / "one" / "config.yaml"
    again = repeat(str(path), [f"output_dir={tmp_path / 'two'}"])
    assert again.filter == compose(arguments).filter
    metrics = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert math.isfinite(metrics["rmse_analysis"])
    with xr.open_dataset(tmp_path / "one" / "result.nc") as result:
        assert 0.3 < float(result["noise_factor"][-1]) < 3
        assert 0.9 < float(result["inflation"][-1]) < 1.5
    # a file from before the key was there
    lines = [line for line in path.read_text().splitlines() if not line.startswith("  adaptive_noise:")]
    path.write_text("\n".join(line for line in lines if "  noise_memory:" not in line) + "\n")
    assert repeat(str(path), []).filter["adaptive_noise"] is None


def test_tuning_by_observations_that_have_dates(tmp_path):
    pytest.importorskip("optuna")
    values = "".join(f"2026-01-{day:02d},{1100 + 7 * (day % 5)}\n" for day in range(1, 13))
    (tmp_path / "flow.csv").write_text("time,value\n" + values)
    file = [f"observations.path={tmp_path / 'flow.csv'}", "observations.time_origin=2026-01-01"]
    file += ["observations.time_unit=days", "observations.units=null"]
    tuning = ["filter.inflation=1.0,2.0", "trials=1", "seeds=1", "objective=likelihood"]
    common = ["experiment=nile", "filter=enkf", "ensemble_size=20", f"output_dir={tmp_path / 'tune'}"]
    assert main(["tune", *common, *file, *tuning]) == 0
    with (tmp_path / "tune" / "trials.csv").open() as table:
        assert all(math.isfinite(float(row["score"])) for row in csv.DictReader(table))


@pytest.mark.slow
def test_tuning_without_a_truth(tmp_path, capsys):
    """Of real observations, and by the same likelihood as a run of its own has."""
    pytest.importorskip("optuna")
    common = ["experiment=nile", "filter=enkf", "ensemble_size=200", "trials=3", "seeds=2"]
    space = "filter.inflation=1.0,2.0,4.0"
    arguments = ["tune", *common, space, "objective=likelihood", f"output_dir={tmp_path}"]
    assert main(arguments) == 0
    assert "log-score" in capsys.readouterr().out
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    tuning = read_filter_file(str(tmp_path / "enkf_tuned.yaml")).tuning
    assert tuning is not None
    assert (tuning.rmse, tuning.climatology) == (None, None)
    for row in rows:
        each = [float(row["log_score_seed_1000"]), float(row["log_score_seed_1001"])]
        assert -float(row["score"]) == pytest.approx(sum(each) / 2)
    assert tuning.log_score == pytest.approx(-min(float(row["score"]) for row in rows))
    # Durbin & Koopman (2012), table 2.1: log L = -632.54 at these variances, without the diffuse first year
    assert tuning.log_score == pytest.approx(-632.54 / 99, abs=0.03)
    assert tuning.log_score_climatology < tuning.log_score
    assert main([*arguments, "evaluation_seeds=2"]) == 2
    assert "no truth to evaluate by" in capsys.readouterr().err
    assert main(["tune", *common, space, "objective=likelihod"]) == 2
    assert "Did you mean 'likelihood'" in capsys.readouterr().err
    assert main(["tune", *common, space]) == 2
    assert "tune by objective=likelihood" in capsys.readouterr().err
