"""What was ended goes on; folders are locked, and nothing is overwritten unasked."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import xarray as xr
from often import often

from masf_jax.amortised import pretrained_file
from masf_jax.cli.compare.seed_runs import SeedRuns
from masf_jax.cli.main import main
from masf_jax.cli.run import run as run_module
from masf_jax.cli.run.folder import Stoppable, claimed

SMALL = ["dynamics.n=8", "n_cycles=30", "burn_in=10", "ensemble_size=6", "figures=false"]


class Killed(BaseException):
    """Nothing in the program catches this, as nothing catches kill -9."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert main(["run", *SMALL, f"output_dir={folder}"]) == 0
    return folder


def results(folder):
    with xr.open_dataset(folder / "result.nc", engine="h5netcdf") as data:
        return data.load().drop_attrs()


def end_after(monkeypatch, n, how):
    """The record of a run, written each chunk, meets `how` with the n-th."""
    count = 0

    def append(self, *arguments):
        nonlocal count
        count += 1
        self.seconds = 0.0
        if count > n:
            how(self)
        append_before(self, *arguments)

    append_before = Stoppable.append
    monkeypatch.setattr(Stoppable, "append", append)


def killed(record):
    raise Killed


def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(whole, tmp_path, monkeypatch, capsys):
    again = ["run", *SMALL, f"output_dir={tmp_path}"]
    with monkeypatch.context() as patch:
        end_after(patch, 11, killed)
        with pytest.raises(Killed):
            main(again)
    assert not (tmp_path / "result.nc").exists()
    assert main([*again, "seed=1"]) == 2
    assert "unfinished run with another configuration (seed: 0 there, 1 here)" in capsys.readouterr().err
    assert main(again) == 0
    assert results(tmp_path).identical(results(whole))
    assert json.loads((tmp_path / "metrics.json").read_text())["resumed_at_cycle"] == 11
    assert not list(tmp_path.glob("partial*"))


@pytest.mark.slow
def test_a_killed_run_of_real_observations_goes_on(tmp_path, monkeypatch):
    command = ["run", "experiment=nile", "filter=kalman", "quality_control.threshold=6", "figures=false"]
    assert main([*command, f"output_dir={tmp_path}/whole"]) == 0
    with monkeypatch.context() as patch:
        end_after(patch, 20, killed)
        with pytest.raises(Killed):
            main([*command, f"output_dir={tmp_path}/killed"])
    assert main([*command, f"output_dir={tmp_path}/killed"]) == 0
    assert results(tmp_path / "killed").identical(results(tmp_path / "whole"))
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "killed")]
    assert metrics[0]["log_likelihood"] == metrics[1]["log_likelihood"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_ends_a_run_after_its_chunk(whole, tmp_path, monkeypatch, capsys, number, code):
    again = ["run", *SMALL, f"output_dir={tmp_path}"]
    with monkeypatch.context() as patch:
        end_after(patch, 4, lambda record: os.kill(os.getpid(), number))
        assert main(again) == code
    said = capsys.readouterr().err
    assert "stopped after cycle 5; what is done lies in" in said
    assert main([*again, "resume=never"]) == 0
    assert "resumed_at_cycle" not in json.loads((tmp_path / "metrics.json").read_text())
    assert results(tmp_path).identical(results(whole))


@pytest.mark.parametrize("where", often(["write_results", "summarize", "_draw"], ["write_results"]))
def test_a_signal_after_the_last_cycle_ends_at_once(whole, tmp_path, monkeypatch, capsys, where):
    """Also a sweep, whose other jobs are not begun."""
    act = getattr(run_module, where)

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return act(*arguments)

    again = ["run", "-m", *SMALL, "seed=0,1", f"output_dir={tmp_path}"]
    with monkeypatch.context() as patch:
        patch.setattr(run_module, where, signalled)
        assert main(again) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "1").exists()
    assert main(again) == 0
    assert results(tmp_path / "0").identical(results(whole))


def test_a_finished_run_is_not_made_again_unless_asked(whole, monkeypatch, capsys):
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr("masf_jax.cli.run.run.build", pytest.fail)
        assert main(["run", *SMALL, f"output_dir={whole}"]) == 0
    assert "nothing was computed" in capsys.readouterr().err
    assert main(["run", *SMALL, f"output_dir={whole}", "seed=7", "dynamics.forcing=9"]) == 2
    assert "seed: 0 there, 7 here" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before


@pytest.mark.parametrize("placed", often(range(3), [0]))
def test_a_kill_while_results_are_put_in_place(whole, tmp_path, monkeypatch, placed):
    """Also over results of another configuration, which then are no longer whole."""
    again = ["run", *SMALL, f"output_dir={tmp_path}"]
    if placed == 1:
        assert main([*again, "dynamics.forcing=9"]) == 0
        again.append("overwrite=true")
    replace, count = os.replace, 0

    def ending(source, target):
        nonlocal count
        if str(target).endswith(("result.nc", "metrics.json", "config.yaml")):
            if count == placed:
                raise Killed
            count += 1
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", ending)
        with pytest.raises(Killed):
            main(again)
    if placed == 1:
        again.remove("overwrite=true")
    assert main(again) == 0
    assert results(tmp_path).identical(results(whole))
    assert not list(tmp_path.glob("partial*"))


@pytest.mark.parametrize("file", ["zarr.json", "analysis_mean/zarr.json"])
def test_a_damaged_partial_run_is_said_and_can_be_begun_anew(whole, tmp_path, monkeypatch, capsys, file):
    again = ["run", *SMALL, f"output_dir={tmp_path}"]
    with monkeypatch.context() as inside:
        end_after(inside, 2, killed)
        with pytest.raises(Killed):
            main(again)
    (tmp_path / "partial.zarr" / file).write_text("{")
    assert main(again) == 2
    assert "resume=never begins the run anew" in capsys.readouterr().err
    assert main([*again, "resume=never"]) == 0
    assert results(tmp_path).identical(results(whole))


@pytest.mark.quick_cases("run")
@pytest.mark.parametrize("command", ["run", "compare"])
def test_results_of_a_checkpoint_are_not_those_of_another_under_its_name(tmp_path, capsys, command):
    network, folder = tmp_path / "mine.safetensors", tmp_path / "out"
    shutil.copy(pretrained_file("lorenz63_rounds"), network)
    given = [command, "dynamics=lorenz63", "steps_per_cycle=5", "n_cycles=12", "burn_in=4", "figures=false"]
    given += [
        "filter=masf_amortised",
        "filter.base=etkf",
        f"filter.checkpoint={network}",
        "filter.gate=false",
    ]
    if command == "compare":
        given = [each.replace("filter.", "a.") for each in given if each != "filter=masf_amortised"]
        given += ["filters={a:masf_amortised}", "seeds=2"]
    given += [f"output_dir={folder}"]
    assert main(given) == 0
    capsys.readouterr()
    assert main(given) == 0
    assert "from before" in "".join(capsys.readouterr())
    shutil.copy(pretrained_file("lorenz63_sakov2012"), network)
    assert main(given) == 2
    assert "content of filter.checkpoint" in capsys.readouterr().err
    assert main([*given, "overwrite=true"]) == 0


def test_a_damaged_result_is_not_taken_for_a_finished_run(whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    again = ["run", *SMALL, f"output_dir={tmp_path}"]
    result = tmp_path / "result.nc"
    result.write_bytes(result.read_bytes()[:5000])
    assert main(again) == 2
    assert "overwrite=true makes the run anew" in capsys.readouterr().err
    assert main([*again, "overwrite=true"]) == 0
    assert results(tmp_path).identical(results(whole))


@pytest.mark.parametrize("name", ["config.yaml", "metrics.json", "result.nc"])
def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys, name):
    (tmp_path / name).write_text("model: mine\n")
    assert main(["run", *SMALL, f"output_dir={tmp_path}"]) == 2
    assert "overwrite=true" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "model: mine\n"


def test_a_folder_in_use_is_locked_and_a_stale_lock_is_seen_through(tmp_path, capsys):
    script = (
        "import sys, time, pathlib\nfrom masf_jax.cli.run.folder import claimed\n"
        "with claimed(pathlib.Path(sys.argv[1])):\n    print('mine', flush=True)\n    time.sleep(600)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"mine\n"
        for command in (["run"], ["compare", "filters=[etkf]", "seeds=1"], ["tune", "filter=etkf"]):
            assert main([*command, *SMALL, f"output_dir={tmp_path}"]) == 2
            assert "is in use by another masf-jax process" in capsys.readouterr().err
    finally:
        other.kill()
        other.wait()
    with claimed(tmp_path):
        pass


@pytest.mark.slow
def test_a_comparison_goes_on_at_its_finished_filters(tmp_path, monkeypatch, capsys):
    def call(*more, filters="etkf,enkf"):
        return main(["compare", f"filters=[{filters}]", "seeds=2", *SMALL, f"output_dir={tmp_path}", *more])

    assert call(filters="etkf") == 0
    with monkeypatch.context() as patch:
        patch.setattr(SeedRuns, "__call__", lambda *arguments: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            call()
    runs = SeedRuns.__call__
    made = []
    monkeypatch.setattr(SeedRuns, "__call__", lambda self, *a: made.append(self) or runs(self, *a))
    assert call() == 0
    assert len(made) == 1
    with (tmp_path / "comparison.csv").open() as file:
        assert [row["filter"] for row in csv.DictReader(file)] == ["etkf", "enkf"]
    assert call("etkf.inflation=1.3") == 2
    assert "other settings under the name etkf (filter.inflation: 1.02" in capsys.readouterr().err
    assert call("etkf.inflation=1.3", "overwrite=true") == 0
    assert len(made) == 3


@pytest.mark.slow
def test_a_tuning_goes_on_at_its_finished_trials(tmp_path, monkeypatch):
    pytest.importorskip("optuna")

    def call(folder):
        space = ["filter=etkf", "filter.inflation=interval(1.0,1.3)", "trials=4", "evaluation_seeds=1"]
        return main(["tune", *space, *SMALL, f"output_dir={folder}"])

    def trials(folder):
        with (folder / "trials.csv").open() as file:
            return [{**row, "seconds": ""} for row in csv.DictReader(file)]

    assert call(tmp_path / "whole") == 0
    runs, made = SeedRuns.__call__, []

    def two(self, *arguments):
        if len(made) == 2:
            raise Killed
        made.append(self)
        return runs(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(SeedRuns, "__call__", two)
        with pytest.raises(Killed):
            call(tmp_path / "killed")
    assert len(trials(tmp_path / "killed")) == 2
    made.clear()
    monkeypatch.setattr(SeedRuns, "__call__", lambda self, *a: made.append(self) or runs(self, *a))
    assert call(tmp_path / "killed") == 0
    assert len(made) == 3  # two trials and the evaluation
    assert trials(tmp_path / "killed") == trials(tmp_path / "whole")


@pytest.mark.slow
def test_a_sweep_goes_on_at_its_finished_jobs(tmp_path, monkeypatch, capsys):
    command = ["run", "-m", *SMALL, "seed=0,1", f"output_dir={tmp_path}"]
    with monkeypatch.context() as patch:
        end_after(patch, 33, lambda record: os.kill(os.getpid(), signal.SIGTERM))
        assert main(command) == 143
    first = (tmp_path / "0" / "result.nc").read_bytes()
    assert not (tmp_path / "1" / "result.nc").exists()
    assert main(command) == 0
    assert (tmp_path / "0" / "result.nc").read_bytes() == first
    assert (tmp_path / "1" / "result.nc").exists()
    assert json.loads((tmp_path / "1" / "metrics.json").read_text())["resumed_at_cycle"] == 4
    capsys.readouterr()
    assert main([*command, "dynamics.forcing=9"]) == 2
    assert "dynamics.forcing" in capsys.readouterr().err
