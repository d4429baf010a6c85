"""A cycle costs less than DAPPER's: CPU time per cycle of the same filter on the same truth and observations.

Lorenz-96 sakov2008 (n = 40, all observed, R = I, dt 0.05): EnKF Sqrt with rotation (our ETKF), N = 24; LETKF
with rotation, N = 7 and 20, DAPPER's loc_rad 4 (our radius 7.28). DAPPER 1.8.1 (Python >= 3.12, its own venv)
is float64 throughout, ours runs in both precisions; each in a process of its own, in turn. "same": both keep
the same statistics of every forecast and analysis (suite/same_statistics.py); "once": DAPPER spared its
second, identical pass over the analysis; "off": neither keeps any, and DAPPER's Stats.assess does nothing.
One thread each: BLAS's of DAPPER, XLA's and OpenBLAS's of ours, as `masf-jax` sets them for problems of this
size. So that noise meets both alike, DAPPER's time is that of its fastest 25 cycles in a row, ours that of
the fastest run of 1000 (about as long). RMSE from cycle 100 to 500. Whole processes: whole_process.py.

    python benchmarks/speed/against_dapper.py [--dapper-python PATH]
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import _path  # noqa: F401
import numpy as np
from suite.common import arguments, finish, header, table
from suite.dapper_process import dapper_python, dapper_worker
from suite.sakov2008 import CASES
from suite.worker import Worker

TARGETS = {"ETKF N=24": 20, "LETKF N=7": 60, "LETKF N=20": 30}
"""Of mode "same", in float64."""
MODES = {"all": "same", "once": "same", "off": "off"}
BURN_IN, SEEDS, BLOCK = 100, 64, 25
PRECISIONS = {"float32": "0", "float64": "1"}
Workers = dict[str, Worker]
"""By side: dapper, float32, float64."""


def our_worker(precision: str) -> Worker:
    settings = dict(JAX_ENABLE_X64=PRECISIONS[precision], PJRT_NPROC="1", OPENBLAS_NUM_THREADS="1")
    return Worker(sys.executable, "sakov_worker.py", needs="masf-jax", **settings)


def largest_difference(workers: Workers, data: dict[str, np.ndarray], path: str) -> float:
    """Our float64 statistics of one ensemble against DAPPER's, relative to the largest entry of each."""
    ensemble = data["start"] + 20 * (data["ensemble"] - data["start"])  # a spread of about 0.6
    np.savez(path, ensemble=ensemble, truth=data["truth"])
    theirs = workers["dapper"].ask(do="check", data=path)
    worst = 0.0
    for name, mine in workers["float64"].ask(do="check", path=path).items():
        a, b = np.asarray(mine), np.asarray(theirs[name])
        if name == "umisf":  # signs are arbitrary, and the last direction carries no spread
            a, b = np.abs(a[:-1]), np.abs(b[:-1])
        worst = max(worst, float(np.abs(a - b).max() / np.abs(b).max()))
    return worst


def compare(name: str, path: str, workers: Workers, args: Any) -> dict[str, Any]:
    """Best seconds per cycle by mode and side; RMSEs."""
    n_members, inflation = CASES[name]
    request = dict(do="run", data=path, name=name.split()[0], n_members=n_members, inflation=inflation)
    request |= dict(burn_in=BURN_IN, block=BLOCK)
    best: dict[str, dict[str, float]] = {mode: {} for mode in MODES}
    rmse: dict[str, float] = {}
    for turn in range(args.repeats):
        for mode, kind in MODES.items():
            cycles = args.dapper_cycles if turn == 0 else 8 * BLOCK
            asked = {"dapper": request | {"mode": mode, "cycles": cycles}}
            if mode != "once":  # ours has no second pass to be spared
                scored = [BURN_IN, args.dapper_cycles]
                ours = dict(do="run", name=name, mode=kind, path=path, scored=scored)
                asked |= {side: ours for side in PRECISIONS}
            for side, job in asked.items():
                answer = workers[side].ask(**job)
                best[mode][side] = min(best[mode].get(side, np.inf), answer["seconds"])
                if turn == 0 and "rmse" in answer:
                    rmse[side] = answer["rmse"]
    best["once"] |= {side: best["all"][side] for side in PRECISIONS}
    return {"seconds": best, "rmse": rmse}


def rows_of(name: str, case: dict[str, Any]) -> list[list[str]]:
    rows = []
    for mode, label in (("all", "same"), ("once", "same, DAPPER's once"), ("off", "off")):
        seconds = case["seconds"][mode]
        row = [f"{name}, {label}", f"{1e3 * seconds['dapper']:.2f}"]
        for side in PRECISIONS:
            row += [f"{1e3 * seconds[side]:.4f}", f"{seconds['dapper'] / seconds[side]:.1f}"]
        row.append(str(TARGETS[name]) if mode == "all" else "")
        rows.append([*row, *(f"{case['rmse'][side]:.3f}" for side in ("dapper", *PRECISIONS))])
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "--dapper-python", metavar="PATH", help="a Python that has DAPPER 1.8 (default: own venv)"
    )
    parser.add_argument("--cycles", type=int, default=1000, help="cycles of ours")
    parser.add_argument(
        "--dapper-cycles", type=int, default=500, help="the first of them, for DAPPER and the RMSEs"
    )
    parser.add_argument("--seed-cycles", type=int, default=100, help=f"cycles of the {SEEDS} seeds vmapped")
    parser.add_argument(
        "--repeats", type=int, default=3, help="turns of both sides; ours runs 3 times a turn"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="against_dapper_") as folder:
        python, path = dapper_python(args.dapper_python), f"{folder}/data.npz"
        workers = {"dapper": dapper_worker(python, 1, folder)}
        workers |= {side: our_worker(side) for side in PRECISIONS}
        workers["float32"].ask(do="twin", cycles=args.cycles, path=path)
        difference = largest_difference(workers, dict(np.load(path)), f"{folder}/check.npz")
        numbers: dict[str, Any] = {"largest_difference": difference}
        numbers |= {name: compare(name, path, workers, args) for name in CASES}
        many = dict(do="seeds", path=path, cycles=args.seed_cycles, seeds=SEEDS)
        for name in CASES:
            numbers[name]["seeds"] = workers["float32"].ask(name=name, **many)["seconds"]
        for worker in workers.values():
            worker.close()
    rows, throughput = [], []
    for name in CASES:
        rows += rows_of(name, numbers[name])
        one = numbers[name]["seconds"]["off"]["float32"]
        many = numbers[name]["seeds"]
        throughput.append([name, f"{1 / one:,.0f}", f"{1 / many:,.0f}", f"{one / many:.1f}"])
    head = ["filter, statistics", "DAPPER ms", "float32 ms", "ratio", "float64 ms", "ratio"]
    head += ["target", "RMSE DAPPER", "float32", "float64"]
    notes = [
        f"Ratio: DAPPER / ours. Best of {args.repeats} turns.",
        f"Largest relative difference of the two codes' statistics in float64: {difference:.0e}.",
    ]
    title = header("CPU milliseconds per cycle, DAPPER 1.8.1 and ours, Lorenz-96 sakov2008")
    many = table(
        throughput, ["cycles per CPU second, off, float32", "1 seed", f"{SEEDS} seeds vmapped", "gain"]
    )
    finish(args, "against_dapper", "\n".join([title, table(rows, head), "", *notes, "", many]), numbers)


if __name__ == "__main__":
    main()
