"""Whole runs: what they write, that they repeat, and how they fail."""

from __future__ import annotations

import json
import resource
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import xarray as xr

from masf_jax.cli.errors import WriteError
from masf_jax.cli.files import write_all
from masf_jax.cli.main import main

SMALL = ["dynamics.n=8", "n_cycles=30", "burn_in=10", "ensemble_size=6"]
FILES = ["config.yaml", "error_spread.png", "metrics.json", "rank_histogram.png", "result.nc", "states.png"]


def load(folder):
    with xr.open_dataset(folder / "result.nc", engine="h5netcdf") as data:
        return data.load()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "deep" / "folder"
    assert main(["run", *SMALL, "measurement=every_second", f"output_dir={folder}"]) == 0
    return folder


def test_files(finished):
    assert sorted(path.name for path in finished.iterdir()) == FILES
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in finished.glob("*.png"))


def test_metrics(finished):
    metrics = json.loads((finished / "metrics.json").read_text(), parse_constant=pytest.fail)
    data = load(finished)
    required = "rmse_analysis rmse_forecast spread_analysis spread_forecast crps_analysis spread_skill_ratio "
    required += "n_cycles burn_in seconds_compile seconds_train seconds_assimilate seconds_per_cycle"
    assert all(isinstance(metrics[name], int | float) for name in required.split())
    error = data["analysis_mean"] - data["truth"]
    rmse = np.sqrt((error**2).mean("x"))
    np.testing.assert_allclose(rmse, data["rmse_analysis"], rtol=1e-5)
    assert metrics["rmse_analysis"] == pytest.approx(float(rmse[10:].mean()), rel=1e-5)
    hidden = np.sqrt((error[:, 1::2] ** 2).mean("x"))[10:].mean()
    assert metrics["rmse_unobserved_analysis"] == pytest.approx(float(hidden), rel=1e-5)
    assert metrics["versions"]["jax"]


def test_dataset_follows_cf(finished):
    data = load(finished)
    assert data.attrs["Conventions"].startswith("CF-")
    assert "masf-jax run dynamics.n=8" in data.attrs["history"]
    assert dict(data.sizes) == {"cycle": 30, "x": 8, "measured": 4, "rank": 7}
    for variable in data.variables.values():
        assert variable.attrs["long_name"]
        assert variable.attrs["units"]
    np.testing.assert_allclose(data["time"], 0.05 * np.arange(1, 31), rtol=1e-6)
    np.testing.assert_array_equal(data["observation_x"], [0, 2, 4, 6])
    assert data["observation_mask"].values.all()


def test_config_repeats_the_run_bit_for_bit(finished, tmp_path):
    config = str(finished / "config.yaml")
    assert main(["run", "--config", config, f"output_dir={tmp_path}", "figures=false"]) == 0
    before, after = load(finished), load(tmp_path)
    assert before.drop_attrs().identical(after.drop_attrs())
    first, second = (json.loads((folder / "metrics.json").read_text()) for folder in (finished, tmp_path))
    for metrics in (first, second):
        for name in [name for name in metrics if name.startswith("seconds_")]:
            del metrics[name]
    assert first == second
    assert (
        main(
            ["run", "--config", config, f"output_dir={tmp_path}", "figures=false", "seed=1", "overwrite=true"]
        )
        == 0
    )
    assert not np.array_equal(load(tmp_path)["truth"], after["truth"])


@contextmanager
def largest_file(size):
    """The operating system refuses to let any file grow beyond `size` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_leaves_earlier_results_intact(finished, tmp_path, capsys):
    """Nor is the run lost: the same command, with room, writes its results."""
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    again = ["run", *SMALL, "measurement=every_second", f"output_dir={finished}", "seed=5", "overwrite=true"]
    with largest_file(20_000):
        code = main(again)
    assert code == 1
    message = capsys.readouterr().err
    assert "could not write" in message
    assert "result.nc" in message
    assert "Traceback" not in message
    assert "cycles of the run are kept" in message
    assert {path.name: path.read_bytes() for path in finished.iterdir() if path.name in before} == before
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    again[-2:] = ["seed=5", f"output_dir={tmp_path}", "overwrite=true", "figures=false"]
    assert main(again) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["resumed_at_cycle"] > 0
    assert not list(tmp_path.glob("partial*"))
    shutil.rmtree(finished / "partial.zarr")
    (finished / "partial.yaml").unlink()


@pytest.mark.slow
def test_results_that_went_over_the_disk_are_those_in_memory(tmp_path, monkeypatch):
    """Truth, observations and mask made along the way too; pieces that do not divide the cycles."""
    arguments = ["run", *SMALL, "measurement=moving", "measurement.width=3", "quality_control.threshold=3"]
    arguments += ["figures=false", "save=[mean,ensemble]"]
    assert main([*arguments, f"output_dir={tmp_path}/memory"]) == 0
    monkeypatch.setattr("masf_jax.cli.run.problem.AT_ONCE", 0)
    monkeypatch.setattr("masf_jax.cli.run.folder.Stoppable.every", 0.0)
    monkeypatch.setattr("masf_jax.results.netcdf._CHUNK", 200)
    assert main([*arguments, "chunk=7", f"output_dir={tmp_path}/disk"]) == 0
    whole, pieces = load(tmp_path / "memory"), load(tmp_path / "disk")
    assert whole.drop_attrs().identical(pieces.drop_attrs())
    assert whole["observation_mask"].sum() == 3 * 30


def test_nothing_is_replaced_before_everything_is_written(tmp_path):
    (tmp_path / "a").write_text("old")

    def full(path):
        raise OSError(28, "No space left on device")

    with pytest.raises(WriteError, match="b: No space left on device"):
        write_all(tmp_path, {"a": lambda path: path.write_text("new"), "b": full})
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_output_folder_is_checked_before_the_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("masf_jax.cli.run.run.build", pytest.fail)
    (tmp_path / "file").write_text("in the way")
    assert main(["run", f"output_dir={tmp_path}/file/results"]) == 1
    assert "cannot be written" in capsys.readouterr().err
    assert main(["run", f"output_dir={tmp_path}/file"]) == 1


def test_a_filter_without_innovations_runs_to_its_end(tmp_path):
    """Climatology takes no notice of what is measured, and reports nothing of it."""
    run = ["run", *SMALL, "filter=climatology", "figures=false", f"output_dir={tmp_path}"]
    assert main(run) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["outlying_cycles"] == 0


def test_a_diverged_filter_still_leaves_results(tmp_path, capsys):
    code = main(["run", *SMALL, f"output_dir={tmp_path}", "initial.spread=1e5", "ensemble_size=3"])
    assert code == 3
    assert (
        "the filter diverged: fewer than two finite members after the forecast of cycle 0"
        in capsys.readouterr().err
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert metrics["rmse_analysis"] is None
    assert metrics["diverged"] is True
    assert load(tmp_path)["diverged"].values[0] == 1


def test_settings_the_library_refuses_exit_with_code_2(tmp_path, capsys):
    common = ["run", f"output_dir={tmp_path}/new"]
    bad = {
        "localised without coordinates": [
            *common,
            "dynamics=linear",
            "filter=letkf",
            "n_cycles=3",
            "burn_in=0",
        ],
        "negative noise": [*common, "measurement.noise.std=-1"],
        "a step too long": [*common, "dynamics.dt=0.5", "n_cycles=3", "burn_in=0"],
        "unknown filter": [*common, "filter=masff"],
    }
    parts = ("needs coordinates", "must be positive", "dynamics.dt = 0.5", "unknown filter")
    for arguments, part in zip(bad.values(), parts, strict=True):
        assert main(arguments) == 2
        message = capsys.readouterr().err
        assert part in message
        assert "Traceback" not in message
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_moving_network_with_gaps_in_double_precision(tmp_path):
    overrides = ["measurement=moving", "measurement.width=3", "precision=float64", "save=[mean,ensemble]"]
    overrides += ["figures=false", "initial.spread=null"]
    assert main(["run", *SMALL, *overrides, f"output_dir={tmp_path}"]) == 0
    data = load(tmp_path)
    assert data["truth"].dtype == np.float64
    assert data["analysis_ensemble"].shape == (30, 6, 8)
    assert (data["observation_mask"].sum("x") == 3).all()
    assert np.isnan(data["observation"].values).sum() == 30 * 5
    assert [path.name for path in tmp_path.glob("*.png")] == []


@pytest.mark.slow
def test_the_layout_of_members_changes_no_result(finished, tmp_path):
    arguments = ["run", *SMALL, "measurement=every_second", "figures=false", f"output_dir={tmp_path}"]
    assert main([*arguments, "layout.batch_size=4", "layout.devices=1"]) == 0
    np.testing.assert_allclose(load(tmp_path)["analysis_mean"], load(finished)["analysis_mean"], atol=1e-2)


def test_more_devices_than_there_are(tmp_path, capsys):
    assert main(["run", *SMALL, f"output_dir={tmp_path}", "layout.devices=1000"]) == 2
    assert "layout.devices = 1000, but this machine has" in capsys.readouterr().err


def test_truth_ensemble_and_filter_have_keys_of_their_own():
    import jax

    from masf_jax.cli.config.compose import compose
    from masf_jax.cli.run.problem import build

    settings = compose([*SMALL, "initial.mean=0", "initial.std=1"])
    problem = build(settings)
    again = build(settings)
    assert np.array_equal(problem.ensemble, again.ensemble)
    roots = [jax.random.key(settings.seed), jax.random.key(settings.seed + 1)]
    assert all(
        not np.array_equal(jax.random.key_data(problem.key), jax.random.key_data(root)) for root in roots
    )
    members = np.asarray(problem.ensemble)
    assert np.unique(members, axis=0).shape == members.shape
