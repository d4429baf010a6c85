"""Score- and flow-based filters of other papers: their published case, and what a cycle costs.

    python benchmarks/accuracy/rivals.py published [--n 100] [--filters ensf …] [--cycles 150] [--seeds 3]
    python benchmarks/accuracy/rivals.py cost [--n 40 1000 100000] [--filters NAME …] [--timeout 300]
    python benchmarks/accuracy/rivals.py published|cost --parts FILE.json …  # one table of several --json

published: Lorenz-96, F = 8, dt = .01, arctan of every variable with noise .05 every 10 steps, N = 20. The
truth starts on the attractor, members at N(0, I), knowing nothing. RMSE of the analysis at some cycles and
over the last third, CPU seconds of an analysis after the last cycle, peak memory. Stated elsewhere: EnSF's
released code, n = 100, 500 steps: .179 .221 .173 over the last 50 of 150 cycles (run by us); n = 10⁶,
80 cycles: EnFF .172, EnSF with 100 steps .403 (arXiv 2508.13313).

cost: CPU seconds per cycle (forecast of one step and analysis) of every preset of configs/filter on
Lorenz-96, all variables measured with noise 1, N = 20; without figures or scores, compilation apart. --plot
FILE.png draws them. CPU seconds are those of all threads: on a core of its own, wall clock.

Each case runs in a process of its own. --filters takes whole names, or parts of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from suite.common import arguments, finish, header, peak_gb, table

RAW = "filter.normalization=raw"  # as released and published; the presets' units are of the forecasts' spread
PUBLISHED: dict[str, list[str]] = {
    "ensf": ["filter=ensf", RAW],
    "ensf, 100 steps": ["filter=ensf", RAW, "filter.n_steps=100"],
    "ensf, all members": ["filter=ensf", RAW, "filter.batch_size=null"],
    "ensf, own units": ["filter=ensf"],
    "enff, ot": ["filter=enff", RAW, "filter.path=ot"],
    "enff, f2p": ["filter=enff", RAW, "filter.path=f2p", "filter.guidance=0.05"],
    "enff, ot, own units": ["filter=enff", "filter.path=ot"],
    "enff, f2p, own units": ["filter=enff", "filter.path=f2p", "filter.guidance=0.05"],
    "iensf": ["filter=iensf", "filter.n_steps=200", "filter.iterations=4", "filter.rtps=0.8"],
    "letkf": ["filter=letkf", "filter.inflation=1.1", "filter.radius=4", "filter.rotation=true"],
}
"""Filters of the published case and their settings."""

NOT_TIMED = ("masf_amortised", "masf_paper", "climatology", "optimal_interpolation", "three_d_var", "kalman")
"""Presets that are trained beforehand, or carry no ensemble."""

Cases = dict[str, dict[str, Any]]
"""By name and n: numbers, or why there are none."""

SHOWN = (1, 5, 10, 20, 40, 80, 150)
"""Cycles whose RMSE is printed."""


def chosen(names: Iterable[str], parts: list[str]) -> list[str]:
    """The names given, and those that have a part given which is no name itself."""
    names = list(names)
    return [name for name in names if any(name == p or (p in name and p not in names) for p in parts)]


def build(overrides: list[str]) -> Any:
    from masf_jax.cli.config.builders.filters import FILTERS
    from masf_jax.cli.config.compose import compose

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
    state, z = run.final, twin.observations.values[-1]  # LETKF's first analyses take longer
    analysis = jax.jit(lambda state, z: filter.analysis(keys[3], state, z, measurement)[0])
    jax.block_until_ready(analysis(state, z))
    begin = time.process_time()
    jax.block_until_ready(analysis(state, z))
    return out | {"analysis": time.process_time() - begin}


def cost(args: argparse.Namespace) -> dict[str, float]:
    """CPU seconds per cycle and peak memory of one preset at one n."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    import masf_jax as mj

    overrides, n = json.loads(args.only)
    dynamics = mj.dynamics.Lorenz96(n)
    measurement = mj.measurements.Measurement(mj.measurements.Identity(), mj.measurements.Gaussian(1.0))
    start = dynamics.initial_state(jax.random.key(0))
    cycles = 20 if n <= 1000 else 3
    twin = mj.simulate(jax.random.key(2), dynamics, measurement, cycles, x0=start)
    ensemble = start + jax.random.normal(jax.random.key(3), (20, n))
    filter = build(overrides).prepare(dynamics, measurement)
    problem = jax.random.key(4), filter, dynamics, measurement, twin.observations, jnp.asarray(ensemble)
    run = eqx.filter_jit(lambda *problem: mj.assimilate(*problem, save=())).lower(*problem).compile()
    if n <= 1000:  # what only the first run of a process pays would count
        jax.block_until_ready(run(*problem))
    begin = time.process_time()
    jax.block_until_ready(run(*problem))
    return {"cycle": (time.process_time() - begin) / cycles, "peak": peak_gb()}


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


def published_cases(args: argparse.Namespace) -> Cases:
    cases: Cases = {}
    for name in chosen(PUBLISHED, args.filters):
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            found = in_a_process(args, [PUBLISHED[name], seed], None)
            if isinstance(found, str):
                raise SystemExit(f"{name}: {found}")
            cases[f"{name}, seed {seed}"] = {str(args.n[0]): found}
            print(f"{name}, seed {seed}: {found['rmse'][-1]:.3f}", file=sys.stderr, flush=True)
    return cases


def published_table(cases: Cases) -> str:
    """One table for each n and number of cycles."""
    kinds = sorted({(int(n), len(case["rmse"])) for sizes in cases.values() for n, case in sizes.items()})
    return "\n\n".join(_published_table(cases, n, cycles) for n, cycles in kinds)


def _published_table(cases: Cases, n: int, cycles: int) -> str:
    shown = [cycle for cycle in SHOWN if cycle <= cycles]
    last = cycles - cycles // 3
    rows = []
    for name, sizes in cases.items():
        found = sizes.get(str(n))
        if found is None or len(found["rmse"]) != cycles:
            continue
        rmse, spread = (sum(found[k][last:]) / len(found[k][last:]) for k in ("rmse", "spread"))
        series = [f"{found['rmse'][cycle - 1]:.2f}" for cycle in shown]
        costs = [f"{found['analysis']:.3g}", f"{found['peak']:.2f}"]
        rows.append([name, *series, f"{rmse:.3f}", f"{spread:.3f}", *costs])
    head = ["RMSE at cycle", *map(str, shown), f"{last + 1} on", "spread", "CPU s/analysis", "peak GB"]
    title = f"Lorenz-96, n = {n:,}, arctan of every variable, noise .05, N = 20, {cycles} cycles"
    return f"{title}\n{table(rows, head)}"


def timed_presets() -> list[str]:
    from masf_jax.cli.config.compose import choices

    return [name for name in sorted(choices("filter")) if name not in NOT_TIMED]


def cost_cases(args: argparse.Namespace) -> Cases:
    cases: Cases = {}
    for name in chosen(timed_presets(), args.filters):
        for n in sorted(args.n):
            found = in_a_process(args, [[f"filter={name}"], n], args.timeout)
            cases.setdefault(name, {})[str(n)] = found
            print(f"{name}, n = {n}: {found}", file=sys.stderr, flush=True)
            if isinstance(found, str):
                break
    return cases


def cost_table(cases: Cases) -> str:
    sizes = sorted({int(n) for found in cases.values() for n in found})

    def cell(found: Any) -> str:
        return found if isinstance(found, str) else f"{found['cycle']:.3g} ({found['peak']:.1f})"

    rows = [[name, *(cell(found.get(str(n), "-")) for n in sizes)] for name, found in sorted(cases.items())]
    head = ["CPU s per cycle (peak GB)", *(f"n = {n:,}" for n in sizes)]
    missing = [name for name in timed_presets() if name not in cases]
    last = f"\nNot run: {', '.join(missing)}" if missing else ""
    return f"Cost of one cycle, Lorenz-96, N = 20, all measured\n{table(rows, head)}{last}"


def gathered(args: argparse.Namespace) -> tuple[str, Cases]:
    """Headers and cases of earlier calls."""
    headers: list[str] = []
    cases: Cases = {}
    for path in args.parts:
        part = json.loads(path.read_text())
        headers.append(part["header"].strip())
        for name, sizes in part["cases"].items():
            cases.setdefault(name, {}).update(sizes)
    return "\n".join(headers) + "\n", cases


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("what", choices=("published", "cost"))
    parser.add_argument("--n", type=int, nargs="+")
    parser.add_argument("--filters", nargs="+", default=[""], help="names or parts of names (default: all)")
    parser.add_argument("--cycles", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=300.0, help="of one case of `cost`, in seconds")
    parser.add_argument(
        "--parts", type=Path, nargs="+", help="what earlier calls wrote with --json; runs nothing"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="of `cost`: a figure")
    parser.add_argument("--only", metavar="CASE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.n = args.n or ([100] if args.what == "published" else [40, 1000, 100_000])
    if args.only:
        print(json.dumps((published if args.what == "published" else cost)(args)))
        return
    if args.parts:
        top, cases = gathered(args)
    else:
        top = header("").strip() + "\n"
        cases = (published_cases if args.what == "published" else cost_cases)(args)
    text = (published_table if args.what == "published" else cost_table)(cases)
    finish(args, f"rivals_{args.what}", f"{top}\n{text}", {"header": top, "cases": cases})
    if args.plot:
        from suite.rivals_plot import cost_figure

        cost_figure(cases).savefig(args.plot, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main()
