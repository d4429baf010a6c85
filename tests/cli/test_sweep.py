"""Sweeps: every combination, a folder a job, one table; with the joblib launcher."""

from __future__ import annotations

import csv
import json

import pytest

from masf_jax.cli.config.overrides import expand, parse
from masf_jax.cli.errors import InputError
from masf_jax.cli.main import main
from masf_jax.cli.report import over_seeds, print_sweep

SMALL = ["dynamics.n=8", "n_cycles=5", "burn_in=1", "ensemble_size=4", "figures=false", "scores=[rmse]"]


def test_expand_gives_every_combination():
    jobs = expand(parse(["filter=etkf,enkf", "seed=range(0,3)", "n_cycles=5"]))
    assert len(jobs) == 6
    assert jobs[1] == ["filter=etkf", "seed=1", "n_cycles=5"]
    with pytest.raises(InputError, match="lists of values"):
        expand(parse(["filter.inflation=interval(1,2)"]))


def test_mistakes_are_found_before_any_job_starts(tmp_path, capsys):
    assert main(["run", "-m", "filter=etkf,letfk", f"output_dir={tmp_path}/sweep"]) == 2
    assert "'letkf'" in capsys.readouterr().err
    assert main(["run", "-m", "filter=etkf", "filter.inflation=1.0,-1", f"output_dir={tmp_path}/sweep"]) == 2
    assert "filter.inflation=-1: filter etkf: multiplicative inflation" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_joblib_sweep_ends_with_a_table(tmp_path, capsys):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    text = "from masf_jax import dynamics\n\n\ndef ring(n: int = 40):\n    return dynamics.Lorenz96(n=n)\n"
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    launcher.append(f"dynamics={tmp_path}/mine.py:ring")
    code = main(["run", "-m", *launcher, *SMALL, "seed=3,4", f"output_dir={tmp_path}"])
    assert code == 0
    assert "2 runs" in capsys.readouterr().out
    with (tmp_path / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["overrides"] for row in rows] == ["seed=3", "seed=4"]
    metrics = [json.loads((tmp_path / str(k) / "metrics.json").read_text()) for k in range(2)]
    assert [float(row["rmse_analysis"]) for row in rows] == [m["rmse_analysis"] for m in metrics]
    assert metrics[0]["rmse_analysis"] != metrics[1]["rmse_analysis"]
    assert main(["run", "--config", str(tmp_path / "0" / "config.yaml"), f"output_dir={tmp_path}/again"]) == 0
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert again["rmse_analysis"] == metrics[0]["rmse_analysis"]


def test_a_failing_job_does_not_stop_the_others(tmp_path, capsys):
    arguments = ["run", "-m", *SMALL, "dynamics.dt=0.5,0.05", f"output_dir={tmp_path}"]
    assert main(arguments) == 1
    assert "dynamics.dt = 0.5" in (tmp_path / "0" / "error.txt").read_text()
    with (tmp_path / "summary.csv").open() as file:
        status = [row["status"] for row in csv.DictReader(file)]
    assert status[0].startswith("failed")
    assert status[1] == "done"


def test_a_sweep_has_one_output_folder():
    assert main(["run", "-m", *SMALL, "output_dir=a,b"]) == 2


def test_runs_that_differ_in_their_seed_are_averaged():
    rows = [
        {"overrides": "filter=etkf seed=0", "rmse_analysis": 1.0},
        {"overrides": "filter=etkf seed=1", "rmse_analysis": 3.0},
        {"overrides": "filter=enkf seed=0", "rmse_analysis": 2.0},
        {"overrides": "filter=enkf seed=1", "status": "failed"},
    ]
    assert over_seeds(rows) == ["filter=etkf: RMSE of the analysis 2 ± 1 over 2 seeds"]


def test_names_are_printed_as_they_are(tmp_path, capsys):
    """Nothing in brackets is a style, nothing between colons an emoji."""
    words = ["scores=[rmse]", "dynamics=a.py:ring:b"]
    rows = [
        {"job": i, "overrides": f"{word} seed={i}", "status": "ok", "rmse_analysis": 0.5}
        for word in words
        for i in (0, 1)
    ]
    print_sweep(rows, tmp_path)
    said = capsys.readouterr().out
    for word in words:
        assert f"{word} seed=0" in said
        assert f"{word}: RMSE of the analysis 0.5" in said


def test_what_hydra_cannot_do_is_said_in_a_sentence(tmp_path, capsys):
    (tmp_path / "multirun.yaml").mkdir()
    sweep = ["run", "-m", *SMALL, "seed=3,4", f"output_dir={tmp_path}"]
    assert main(sweep) == 1
    said = capsys.readouterr().err
    assert "multirun.yaml: Is a directory" in said
    assert "give the same command again" in said
    assert main([*sweep, "hydra/launcher=nothing"]) == 2
    said += capsys.readouterr().err
    assert "'hydra/launcher/nothing'" in said
    assert "Traceback" not in said
