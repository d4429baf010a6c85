"""The scripts that docs/comparisons.md counts: its numbers are those of the files, and ours run."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

ROOT = Path(__file__).parents[1]
PEOPLE = ROOT / "benchmarks" / "people"


def test_the_table_is_that_of_the_scripts():
    lines = runpy.run_path(str(PEOPLE / "lines.py"))
    table = lines["table"]()
    assert table == (ROOT / "benchmarks" / "results" / "people_lines.txt").read_text()
    section = (ROOT / "docs" / "comparisons.md").read_text().split("## Lines of code")[1].replace("**", "")
    for name in lines["TASKS"]:
        row = next(row for row in table.splitlines() if row.startswith(name))
        in_docs = next(row for row in section.splitlines() if row.startswith(f"| {name}:"))
        assert re.findall(r"\d+ \+ \d+", in_docs) == re.findall(r"\d+ \+ \d+", row)


def test_statements_count_once(tmp_path):
    counted = runpy.run_path(str(PEOPLE / "lines.py"))["counted"]
    script = tmp_path / "script.py"
    text = """'Says.'
import os  # a comment


def f(
    a,
):
    'Says too.'
    return (
        a
    )

f(1); f(2)
"""
    script.write_text(text)
    assert counted(script) == (4, 1)
    assert counted(tmp_path / "none.py") is None


@pytest.mark.slow
def test_our_scripts_run(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}

    def run(name):
        command = [sys.executable, str(PEOPLE / f"{name}.py")]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("data")
    assert float(run("student").split()[-2]) < 0.1  # m/s; that of the first members is .36
    run("engineer")
    levels = pd.read_csv(tmp_path / "analysed.csv", index_col=0)
    assert np.abs(levels.iloc[-1] - [1.25, 1.0]).max() < 0.2  # what the tanks' model tends to
    losses = [float(line.split()[1]) for line in run("researcher").splitlines()]
    assert losses[-1] < 0.3 * losses[0]
    run("colab")
    assert (tmp_path / "colab.png").stat().st_size > 1000
    run("forecaster")
    with xr.open_dataset(tmp_path / "analyses.nc", engine="h5netcdf") as data:
        last = data["analysis_mean"][-1].values
        assert str(data["time"].values[-1])[:13] == "2026-03-06T00"
    phase = 2 * np.pi * (10 * np.arange(40) - 7.2 * 120) / 400
    assert np.sqrt(np.mean((last - 14 - 3 * np.sin(phase) - np.cos(2 * phase)) ** 2)) < 0.5
