"""Score- and flow-based filters of other papers: their published case, and what a cycle costs.

    python benchmarks/rivals.py published [--n 100] [--filters ensf enff …] [--cycles 150] [--seeds 3]
    python benchmarks/rivals.py cost [--n 40 1000 100000] [--filters NAME …] [--timeout 300]

published: Lorenz-96, F = 8, dt = .01, arctan of every variable with noise .05 every 10 steps, N = 20. The
truth starts on the attractor, members at N(0, I), knowing nothing. RMSE of the analysis at some cycles and
over the last third, seconds of one analysis, peak memory. Stated elsewhere: EnSF's released code, n = 100,
500 steps: .179 .221 .173 over the last 50 of 150 cycles (run by us); n = 10⁶, 80 cycles: EnFF .172, EnSF with
100 steps .403 (arXiv 2508.13313).

cost: seconds per cycle (forecast of one step and analysis) of every preset of configs/filter on Lorenz-96,
all variables measured with noise 1, N = 20; without figures or scores, compilation apart.

Each case runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from _common import arguments, finish, header, table
from lorenz96_million import peak_gb

PUBLISHED: dict[str, list[str]] = {
    "ensf": ["filter=ensf"],
    "ensf, 100 steps": ["filter=ensf", "filter.n_steps=100"],
    "ensf, all members": ["filter=ensf", "filter.batch_size=null"],
    "enff, ot": ["filter=enff", "filter.path=ot"],
    "enff, f2p": ["filter=enff", "filter.path=f2p", "filter.guidance=0.05"],
    "iensf": ["filter=iensf", "filter.n_steps=200", "filter.iterations=4", "filter.rtps=0.8"],
    "letkf": ["filter=letkf", "filter.inflation=1.1", "filter.radius=4", "filter.rotation=true"],
}
"""Filters of the published case and their settings."""

NOT_TIMED = ("masf_amortised", "masf_paper", "climatology", "optimal_interpolation", "three_d_var", "kalman")
"""Presets that are trained beforehand, or carry no ensemble."""

SHOWN = (1, 5, 10, 20, 40, 80, 150)
"""Cycles whose RMSE is printed."""


def build(overrides: list[str]) -> Any:
    from masf_jax.experiments.builders.filters import FILTERS
    from masf_jax.experiments.compose import compose

    return FILTERS.build(FILTERS.check(dict(compose(overrides).filter)))


def published(args: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one filter and seed."""
    import jax
    import numpy as np

    import masf_jax as mj

    overrides, seed = json.loads(args.only)
    n, members = args.n[0], 20
    dynamics = mj.dynamics.Lorenz96(n, dt=0.01)
    measurement = mj.measurements.Measurement(mj.measurements.arctan(), mj.measurements.Gaussian(0.05))
    keys = jax.random.split(jax.random.fold_in(jax.random.key(2024), seed), 4)
    start = mj.dynamics.rollout(dynamics, 3 * jax.random.normal(keys[0], (n,)), keys[0], 1, 1000)[0]
    twin = mj.simulate(keys[1], dynamics, measurement, args.cycles, 10, start)
    ensemble = jax.random.normal(keys[2], (members, n))
    filter = build(overrides).prepare(dynamics, measurement)
    problem = keys[3], filter, dynamics, measurement, twin.observations, ensemble
    run = mj.assimilate(*problem, truth=twin.truth, save=(), scores=("rmse", "spread"), timed=True)
    out = {
        "rmse": np.asarray(run.analysis_scores["rmse"]).tolist(),
        "spread": np.asarray(run.analysis_scores["spread"]).tolist(),
        "peak": peak_gb(),
    }
    state, z = filter.init(keys[0], ensemble), twin.observations.values[0]
    analysis = jax.jit(lambda state, z: filter.analysis(keys[3], state, z, measurement)[0])
    jax.block_until_ready(analysis(state, z))
    begin = time.perf_counter()
    jax.block_until_ready(analysis(state, z))
    return out | {"analysis": time.perf_counter() - begin}


def cost(args: argparse.Namespace) -> dict[str, float]:
    """Seconds per cycle and peak memory of one preset at one n."""
    import jax
    import jax.numpy as jnp

    import masf_jax as mj

    overrides, n = json.loads(args.only)
    dynamics = mj.dynamics.Lorenz96(n)
    measurement = mj.measurements.Measurement(mj.measurements.Identity(), mj.measurements.Gaussian(1.0))
    start = dynamics.initial_state(jax.random.key(0))
    cycles = 3
    twin = mj.simulate(jax.random.key(2), dynamics, measurement, cycles, x0=start)
    ensemble = start + jax.random.normal(jax.random.key(3), (20, n))
    filter = build(overrides).prepare(dynamics, measurement)
    problem = jax.random.key(4), filter, dynamics, measurement, twin.observations, jnp.asarray(ensemble)
    run = mj.assimilate(*problem, save=(), timed=True)
    assert run.seconds_assimilate is not None
    return {"cycle": run.seconds_assimilate / cycles, "peak": peak_gb()}


def in_a_process(args: argparse.Namespace, case: list[Any], timeout: float | None) -> dict[str, Any] | str:
    """The numbers of one case, or why there are none."""
    command = [sys.executable, __file__, args.what, f"--only={json.dumps(case)}", f"--cycles={args.cycles}"]
    command += ["--n", *map(str, args.n)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return f"over {timeout:.0f} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
    return json.loads(done.stdout.splitlines()[-1])


def published_table(args: argparse.Namespace) -> tuple[str, Any]:
    numbers: dict[str, Any] = {}
    shown = [cycle for cycle in SHOWN if cycle <= args.cycles]
    last = args.cycles - args.cycles // 3
    rows = []
    for name, overrides in PUBLISHED.items():
        if not any(part in name for part in args.filters):
            continue
        for seed in range(args.seeds):
            found = numbers[f"{name}, seed {seed}"] = in_a_process(args, [overrides, seed], None)
            if isinstance(found, str):
                raise SystemExit(f"{name}: {found}")
            tail = slice(last, None)
            rmse, spread = (sum(found[k][tail]) / len(found[k][tail]) for k in ("rmse", "spread"))
            series = [f"{found['rmse'][cycle - 1]:.2f}" for cycle in shown]
            costs = [f"{found['analysis']:.3g}", f"{found['peak']:.2f}"]
            rows.append([f"{name}, seed {seed}", *series, f"{rmse:.3f}", f"{spread:.3f}", *costs])
            print("  ".join(rows[-1]), file=sys.stderr, flush=True)
    head = ["RMSE at cycle", *map(str, shown), f"{last + 1} on", "spread", "s/analysis", "peak GB"]
    title = f"Lorenz-96, n = {args.n[0]:,}, arctan of every variable, noise .05, N = 20, {args.cycles} cycles"
    return f"{header(title)}\n{table(rows, head)}", numbers


def cost_table(args: argparse.Namespace) -> tuple[str, Any]:
    from masf_jax.experiments.compose import choices

    numbers: dict[str, Any] = {}
    rows = []
    for name in sorted(choices("filter")):
        if name in NOT_TIMED or not any(part in name for part in args.filters):
            continue
        cells, why = [], None
        for n in sorted(args.n):
            if why is None:
                found = in_a_process(args, [[f"filter={name}"], n], args.timeout)
                numbers[f"{name}, n = {n}"] = found
                why = found if isinstance(found, str) else None
                cells.append(why or f"{found['cycle']:.3g} ({found['peak']:.1f})")
            else:
                cells.append("-")
        rows.append([name, *cells])
        print("  ".join(rows[-1]), file=sys.stderr, flush=True)
    head = ["seconds per cycle (peak GB)", *(f"n = {n:,}" for n in sorted(args.n))]
    return f"{header('Cost of one cycle, Lorenz-96, N = 20, all measured')}\n{table(rows, head)}", numbers


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("what", choices=("published", "cost"))
    parser.add_argument("--n", type=int, nargs="+")
    parser.add_argument("--filters", nargs="+", default=[""], help="parts of names (default: all)")
    parser.add_argument("--cycles", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=300.0, help="of one case of `cost`, in seconds")
    parser.add_argument("--only", metavar="CASE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.n = args.n or ([100] if args.what == "published" else [40, 1000, 100_000])
    if args.only:
        print(json.dumps((published if args.what == "published" else cost)(args)))
        return
    text, numbers = (published_table if args.what == "published" else cost_table)(args)
    finish(args, f"rivals_{args.what}", text, numbers)


if __name__ == "__main__":
    main()
