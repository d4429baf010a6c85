"""`masf-jax init`: the folder it makes works as it is, and nothing is replaced."""

from __future__ import annotations

import sys
import types

import pytest
import xarray as xr

from masf_jax.cli.groups import config_folder
from masf_jax.cli.main import main
from masf_jax.cli.run import cost


@pytest.fixture
def made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "mine"]) == 0
    assert "Next: cd mine && masf-jax run --config run.yaml" in capsys.readouterr().out
    return tmp_path / "mine"


def test_the_run_runs(made, monkeypatch, capsys):
    """And says its cost first, where that counts as much."""
    monkeypatch.chdir(made)
    for limit in ("_WORTH_COUNTING", "_LARGE_OPERATIONS"):
        monkeypatch.setattr(cost, limit, 0)
    few = ["n_cycles=4", "burn_in=0", "steps_per_cycle=1", "figures=false", "compilation_cache=false"]
    assert main(["run", "--config", "run.yaml", *few]) == 0
    assert "masf-jax: letkf: 20 members of 40 numbers, 20 measured, 4 cycles of" in capsys.readouterr().err
    with xr.open_dataset(made / "results" / "result.nc", engine="h5netcdf") as data:
        assert data["analysis_mean"].shape == (4, 40)
        assert data["observation_x"].values[:2].tolist() == [0.5, 2.5]
        assert float(data["rmse_analysis"][-1]) < 0.5


def test_the_test_of_the_model_holds(made, monkeypatch):
    """That of the filter takes long to compile: it runs where the folder's own tests are run."""
    monkeypatch.syspath_prepend(str(made))
    for name in ("model", "sensor", "test_model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = types.ModuleType("test_model")
    exec(compile((made / "test_model.py").read_text(encoding="utf-8"), "test_model.py", "exec"), vars(module))
    module.test_a_step_is_of_fourth_order()
    assert callable(module.test_the_filter_does_better_than_the_sensor)
    for name in ("model", "sensor"):
        monkeypatch.delitem(sys.modules, name)


def test_nothing_is_replaced(made, capsys):
    (made / "run.yaml").write_text("mine", encoding="utf-8")
    (made / "README.md").unlink()
    assert main(["init", "mine"]) == 2
    assert "mine has model.py, run.yaml, sensor.py, test_model.py already" in capsys.readouterr().err
    assert (made / "run.yaml").read_text(encoding="utf-8") == "mine"
    assert not (made / "README.md").exists()
    assert main(["init", "mine/run.yaml"]) == 2
    assert main(["init", "--help"]) == 0
    told = capsys.readouterr().out
    assert all(path.name in told for path in (config_folder() / "start").iterdir())
