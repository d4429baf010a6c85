"""One run of 1000 cycles as a whole process from the shell, beside DAPPER's: imports, compilation, all.

    python benchmarks/speed/whole_process.py [--dapper-python PATH] [--repeats 3]

Lorenz-96 sakov2008: truth, observations, first members, 1000 cycles, mean scores printed. DAPPER 1.8.1
(suite/dapper_run.py) with its own number of BLAS threads and with one, the faster of which counts; ours as a
script (suite/sakov_run.py; PJRT_NPROC and OPENBLAS_NUM_THREADS are 1) and as `masf-jax run`, which writes
results and figures as well. Cold: the cache of compiled programs is empty; warm: a run before filled it. All
in turn; the least wall clock, and the least CPU seconds, of the repeats.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _path  # noqa: F401
from suite.common import arguments, finish, header, table
from suite.dapper_process import dapper_python, dapper_settings

ROOT = Path(__file__).resolve().parents[2]
SUITE = ROOT / "benchmarks" / "suite"
COMMANDS = {
    "ETKF N=24": ["filter=etkf"],
    "LETKF N=7": ["filter=letkf"],
    "LETKF N=20": ["filter=letkf", "ensemble_size=20", "filter.inflation=1.02"],
}
CACHED = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
ONE = {"PJRT_NPROC": "1", "OPENBLAS_NUM_THREADS": "1"}
Settings = dict[str, str | None]


def child(command: list[str], folder: str, settings: Settings) -> tuple[float, float]:
    """Wall clock and CPU seconds of a process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    env = {name: value for name, value in (os.environ | settings).items() if value is not None}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stderr[-2000:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def processes(name: str, python: str, folder: str) -> dict[str, tuple[list[str], Settings]]:
    """Command and environment by label, in the order they run in: the warm ones after the cold ones."""
    theirs = [python, str(SUITE / "dapper_run.py"), name]
    found: dict[str, tuple[list[str], Settings]] = {
        "DAPPER": (theirs, dapper_settings(folder)),
        "DAPPER, 1 thread": (theirs, dapper_settings(folder, 1)),
    }
    base: Settings = {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": None, "PJRT_NPROC": None}
    cache = tempfile.mkdtemp(dir=folder)
    script = [sys.executable, str(SUITE / "sakov_run.py"), name]
    command = [sys.executable, "-m", "masf_jax", "run", "experiment=lorenz96_sakov2008", "n_cycles=1000"]
    command += COMMANDS[name]
    for state in ("cold", "warm"):
        found[f"script, {state}"] = script, base | CACHED | ONE | {"JAX_COMPILATION_CACHE_DIR": cache}
        own = base | {"JAX_COMPILATION_CACHE_DIR": None, "XDG_CACHE_HOME": cache}
        new = f"output_dir={tempfile.mkdtemp(dir=folder)}/out"  # a run that is there is not made again
        found[f"masf-jax run, {state}"] = [*command, new], own
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--dapper-python", metavar="PATH")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    python = dapper_python(args.dapper_python)
    best: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in COMMANDS}
    with tempfile.TemporaryDirectory(prefix="whole_process_") as folder:
        for _ in range(args.repeats):
            for name, found in best.items():
                for label, (command, settings) in processes(name, python, folder).items():
                    seconds, now = child(command, folder, settings), found.get(label)
                    found[label] = (
                        seconds if now is None else (min(now[0], seconds[0]), min(now[1], seconds[1]))
                    )
    rows = []
    for name, found in best.items():
        peers = [found.pop("DAPPER"), found.pop("DAPPER, 1 thread")]
        wall, cpu = (min(peer[i] for peer in peers) for i in (0, 1))
        rows.append([f"{name}, DAPPER", f"{wall:.1f}", f"{cpu:.1f}", "", ""])
        for label, (own_wall, own_cpu) in found.items():
            ratios = f"{wall / own_wall:.1f}", f"{cpu / own_cpu:.1f}"
            rows.append([f"{name}, {label}", f"{own_wall:.1f}", f"{own_cpu:.1f}", *ratios])
    head = ["whole process, 1000 cycles", "wall s", "CPU s", "DAPPER/own, wall", "CPU"]
    text = header("A run as a whole process, DAPPER 1.8.1 and ours") + "\n" + table(rows, head)
    finish(args, "whole_process", text, best)


if __name__ == "__main__":
    main()
