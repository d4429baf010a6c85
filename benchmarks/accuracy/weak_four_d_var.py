"""Weak against strong 4D-Var where the model is wrong: RMSE over windows of Lorenz-96.

40 variables, half of them measured each .05 with variance 1; background: the truth with errors N(0, .5²).
The truth has errors N(0, s² .05) in each step, or another forcing than the model's 8. Strong 4D-Var takes the
model as perfect; weak 4D-Var is given Q (the true one, or for the forcing the best of a list on one other
seed), and so is the extended Rauch-Tung-Striebel smoother beside it, whose first covariance is that of the
background. Windows grow by 5 cycles a search (`stages`), but for --at-once. RMSE over all states of a window
and of its last state; mean ± standard error over seeds of `--windows` windows each.

    python benchmarks/accuracy/weak_four_d_var.py [--seeds 5] [--windows 4] [--at-once]
"""

from __future__ import annotations

import argparse
import functools
import statistics
from typing import Any

import _path  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
from suite.common import arguments, finish, header, table

from masf_jax import simulate
from masf_jax.dynamics import Dynamics, Lorenz96, ModelError
from masf_jax.filters import KalmanFilter
from masf_jax.measurements import Gaussian, Measurement, Observations, Subset
from masf_jax.smoothers import FourDVar, WeakFourDVar, rts

DT, STD, TOLERANCE = 0.05, 0.5, 0.01
MODEL = Lorenz96(40, dt=DT)
MEASUREMENT = Measurement(Subset(range(0, 40, 2)), Gaussian(1.0))
LENGTHS = (5, 10, 20, 40)
TRUTHS: dict[str, tuple[Dynamics, float | None]] = {
    "perfect": (MODEL, 1e-3),
    "errors of std .5 per √time": (ModelError(MODEL, 0.5), 0.5**2 * DT),
    "errors of std 1 per √time": (ModelError(MODEL, 1.0), 1.0**2 * DT),
    "forcing 8.5": (Lorenz96(40, forcing=8.5, dt=DT), None),
    "forcing 9": (Lorenz96(40, forcing=9.0, dt=DT), None),
}
"""The truth's model, and the variance Q of a step that is given; None: tuned."""
VARIANCES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
TUNING_SEED = 1000
METHODS = "strong", "weak", "rts"


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def windows(name: str, length: int, n: int, seed: int) -> tuple[Any, ...]:
    """Backgrounds, observations and truths of n windows."""
    truth = TRUTHS[name][0]

    def one(key: Any) -> tuple[Any, ...]:
        keys = jax.random.split(key, 3)
        start = truth.sample_climatology(keys[0])
        twin = simulate(keys[1], truth, MEASUREMENT, length, 1, start)
        background = start + STD * jax.random.normal(keys[2], start.shape)
        return background, twin.observations.values, twin.truth

    return jax.vmap(one)(jax.random.split(jax.random.fold_in(jax.random.key(77), seed), n))


@functools.partial(jax.jit, static_argnums=(0, 1))
def errors(method: str, at_once: bool, given: tuple[Any, ...], q: Any) -> tuple[Any, Any, Any]:
    """Squared errors of all states (windows, K), and whether the minimum was found."""

    def one(background: Any, z: Any, truth: Any) -> tuple[Any, Any]:
        observations = Observations(z, 1)
        if method == "rts":
            filter = KalmanFilter(background, STD**2 * np.eye(40))
            noisy = ModelError(MODEL, jnp.sqrt(q / DT))
            run = rts(filter, noisy, MEASUREMENT, observations, scores=())
            return ((run.smoothed["mean"] - truth) ** 2).mean(1), jnp.asarray(0.0)
        stages = 1 if at_once else max(1, len(z) // 5)
        if method == "strong":
            finder = FourDVar(std=STD, tolerance=TOLERANCE, stages=stages)
        else:
            finder = WeakFourDVar(std=STD, q=q, tolerance=TOLERANCE, stages=stages)
        found = finder(background, MODEL, MEASUREMENT, observations)
        return ((found.trajectory - truth) ** 2).mean(1), found.gradient_norm

    return jax.vmap(one)(*given)


def scores(
    method: str, name: str, length: int, args: argparse.Namespace, seed: int, q: float
) -> tuple[float, float, float]:
    """RMSE over windows and states, RMSE of last states, largest gradient."""
    squares, slope = errors(method, args.at_once, windows(name, length, args.windows, seed), q)
    squares = np.asarray(squares)
    return float(squares.mean() ** 0.5), float(squares[:, -1].mean() ** 0.5), float(np.max(slope))


def mean_and_error(values: list[float]) -> str:
    return f"{statistics.fmean(values):.3f} ± {statistics.stdev(values) / len(values) ** 0.5:.3f}"


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--at-once", action="store_true", help="all cycles in the first search")
    args = parser.parse_args()
    rows, numbers, unsettled = [], {}, {}
    for name, (_, given) in TRUTHS.items():
        for length in LENGTHS:
            q = given
            if q is None:
                tuned = {v: scores("weak", name, length, args, TUNING_SEED, v)[0] for v in VARIANCES}
                q = min(tuned, key=tuned.__getitem__)
            runs = {
                method: [scores(method, name, length, args, seed, q) for seed in range(args.seeds)]
                for method in METHODS
            }
            for method in METHODS:
                steep = sum(run[2] > 0.1 for run in runs[method])
                if steep:
                    unsettled[f"{name}, {length}, {method}"] = steep
            gains = [1 - b[0] / a[0] for a, b in zip(runs["strong"], runs["weak"], strict=True)]
            numbers[f"{name}, {length}"] = {"q": q, **runs}
            rows.append(
                [name, str(length), f"{q:g}"]
                + [mean_and_error([run[i] for run in runs[method]]) for i in (0, 1) for method in METHODS]
                + [mean_and_error(gains)]
            )
            print(rows[-1], flush=True)
    head = ["truth", "cycles", "Q", *METHODS, *(f"{method}, last" for method in METHODS), "1 - weak/strong"]
    text = [header("Weak against strong 4D-Var"), table(rows, head)]
    if unsettled:
        text += [
            "",
            "seeds with a window whose gradient stayed above .1:",
        ]
        text += [f"  {name}: {count} of {args.seeds}" for name, count in unsettled.items()]
    finish(args, "weak_four_d_var", "\n".join(text), numbers)


if __name__ == "__main__":
    main()
