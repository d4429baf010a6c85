"""Ensemble smoothers: published numbers of the iterative one, and what both kinds gain with lag.

published: RMSE of the analysis of `ienks`, beside what DAPPER 1.8 lists for its iEnKS (files of dapper/mods).
lag: RMSE of the analysis and of the smoothed mean for each lag, `enks` (ETKF) and `ienks`, by the best of a
few inflations on another seed. Rotated; mean ± standard error over seeds, the first fifth not scored.

    python benchmarks/accuracy/ensemble_smoothers.py [--seeds 5] [--cycles 1000]
"""

from __future__ import annotations

import statistics
from typing import Any

import _path  # noqa: F401
import jax
from suite.common import arguments, finish, header, table

import masf_jax as mj
from masf_jax.dynamics import Dynamics, Lorenz63, Lorenz96
from masf_jax.ensemble import Inflation
from masf_jax.filters import ETKF, IEnKF
from masf_jax.measurements import Gaussian, Identity, Measurement, Subset
from masf_jax.smoothers import enks, ienks

HALF = Subset(range(0, 40, 2))
PUBLISHED: dict[str, tuple[Dynamics, int, Any, float, int, int, float, bool, float]] = {
    "Lorenz-63, each .25 (sakov2012)": (
        Lorenz63(dt=0.01), 25, Identity(), 2.0, 10, 1, 1.02, True, 0.31,
    ),
    "Lorenz-96, half, each .05 (bocquet2010_m40)": (
        Lorenz96(40, dt=0.05), 1, HALF, 1.5, 19, 2, 1.04, False, 0.39,
    ),
    "Lorenz-96, each .6 (sakov2008, Sakov et al. 2012 table 3)": (
        Lorenz96(40, dt=0.05), 12, Identity(), 1.0, 25, 1, 1.2, True, 0.46,
    ),
    "Lorenz-96, each .2 (sakov2008, Bocquet & Sakov 2013 figure 4; theirs: finite-size)": (
        Lorenz96(40, dt=0.05), 4, Identity(), 1.0, 20, 4, 1.04, True, 0.31,
    ),
}  # fmt: skip
"""Model, steps a cycle, operator, variance, N, lag, inflation, rotation, DAPPER's RMSE."""

LAGS: dict[str, tuple[Dynamics, int, float, int, tuple[int, ...]]] = {
    "Lorenz-63, all each .1, variance 1, N = 10": (Lorenz63(dt=0.01), 10, 1.0, 10, (1, 2, 4, 8)),
    "Lorenz-96, all each .05, variance 1, N = 25": (Lorenz96(40, dt=0.05), 1, 1.0, 25, (1, 5, 10, 20)),
}
INFLATIONS = (1.0, 1.01, 1.02, 1.04, 1.08)
TUNING_SEED = 1000


def problem(
    dynamics: Dynamics, every: int, operator: Any, variance: float, n: int, cycles: int, seed: int
) -> tuple[Any, ...]:
    keys = jax.random.split(jax.random.fold_in(jax.random.key(77), seed), 3)
    measurement = Measurement(operator, Gaussian(variance**0.5))
    start = dynamics.sample_climatology(keys[0])
    twin = mj.simulate(keys[1], dynamics, measurement, cycles, every, start)
    ensemble = start[None] + 0.5 * jax.random.normal(keys[2], (n, *start.shape))
    return (dynamics, measurement, twin.observations, ensemble), twin.truth


def rmse(name: str, case: tuple[Any, ...], lag: int, inflation: float, rotation: bool) -> list[float]:
    """Of the analysis and of the smoothed mean."""
    given, truth = case
    smoother, filter = (enks, ETKF) if name == "enks" else (ienks, IEnKF)
    run = smoother(
        jax.random.key(5), filter(Inflation(inflation), rotation=rotation), *given, lag=lag, truth=truth,
        save=(), scores=("rmse",),
    )  # fmt: skip
    scored = slice(len(truth) // 5, len(truth) - lag)
    return [float(scores["rmse"][scored].mean()) for scores in (run.analysis_scores, run.smoothed_scores)]


def mean_and_error(values: list[float]) -> str:
    return f"{statistics.fmean(values):.3f} ± {statistics.stdev(values) / len(values) ** 0.5:.3f}"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cycles", type=int, default=1000)
    args = parser.parse_args()
    published = []
    for title, (*system, n, lag, inflation, rotation, stated) in PUBLISHED.items():
        runs = [
            rmse("ienks", problem(*system, n, args.cycles, seed), lag, inflation, rotation)
            for seed in range(args.seeds)
        ]
        cells = [mean_and_error([run[i] for run in runs]) for i in range(2)]
        published.append([title, str(n), str(lag), str(inflation), cells[0], f"{stated:.2f}", cells[1]])
    head = ["published", "N", "lag", "inflation", "RMSE analysis", "DAPPER", "RMSE smoothed"]
    text = [header("Ensemble smoothers"), table(published, head)]
    for title, (dynamics, every, variance, n, lags) in LAGS.items():
        system = dynamics, every, Identity(), variance, n, args.cycles
        rows = []
        for name in ("enks", "ienks"):
            for lag in lags:
                tuning = problem(*system, TUNING_SEED)
                best = min(INFLATIONS, key=lambda inflation: rmse(name, tuning, lag, inflation, True)[1])
                runs = [rmse(name, problem(*system, seed), lag, best, True) for seed in range(args.seeds)]
                cells = [mean_and_error([run[i] for run in runs]) for i in range(2)]
                rows.append([name, str(lag), str(best), *cells])
        text += ["", title, table(rows, ["", "lag", "inflation", "RMSE analysis", "RMSE smoothed"])]
    finish(args, "ensemble_smoothers", "\n".join(text), {})


if __name__ == "__main__":
    main()
