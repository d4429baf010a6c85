"""Nonlinear measurements of the Kolmogorov flow: errors, extremes, structure and spectra of each filter.

    python benchmarks/accuracy/flow_measurements.py SYSTEM [--methods PART ...] [--cycles N] [--seeds N]
        [--out FILE]

SYSTEM: kolmogorov_sigmoid, kolmogorov_speed.

LETKF and MASF with tangents at the mean run the same trials (radius x inflation,
`suite/amortised_systems.py`) on two tuning seeds for a quarter of the cycles. Their best ones, MASF with
tangents at each member (six times as dear: with the other's best values) and the amortised filter of the
package, where there is one, run on the evaluation seeds: same truths, observations and first members. CSI
and SSIM are of the analysis mean; the spectral error is the mean |log10 E(k)/E_truth(k)| over k = 1..20 of
one member's energy, spectra averaged over cycles. `--spectra FILE.npz` keeps the spectra themselves, for
`flow_spectra.py`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Literal

import _path  # noqa: F401
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from amortised import TUNING_SEEDS, mean_and_error, quadratic
from suite.amortised_systems import SYSTEMS, System
from suite.common import header, table

from masf_jax import assimilate, filters as f, masf, simulate
from masf_jax.amortised import load_amortised, pretrained_file, pretrained_names
from masf_jax.dynamics.spectral import energy_spectrum
from masf_jax.filters.base import State
from masf_jax.metrics import spread_skill_ratio

MEAN = "MASF, tangents at the mean"
MEMBER = "MASF, tangents at each member"
OURS = "amortised MASF"
LARGEST = 20  # wavenumber of the spectral error: 2/3 of the grid's
KEPT = 31  # wavenumber of the spectra kept


def spectra(state: State, truth: jax.Array, where: jax.Array | None) -> jax.Array:
    """E(k), k = 1..31, of the first member and of the truth."""
    assert isinstance(state, f.EnsembleState)
    both = (state.ensemble[0], truth)
    return jnp.stack([energy_spectrum(field)[1][1 : KEPT + 1] for field in both])


def run(system: System, n_cycles: int, filter: f.Filter, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
    """RMSE of analysis and forecast, spread/RMSE, CSI, SSIM, spectral error; and the spectra."""
    keys = [jax.random.fold_in(jax.random.key(4242), 4 * seed + i) for i in range(4)]
    start, ensemble = system.start(keys[0], keys[1])
    twin = simulate(keys[2], system.dynamics, system.measurement, n_cycles, system.interval, x0=start)
    result = assimilate(
        keys[3], filter, system.dynamics, system.measurement, twin.observations, ensemble, truth=twin.truth,
        save=(), scores=("rmse", "spread", "csi", "ssim"), extra_scores={"spectra": spectra},
    )  # fmt: skip
    scores = {name: values[system.burn_in :] for name, values in result.analysis_scores.items()}
    both = scores["spectra"].mean(0)
    ours, truth = both[:, :LARGEST]
    numbers = jnp.stack(
        [
            scores["rmse"].mean(),
            result.forecast_scores["rmse"][system.burn_in :].mean(),
            spread_skill_ratio(quadratic(scores["spread"]), quadratic(scores["rmse"]), system.members),
            scores["csi"].mean(),
            scores["ssim"].mean(),
            jnp.abs(jnp.log10(ours / truth)).mean(),
        ]
    )
    return numbers, both


class Bench:
    """Runs of one system; filters of one structure share a program."""

    def __init__(self, system: System):
        self.system = system

        def all_seeds(filter: f.Filter, seeds: jax.Array, n_cycles: int) -> tuple[jax.Array, jax.Array]:
            return jax.lax.map(lambda seed: run(system, n_cycles, filter, seed), seeds)

        self.compiled = eqx.filter_jit(all_seeds)

    def __call__(
        self, filter: f.Filter, seeds: tuple[int, ...], n_cycles: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """(seeds, scores) and spectra (seeds, 2, k); n_cycles without the burn-in."""
        prepared = filter.prepare(self.system.dynamics, self.system.measurement)
        found = self.compiled(prepared, jnp.asarray(seeds), self.system.burn_in + n_cycles)
        return np.asarray(found[0]), np.asarray(found[1])


def tuned(bench: Bench, trials: dict[str, f.Filter], n_cycles: int) -> tuple[str, list[str]]:
    rmse = {
        name: float(bench(filter, TUNING_SEEDS, n_cycles)[0][:, 0].mean()) for name, filter in trials.items()
    }
    best = min(rmse, key=lambda name: rmse[name] if np.isfinite(rmse[name]) else np.inf)
    return best, [f"    {name}: {value:.3f}" for name, value in rmse.items()]


def linearised(letkf: f.Filter, at: Literal["member", "mean"]) -> f.MASF:
    """MASF with the radius and inflation of a LETKF."""
    assert isinstance(letkf, f.LETKF)
    route = masf.Automatic(masf.Linearized(at))
    return f.MASF(masf.GaussianPrior(letkf.radius), route=route, inflation=letkf.inflation)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("system", choices=("kolmogorov_sigmoid", "kolmogorov_speed"))
    parser.add_argument("--cycles", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="*", default=[""], help="parts of names (default: all)")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--spectra", type=Path)
    arguments = parser.parse_args()
    system = SYSTEMS[arguments.system]()
    bench = Bench(system)
    letkf = system.rivals["LETKF"]
    methods = {
        "LETKF": letkf,
        MEAN: {name: linearised(each, "mean") for name, each in letkf.items()},
        MEMBER: {name: linearised(each, "member") for name, each in letkf.items()},
    }
    if system.checkpoint in pretrained_names():
        ours = load_amortised(pretrained_file(system.checkpoint), system.base, n_steps=system.n_steps)
        methods[OURS] = {"as shipped": ours}
    chosen = {n: t for n, t in methods.items() if any(part in n for part in arguments.methods)}
    if MEMBER in chosen and MEAN not in chosen:
        parser.error(f"{MEMBER!r} takes the best values of {MEAN!r}: name that too.")
    rows, lines, best, kept = [], [], "", {}
    for name, trials in chosen.items():
        tried: list[str] = []
        if name in ("LETKF", MEAN):
            best, tried = tuned(bench, trials, arguments.cycles // 4)
        elif name == OURS:
            best = "as shipped"
        start = time.process_time()
        scores, spectra_of_seeds = bench(trials[best], tuple(range(arguments.seeds)), arguments.cycles)
        seconds = (time.process_time() - start) / ((system.burn_in + arguments.cycles) * len(scores))
        cells = [mean_and_error(scores[:, i]) for i in range(scores.shape[1])]
        kept[f"{arguments.system}: {name}"] = spectra_of_seeds.mean(0)
        rows.append([f"{name}, {best}", *cells, f"{seconds:.2g}"])
        if tried:
            lines += [f"\n{name}: {len(trials)} trials, RMSE of the analysis on the tuning seeds", *tried]
        print("  ".join(rows[-1]), flush=True)
    head = ["", "RMSE analysis", "RMSE forecast", "spread/RMSE", "CSI", "SSIM", "spectral error",
            "CPU s a cycle, compilation included"]  # fmt: skip
    title = (
        f"{arguments.system}: N = {system.members}, {arguments.cycles} cycles scored after {system.burn_in}"
    )
    text = "\n".join([header(title), table(rows, head), *lines])
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    if arguments.spectra:
        np.savez(arguments.spectra, **kept)


if __name__ == "__main__":
    main()
