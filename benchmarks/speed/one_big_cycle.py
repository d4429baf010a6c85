"""One cycle of large problems by `masf-jax run`: memory said by `--dry-run`, and taken.

Each number comes from a process of its own: what `memory_by_part` says, then a run with figures and saved
fields off, and the most that it had in memory. A case ends after 20 minutes.

    python benchmarks/speed/one_big_cycle.py [--cases NAME …] [--limit-gb 14]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _path  # noqa: F401
from suite.common import arguments, finish, header, peak_gb, table

ALONE = ["n_cycles=1", "burn_in=0", "figures=false", "save=[]", "compilation_cache=false"]
LORENZ = ["dynamics.n=1000000", "ensemble_size=100", "measurement=grid_mask", "measurement.stride=10"]
FLOW = [
    *("experiment=kolmogorov_grid", "dynamics=kolmogorov_512", "dynamics.dt=0.02", "steps_per_cycle=1"),
    *("ensemble_size=40", "measurement.stride=20", "initial.mean=0", "initial.std=0.5"),
]
CASES = {
    "Lorenz-96 n=10^6 N=100 ETKF": ["filter=etkf", *LORENZ],
    "Lorenz-96 n=10^6 N=100 LETKF": ["filter=letkf", *LORENZ],
    "Lorenz-96 n=10^6 N=100 EnSF": ["filter=ensf", *LORENZ],
    "Lorenz-96 n=10^6 N=100 EnSF, 20 steps": ["filter=ensf", "filter.n_steps=20", *LORENZ],
    "flow 512² N=40 ETKF": [*FLOW, "filter=etkf"],
    "flow 512² N=40 LETKF": [*FLOW, "filter=letkf"],
    "flow 512² N=40 EnSF": [*FLOW, "filter=ensf"],
}
SECONDS = 1200


def child(what: str, overrides: list[str]) -> dict[str, float]:
    if what == "said":
        from masf_jax.cli.config.compose import compose
        from masf_jax.cli.run.memory import memory_by_part

        parts = memory_by_part(compose(overrides))
        return {name: size / 1e9 for name, size in parts.items()}
    from masf_jax.cli.main import main

    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        code = main(["run", *overrides, f"output_dir={folder}/run"])
        seconds = time.perf_counter() - begin
        if code not in (0, 3):
            raise SystemExit(code)
        metrics = json.loads((Path(folder) / "run" / "metrics.json").read_text())
    kept = {name: metrics[name] or 0.0 for name in ("rmse_forecast", "rmse_analysis", "seconds_per_cycle")}
    return {"peak": peak_gb(), "seconds": seconds, "code": code, **kept}


def measured(name: str, what: str, limit_gb: float) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", what, *ALONE, *CASES[name]]
    limited = [
        "prlimit",
        f"--data={int(limit_gb * 1e9)}",
        "nice",
        "timeout",
        "-k",
        "5",
        f"{SECONDS}",
        *command,
    ]
    done = subprocess.run(limited, capture_output=True, text=True)
    if done.returncode:
        if done.returncode in (124, 137):
            raise SystemExit(f"{name}, {what}: over {SECONDS} s")
        reason = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        raise SystemExit(f"{name}, {what}: {reason}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--limit-gb", type=float, default=14.0)
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.child[0], args.child[1:])))
        return
    numbers, rows = {}, []
    for name in args.cases:
        said = measured(name, "said", args.limit_gb)
        found = measured(name, "run", args.limit_gb)
        numbers[name] = {"said": said, **found}
        together = sum(said.values())
        sizes = (f"{together:.2f}", f"{found['peak']:.2f}", f"{found['peak'] / together:.2f}")
        other = (found[key] for key in ("seconds_per_cycle", "seconds", "rmse_forecast", "rmse_analysis"))
        rows.append([name, *sizes, *(f"{value:.3g}" for value in other)])
        print(*rows[-1], flush=True)
    head = ["case", "said GB", "taken GB", "taken/said", "cycle s", "all s", "RMSE f", "RMSE a"]
    title = f"One cycle, float32, every 10th variable (flow: 20th point) observed; limit {args.limit_gb:g} GB"
    finish(args, "one_big_cycle", header(title) + "\n" + table(rows, head), numbers)


if __name__ == "__main__":
    main()
