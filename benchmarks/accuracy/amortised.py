"""The amortised score-based filter beside tuned Kalman filters.

    python benchmarks/accuracy/amortised.py SYSTEM [--checkpoint FILE] [--what compare|steps|other]
        [--seeds 5] [--calibrate] [--only-ours]

SYSTEM: lorenz63, lorenz63_small, lorenz96, lorenz96_half, lorenz96_arctan_half, ks, kolmogorov,
kolmogorov_any, kolmogorov_center, kolmogorov_sigmoid, kolmogorov_speed.

compare: the Kalman filters run all their trials on two tuning seeds and their best one on the evaluation
seeds, with the same truths, observations and first members as the amortised filter. That one runs with what
its checkpoint holds: its base filter's settings were not tuned, its network was trained on other seeds.
--calibrate: take the factor on the learned spread whose spread/RMSE on the tuning seeds is nearest to 1.
--only-ours: the amortised filter's row alone.
steps: the amortised filter with 1 to 64 evaluations of its network, members transported and fresh. The
checkpoint should be of a filter trained with n_steps above 1: others know the first step only.
other: settings that the network has not seen (lorenz96_half, kolmogorov_any), beside the LETKF tuned on the
first of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import _path  # noqa: F401
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from suite.amortised_systems import SYSTEMS, System
from suite.common import header, table

from masf_jax import assimilate, simulate
from masf_jax.amortised import load_amortised, pretrained_file
from masf_jax.filters import Filter
from masf_jax.masf.amortised.filter import AmortisedMASF
from masf_jax.metrics import spread_skill_ratio

TUNING_SEEDS = (1000, 1001)
SCORES = ("rmse", "spread", "rank_histogram")
EVALUATIONS = (1, 2, 4, 8, 16, 32, 64)
FACTORS = (1.0, 1.02, 1.04, 1.06, 1.08, 1.1, 1.13, 1.16, 1.2)


def run(system: System, n_cycles: int, filter: Filter, seed: jax.Array) -> tuple[jax.Array, ...]:
    """Time means of analysis and forecast RMSE, the analysis's spread/RMSE, counts of the truth's ranks.

    spread/RMSE is √((N+1)/N · Σ spread² / Σ RMSE²), 1 for a reliable ensemble however skewed its errors are.
    """
    keys = [jax.random.fold_in(jax.random.key(4242), 4 * seed + i) for i in range(4)]
    start, ensemble = system.start(keys[0], keys[1])
    truth = simulate(
        keys[2], system.truth or system.dynamics, system.measurement, n_cycles, system.interval, x0=start
    )
    observations = truth.observations
    if system.missing:
        there = jax.random.uniform(keys[1], observations.mask.shape) >= system.missing
        observations = eqx.tree_at(lambda o: o.mask, observations, there)
    result = assimilate(
        keys[3], filter, system.dynamics, system.measurement, observations, ensemble, truth=truth.truth,
        save=(), scores=SCORES,
    )  # fmt: skip
    analysis, burn = result.analysis_scores, system.burn_in
    spread, error = quadratic(analysis["spread"][burn:]), quadratic(analysis["rmse"][burn:])
    return (
        analysis["rmse"][burn:].mean(),
        result.forecast_scores["rmse"][burn:].mean(),
        spread_skill_ratio(spread, error, system.members),
        analysis["rank_histogram"][burn:].sum(0),
    )


def quadratic(values: jax.Array) -> jax.Array:
    """Root of the mean square."""
    return jnp.sqrt(jnp.mean(values**2))


def evaluate(
    system: System, filter: Filter, seeds: tuple[int, ...], n_cycles: int
) -> tuple[list[np.ndarray], float]:
    """Scores by seed, and CPU seconds a cycle of one seed (the model's included)."""
    prepared = filter.prepare(system.dynamics, system.measurement)

    def all_seeds(prepared: Filter, seeds: jax.Array) -> tuple[jax.Array, ...]:
        return jax.lax.map(lambda seed: run(system, n_cycles, prepared, seed), seeds)

    compiled = eqx.filter_jit(all_seeds).lower(prepared, jnp.asarray(seeds)).compile()
    start = time.process_time()
    found = jax.block_until_ready(compiled(prepared, jnp.asarray(seeds)))
    return [np.asarray(part) for part in found], (time.process_time() - start) / (n_cycles * len(seeds))


def tuned(system: System, trials: dict[str, Filter]) -> tuple[str, list[str]]:
    """Name of the best trial on the tuning seeds, and all of them in words."""
    cycles = system.burn_in + system.cycles // 4
    rmse = {
        name: float(np.mean(evaluate(system, filter, TUNING_SEEDS, cycles)[0][0]))
        for name, filter in trials.items()
    }
    best = min(rmse, key=lambda name: rmse[name] if np.isfinite(rmse[name]) else np.inf)
    return best, [f"    {name}: {value:.3f}" for name, value in rmse.items()]


def calibrated(system: System, ours: AmortisedMASF) -> tuple[AmortisedMASF, list[str]]:
    """The filter with the factor on its spread that suits the tuning seeds, and all tried in words."""
    ratios, lines = [], []
    for factor in FACTORS:
        scores, _ = evaluate(system, scaled(ours, factor), TUNING_SEEDS, system.burn_in + system.cycles // 4)
        ratios.append(float(np.mean(scores[2])))
        lines.append(f"    factor {factor:g}: spread/RMSE {ratios[-1]:.3f}, RMSE {np.mean(scores[0]):.4f}")
    best = FACTORS[int(np.nanargmin(np.abs(np.asarray(ratios) - 1)))]
    stored = float(ours.calibration)
    title = f"\nFactors on the learned spread (times the checkpoint's {stored:.3g}); taken: {best:g}"
    return scaled(ours, best), [title, *lines]


def scaled(ours: AmortisedMASF, factor: float) -> AmortisedMASF:
    return eqx.tree_at(lambda f: f.calibration, ours, factor * ours.calibration)


def row(name: str, system: System, filter: Filter, n_seeds: int) -> list[str]:
    (rmse, forecast, ratio, ranks), seconds = evaluate(
        system, filter, tuple(range(n_seeds)), system.burn_in + system.cycles
    )
    counts = ranks.sum(0)
    share = counts / counts.sum() * len(counts)
    edges = f"{share[[0, -1]].mean():.2f} / {share[1:-1].min():.2f}-{share[1:-1].max():.2f}"
    return [name, mean_and_error(rmse), mean_and_error(forecast), mean_and_error(ratio), edges,
            f"{1e3 * seconds:.3g}"]  # fmt: skip


def mean_and_error(values: np.ndarray) -> str:
    """Mean ± standard error."""
    return f"{values.mean():.4f} ± {values.std(ddof=1) / np.sqrt(values.size):.4f}"


def compare(system: System, ours: AmortisedMASF, n_seeds: int) -> list[str]:
    lines, rows = [], []
    for name, trials in system.rivals.items():
        best, tried = tuned(system, trials)
        lines += [f"\n{name}: {len(trials)} trials, RMSE of the analysis on the tuning seeds", *tried]
        rows.append(row(f"{name}, {best}", system, trials[best], n_seeds))
    rows.append(row("amortised MASF", system, ours, n_seeds))
    return [*report(rows), *lines]


def steps(system: System, ours: AmortisedMASF, n_seeds: int) -> list[str]:
    rows = []
    for members in ("transported", "fresh"):
        for n in EVALUATIONS:
            filter = AmortisedMASF(
                ours.base, ours.denoiser, ours.climate, calibration=ours.calibration,
                architecture=ours.architecture, n_steps=n, members=members,
            )  # fmt: skip
            rows.append(row(f"{n} evaluations, {members}", system, filter, n_seeds))
    return report(rows)


def other(system: System, ours: AmortisedMASF, n_seeds: int) -> list[str]:
    """Each setting beside the LETKF with the settings that are best where the network was trained."""
    letkf, rows = next(iter(system.rivals.values())), []
    best, _ = tuned(system, letkf)
    for name, changes in system.others.items():
        changed = dataclasses.replace(system, **changes)
        for who, filter in ((f"LETKF, {best}", letkf[best]), ("amortised MASF", ours)):
            rows.append(row(f"{name}: {who}", changed, filter, n_seeds))
    return report(rows)


def report(rows: list[list[str]]) -> list[str]:
    head = ["", "RMSE analysis", "RMSE forecast", "spread/RMSE", "ranks: ends / inner", "CPU ms a cycle"]
    return [table(rows, head)]


WHAT: dict[str, Callable[[System, AmortisedMASF, int], list[str]]] = {
    "compare": compare,
    "steps": steps,
    "other": other,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--what", choices=WHAT, default="compare")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--only-ours", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    system = SYSTEMS[arguments.system]()
    file = arguments.checkpoint or pretrained_file(system.checkpoint)
    ours = load_amortised(file, system.base, n_steps=system.n_steps)
    if arguments.only_ours:
        system = dataclasses.replace(system, rivals={})
    factors: list[str] = []
    if arguments.calibrate:
        ours, factors = calibrated(system, ours)
    title = (
        f"{arguments.system}: N = {system.members}, {system.cycles} cycles scored after {system.burn_in}, "
        f"{arguments.seeds} seeds; amortised MASF with {system.n_steps} network evaluation(s)"
    )
    text = "\n".join([header(title), *WHAT[arguments.what](system, ours, arguments.seeds), *factors])
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
