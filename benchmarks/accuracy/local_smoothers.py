"""Localised ensemble smoothers beside those without localisation and the filters alone, on Lorenz-96.

40 variables, half of them measured each .05 with variance 1; members: the first truth and N(0, 1). `enks` by
ETKF and LETKF, `ienks` (3 iterations) without and with a radius. Radius (4, 7) and inflation by the RMSE of
the smoothed mean on one other seed, for each lag. Rotated; lag 0 is the filter alone (of `ienks`: lag 1, the
filter IEnKF, its analysis). RMSE, mean ± standard error over seeds, the first fifth not scored; lost: seeds
whose smoothed RMSE is above 1.

    python benchmarks/accuracy/local_smoothers.py [--seeds 5] [--cycles 300]
"""

from __future__ import annotations

import statistics
import warnings
from typing import Any

import _path  # noqa: F401
import jax
import numpy as np
from suite.common import arguments, finish, header, table

from masf_jax import simulate
from masf_jax.dynamics import Lorenz96
from masf_jax.ensemble import Inflation
from masf_jax.filters import ETKF, LETKF, IEnKF
from masf_jax.filters.faults import FaultWarning
from masf_jax.measurements import Gaussian, Measurement, Subset
from masf_jax.smoothers import enks, ienks

MODEL, MEASUREMENT = Lorenz96(40, dt=0.05), Measurement(Subset(range(0, 40, 2)), Gaussian(1.0))
SIZES = (10, 20)
INFLATIONS = (1.02, 1.04, 1.07, 1.1)
RADII = (4.0, 7.0)
TUNING_SEED = 1000
LAGS = {"enks": (0, 5, 20), "ienks": (1, 5)}


def problem(n: int, cycles: int, seed: int) -> tuple[tuple[Any, ...], Any]:
    keys = jax.random.split(jax.random.fold_in(jax.random.key(77), seed), 3)
    start = MODEL.sample_climatology(keys[0])
    twin = simulate(keys[1], MODEL, MEASUREMENT, cycles, 1, start)
    ensemble = start[None] + jax.random.normal(keys[2], (n, 40))
    return (MODEL, MEASUREMENT, twin.observations, ensemble), twin.truth


def rmse(name: str, lag: int, radius: float, inflation: float, case: tuple[Any, ...]) -> list[float]:
    """Of the analysis and of the smoothed mean; inf where the run was lost to numbers."""
    given, truth = case
    factor = Inflation(inflation)
    if name == "enks":
        local = np.isfinite(radius)
        filter = LETKF(radius, factor, rotation=True) if local else ETKF(factor, rotation=True)
        smoother: Any = enks
    else:
        filter, smoother = IEnKF(factor, rotation=True, iterations=3, radius=radius), ienks
    run = smoother(jax.random.key(5), filter, *given, lag=lag, truth=truth, save=(), scores=("rmse",))
    scored = slice(len(truth) // 5, len(truth) - lag)
    means = [float(s["rmse"][scored].mean()) for s in (run.analysis_scores, run.smoothed_scores)]
    return [mean if np.isfinite(mean) else np.inf for mean in means]


def mean_and_error(values: list[float]) -> str:
    return f"{statistics.fmean(values):.3f} ± {statistics.stdev(values) / len(values) ** 0.5:.3f}"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cycles", type=int, default=300)
    args = parser.parse_args()
    warnings.simplefilter("ignore", FaultWarning)
    rows, numbers = [], {}
    for n in SIZES:
        tuning = problem(n, args.cycles, TUNING_SEED)
        cases = [problem(n, args.cycles, seed) for seed in range(args.seeds)]
        for name, lags in LAGS.items():
            for radii in ((np.inf,), RADII):
                for lag in lags:
                    tried = {
                        (radius, inflation): rmse(name, lag, radius, inflation, tuning)[1]
                        for radius in radii
                        for inflation in INFLATIONS
                    }
                    radius, inflation = min(tried, key=tried.__getitem__)
                    runs = [rmse(name, lag, radius, inflation, case) for case in cases]
                    cells = [mean_and_error([run[i] for run in runs]) for i in range(2)]
                    lost = sum(not run[1] < 1 for run in runs)
                    rows.append([name, str(n), str(lag), f"{radius:g}", f"{inflation:g}", *cells, str(lost)])
                    numbers[f"{name}, {n}, {lag}, {radius:g}"] = runs
                    print(rows[-1], flush=True)
    head = ["", "N", "lag", "radius", "inflation", "RMSE analysis", "RMSE smoothed", "lost"]
    finish(args, "local_smoothers", f"{header('Localised ensemble smoothers')}\n{table(rows, head)}", numbers)


if __name__ == "__main__":
    main()
