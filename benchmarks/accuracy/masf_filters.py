"""Score-based filters beside Kalman filters of the same ensemble size, all tuned with as many trials.

    python benchmarks/accuracy/masf_filters.py SYSTEM [--methods PART ...] [--trial N] [--seeds 5]
        [--out FILE]

SYSTEM: lorenz63, lorenz96, lorenz96_half, lorenz96_arctan, lorenz96_arctan_half, both of these with
_1000 behind (as many variables), kolmogorov (`suite/masf_systems.py` has networks, trials and lengths).
Each method runs all its trials on two tuning seeds, and its best one, by the mean analysis RMSE, on the
evaluation seeds: other seeds, the same truths, observations and first members for all methods. A run with NaN
counts in tuning with the climatology's RMSE. `lost`: evaluation seeds with NaN or an RMSE not below the
climatology's; the averages are over the seeds without NaN.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import _path  # noqa: F401
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from suite.common import header, table
from suite.masf_systems import SYSTEMS, Method, System, Trial

from masf_jax import assimilate, simulate
from masf_jax.dynamics import climatological_states
from masf_jax.ensemble import Inflation
from masf_jax.filters import MASF, Filter
from masf_jax.masf.amortised.filter import AmortisedMASF
from masf_jax.masf.priors.network import NetworkPrior
from masf_jax.masf.priors.trained import TrainedPrior

TUNING_SEEDS = (1000, 1001)
SCORES = ("analysis", "forecast", "spread")


def one_run(system: System, n_cycles: int, filter: Filter, values: jax.Array, seed: jax.Array) -> jax.Array:
    """Averages SCORES of one seed; values: inflation, RTPS, learning rate."""
    keys = [jax.random.fold_in(jax.random.key(2027), 4 * seed + i) for i in range(4)]
    start, ensemble = system.start(keys[0], keys[1])
    dynamics, measurement = system.dynamics, system.measurement
    twin = simulate(keys[2], dynamics, measurement, n_cycles, system.steps_per_cycle, start)
    inflation, relaxation, rate = values
    filter = eqx.tree_at(
        lambda f: f.base.inflation if isinstance(f, AmortisedMASF) else f.inflation,
        filter,
        Inflation(inflation, rtps=relaxation),
    )
    if isinstance(filter, MASF) and isinstance(filter.prior, TrainedPrior) and filter.prior.training:
        filter = eqx.tree_at(lambda f: f.prior.training.learning_rate, filter, rate)
    result = assimilate(
        keys[3],
        filter,
        dynamics,
        measurement,
        twin.observations,
        ensemble,
        truth=twin.truth,
        save=(),
        scores=("rmse", "spread"),
    )
    series = (
        result.analysis_scores["rmse"],
        result.forecast_scores["rmse"],
        result.analysis_scores["spread"],
    )
    return jnp.stack([scores[system.burn_in :].mean() for scores in series])


class Bench:
    """Runs of one system; what is pretrained is pretrained once."""

    def __init__(self, system: System):
        self.system = system
        self.pretrained: Any = None
        states, _ = eqx.filter_jit(climatological_states)(system.dynamics, jax.random.key(7), 500, 1)
        self.climate = float(jnp.sqrt(states.var(0, ddof=1).mean()))

    def filter(self, method: Method, trial: Trial) -> Filter:
        """Prepared."""
        filter = method.build(*trial.structure)
        network = filter.prior if isinstance(filter, MASF) else None
        if isinstance(network, NetworkPrior) and network.pretraining:
            self.pretrained = self.pretrained or filter.prepare(self.system.dynamics, self.system.measurement)
            filter = eqx.tree_at(
                lambda f: (f.prior.denoiser, f.normalization),
                filter,
                (self.pretrained.prior.denoiser, self.pretrained.normalization),
                is_leaf=lambda x: x is None,
            )
        return filter.prepare(self.system.dynamics, self.system.measurement)

    def scores(
        self, method: Method, trials: list[Trial], seeds: tuple[int, ...], n_cycles: int
    ) -> np.ndarray:
        """(trials, seeds, SCORES); one program for all trials of the same structure."""
        found = np.full((len(trials), len(seeds), len(SCORES)), np.nan)
        for structure in dict.fromkeys(trial.structure for trial in trials):
            where = [i for i, trial in enumerate(trials) if trial.structure == structure]
            filter = self.filter(method, trials[where[0]])
            values = jnp.asarray(
                [[trials[i].inflation, trials[i].rtps, trials[i].rate or 0.0] for i in where]
            )
            pairs = jnp.repeat(values, len(seeds), 0), jnp.tile(jnp.asarray(seeds), len(where))

            def run(filter: Filter, values: jax.Array, seeds: jax.Array) -> jax.Array:
                def one(values: jax.Array, seed: jax.Array) -> jax.Array:
                    return one_run(self.system, n_cycles, filter, values, seed)

                if method.several:
                    return jax.vmap(one)(values, seeds)
                return jax.lax.map(lambda pair: one(*pair), (values, seeds))

            out = eqx.filter_jit(run)(filter, *pairs)
            found[where] = np.asarray(out).reshape(len(where), len(seeds), len(SCORES))
        return found

    def tuned(self, method: Method) -> tuple[Trial, str]:
        """The best trial, and all of them in words."""
        system = self.system
        found = self.scores(method, list(method.trials), TUNING_SEEDS, system.burn_in + system.tuning_cycles)
        rmse = np.where(np.isfinite(found).all(-1), found[..., 0], self.climate).mean(1)
        lines = [f"    {trial}: {value:.3f}" for trial, value in zip(method.trials, rmse, strict=True)]
        return method.trials[int(rmse.argmin())], "\n".join(lines)

    def row(self, name: str, method: Method, trial: Trial, n_seeds: int, seconds: float) -> list[str]:
        system = self.system
        start = time.process_time()
        found = self.scores(method, [trial], tuple(range(n_seeds)), system.burn_in + system.cycles)[0]
        kept = found[np.isfinite(found).all(-1)]
        lost = n_seeds - int((kept[:, 0] < self.climate).sum())
        cells = [mean_and_error(kept[:, 0]), mean_and_error(kept[:, 1])]
        cells.append(mean_and_error(kept[:, 2] / kept[:, 0]))
        spent = f"{seconds:.0f} + {time.process_time() - start:.0f}"
        each = " ".join(f"{rmse:.3f}" for rmse in found[:, 0])
        return [name, *cells, f"{lost}/{n_seeds}", spent, str(trial), each]


def mean_and_error(values: np.ndarray) -> str:
    """Mean ± standard error."""
    if values.size < 2:
        return "-" if not values.size else f"{values[0]:.3f}"
    return f"{values.mean():.3f} ± {values.std(ddof=1) / np.sqrt(values.size):.3f}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--methods", nargs="*", default=[""], help="parts of names (default: all)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trial", type=int, help="no tuning: this trial, counted from 0")
    parser.add_argument("--out", type=Path, help="rewritten after each method")
    arguments = parser.parse_args()
    system = SYSTEMS[arguments.system]()
    bench = Bench(system)
    title = (
        f"{arguments.system}: N = {system.members}, {system.cycles} cycles scored after {system.burn_in} "
        f"({system.tuning_cycles} in tuning, {len(TUNING_SEEDS)} seeds); "
        f"RMSE of the climatology {bench.climate:.2f}"
    )
    top, rows, trials = header(title).rstrip(), [], []
    head = [
        "",
        "RMSE analysis",
        "RMSE forecast",
        "spread/RMSE",
        "lost",
        "CPU s (tuning + run)",
        "tuned",
        "each seed's analysis",
    ]
    for name, method in system.methods.items():
        if not any(part in name for part in arguments.methods):
            continue
        start = time.process_time()
        if arguments.trial is None:
            trial, text = bench.tuned(method)
        else:
            trial, text = method.trials[arguments.trial], "    not run: a trial was given"
        rows.append(bench.row(name, method, trial, arguments.seeds, time.process_time() - start))
        trials.append(f"{name}: {len(method.trials)} trials\n{text}")
        print("  ".join(rows[-1]), file=sys.stderr, flush=True)
        if arguments.out:
            whole = [top, table(rows, head), "Trials, RMSE of the analysis on the tuning seeds:", *trials]
            arguments.out.write_text("\n\n".join(whole) + "\n")
    print("\n\n".join([top, table(rows, head)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
