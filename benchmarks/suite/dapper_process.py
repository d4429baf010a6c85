"""DAPPER in a Python and a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from suite.common import find_python
from suite.worker import Worker

__all__ = ["dapper_python", "dapper_settings", "dapper_worker"]

HERE = Path(__file__).resolve().parent


def dapper_python(given: str | None) -> str:
    """A Python with DAPPER: the one given, or that of a venv made here."""
    if given:
        return given
    venv = HERE / ".dapper-venv"
    python = venv / "bin" / "python"
    if (
        subprocess.run([python, "-c", "import dapper"], capture_output=True).returncode
        if python.exists()
        else True
    ):
        print(f"installing DAPPER into {venv} ...", file=sys.stderr)
        subprocess.run([find_python((3, 12)), "-m", "venv", "--clear", venv], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "dapper==1.8.1"]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"DAPPER could not be installed:\n{done.stderr[-2000:]}")
    return str(python)


def dapper_settings(folder: str, threads: int | None = None) -> dict[str, str | None]:
    """The environment of a DAPPER without windows; so many threads of BLAS (None: its own default)."""
    quiet = {"MPLBACKEND": "Agg", "DAPPER_LIVEPLOTTING": "false", "DAPPER_DATA_ROOT": folder}
    count = None if threads is None else str(threads)
    return {**quiet, "OPENBLAS_NUM_THREADS": count, "OMP_NUM_THREADS": count}


def dapper_worker(python: str, threads: int | None, folder: str) -> Worker:
    settings = dapper_settings(folder, threads)
    return Worker(python, "dapper_worker.py", needs="DAPPER 1.8", folder=folder, **settings)
