"""What the ratios of zero_shot.py can be: of chance alone, and of no sampling error at all.

On the truths and seeds of zero_shot.py, with its tuned LETKF:
"again": the LETKF once more, with other first members and another key. Both are equally good, so the ratio of
the worst seed is what chance gives to a filter that is never worse than its base.
"N=400": a square-root filter (EnSRF) of 400 members that needs no localisation, the best of its inflations on
the tuning seeds: what is lost to 20 members, and so what a filter could win that knows the forecast's mean
and covariance exactly (its first members have a spread of 1). Filters that are not Gaussian could win more.

    python benchmarks/accuracy/zero_shot_limits.py [CASE …] [--members 400]
"""

from __future__ import annotations

import dataclasses

import _path  # noqa: F401
import jax
import numpy as np
from suite.again import again, by_chance
from suite.common import arguments, finish, header, table
from zero_shot import CASES, Case, tried, tuned

from masf_jax import dynamics as d, filters as f
from masf_jax.ensemble import Inflation

INFLATIONS = (1.0, 1.005, 1.01, 1.02, 1.04)


def many(model: d.Dynamics, case: Case, cycles: int) -> tuple[f.EnSRF, str]:
    """The filter of many members with the best inflation, by the seeds that tune the LETKF."""
    found = {}
    for inflation in INFLATIONS:
        ready = f.EnSRF(Inflation(inflation), True).prepare(model, case.measurement(model))
        rmse = tried(ready, model, case, (900, 901), cycles // 2)["rmse"].mean()
        found[inflation] = np.nan_to_num(rmse, nan=np.inf)
    best = min(found, key=lambda inflation: found[inflation])
    return f.EnSRF(Inflation(best), True), f"{best:g}"


def row(name: str, members: int, seeds: int, cycles: int) -> list[str]:
    case = CASES[name]
    model, cycles = case.model(), max(20, int(cycles * case.scale))
    letkf, said = tuned(model, case, cycles)
    large = dataclasses.replace(case, members=members, spread=1.0)
    ensrf, inflation = many(model, large, cycles)
    of_seeds = range(500, 500 + seeds)
    sensor = case.measurement(model)
    base, second = (
        tried(x.prepare(model, sensor), model, case, of_seeds, cycles)["rmse"] for x in (letkf, again(letkf))
    )
    exact = tried(ensrf.prepare(model, sensor), model, large, of_seeds, cycles)
    cells = [name, said, f"{base.mean():.4f} ± {base.std(ddof=1) / seeds**0.5:.4f}"]
    cells += by_chance(base, second)
    rmse = exact["rmse"]
    cells += [f"{rmse.mean():.4f} ± {rmse.std(ddof=1) / seeds**0.5:.4f}", inflation]
    return [*cells, f"{rmse.mean() / base.mean():.3f}", f"{(exact['spread'] / rmse).mean():.2f}"]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE")
    parser.add_argument("--members", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cycles", type=int, default=1000)
    args = parser.parse_args()
    rows = []
    for name in args.cases:
        rows.append(row(name, args.members, args.seeds, args.cycles))
        jax.clear_caches()
        print("  ".join(rows[-1]), flush=True)
    head = ["case", "radius, inflation", "LETKF", "again, ratio", "worst seed", "deviation of the ratio"]
    head += [f"N={args.members}", "inflation", "ratio", "s/R"]
    finish(
        args,
        "zero_shot_limits",
        f"{header('What the ratios to the LETKF can be')}\n{table(rows, head)}",
        rows,
    )


if __name__ == "__main__":
    main()
