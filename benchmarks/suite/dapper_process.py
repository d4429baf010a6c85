"""DAPPER in a Python and a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from suite.common import find_python

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


class Worker:
    """A DAPPER process that answers requests."""

    def __init__(self, python: str, threads: int | None, folder: str):
        quiet = {"MPLBACKEND": "Agg", "DAPPER_LIVEPLOTTING": "false", "DAPPER_DATA_ROOT": folder}
        one = (
            {} if threads is None else {"OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        )
        self.threads = "default" if threads is None else str(threads)
        self.log = (Path(folder) / f"worker_{self.threads}.log").open("w+")
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        script = str(HERE / "dapper_worker.py")
        self.process = subprocess.Popen([python, script], env=os.environ | quiet | one, cwd=folder, **pipes)

    def ask(self, **request: Any) -> dict:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            self.log.seek(0)
            raise SystemExit(f"the DAPPER worker ended:\n{self.log.read()[-2000:]}")
        return json.loads(answer)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.log.close()
