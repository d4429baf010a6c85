"""jax-cfd in a process of its own, answering requests for timings, so that both solvers run in turn."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

HERE = Path(__file__).resolve().parent


def jaxcfd_python(given: str | None) -> str:
    """A Python with jax-cfd: the one given, or that of a venv made here, beside the same JAX as ours."""
    if given:
        return given
    venv = HERE / ".jaxcfd-venv"
    python = venv / "bin" / "python"
    if (
        not python.exists()
        or subprocess.run([python, "-c", "import jax_cfd"], capture_output=True).returncode
    ):
        print(f"installing jax-cfd into {venv} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "jax-cfd==0.2.1", f"jax=={jax.__version__}"]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"jax-cfd could not be installed:\n{done.stderr[-2000:]}")
    return str(python)


class Peer:
    """A running worker (see `jaxcfd_worker.py`), idle between requests.

    Args:
        python: with jax-cfd.
        given: the worker's input arrays.
    """

    def __init__(self, python: str, given: dict[str, Any]):
        with tempfile.TemporaryDirectory() as folder:
            inside, outside = Path(folder) / "in.npz", Path(folder) / "out.npz"
            np.savez(inside, **given)
            self.process = subprocess.Popen(
                [python, HERE / "jaxcfd_worker.py", inside, outside],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self._answer()
            self.fields = dict(np.load(outside))

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the jax-cfd worker ended with exit code {self.process.wait()}")
        return line

    def seconds(self, n: int, burst: float) -> tuple[float, float]:
        """Seconds and CPU seconds per transition at n² points, mean over about `burst` seconds."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{n} {burst}\n")
        self.process.stdin.flush()
        wall, cpu = self._answer().split()
        return float(wall), float(cpu)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)
