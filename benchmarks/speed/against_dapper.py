"""A cycle costs less than DAPPER's: seconds per cycle of the same filter on the same truth and observations.

Lorenz-96 sakov2008 (n = 40, all observed, R = I, dt 0.05): EnKF Sqrt with rotation (our ETKF), N = 24; LETKF
with rotation, N = 7 and 20, DAPPER's loc_rad 4 (our radius 7.28). DAPPER 1.8.1 (Python >= 3.12, its own venv)
runs in a subprocess, in turn with ours. "same": both keep the same statistics of every forecast and analysis
(suite/same_statistics.py); "once": DAPPER spared its second, identical pass over the analysis; "off": neither
keeps any, and DAPPER's Stats.assess does nothing. DAPPER runs with its default number of BLAS threads and
with one; the faster counts. So that noise meets both alike, DAPPER's time is that of its fastest 25 cycles in
a row, ours that of the fastest run of 1000 (about as long). RMSE from cycle 100 to 500.

    python benchmarks/speed/against_dapper.py [--dapper-python PATH]
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import _path  # noqa: F401
import jax.numpy as jnp
import numpy as np
from suite.common import arguments, finish, header, table
from suite.dapper_process import Worker, dapper_python
from suite.sakov2008 import CASES, Run, twin
from suite.same_statistics import SAVE, same_statistics

from masf_jax.filters.base import EnsembleState

TARGETS = {"ETKF N=24": (10, 3), "LETKF N=7": (15, 12), "LETKF N=20": (15, 12)}
MODES = {"all": "same", "once": "same", "off": "off"}
BURN_IN, SEEDS, BLOCK = 100, 64, 25


def largest_difference(worker: Worker, data: dict, path: str) -> float:
    """Our statistics of one ensemble against DAPPER's, relative to the largest entry of each."""
    ensemble = data["start"] + 20 * (data["ensemble"] - data["start"])  # a spread of about 0.6
    np.savez(path, ensemble=ensemble, truth=data["truth"])
    theirs = worker.ask(do="check", data=path)
    state = EnsembleState(jnp.asarray(ensemble))
    ours = same_statistics(True)["statistics"](state, jnp.asarray(data["truth"][0]), None)
    ours |= {"mean": state.mean, "spread": jnp.sqrt(state.variance)}
    pairs = {"mean": "mu", "spread": "spread", "error": "err", "gaussian_score": "gscore", "crps": "crps"}
    pairs |= {"mean_absolute_deviation": "mad", "skewness": "skew", "kurtosis": "kurt", "rank": "rh"}
    pairs |= {"singular_values": "svals", "error_in_singular_directions": "umisf"}
    worst = 0.0
    for mine, name in pairs.items():
        a, b = np.asarray(ours[mine], float), np.asarray(theirs[name])
        if name == "umisf":  # signs are arbitrary, and the last direction carries no spread
            a, b = np.abs(a[:-1]), np.abs(b[:-1])
        worst = max(worst, float(np.abs(a - b).max() / np.abs(b).max()))
    return worst


def compare(name: str, data: dict, path: str, workers: list[Worker], args: Any) -> dict[str, Any]:
    """Best seconds per cycle of DAPPER (by statistics mode and threads) and of ours, and both RMSEs."""
    n_members, inflation = CASES[name]
    request = dict(do="run", data=path, name=name.split()[0], n_members=n_members, inflation=inflation)
    request |= dict(burn_in=BURN_IN, block=BLOCK)
    extra = same_statistics(trace=name.startswith("ETKF"))
    runs = {
        "same": Run(name, data, save=SAVE, scores=(), extra_scores=extra),
        "off": Run(name, data, save=(), scores=()),
    }
    theirs: dict[str, dict[str, float]] = {mode: {} for mode in MODES}
    ours = dict.fromkeys(runs, np.inf)
    case: dict[str, Any] = {}
    for turn in range(args.repeats):
        for mode, seconds in theirs.items():
            for worker in workers:
                if turn > 0 and worker.threads != min(seconds, key=seconds.__getitem__):
                    continue  # after the first turn the faster number of threads only
                answer = worker.ask(
                    **request, mode=mode, cycles=args.dapper_cycles if turn == 0 else 8 * BLOCK
                )
                seconds[worker.threads] = min(seconds.get(worker.threads, np.inf), answer.pop("seconds"))
                if turn == 0:
                    case |= {f"{k}_dapper": v for k, v in answer.items()}
            for kind, run in runs.items():
                ours[kind] = min(ours[kind], *(run() / args.cycles for _ in range(3)))
    error = np.asarray(runs["same"].result.analysis_scores["statistics"]["error"])
    case["rmse"] = float(np.sqrt((error**2).mean(1))[BURN_IN : args.dapper_cycles].mean())
    for mode, kind in MODES.items():
        best = min(theirs[mode].values())
        case[mode] = {"ms_dapper": {t: 1e3 * s for t, s in theirs[mode].items()}, "ms": 1e3 * ours[kind]}
        case[mode] |= {"ratio": best / ours[kind], "seconds_compile": runs[kind].seconds_compile}
    short = {k: v[: args.seed_cycles] if k in ("truth", "observations") else v for k, v in data.items()}
    many = Run(name, short, seeds=SEEDS, save=(), scores=())
    seconds = {"one": np.inf, "many": np.inf}
    for _ in range(3):
        seconds["many"] = min(seconds["many"], many() / (SEEDS * args.seed_cycles))
        seconds["one"] = min(seconds["one"], runs["off"]() / args.cycles)
    case["cycles_per_second"] = {"one": 1 / seconds["one"], "vmapped": 1 / seconds["many"]}
    return case


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
        workers = [Worker(dapper_python(args.dapper_python), threads, folder) for threads in (None, 1)]
        data, path = twin(args.cycles), str(Path(folder) / "data.npz")
        difference = largest_difference(workers[0], data, str(Path(folder) / "check.npz"))
        numbers: dict[str, Any] = {"largest_difference": difference}
        np.savez(path, **data)
        numbers |= {name: compare(name, data, path, workers, args) for name in CASES}
        for worker in workers:
            worker.close()

    rows, throughput = [], []
    for name in CASES:
        case = numbers[name]
        for mode, label in (("all", "same"), ("once", "same, DAPPER's once"), ("off", "off")):
            now = case[mode]
            blas = [f"{now['ms_dapper'][threads]:.2f}" for threads in ("default", "1")]
            target = {"all": TARGETS[name][0], "off": TARGETS[name][1]}.get(mode, "")
            row = [f"{name}, {label}", *blas, f"{now['ms']:.4f}", f"{now['ratio']:.1f}", target]
            rows.append(
                [*row, f"{now['seconds_compile']:.1f}", f"{case['rmse_dapper']:.3f}", f"{case['rmse']:.3f}"]
            )
        one, vmapped = case["cycles_per_second"].values()
        throughput.append([name, f"{one:,.0f}", f"{vmapped:,.0f}", f"{vmapped / one:.1f}"])
    head = [
        "filter, statistics",
        "DAPPER ms",
        "1 thread",
        "ours ms",
        "ratio",
        "target",
        "compile s",
        "RMSE DAPPER",
    ]
    text = "\n".join(
        [
            header("Milliseconds per cycle, DAPPER 1.8.1 and ours, Lorenz-96 sakov2008"),
            table(rows, [*head, "ours"]),
            "",
            f"Ratio: DAPPER with its faster number of BLAS threads / ours. Best of {args.repeats} turns.",
            f"Largest relative difference of the two codes' statistics: {numbers['largest_difference']:.0e}.",
            "",
            table(throughput, ["cycles per second, off", "1 seed", f"{SEEDS} seeds vmapped", "gain"]),
        ]
    )
    finish(args, "against_dapper", text, numbers)


if __name__ == "__main__":
    main()
