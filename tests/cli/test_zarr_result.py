"""`result=zarr`: what streamed is the result, and says what result.nc says."""

from __future__ import annotations

import os

import numpy as np
import pytest
from often import often

from masf_jax.cli.main import main
from masf_jax.cli.run.finished import read_result
from masf_jax.cli.run.folder import Stoppable

SMALL = ["dynamics.n=8", "n_cycles=30", "burn_in=10", "ensemble_size=6", "chunk=7", "figures=false"]
SMALL += ["quality_control.threshold=3", "measurement=every_second"]
FILES = ["config.yaml", "metrics.json", "result.zarr"]


class Killed(BaseException):
    """As by kill -9."""


def load(folder):
    with read_result(folder) as data:
        return data.load()


@pytest.fixture(scope="module")
def netcdf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("netcdf")
    assert main(["run", *SMALL, f"output_dir={folder}"]) == 0
    return load(folder)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def check(folder, expected):
    found = load(folder)
    assert names(folder) == FILES
    assert not (folder / "result.zarr" / "state").exists()
    assert set(found.variables) == set(expected.variables)
    for name, variable in expected.variables.items():
        assert found[name].dims == variable.dims, name
        np.testing.assert_array_equal(found[name], variable, err_msg=name)
        for key, value in variable.attrs.items():
            np.testing.assert_array_equal(found[name].attrs[key], value)
    assert {"Conventions", "title", "seed"} <= set(found.attrs)


@pytest.mark.slow
def test_the_store_has_what_the_file_has(netcdf, tmp_path, capsys):
    command = ["run", *SMALL, "result=zarr", f"output_dir={tmp_path}"]
    assert main(command) == 0
    assert "result.zarr" in capsys.readouterr().out
    check(tmp_path, netcdf)
    assert main(command) == 0
    assert "nothing was computed" in capsys.readouterr().err
    assert main(["plot", str(tmp_path)]) == 0
    assert (tmp_path / "states.png").exists()
    assert main(["run", *SMALL, f"output_dir={tmp_path}"]) == 0  # the other form: made again
    assert "result.nc" in names(tmp_path)
    assert "result.zarr" not in names(tmp_path)


@pytest.mark.parametrize("moment", often(["result.zarr", "metrics.json", "config.yaml"], ["metrics.json"]))
def test_a_kill_while_it_is_put_in_place(netcdf, tmp_path, monkeypatch, moment):
    command = ["run", *SMALL, "result=zarr", f"output_dir={tmp_path}"]
    replace = os.replace

    def ending(source, target):
        if str(target).endswith(moment) and "partial" not in str(target):
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", ending)
        with pytest.raises(Killed):
            main(command)
    made = []
    append = Stoppable.append
    monkeypatch.setattr(Stoppable, "append", lambda self, *a: made.append(1) or append(self, *a))
    assert main(command) == 0
    assert not made  # all cycles were on disk
    check(tmp_path, netcdf)


def test_a_store_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "result.zarr").mkdir()
    assert main(["run", *SMALL, "result=zarr", f"output_dir={tmp_path}"]) == 2
    assert "overwrite=true" in capsys.readouterr().err
    assert main(["plot", str(tmp_path)]) == 2
    assert "is damaged, or not of a run" in capsys.readouterr().err
