"""Reynolds number and drag of a Kolmogorov flow, found with its state.

64², velocity at every 4th point each way, noise .1, each .4 time units; LETKF, N = 20, radius 5, inflation
1.1 (those of the preset kolmogorov_grid). True: Re = 1000, drag .1; the filter's model says 400 and .2 ("as
it is"), or starts from priors LogNormal(400, .5) and LogNormal(.2, .5), 1.8 and 1.4 deviations from the
truth (AugmentedState with relaxation .8), or knows them. Members are draws of the wrong model's
climatology. "RMSE": of the analysis, over the second half of the cycles; found: mean over the last quarter
of the course, mean ± standard deviation over seeds; std: what the filter says at the end, mean over seeds;
off: the mean and the largest relative error.

    python benchmarks/accuracy/flow_numbers.py [--seeds 5] [--cycles 120]
"""

from __future__ import annotations

import time
from typing import Any

import _path  # noqa: F401
import jax
import numpy as np
from suite.common import arguments, finish, header, table

from masf_jax import assimilate, simulate
from masf_jax.dynamics import Kolmogorov, spun_up_ensemble
from masf_jax.ensemble import Inflation
from masf_jax.estimation import AugmentedState, LogNormal, estimate
from masf_jax.filters import LETKF
from masf_jax.measurements import Gaussian, Measurement, Subset, grid_stride

TRUE = {"dynamics.reynolds": 1000.0, "dynamics.drag": 0.1}
PRIORS = {"dynamics.reynolds": LogNormal(400.0, 0.5), "dynamics.drag": LogNormal(0.2, 0.5)}
MODEL, WRONG = Kolmogorov(64), Kolmogorov(64, reynolds=400.0, drag=0.2)
SENSOR = Measurement(Subset.from_mask(grid_stride(MODEL.state_shape, 4)), Gaussian(0.1))
FILTER = LETKF(5.0, Inflation(1.1))


def one_seed(seed: int, cycles: int) -> dict[str, Any]:
    """RMSE by model, and of each number what was found and its std."""
    keys = jax.random.split(jax.random.key(seed), 4)
    twin = simulate(keys[0], MODEL, SENSOR, cycles, 2, MODEL.sample_climatology(keys[1]))
    members = spun_up_ensemble(WRONG, keys[2], 20)
    scored: dict[str, Any] = {"truth": twin.truth, "scores": ("rmse",)}
    out: dict[str, Any] = {}
    for name, model in (("as it is", WRONG), ("known", MODEL)):
        given = (model, SENSOR, twin.observations, members)
        run = assimilate(keys[3], FILTER, *given, save=(), **scored)
        out[name] = np.asarray(run.analysis_scores["rmse"])[cycles // 2 :].mean()
    begun = time.process_time()
    given = (WRONG, SENSOR, twin.observations, members)
    found = estimate(keys[3], FILTER, *given, unknown=PRIORS, engine=AugmentedState(relaxation=0.8), **scored)
    assert found.run is not None
    out["seconds"] = time.process_time() - begun
    out["found"] = np.asarray(found.run.analysis_scores["rmse"])[cycles // 2 :].mean()
    for name in TRUE:
        course = np.asarray(found.course_mean[name])
        out[name] = course[-cycles // 4 :].mean(), float(found.std[name])
        print(seed, name, course[:: max(cycles // 10, 1)], out[name], flush=True)
    print(seed, out, flush=True)
    return out


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cycles", type=int, default=120)
    args = parser.parse_args()
    seeds = [one_seed(seed, args.cycles) for seed in range(400, 400 + args.seeds)]
    numbers: dict[str, Any] = {name: np.array([each[name] for each in seeds]).tolist() for name in seeds[0]}
    rows = []
    for name, true in TRUE.items():
        values, stds = np.array(numbers[name]).T
        off = 100 * np.abs(values / true - 1)
        rows.append(
            [
                name,
                f"{true:g}",
                f"{values.mean():.4g} ± {values.std(ddof=1):.2g}",
                f"{stds.mean():.2g}",
                f"{off.mean():.1f} % ({off.max():.1f})",
            ]
        )
    models = []
    for name in ("as it is", "found", "known"):
        rmse = np.array(numbers[name])
        ratio = np.mean(rmse / np.array(numbers["known"]))
        models.append(
            [name, f"{rmse.mean():.4f} ± {rmse.std(ddof=1) / len(rmse) ** 0.5:.4f}", f"{ratio:.3f}"]
        )
    text = [
        header("Reynolds number and drag of a Kolmogorov flow"),
        table(rows, ["", "true", "found", "std", "off (worst)"]),
        "",
        table(models, ["model", "RMSE", "/ known"]),
        "",
        f"CPU seconds of an estimate: {np.mean(numbers['seconds']):.0f}",
    ]
    finish(args, "flow_numbers", "\n".join(text), numbers)


if __name__ == "__main__":
    main()
