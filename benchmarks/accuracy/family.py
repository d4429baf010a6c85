"""One network for a family of models: how `rings…` and `flows` of the package were trained.

Rings of 64 values: Lorenz-96 of several forcings and Kuramoto-Sivashinsky of several lengths, with random
parts of the values measured, noise of .4 to 2.5 times σ = 1, intervals and ensemble sizes that differ, and
bases that are not tuned: each has a radius and an inflation of its own (suite/ring_families.py). `rings` goes
on from `lorenz96_masks` on cycles of the filter itself; `rings_cycles` goes on from `rings` through its
cycles; `rings_four` from there, with two more models: Lorenz-96 of two scales, and Burgers' equation driven
at random. `flows` goes on from `kolmogorov_masks`, on flows of 64² of several Reynolds numbers, forcings,
drags and domains (suite/flow_families.py). The training is kept in --kept and goes on from there. The 16
systems of `rings_four` need `sysctl -w vm.max_map_count=1000000` first.

    python benchmarks/accuracy/family.py FILE [--family flows] [--kept FOLDER]
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import _path  # noqa: F401
import jax
import numpy as np
from suite.common import arguments
from suite.flow_families import FLOWS
from suite.ring_families import RING_FAMILIES

from masf_jax.amortised import Round, save_amortised, train_on_policy, train_through_cycles
from masf_jax.masf.amortised.files import correlation_within
from masf_jax.training import FitConfig

FAMILIES = RING_FAMILIES | FLOWS


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--family", choices=list(FAMILIES), default="rings")
    parser.add_argument("--kept", type=Path, default=Path("family"))
    args = parser.parse_args()
    family = FAMILIES[args.family]
    courses = family.courses()
    args.kept.mkdir(parents=True, exist_ok=True)
    clock = args.kept / "seconds"  # of all calls that the training took
    begun = time.perf_counter() - (float(clock.read_text()) if clock.exists() else 0.0)

    def report(number: int, found: Round) -> None:
        clock.write_text(f"{time.perf_counter() - begun:.0f}")
        print(f"{time.perf_counter() - begun:6.0f} s  {number}:", found, flush=True)

    config = FitConfig(
        learning_rate=family.learning_rate,
        weight_decay=1e-3,
        steps=family.steps,
        ema_decay=0.995,
        optimiser=family.optimiser,
    )
    if family.window is None:
        filter, rounds = train_on_policy(
            jax.random.key(family.seed),
            *courses[0],
            dataclasses.replace(config, batch_size=family.batch_size),
            rounds=family.rounds,
            replay=0.5,
            cooling=family.cooling,
            factors=(1.0,),
            report=report,
            kept=args.kept,
            fine_tune=True,
            others=courses[1:],
        )
    else:
        filter, rounds = train_through_cycles(
            jax.random.key(family.seed),
            *courses[0],
            dataclasses.replace(config, batch_size=family.batch_size, validate_every=1200),
            window=family.window,
            others=courses[1:],
            progress=True,
            kept=args.kept / "cycles",
        )
    best = next(number for number, each in enumerate(rounds) if each.chosen)
    alike = [correlation_within(each.filter, each.dynamics)["correlation"] for each in family.alike(courses)]
    about = {
        "filter": "masf_amortised",
        "dynamics": family.home,
        "base": "letkf",
        "trained_on": family.trained_on(round(float(np.mean(alike)), 4)),
        "seconds": time.perf_counter() - begun,
        "rounds": [{"rmse": each.rmse, "spread": each.spread} for each in rounds],
    }
    history = rounds[best - 1].history if best else None
    print(save_amortised(args.file, filter, about=about, history=history, overwrite=True))


if __name__ == "__main__":
    main()
