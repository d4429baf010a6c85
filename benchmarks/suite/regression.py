"""Every filter on three systems, a few cycles each: a digest of all analyses, to compare two versions by.

    python benchmarks/suite/regression.py write FILE [PART …]     (on one version)
    python benchmarks/suite/regression.py check FILE [PART …]     (on another, on the same machine)

A digest is of the bits of forecast and analysis means and spreads; the RMSE beside it is for reading. Bits
depend on processor and compiler: benchmarks/results/regression.csv is of one machine. PART: filters whose
names contain it. Exit code 1 if a digest is another.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
import warnings
from pathlib import Path

import jax
import numpy as np

from masf_jax import Assimilation, assimilate
from masf_jax.cli.config.compose import compose
from masf_jax.cli.errors import InputError
from masf_jax.cli.run.problem import build
from masf_jax.cli.run.run import precision

SYSTEMS = {
    "lorenz63": ["experiment=lorenz63_sakov2012", "n_cycles=6"],
    "lorenz96": ["experiment=lorenz96_partial", "n_cycles=4"],
    "arctan": ["experiment=lorenz96_arctan", "n_cycles=3", "dynamics.n=20", "steps_per_cycle=2"],
}
COMMON = ["burn_in=0", "ensemble_size=12", "seed=3"]
NETWORK = ["filter.network.width=16", "filter.network.depth=1", "filter.network.channels=8"]
PRETRAINING = ["filter.pretraining.states=64", "filter.pretraining.epochs=2"]
TRAINED = [*NETWORK, "filter.training.epochs=3"]
FILTERS = {
    "etkf": ["filter=etkf"],
    "etkf plain": ["filter=etkf", "filter.rotation=false", "filter.rtps=0.5"],
    "etkf adaptive": ["filter=etkf", "filter.adaptive=true", "filter.additive=0.1"],
    "enkf": ["filter=enkf", "filter.prior_inflation=1.05"],
    "ensrf": ["filter=ensrf", "filter.rotation=true"],
    "ensrf local": ["filter=ensrf", "filter.radius=4", "filter.rtpp=0.3"],
    "letkf": ["filter=letkf", "filter.radius=6", "filter.rotation=true"],
    "letkf eigh": ["filter=letkf", "filter.radius=6", "filter.solver=eigh"],
    "letkf global": ["filter=letkf", "filter.radius=inf", "filter.batch_size=7"],
    "enkf_n": ["filter=enkf_n"],
    "ienkf": ["filter=ienkf"],
    "particle": ["filter=particle"],
    "kalman": ["filter=kalman", "filter.inflation=1.1"],
    "three_d_var": ["filter=three_d_var"],
    "optimal_interpolation": ["filter=optimal_interpolation"],
    "climatology": ["filter=climatology"],
    "ensf": ["filter=ensf", "filter.n_steps=30"],
    "ensf raw": ["filter=ensf", "filter.n_steps=30", "filter.normalization=raw"],
    "ensf batch": ["filter=ensf", "filter.n_steps=30", "filter.batch_size=5", "filter.start=forecast"],
    "ensf cycle": ["filter=ensf", "filter.n_steps=30", "filter.normalization=cycle", "filter.rtps=1"],
    "ensf_lr": ["filter=ensf_lr", "filter.n_steps=30"],
    "iensf": ["filter=iensf", "filter.n_steps=30"],
    "iensf ensemble": ["filter=iensf", "filter.n_steps=30", "filter.prior=ensemble"],
    "iensf mixture": ["filter=iensf", "filter.n_steps=30", "filter.prior=mixture"],
    "enff": ["filter=enff", "filter.guidance=0.1"],
    "enff raw": ["filter=enff", "filter.guidance=0.1", "filter.normalization=raw"],
    "enff f2p": ["filter=enff", "filter.path=f2p", "filter.normalization=moving"],
    "conditional_diffusion": ["filter=conditional_diffusion"],
    "conditional_diffusion draws": [
        "filter=conditional_diffusion",
        "filter.flow=false",
        "filter.rule=given",
    ],
    "score_filter": ["filter=score_filter", "filter.training.steps=5", "filter.n_steps=20"],
    "ssls": ["filter=ssls", "filter.training.steps=5", "filter.n_steps=20"],
    "masf": ["filter=masf", "filter.radius=5"],
    "masf global": ["filter=masf", "filter.radius=inf", "filter.rotation=false"],
    "masf fresh": ["filter=masf", "filter.radius=5", "filter.members=fresh", "filter.n_steps=3"],
    "masf perturbed": ["filter=masf", "filter.radius=5", "filter.members=perturbed", "filter.centred=false"],
    "masf mean": [
        "filter=masf",
        "filter.radius=inf",
        "filter.linearization.at=mean",
        "filter.linearization.proposals=3",
    ],
    "masf adaptive": ["filter=masf", "filter.adaptive=true", "filter.normalization=moving"],
    "masf kernel": [
        "filter=masf",
        "filter.denoiser=kernel",
        "filter.linearization.at=mean",
        "filter.n_steps=2",
    ],
    "masf hybrid": ["filter=masf", "filter.denoiser=hybrid", "filter.radius=inf", *TRAINED],
    "masf network": ["filter=masf", "filter.denoiser=network", *PRETRAINING, *TRAINED, "filter.n_steps=3"],
    "masf guided": [
        "filter=masf",
        "filter.process=measurement_aware",
        "filter.sampler=guided",
        "filter.n_steps=64",
        "filter.grid=quadratic",
        "filter.radius=inf",
    ],
    "masf conditional kernel": ["filter=masf", "filter.route=conditional", "filter.denoiser=kernel"],
    "masf conditional network": [
        "filter=masf",
        "filter.route=conditional",
        "filter.denoiser=network",
        "filter.n_steps=4",
        *TRAINED,
    ],
    "masf_gaussian": ["filter=masf_gaussian", "filter.n_steps=2"],
    "masf_kernel": ["filter=masf_kernel", "filter.bandwidth=0.4"],
    "masf_paper": [
        "filter=masf_paper",
        "filter.n_steps=64",
        "filter.network.multipliers=[1]",
        "filter.network.attention=[]",
        *PRETRAINING,
        *TRAINED,
    ],
    "masf_amortised": ["filter=masf_amortised"],
    "masf_amortised fresh": ["filter=masf_amortised", "filter.n_steps=3", "filter.members=fresh"],
}


def digest(result: Assimilation) -> tuple[str, str]:
    """Sixteen hexadecimal digits, and the mean RMSE of the analysis."""
    seen = hashlib.sha256()
    for stage in (result.forecast, result.analysis):
        for name in sorted(stage):
            seen.update(np.ascontiguousarray(np.asarray(stage[name], np.float32)).tobytes())
    rmse = np.asarray(result.analysis_scores["rmse"])
    return seen.hexdigest()[:16], f"{np.nanmean(rmse):.6g}"


def one(overrides: list[str]) -> tuple[str, str]:
    """`digest` of a run with these keys; ("refused", class of the error) where there is none."""
    try:
        settings = compose(overrides)
        with precision(settings.precision), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            problem = build(settings)
            result = assimilate(
                problem.key,
                problem.filter,
                problem.dynamics,
                problem.measurement,
                problem.observations,
                problem.ensemble,
                truth=problem.truth,
            )
            return digest(result)
    except (ValueError, RuntimeError, InputError) as error:
        return "refused", type(error).__name__


def read(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Rows of a table by system and filter."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return {(row["system"], row["filter"]): row for row in csv.DictReader(lines)}


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """The table, its first line the command."""
    with path.open("w", newline="") as file:
        file.write(f"# python {' '.join(sys.argv)}\n")
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=("write", "check"))
    parser.add_argument("file", type=Path)
    parser.add_argument("parts", nargs="*", metavar="PART")
    args = parser.parse_args()
    known = read(args.file) if args.mode == "check" else {}
    rows: list[dict[str, str]] = []
    different = 0
    for system, problem in SYSTEMS.items():
        for name, own in FILTERS.items():
            if args.parts and not any(part in name for part in args.parts):
                continue
            found, rmse = one([*problem, *COMMON, *own])
            jax.clear_caches()  # else the process runs out of memory maps
            rows.append({"system": system, "filter": name, "digest": found, "rmse": rmse})
            if args.mode == "write":
                write(args.file, rows)
            elif (before := known.get((system, name))) is None or before["digest"] != found:
                different += 1
                print(f"DIFFERENT {system:9} {name:28} before {before} now {found} {rmse}", flush=True)
    print(f"{len(rows)} analyses, {different} different")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
