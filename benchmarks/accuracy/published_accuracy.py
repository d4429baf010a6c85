"""Claim: every classical filter reaches its published accuracy (10 seeds, ≥ 1000 cycles after burn-in).

    python benchmarks/accuracy/published_accuracy.py [NAME ...] [--seeds 10] [--out FILE]

Each setup draws its truth, observations and first ensemble from keys of its own per seed; all seeds
run in one vmapped program. Tuning values are the publications' (DAPPER's settings files list them);
nothing was tuned here. Exit code 1 if a median misses its target.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from masf_jax import assimilate, dynamics, filters as f, measurements, simulate
from masf_jax.ensemble import Inflation


@dataclasses.dataclass(frozen=True)
class System:
    """A published twin experiment."""

    dynamics: dynamics.Dynamics
    noise_variance: float
    steps_per_cycle: int
    initial_std: float
    n_cycles: int
    burn_in: int

    @property
    def measurement(self) -> measurements.Measurement:
        return measurements.Measurement(
            measurements.Identity(), measurements.Gaussian(self.noise_variance**0.5)
        )


L96 = System(dynamics.Lorenz96(40, 8.0, 0.05), 1.0, 1, 0.001**0.5, 1600, 400)
L63 = System(dynamics.Lorenz63(dt=0.01), 2.0, 25, 2.0**0.5, 1400, 200)
KS = System(dynamics.KuramotoSivashinsky(128, 32 * np.pi, 0.5), 1.0, 2, 0.001**0.5, 1400, 300)

# name: (system, members, filter, published RMSE, target for the median, lower/upper bound or near)
SETUPS = {
    "l96 ETKF+rot N=24 infl 1.02": (L96, 24, f.ETKF(Inflation(1.02), rotation=True), 0.18, "<= 0.19"),
    "l96 EnKF N=40 infl 1.06": (L96, 40, f.EnKF(Inflation(1.06)), 0.22, "<= 0.23"),
    "l96 LETKF+rot N=7 infl 1.04": (L96, 7, f.LETKF(7.28, Inflation(1.04), rotation=True), 0.22, "<= 0.23"),
    "l96 EnKF-N+rot N=24": (L96, 24, f.EnKFN(rotation=True), 0.21, "~ 0.21"),
    "l96 EnKF-N+rot N=24 certainty 2": (L96, 24, f.EnKFN(rotation=True, certainty=2.0), 0.18, "<= 0.21"),
    "l96 EnSRF+rot N=28 infl 1.02": (L96, 28, f.EnSRF(Inflation(1.02), rotation=True), 0.18, "<= 0.19"),
    "l96 3D-Var B .02": (L96, 4, f.ThreeDVar(0.02), 0.41, "~ 0.41"),
    "l96 optimal interpolation": (L96, 4, f.OptimalInterpolation(), 0.95, "~ 0.95"),
    "l96 climatology": (L96, 4, f.Climatology(), 3.6, "~ 3.6"),
    "l96 IEnKF N=25 infl 1.02": (L96, 25, f.IEnKF(Inflation(1.02), rotation=True), 0.18, "<= 0.19"),
    "l63 IEnKF N=10 infl 1.02": (L63, 10, f.IEnKF(Inflation(1.02), rotation=True), 0.31, "<= 0.33"),
    "l63 ETKF+rot N=10 infl 1.02": (L63, 10, f.ETKF(Inflation(1.02), rotation=True), 0.60, "<= 0.62"),
    "l63 EnKF-N+rot N=10": (L63, 10, f.EnKFN(rotation=True), 0.54, "<= 0.56"),
    "l63 particle N=800": (L63, 800, f.ParticleFilter(0.2, 0.9), 0.28, None),
    "l63 particle N=4000": (L63, 4000, f.ParticleFilter(0.05, 0.7), 0.27, "<= 0.30"),
    "ks LETKF+rot N=4 radius 15 infl 1.11": (
        KS, 4, f.LETKF(15.0, Inflation(1.11), rotation=True), 0.18, None,
    ),
    "ks LETKF+rot N=6 radius 25 infl 1.06": (
        KS, 6, f.LETKF(25.0, Inflation(1.06), rotation=True), 0.14, None,
    ),
    "ks LETKF+rot N=16 radius 51 infl 1.02": (
        KS, 16, f.LETKF(51.0, Inflation(1.02), rotation=True), 0.11, "<= 0.12",
    ),
    "ks ETKF+rot N=20 infl 1.03": (KS, 20, f.ETKF(Inflation(1.03), rotation=True), 0.115, None),
}  # fmt: skip


def run(name: str, n_seeds: int) -> dict[str, np.ndarray]:
    """Time-mean analysis and forecast RMSE and analysis spread of each seed."""
    system, n_members, filter, _, _ = SETUPS[name]
    filter = filter.prepare(system.dynamics, system.measurement)
    shape = system.dynamics.state_shape

    def one(seed: jax.Array) -> dict[str, jax.Array]:
        key_truth, key_start, key_error, key_filter = (
            jax.random.fold_in(jax.random.key(2026), 4 * seed + i) for i in range(4)
        )
        start = system.dynamics.sample_climatology(key_start)
        twin = simulate(
            key_truth, system.dynamics, system.measurement, system.n_cycles, system.steps_per_cycle, start
        )
        ensemble = start[None] + system.initial_std * jax.random.normal(key_error, (n_members, *shape))
        result = assimilate(
            key_filter,
            filter,
            system.dynamics,
            system.measurement,
            twin.observations,
            ensemble,
            truth=twin.truth,
            save=(),
            scores=("rmse", "spread"),
        )
        kept = slice(system.burn_in, None)
        return {
            "analysis": result.analysis_scores["rmse"][kept].mean(),
            "forecast": result.forecast_scores["rmse"][kept].mean(),
            "spread": result.analysis_scores["spread"][kept].mean(),
        }

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(jnp.arange(n_seeds)))


def met(median: float, target: str | None) -> str:
    if target is None:
        return ""
    relation, number = target.split()
    good = median <= float(number) if relation == "<=" else abs(median / float(number) - 1) < 0.06
    return "yes" if good else "NO"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="substrings of setup names (default: all)")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    chosen = [n for n in SETUPS if not arguments.names or any(part in n for part in arguments.names)]
    lines = [
        f"# python {' '.join(sys.argv)}   (jax {jax.__version__}, {jax.devices()[0].platform}, "
        f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')})",
        f"{'setup':40s} {'published':>9s} {'target':>8s} {'met':>4s} {'median':>7s} {'mean ± s.e.':>15s} "
        f"{'forecast':>8s} {'spread':>7s}  seeds",
    ]
    print("\n".join(lines), flush=True)
    failed = 0
    for name in chosen:
        _, _, _, published, target = SETUPS[name]
        scores = run(name, arguments.seeds)
        rmse = scores["analysis"]
        median = float(np.median(rmse))
        failed += met(median, target) == "NO"
        error = rmse.std(ddof=1) / np.sqrt(rmse.size) if rmse.size > 1 else float("nan")
        lines.append(
            f"{name:40s} {published:9.3f} {target or '-':>8s} {met(median, target):>4s} {median:7.3f} "
            f"{rmse.mean():7.3f} ± {error:.3f} {np.median(scores['forecast']):8.3f} "
            f"{np.median(scores['spread']):7.3f}  {' '.join(f'{r:.3f}' for r in rmse)}"
        )
        print(lines[-1], flush=True)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
