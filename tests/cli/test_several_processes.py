"""One run of several processes, each started with the command line, on the loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from masf_jax.cli.errors import InputError
from masf_jax.cli.main import main
from masf_jax.cli.process import in_processes

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["dynamics.n=12", "n_cycles=400", "burn_in=10", "ensemble_size=6", "precision=float64", "chunk=2"]


@pytest.mark.parametrize(
    ("given", "said"),
    {
        "layout.processes=2": "goes with layout.coordinator=HOST:PORT",
        "layout.processes=0": "at least 1, auto or null",
        "layout.processes=two": "two",
        "layout.process=1": "go with layout.processes=NUMBER",
        "layout.processes=2 layout.process=2 layout.coordinator=a:1": "counts from 0 to 1 here; got 2",
        "layout.processes=2 layout.process=1 layout.coordinator=a": "must be HOST:PORT; got 'a'",
        "layout.processes=auto": "start it with srun or mpirun",
    }.items(),
)
def test_processes_that_cannot_be(given, said):
    with pytest.raises(InputError, match=said), in_processes(given.split()):
        pass


@pytest.mark.parametrize("command", [["compare", "filters=[etkf]", "seeds=1"], ["run", "--dry-run"]])
def test_other_commands_have_one_process(command, tmp_path, capsys):
    keys = ["layout.processes=auto", f"output_dir={tmp_path}"]
    assert main([*command, *SMALL, *keys]) == 2
    assert "layout.processes is of masf-jax run alone" in capsys.readouterr().err


def by_keys(count):
    """What the command line of each process has beyond the run's, and its environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        keys = [f"layout.processes={count}", f"layout.coordinator=127.0.0.1:{free.getsockname()[1]}"]
    return [([*keys, f"layout.process={i}"], {}) for i in range(count)]


def by_slurm(count):
    """`srun --ntasks=COUNT masf-jax run … layout.processes=auto`: what srun sets and JAX reads."""
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": str(count)}
    job["SLURM_STEP_NUM_NODES"] = "1"
    tasks = [{"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(count)]
    return [(["layout.processes=auto"], job | task) for task in tasks]


def started(lines, folder, *more):
    command = [sys.executable, "-m", "masf_jax", "run", *SMALL, f"output_dir={folder}", *more]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return [
        subprocess.Popen(
            [*command, *keys],
            env=environment | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for keys, own in lines
    ]


def ended(processes):
    """Exit codes and what was said on stdout and stderr."""
    said = [each.communicate(timeout=300) for each in processes]
    return [each.returncode for each in processes], *zip(*said, strict=True)


def running(processes, folder):
    """Waits until some more cycles are on disk."""
    state, deadline = folder / "partial.zarr" / "state" / "run.safetensors", time.monotonic() + 200
    before = state.stat().st_mtime_ns if state.exists() else 0
    while not state.exists() or state.stat().st_mtime_ns == before:
        assert time.monotonic() < deadline
        assert processes[0].poll() is None, processes[0].communicate()
        time.sleep(0.01)


@pytest.mark.slow
def test_a_run_of_two_processes(tmp_path):
    """Ended by a signal, killed, gone on with, started by keys and by Slurm: the results of one process."""
    one, two = tmp_path / "1", tmp_path / "2"
    assert main(["run", *SMALL, f"output_dir={one}", "figures=false"]) == 0

    processes = started(by_keys(2), two)
    running(processes, two)
    assert main(["run", *SMALL, f"output_dir={two}"]) == 2  # locked
    processes[1].send_signal(signal.SIGTERM)
    codes, _, errors = ended(processes)
    assert codes == [143, 143]
    assert "stopped after cycle" in errors[0]

    processes = started(by_keys(2), two)
    running(processes, two)
    processes[1].kill()
    codes, _, errors = ended(processes)
    assert codes == [1, -9]
    assert "process 0 of 2 cannot go on: another one has ended" in errors[0]
    assert f"The same command lines go on from {two}" in errors[0]
    assert "Traceback" not in errors[0]
    assert not (two / "result.nc").exists()

    codes, _, errors = ended(started(by_keys(2), two, "dynamics.forcing=9"))
    assert codes == [2, 1]
    assert "an unfinished run with another configuration" in errors[0]
    assert "process 1 of 2 cannot go on: process 0 has ended" in errors[1]

    codes, said, errors = ended(started(by_slurm(2), two))
    assert codes == [0, 0], errors
    assert "RMSE of the analysis" in said[0]
    assert "RMSE" not in said[1]
    assert sorted(path.suffix for path in two.iterdir()) == [".json", ".nc", ".png", ".png", ".png", ".yaml"]
    assert json.loads((two / "metrics.json").read_text())["resumed_at_cycle"] > 0
    with xr.open_dataset(one / "result.nc") as a, xr.open_dataset(two / "result.nc") as b:
        for name in ("truth", "observation", "analysis_mean", "rmse_analysis"):
            np.testing.assert_allclose(a[name], b[name], rtol=0, atol=1e-9)

    codes, _, errors = ended(started(by_keys(2), two))
    assert codes == [0, 0]
    assert "results from before" in errors[0]
