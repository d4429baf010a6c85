"""One network for all ensemble sizes, at the settings of MNMEF (arXiv 2504.17836), beside LETKFs of each.

Lorenz-96: n = 40, F = 8, RK4 .03, every 4th variable each 5 steps. Kuramoto-Sivashinsky: 128 points on
32π, step .25, every 8th point each 4 steps. Noise 1 and .7. The LETKF has the radius and inflation with the
smallest RMSE of the analysis over three runs of their own; the network is one of the package, which has seen
neither these intervals nor these masks, on that LETKF's analyses (`load_amortised(…, dynamics=model)`);
nothing of it is tuned. RMSE of the analysis without the first 200 cycles, mean ± standard error of runs, the
ratio of means and its goal, spread/RMSE, and lost runs (NaN, of Lorenz-96 .7 of the climate's deviation too).

    python benchmarks/accuracy/ensemble_sizes.py [lorenz96 …] [--sizes 5 10 20 40 100] [--runs 16]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import _path  # noqa: F401
import equinox as eqx
import jax
import numpy as np
from suite.common import arguments, finish, header, table

from masf_jax import assimilate, dynamics as d, filters as f, measurements as m, simulate
from masf_jax.amortised import load_amortised, pretrained_file
from masf_jax.ensemble import Inflation

BURN_IN = 200


@dataclasses.dataclass(frozen=True)
class System:
    model: Callable[[], d.Dynamics]
    every: int
    interval: int
    network: str
    radii: dict[int, tuple[float, ...]]
    inflations: tuple[float, ...]
    goals: dict[int, float]
    deviation: float


SYSTEMS = {
    "lorenz96": System(
        lambda: d.Lorenz96(40, dt=0.03),
        4,
        5,
        "lorenz96_masks",
        {
            5: (1.5, 2.0, 2.5, 3.0),
            10: (2.0, 2.5, 3.0, 3.5),
            20: (3.0, 3.5, 4.0, 5.0),
            40: (4.5, 6.0, 8.0, 11.0),
            100: (7.0, 10.0, 14.0, 20.0),
        },
        (1.02, 1.04, 1.06, 1.1),
        {10: 0.68, 20: 0.80, 100: 0.85},
        3.6,
    ),
    "kuramoto_sivashinsky": System(
        lambda: d.KuramotoSivashinsky(128, length=32 * np.pi, dt=0.25),
        8,
        4,
        "rings_four",
        {
            5: (7.0, 10.0, 14.0),
            10: (12.0, 18.0, 25.0),
            20: (18.0, 25.0, 35.0),
            40: (25.0, 35.0, 50.0),
            100: (35.0, 50.0, 70.0),
        },
        (1.01, 1.04, 1.08, 1.15),
        {10: 0.84},
        np.inf,  # all filters are above .7 of it
    ),
}


@eqx.filter_jit
def scores(
    filter: f.Filter,
    model: d.Dynamics,
    measurement: m.Measurement,
    seed: Any,
    n: int,
    cycles: int,
    interval: int,
) -> tuple[jax.Array, jax.Array]:
    """RMSE and spread of one run; truth, members and filter have keys of their own."""
    keys = [jax.random.fold_in(jax.random.key(261 + i), seed) for i in range(3)]
    twin = simulate(keys[0], model, measurement, cycles, interval)
    first = twin.truth[0][None] + jax.random.normal(keys[1], (n, *model.state_shape))
    problem = (filter, model, measurement, twin.observations, first)
    out = assimilate(keys[2], *problem, truth=twin.truth, save=(), scores=("rmse", "spread"))
    found = [out.analysis_scores[name][BURN_IN:].mean() for name in ("rmse", "spread")]
    return found[0], found[1]


def tried(filter: f.Filter, *problem: Any, seeds: Sequence[int]) -> np.ndarray:
    model, measurement, *rest = problem
    return np.array([scores(filter, model, measurement, np.uint32(seed), *rest) for seed in seeds])


def row(name: str, std: float, n: int, runs: int, cycles: int) -> list[str]:
    system = SYSTEMS[name]
    model = system.model()
    size = model.state_shape[0]
    measurement = m.Measurement(m.Subset(np.arange(0, size, system.every)), m.Gaussian(std))
    best, smallest, said = None, np.inf, ""
    for radius in system.radii[n]:
        for inflation in system.inflations:
            letkf = f.LETKF(radius, Inflation(inflation), rotation=True, reach=max(system.radii[n]))
            ready = letkf.prepare(model, measurement)
            found = tried(ready, model, measurement, n, cycles // 2, system.interval, seeds=(900, 901, 902))
            error = np.nan_to_num(found[:, 0].mean(), nan=np.inf)
            if error < smallest:
                best, smallest, said = letkf, error, f"{radius:g}, {inflation:g}"
    assert best is not None
    network = load_amortised(pretrained_file(system.network), best, dynamics=model)
    filters = best.prepare(model, measurement), network.prepare(model, measurement)
    problem = (model, measurement, n, cycles, system.interval)
    found = [tried(each, *problem, seeds=range(300, 300 + runs)) for each in filters]
    cells = [name, f"{std:g}", f"{n}", said]
    for rmse, spread in (each.T for each in found):
        lost = int((~(rmse < 0.7 * system.deviation)).sum())
        cells += [f"{rmse.mean():.3f} ± {rmse.std(ddof=1) / runs**0.5:.3f}"]
        cells += [f"{(spread / rmse).mean():.2f}", f"{lost}"]
    ratio = found[1][:, 0].mean() / found[0][:, 0].mean()
    return [*cells, f"{ratio:.3f}", f"{system.goals[n]:.2f}" if n in system.goals else ""]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("systems", nargs="*", default=list(SYSTEMS), metavar="SYSTEM")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 10, 20, 40, 100])
    parser.add_argument("--noise", type=float, nargs="+", default=[1.0, 0.7])
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--cycles", type=int, default=1500)
    args = parser.parse_args()
    rows = []
    for name in args.systems:
        for n in args.sizes:
            for std in args.noise:
                rows.append(row(name, std, n, args.runs, args.cycles))
                print("  ".join(rows[-1]), flush=True)
            jax.clear_caches()
    head = ["system", "noise", "N", "radius, inflation", "LETKF", "s/R", "lost", "network", "s/R", "lost"]
    head += ["ratio", "goal"]
    finish(
        args, "ensemble_sizes", f"{header('One network for all ensemble sizes')}\n{table(rows, head)}", rows
    )


if __name__ == "__main__":
    main()
