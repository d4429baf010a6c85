"""Lorenz-96 with a million variables and 20 members runs in under 8 GB: LETKF and ETKF.

Each case in a process of its own: neighbour lists, a run of a few cycles by `assimilate` (scores kept, no
history), the peak memory up to there; then a forecast step, an analysis and one stage's scores timed alone.

    python benchmarks/speed/lorenz96_million.py [--cycles 2] [--n 1000000]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import _path  # noqa: F401
from suite.common import arguments, finish, header, peak_gb, table

CASES = [("letkf", 1), ("letkf", 2), ("etkf", 1), ("etkf", 2)]
"""Filter and stride: every variable, or every second one, is observed."""


def one(args: argparse.Namespace) -> dict[str, float]:
    """All numbers of one case, in this process."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import masf_jax as mj
    from masf_jax.metrics.cycle import DEFAULT_SCORES, cycle_scores

    kind, stride = args.only.split(",")
    operator = mj.measurements.Identity()
    if int(stride) > 1:
        operator = mj.measurements.Subset(np.arange(0, args.n, int(stride)))
    dynamics = mj.dynamics.Lorenz96(args.n)
    measurement = mj.measurements.Measurement(operator, mj.measurements.Gaussian(1.0))
    inflation = mj.ensemble.inflation.Inflation(1.02)
    filter: Any = mj.filters.ETKF(inflation, rotation=True)
    if kind == "letkf":
        filter = mj.filters.LETKF(args.radius, inflation, rotation=True)
    start = mj.dynamics.rollout(
        dynamics, dynamics.initial_state(jax.random.key(0)), jax.random.key(1), 1, 100
    )[0]
    twin = mj.simulate(jax.random.key(2), dynamics, measurement, args.cycles, x0=start)
    noise = jax.random.normal(jax.random.key(3), (args.members + 1, args.n))
    ensemble = start + noise[1:] + noise[0]  # the mean is off by as much as the members differ
    jax.block_until_ready((twin, ensemble))

    begin = time.perf_counter()
    filter = jax.block_until_ready(filter.prepare(dynamics, measurement))
    out = {"prepare": time.perf_counter() - begin}
    problem = jax.random.key(4), filter, dynamics, measurement, twin.observations, ensemble
    filter_prepare = type(filter).prepare
    type(filter).prepare = lambda self, *unused: self  # measured above; not twice
    run = mj.assimilate(*problem, truth=twin.truth, save=(), timed=True)
    type(filter).prepare = filter_prepare
    out |= {"compile": run.seconds_compile, "cycle": run.seconds_assimilate / args.cycles, "peak": peak_gb()}
    out |= {
        "rmse": float(run.analysis_scores["rmse"][-1]),
        "forecast_rmse": float(run.forecast_scores["rmse"][-1]),
    }

    zero, key, z, mask = jnp.asarray(0, jnp.int32), jax.random.key(5), twin.observations.values[0], None
    state = filter.init(key, ensemble)
    parts = {
        "forecast": jax.jit(lambda state: filter.forecast(key, state, dynamics, zero, 1)),
        "analysis": jax.jit(lambda state: filter.analysis(key, state, z, measurement, mask)),
        "scores": jax.jit(lambda state: cycle_scores(DEFAULT_SCORES, state, twin.truth[0], None)),
    }
    for name, part in parts.items():
        jax.block_until_ready(part(state))
        seconds = []
        for _ in range(2):
            begin = time.perf_counter()
            jax.block_until_ready(part(state))
            seconds.append(time.perf_counter() - begin)
        out[name] = min(seconds)
    return out


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--n", type=int, default=10**6)
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--cycles", type=int, default=2)
    parser.add_argument("--radius", type=float, default=4.0)
    parser.add_argument("--only", metavar="FILTER,STRIDE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(one(args)))
        return
    numbers, rows = {}, []
    options = [f"--{name}={getattr(args, name)}" for name in ("n", "members", "cycles", "radius")]
    for kind, stride in CASES:
        command = [sys.executable, __file__, f"--only={kind},{stride}", *options]
        done = subprocess.run(command, capture_output=True, text=True)
        name = f"{kind.upper()}, every {'variable' if stride == 1 else '2nd'} observed"
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
            raise SystemExit(f"{name}: {reason}")
        now = numbers[name] = json.loads(done.stdout.splitlines()[-1])
        keys = (
            "prepare",
            "compile",
            "forecast",
            "analysis",
            "scores",
            "cycle",
            "peak",
            "forecast_rmse",
            "rmse",
        )
        rows.append([name, *(f"{now[k]:.3g}" for k in keys)])
    head = [
        "filter",
        "neighbours s",
        "compile s",
        "forecast s",
        "analysis s",
        "scores s",
        "cycle s",
        "peak GB",
        "RMSE f",
        "RMSE a",
    ]
    title = (
        f"Lorenz-96, n = {args.n:,}, N = {args.members}, {args.cycles} cycles, LETKF radius {args.radius:g}"
    )
    text = "\n".join(
        [
            header(title),
            table(rows, head),
            "",
            "cycle: forecast, analysis, scores of both; peak: resident memory of the run (limit 8).",
        ]
    )
    finish(args, "lorenz96_million", text, numbers)


if __name__ == "__main__":
    main()
