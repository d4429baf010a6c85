"""cuthbert's ensemble Kalman filter on its own Lorenz-96 example, and the filters here on the same.

    python benchmarks/accuracy/against_cuthbert.py --cuthbert-python PATH [--seeds 6] [--members 10 20 40]

PATH is a Python with cuthbert (`pip install cuthbert==0.1.1`, in an environment of its own). The problem is
that of its documentation (suite/cuthbert_worker.py): n = 40, every second variable measured with noise 1
each .05, five RK4 steps of .01 between, 500 cycles of which 50 do not count, float64. cuthbert makes truth,
observations and first members; all filters have these, inflation 1.05 of the forecast, and, but for the
unlocalised ones, a Gaspari-Cohn taper of support 8 (radius 4).

"MASF, perturbed" comes nearest to cuthbert's localised EnKF: the tapered covariance throughout, perturbed
observations. The amortised filter is the package's `lorenz96_masks`, trained with N = 20 at
intervals of .2, inside the gate, with the LETKF of the table as its base.

RMSE: mean over the cycles, mean ± standard error over the seeds; seed 0 is that of the documentation.
spread/RMSE as there. Microseconds a cycle, wall clock (CPU): a compiled run of all cycles, the least of all
seeds and repeats, both libraries in turn; each keeps every analysis member, ours finds its scores as well.
cuthbert/own: CPU of cuthbert's localised EnKF (with 60 members: of its EnKF) over that of the row.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

import _path  # noqa: F401
import equinox as eqx
import jax
import numpy as np
from suite.common import arguments, finish, header, table
from suite.worker import Worker

import masf_jax as mj
from masf_jax import filters as f
from masf_jax.amortised import load_amortised, pretrained_file
from masf_jax.ensemble import Inflation
from masf_jax.masf import GaussianPrior

RADIUS, EVERY, BURN_IN = 4.0, 5, 50
MOST = {"EnKF": 60, "cuthbert EnKF": 60}
"""What is not localised has a row of more members: with few it is lost."""


def inflation() -> Inflation:
    return Inflation(prior=1.05)


def amortised() -> f.Filter:
    base = f.LETKF(RADIUS, inflation())
    return f.Gate(load_amortised(pretrained_file("lorenz96_masks"), base, state_shape=(40,)))


def masf(members: Any) -> f.MASF:
    return f.MASF(GaussianPrior(RADIUS, members=members), inflation=inflation())


OURS: dict[str, Callable[[], f.Filter]] = {
    "EnKF": lambda: f.EnKF(inflation()),
    "EnSRF, localised": lambda: f.EnSRF(inflation(), radius=RADIUS),
    "LETKF, localised": lambda: f.LETKF(RADIUS, inflation()),
    "MASF, perturbed, localised": lambda: masf("perturbed"),
    "MASF, localised": lambda: masf("transported"),
    "MASF, amortised": amortised,
}
THEIRS = {"cuthbert EnKF": False, "cuthbert EnKF, localised": True}


def our_run(make: Callable[[], f.Filter], data: dict[str, np.ndarray], members: int) -> Callable[..., Any]:
    """A compiled run of all cycles; of another seed's data, too."""
    dynamics = mj.dynamics.Lorenz96(40, dt=0.01)
    operator = mj.measurements.Subset(np.arange(0, 40, 2))
    measurement = mj.measurements.Measurement(operator, mj.measurements.Gaussian(1.0))
    filter = make().prepare(dynamics, measurement)

    def run(key: Any, truth: Any, observations: Any, ensemble: Any) -> Any:
        observations = mj.measurements.Observations(observations, EVERY)
        return mj.assimilate(
            *(key, filter, dynamics, measurement, observations, ensemble),
            truth=truth,
            save=("ensemble",),
            scores=("rmse", "spread"),
        )

    return eqx.filter_jit(run).lower(jax.random.key(0), *given(data, members)).compile()


def given(data: dict[str, np.ndarray], members: int) -> tuple[np.ndarray, ...]:
    return data["truth"], data["observations"], data[f"members_{members}"]


def timed(run: Callable[..., Any], seed: int, values: tuple[np.ndarray, ...]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    found = jax.block_until_ready(run(jax.random.key(seed), *values))
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    rmse, spread = (np.asarray(found.analysis_scores[x], float)[BURN_IN:] for x in ("rmse", "spread"))
    ratio = float(np.sqrt((spread**2).mean() / (rmse**2).mean()))
    return {"rmse": float(rmse.mean()), "ratio": ratio} | {k: v / len(values[0]) for k, v in seconds.items()}


def compare(members: int, data: list[dict[str, np.ndarray]], theirs: Worker, repeats: int) -> dict:
    """By filter and seed: the runs' numbers, one list a seed, in turn."""
    localised = members < min(MOST.values())
    names = [n for n in OURS if localised or n in MOST]
    runs = {name: our_run(OURS[name], data[0], members) for name in names}
    asked = {n: tapered for n, tapered in THEIRS.items() if localised or n in MOST}
    found: dict[str, list[list[dict[str, float]]]] = {n: [[] for _ in data] for n in (*asked, *names)}
    for run in runs.values():
        timed(run, 0, given(data[0], members))  # what only the first call of a program pays
    for _ in range(repeats):
        for seed, values in enumerate(data):
            for name, tapered in asked.items():
                answer = theirs.ask(do="run", seed=seed, members=members, localised=tapered)
                found[name][seed].append(answer)
            for name, run in runs.items():
                found[name][seed].append(timed(run, seed, given(values, members)))
    return found


def row(members: int, name: str, found: list[list[dict[str, float]]], reference: float) -> list[str]:
    rmse = np.asarray([seed[0]["rmse"] for seed in found])
    wall, cpu = (1e6 * min(run[k] for seed in found for run in seed) for k in ("wall", "cpu"))
    return [
        f"N = {members}, {name}",
        f"{rmse.mean():.3f} ± {rmse.std(ddof=1) / len(rmse) ** 0.5:.3f}",
        f"{rmse[0]:.3f}",
        f"{np.mean([seed[0]['ratio'] for seed in found]):.2f}",
        f"{wall:.0f} ({cpu:.0f})",
        f"{reference / cpu:.1f}",
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--cuthbert-python", required=True, metavar="PATH")
    parser.add_argument("--seeds", type=int, default=6, help="at least 2")
    parser.add_argument("--members", type=int, nargs="+", default=[10, 20, 40, 60])
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    theirs, rows, numbers = Worker(args.cuthbert_python, "cuthbert_worker.py", needs="cuthbert 0.1.1"), [], {}
    with tempfile.TemporaryDirectory(prefix="against_cuthbert_") as folder:
        data = []
        for seed in range(args.seeds):
            path = f"{folder}/{seed}.npz"
            theirs.ask(do="twin", seed=seed, members=args.members, path=path)
            data.append(dict(np.load(path)))
    for members in args.members:
        found = compare(members, data, theirs, args.repeats)
        compared = [name for name in found if name.startswith("cuthbert")][-1]
        reference = 1e6 * min(run["cpu"] for seed in found[compared] for run in seed)
        for name, runs in found.items():
            rows.append(row(members, name, runs, reference))
            print("  ".join(rows[-1]), flush=True)
        numbers[str(members)] = found
        jax.clear_caches()
    theirs.close()
    head = ["", "RMSE", "seed 0", "spread/RMSE", "µs a cycle (CPU)", "cuthbert/own"]
    text = header("cuthbert's Lorenz-96 example") + "\n" + table(rows, head)
    finish(args, "against_cuthbert", text, numbers)


if __name__ == "__main__":
    main()
