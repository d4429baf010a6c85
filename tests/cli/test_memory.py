"""`--dry-run`: memory by part, without a run."""

import jax
import pytest

from masf_jax.cli.config.compose import compose
from masf_jax.cli.main import main
from masf_jax.cli.run.memory import memory_by_part
from masf_jax.record import BUFFER

SMALL = ["dynamics.n=4000", "n_cycles=100", "burn_in=0", "ensemble_size=30"]


@pytest.mark.slow
def test_the_parts_grow_as_they_should():
    one, more, many = (
        memory_by_part(compose([*SMALL, f"n_cycles={n}", "chunk=2"])) for n in (100, 200, 9000)
    )
    before = "truth and observations made before"
    assert more[before] == 2 * one[before] == 2 * 100 * 4000 * (4 + 4 + 1)
    assert many[before] == 2 * 4000 * (4 + 4 + 1)  # made along the way
    waiting = "results that wait to be written"
    assert one[waiting] < more[waiting] <= many[waiting] == one["program of 2 cycle(s): results"] + BUFFER
    assert one["first members"] == more["first members"] == 30 * 4000 * 4
    program = {name.split(": ")[1]: size for name, size in one.items() if name.startswith("program")}
    assert program["temporary arrays"] > one["first members"]  # forecast and analysis, at least one copy
    # of 2 cycles at a time: the truth, observations and members go in, means and spreads come out
    assert 30 * 4000 * 4 < program["given"] < 1.5 * 30 * 4000 * 4
    assert 2 * 4 * 4000 * 4 + 30 * 4000 * 4 < program["results"] < 1.5 * (2 * 4 * 4000 * 4 + 30 * 4000 * 4)


def test_nothing_is_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("masf_jax.cli.run.run.build", pytest.fail)
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--dry-run", "dynamics.n=8", "n_cycles=30", "burn_in=10"]) == 0
    assert "together" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    assert main(["run", "-m", "--dry-run", "seed=1,2"]) == 2
    assert main(["run", "--dry-run", "experiment=lorenz63_sakov2012", "filter=masf_paper"]) == 2
    assert "pretrains a network first" in capsys.readouterr().err


def test_sizes_beyond_memory_are_one_line(capsys, monkeypatch, tmp_path):
    assert main(["run", "--dry-run", "ensemble_size=1000000000"]) == 2
    assert capsys.readouterr().err.startswith("masf-jax: out of memory: Unable to allocate")
    for key in ("ensemble_size", "dynamics.n", "steps_per_cycle"):
        assert main(["run", f"{key}=10000000000", f"output_dir={tmp_path}/run"]) == 2
        assert capsys.readouterr().err == f"masf-jax: {key} must be below 2**31; got 10000000000.\n"

    def full(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 160000000000 bytes.")

    monkeypatch.setattr("masf_jax.cli.run.run.assimilate", full)
    assert main(["run", "dynamics.n=8", f"output_dir={tmp_path}/run"]) == 2
    assert "out of memory: Out of memory allocating 160000000000 bytes" in capsys.readouterr().err
