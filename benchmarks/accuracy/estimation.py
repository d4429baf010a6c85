"""Unknown forcing: found by engine and filter, how sure, how often within its spread, and what it is worth.

Lorenz-96, n = 40, values of noise 1 each .05. "found": the truth is F = 8, the prior N(5, 1) (three
deviations off), 200 cycles (100, and 5 seeds, for the gradient); mean ± standard deviation over seeds of the
estimate, its mean std, and how many of the seeds' truths lie within two of their std. "RMSE": the truth is
F = 8.5, the model says 8; analysis RMSE (cycles 100-400) of a filter with the model as it is, with the prior
N(8, .5) and estimation along the way, and with the true forcing; mean ± standard error of 5 seeds. Nothing
was tuned: inflation 1.02 (1.05 where localised) and radius 4 are the examples'.

    python benchmarks/accuracy/estimation.py [--seeds 20]
"""

from __future__ import annotations

import time

import _path  # noqa: F401
import jax
import numpy as np
from suite.common import arguments, finish, header, table

from masf_jax import assimilate, filters, masf, simulate
from masf_jax.dynamics import Lorenz96
from masf_jax.ensemble import Inflation
from masf_jax.estimation import AugmentedState, Gradient, Normal, estimate
from masf_jax.measurements import Gaussian, Identity, Measurement, Subset

ALL, HALF = Identity(), Subset(np.arange(0, 40, 2))
CASES = {
    "ETKF, N = 50, all": (filters.ETKF(Inflation(1.02)), 50, ALL),
    "MASF, N = 50, all": (masf.MASF(inflation=Inflation(1.02)), 50, ALL),
    "EnKF, N = 50, all": (filters.EnKF(Inflation(1.02)), 50, ALL),
    "LETKF, N = 20, half": (filters.LETKF(4.0, Inflation(1.05)), 20, HALF),
    "MASF localised, N = 20, half": (
        masf.MASF(masf.GaussianPrior(radius=4.0), inflation=Inflation(1.05)), 20, HALF
    ),
    "EnSRF localised, N = 20, half": (filters.EnSRF(Inflation(1.05), radius=4.0), 20, HALF),
}  # fmt: skip
BY_GRADIENT = ("ETKF, N = 50, all", "LETKF, N = 20, half")
NAME = "dynamics.forcing"


def problem(case: str, forcing: float, n_cycles: int, seed: int):
    filter, n, operator = CASES[case]
    sensor = Measurement(operator, Gaussian(1.0))
    twin = simulate(jax.random.key(seed), Lorenz96(40, forcing=forcing), sensor, n_cycles)
    members = twin.truth[0] + jax.random.normal(jax.random.key(1000 + seed), (n, 40))
    return jax.random.key(2000 + seed), filter, sensor, twin, members


def found(case: str, engine: AugmentedState | Gradient, n_cycles: int, seeds: range) -> list[object]:
    means, stds, begun = [], [], time.process_time()
    for seed in seeds:
        key, filter, sensor, twin, members = problem(case, 8.0, n_cycles, seed)
        result = estimate(
            key, filter, Lorenz96(40, forcing=5.0), sensor, twin.observations, members,
            unknown={NAME: Normal(5.0, 1.0)}, engine=engine,
        )  # fmt: skip
        means.append(float(result.mean[NAME]))
        stds.append(float(result.std[NAME]))
    m, s = np.asarray(means), np.asarray(stds)
    within = int((np.abs(m - 8) < 2 * s).sum())
    each = (time.process_time() - begun) / len(seeds)
    return [
        case,
        type(engine).__name__,
        f"{m.mean():.3f} ± {m.std(ddof=1):.3f}",
        f"{s.mean():.3f}",
        f"{within}/{len(m)}",
        f"{each:.1f}",
    ]


def worth(case: str, seeds: range) -> list[object]:
    rows = {"as it is": [], "estimated": [], "known": []}
    for seed in seeds:
        key, filter, sensor, twin, members = problem(case, 8.5, 400, seed)
        for name, forcing in (("as it is", 8.0), ("known", 8.5)):
            run = assimilate(
                key, filter, Lorenz96(40, forcing=forcing), sensor, twin.observations, members,
                truth=twin.truth, scores=("rmse",),
            )  # fmt: skip
            rows[name].append(np.asarray(run.analysis_scores["rmse"])[100:].mean())
        result = estimate(
            key, filter, Lorenz96(40), sensor, twin.observations, members,
            unknown={NAME: Normal(8.0, 0.5)}, truth=twin.truth, scores=("rmse",),
        )  # fmt: skip
        assert result.run is not None
        rows["estimated"].append(np.asarray(result.run.analysis_scores["rmse"])[100:].mean())
    out = [f"{np.mean(v):.4f} ± {np.std(v, ddof=1) / len(v) ** 0.5:.4f}" for v in rows.values()]
    return [case, *out, f"{np.mean(rows['estimated']) / np.mean(rows['known']):.3f}"]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    args = parser.parse_args()
    seeds = range(100, 100 + args.seeds)
    one = []
    for case, engine, n_cycles, some in [
        *((case, AugmentedState(), 200, seeds) for case in CASES),
        *((case, Gradient(), 100, seeds[:5]) for case in BY_GRADIENT),
    ]:
        one.append(found(case, engine, n_cycles, some))
        print(one[-1], flush=True)
    two = [worth(case, seeds[:5]) for case in CASES]
    text = [
        header("Unknown forcing of Lorenz-96"),
        table(one, ["", "engine", "found (true: 8)", "std", "within 2 std", "CPU s"]),
        "",
        table(two, ["RMSE, true forcing 8.5", "model of 8", "estimated", "known", "estimated / known"]),
    ]
    finish(args, "estimation", "\n".join(text), {"found": one, "worth": two})


if __name__ == "__main__":
    main()
