"""LETKF without tuning: inflation found along the way, radius by likelihood, beside the tuned one.

On every preset with a truth (the flows: 100 cycles, the first 20 do not count; the others 1500 and 500):

tuned: inflation and radius of configs/experiment. adaptive: the same radius, filter.adaptive=true. untuned:
filter.adaptive=true, and of the radii domain/6 · 2^k, k = -4 … 1, and inf, the one with the highest
log-score of the observations (masf-jax tune objective=likelihood: no truth) on two other seeds (1000, 1001;
a third of the cycles). noise too: as adaptive, told 1.5 σ, and filter.adaptive_noise=one. Lorenz-63 has three
variables: ETKF without a radius.

RMSE of the analysis: mean ± standard error over seeds; ratio: of medians; lost: seeds beyond twice the tuned
filter's median, of the tuned filter and of the other.

    python benchmarks/accuracy/adaptive_inflation.py [--seeds 300 301 302 303 304] [--presets …]
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import _path  # noqa: F401
import numpy as np
from suite.common import arguments, finish, header, table

from masf_jax.cli.compare.entries import Entry
from masf_jax.cli.compare.seed_runs import SharedProblem, prepared, share
from masf_jax.cli.config.compose import compose
from masf_jax.cli.process import computing

LONG, FLOW = ("n_cycles=1500", "burn_in=500"), ("n_cycles=100", "burn_in=20")
PRESETS = {
    "lorenz96_sakov2008": ("letkf", LONG, 40),
    "lorenz96_partial": ("letkf", LONG, 40),
    "lorenz96_masks": ("letkf", LONG, 40),
    "lorenz96_arctan": ("letkf", LONG, 40),
    "ks_bocquet2019": ("letkf", LONG, 128),
    "lorenz63_sakov2012": ("etkf", LONG, None),
    "kolmogorov_grid": ("letkf", FLOW, 64),
    "kolmogorov_center": ("letkf", FLOW, 64),
    "kolmogorov_masks": ("letkf", FLOW, 64),
    "kolmogorov_sigmoid": ("letkf", FLOW, 64),
    "kolmogorov_speed": ("letkf", FLOW, 64),
}
"""Filter, sizes, points along the domain (radii are in points)."""
ADAPTIVE = ("filter.adaptive=true", "filter.inflation=null")
TUNING_SEEDS = (1000, 1001)


def values(problem: SharedProblem, overrides: list[str], value: str, at_once: int) -> list[float]:
    entry = Entry(" ".join(overrides), compose(overrides))
    return [run[value] for run in prepared(entry, entry.build(problem.dynamics), problem, at_once)()]


def radius(base: list[str], points: int, at_once: int) -> str:
    """The radius under which tuning seeds' observations are most likely."""
    settings = compose(base)
    shorter = [f"n_cycles={(settings.n_cycles or 0) // 3}", f"burn_in={settings.burn_in // 3}"]
    problem = share(compose([*base, *shorter]), TUNING_SEEDS, by_likelihood=True)
    tried = [f"{points / 6 * 2.0**k:.3g}" for k in range(-4, 2)] + ["inf"]
    scores = {}
    for each in tried:
        found = values(problem, [*base, *shorter, *ADAPTIVE, f"filter.radius={each}"], "log_score", at_once)
        scores[each] = float(np.mean([x if math.isfinite(x) else problem.climatology for x in found]))
    return max(scores, key=lambda each: scores[each])


def preset(name: str, seeds: tuple[int, ...], same_radius: bool) -> dict[str, Any]:
    filter, sizes, points = PRESETS[name]
    base = [f"experiment={name}", f"filter={filter}", *sizes]
    settings = compose(base)
    at_once = 1 if "kolmogorov" in name else len(seeds)
    with computing(settings, at_once):
        problem = share(settings, seeds)
        of = {
            "tuned": values(problem, base, "rmse_analysis", at_once),
            "adaptive": values(problem, [*base, *ADAPTIVE], "rmse_analysis", at_once),
        }
        tuned_radius = settings.filter.get("radius")
        if same_radius:
            return {"rmse": of, "radius": None, "tuned radius": tuned_radius}
        chosen = None if points is None else radius(base, points, at_once)
        std = settings.measurement["noise"]["std"]
        told = share(compose([*base, f"measurement.noise.std={1.5 * std}"]), seeds)
        wrong = SharedProblem(**(vars(problem) | {"measurement": told.measurement}))
        both = [*base, *ADAPTIVE, "filter.adaptive_noise=one"]
        of["noise too"] = values(wrong, both, "rmse_analysis", at_once)
        if chosen is not None:
            given = [*base, *ADAPTIVE, f"filter.radius={chosen}"]
            of["untuned"] = values(problem, given, "rmse_analysis", at_once)
    return {"rmse": of, "radius": chosen, "tuned radius": tuned_radius}


def shown(rmse: Any) -> str:
    return f"{np.mean(rmse):.3f} ± {np.std(rmse, ddof=1) / len(rmse) ** 0.5:.3f}"


def row(name: str, found: dict[str, Any]) -> list[str]:
    tuned = np.asarray(found["rmse"]["tuned"])
    usual, cells = np.median(tuned), [name, shown(tuned)]
    for label in ("adaptive", "untuned", "noise too"):
        rmse = found["rmse"].get(label)
        if rmse is None:
            cells += ["", "", ""]
            continue
        lost = [int((~(np.asarray(x) < 2 * usual)).sum()) for x in (tuned, rmse)]
        cells += [
            shown(rmse),
            f"{np.median(np.nan_to_num(rmse, nan=np.inf)) / usual:.3f}",
            f"{lost[0]}, {lost[1]}",
        ]
    radii = "" if found["radius"] is None else f"{found['tuned radius']:g}, {found['radius']}"
    return [*cells[:5], radii, *cells[5:]]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(300, 305)))
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), choices=list(PRESETS))
    parser.add_argument("--same-radius", action="store_true", help="no search for a radius, no noise found")
    parser.add_argument("--kept", type=Path, help="JSON file of finished presets, to go on from")
    args: argparse.Namespace = parser.parse_args()
    kept = json.loads(args.kept.read_text()) if args.kept and args.kept.exists() else {}
    for name in args.presets:
        if name not in kept:
            kept[name] = preset(name, tuple(args.seeds), args.same_radius)
            if args.kept:
                args.kept.write_text(json.dumps(kept))
        print(row(name, kept[name]), flush=True)
    head = ["preset", "tuned", "adaptive", "ratio", "lost", "radii", "untuned", "ratio", "lost"]
    head += ["noise too", "ratio", "lost"]
    text = [
        header("LETKF without tuning (radii: tuned, and by likelihood)"),
        table([row(name, kept[name]) for name in args.presets], head),
    ]
    finish(args, "adaptive_inflation", "\n".join(text), kept)


if __name__ == "__main__":
    main()
