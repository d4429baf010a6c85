"""Noise found along the way.

Lorenz-96, n=40, all measured each .05 (or every second variable each .2), true σ as given, the filter
told σ = 1. "known": the filter told the truth; "adaptive": `AdaptiveNoise` around it, told 1; "told 1": the
filter alone. σ found: root of the mean factor over the cycles that count, mean (worst seed). Last: the same
with another σ of each value, from .5 to 2 around the ring, and a factor for each (memory 1000).

RMSE of the analysis: mean ± standard error over seeds; ratio: of medians. A seed is lost where its RMSE
exceeds twice the median of the known filter's; lost: of that filter, of the other. ETKF has an
inflation of 1.04 for all σ: with 1.02, the best one of σ = 1, it loses seeds at σ = 2 even where σ is known.

    python benchmarks/accuracy/noise.py [--seeds 5] [--cycles 1500] [--burn-in 500]
"""

from __future__ import annotations

import argparse
import functools
from typing import Any

import _path  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
from suite.common import arguments, finish, header, table

from masf_jax import assimilate, simulate
from masf_jax.dynamics import Dynamics, Lorenz96
from masf_jax.ensemble import Inflation
from masf_jax.filters import ETKF, LETKF, AdaptiveNoise, Filter
from masf_jax.measurements import Gaussian, Identity, Measurement, Operator, Subset

MODEL = Lorenz96(40, dt=0.05)
ALL, HALF = (Identity(), 1), (Subset(range(0, 40, 2)), 4)
NOISE: dict[str, tuple[Filter, int, tuple[Operator, int]]] = {
    "ETKF, N=24": (ETKF(Inflation(multiplicative=1.04), rotation=True), 24, ALL),
    "ETKF, N=50": (ETKF(Inflation(multiplicative=1.04), rotation=True), 50, ALL),
    "LETKF, N=20": (LETKF(7.28, Inflation(multiplicative=1.04), rotation=True), 20, ALL),
    "LETKF, N=20, half each .2": (LETKF(6.5, Inflation(multiplicative=1.1), rotation=True), 20, HALF),
}
SIGMAS = (0.5, 1.0, 1.5, 2.0)


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def runs(
    filter: Filter,
    parts: tuple[Dynamics, Operator],
    sigmas: tuple[Any, Any, Any],
    interval: int,
    n_members: int,
    sizes: tuple[int, int, int],
) -> tuple[Any, Any, Any]:
    """By seed: RMSE after the burn-in, mean factor on the variance (1: none is found), its last."""
    (model, operator), (true, said, spread), (seeds, cycles, burn_in) = parts, sigmas, sizes

    def one(seed: Any) -> tuple[Any, Any, Any]:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(20), seed), 4)
        start = model.sample_climatology(keys[0])
        twin = simulate(keys[1], model, Measurement(operator, Gaussian(true)), cycles, interval, start)
        members = start + spread * jax.random.normal(keys[2], (n_members, *start.shape))
        sensor, given = Measurement(operator, Gaussian(said)), {"truth": twin.truth, "scores": ("rmse",)}
        run = assimilate(keys[3], filter, model, sensor, twin.observations, members, save=(), **given)
        found = run.info.get("noise_factor", jnp.ones(cycles))
        last = filter.factor(run.final) if isinstance(filter, AdaptiveNoise) else jnp.ones(())
        return jnp.asarray(run.analysis_scores["rmse"])[burn_in:].mean(), found[burn_in:].mean(), last

    return jax.vmap(one)(jnp.arange(seeds))


def against(reference: Any, rmse: Any) -> list[str]:
    """Ratio of medians, and seeds lost of both."""
    usual = np.median(reference)
    lost = [int((x > 2 * usual).sum()) for x in (reference, rmse)]
    return [f"{np.median(rmse) / usual:.3f}", f"{lost[0]}, {lost[1]}"]


def shown(rmse: Any) -> str:
    return f"{np.mean(rmse):.3f} ± {np.std(rmse, ddof=1) / len(rmse) ** 0.5:.3f}"


def noise(args: argparse.Namespace) -> tuple[list[list[str]], dict[str, Any]]:
    sizes, rows, numbers = (args.seeds, args.cycles, args.burn_in), [], {}
    ring = 2.0 ** np.cos(2 * np.pi * np.arange(40) / 40)
    for name, (filter, n, (operator, interval)) in NOISE.items():
        for sigma in (*SIGMAS, "each"):
            true = np.broadcast_to(ring if sigma == "each" else sigma, 40)
            if isinstance(operator, Subset):
                true = true[::2]
            found_by = (
                AdaptiveNoise(filter, memory=1000, each=True) if sigma == "each" else AdaptiveNoise(filter)
            )
            ones, parts = np.ones_like(true), (MODEL, operator)
            known = np.asarray(runs(filter, parts, (true, true, 1.0), interval, n, sizes)[0])
            rmse, factor, last = map(np.asarray, runs(found_by, parts, (true, ones, 1.0), interval, n, sizes))
            told = np.asarray(runs(filter, parts, (true, ones, 1.0), interval, n, sizes)[0])
            off = np.sqrt(last) / true - 1 if sigma == "each" else np.sqrt(factor) / sigma - 1
            worst = off.flat[np.abs(off).argmax()]
            numbers[f"{name}, {sigma}"] = {
                "known": known.tolist(),
                "adaptive": rmse.tolist(),
                "told": told.tolist(),
                "off": off.tolist(),
            }
            size = f"{100 * off.mean():+.1f} % ({100 * worst:+.1f})"
            compared = against(known, rmse)
            rows.append([name, str(sigma), size, shown(known), shown(rmse), *compared, shown(told)])
            print(rows[-1], flush=True)
    return rows, numbers


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cycles", type=int, default=1500)
    parser.add_argument("--burn-in", type=int, default=500)
    args = parser.parse_args()
    rows, numbers = noise(args)
    head = ["filter", "true σ", "σ found (worst)", "known", "adaptive", "ratio", "lost", "told 1"]
    text = [header("Noise found along the way"), table(rows, head)]
    finish(args, "noise", "\n".join(text), numbers)


if __name__ == "__main__":
    main()
