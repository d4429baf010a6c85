"""One network for a family of models on rings: how `rings` of the package was trained.

Systems of 64 variables: Lorenz-96 of forcings 5.5 to 12 and Kuramoto-Sivashinsky of lengths 22 to 16π, with
random parts of the variables measured, noise of .4 to 2.5 times σ = 1, intervals and ensemble sizes that
differ, and bases that are not tuned: each has a radius and an inflation of its own. Training goes on from
`lorenz96_masks` on cycles of the filter itself (`train_on_policy(others=…)`); it is kept in --kept and
goes on from there.

    python benchmarks/accuracy/ring_family.py FILE [--rounds 10] [--kept rings]
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _path  # noqa: F401
import jax
import numpy as np
from suite.common import arguments

from masf_jax import dynamics as d, filters as f, measurements as m
from masf_jax.amortised import (
    Course,
    Practice,
    Round,
    load_amortised,
    pretrained_file,
    save_amortised,
    train_on_policy,
)
from masf_jax.ensemble import Inflation
from masf_jax.masf.amortised.files import correlation_within
from masf_jax.training import FitConfig

N, SEED = 64, 120
PARTS: dict[str, Any] = {"noise": (0.4, 2.5), "spread": 0.5, "runs": 8, "cycles": 140, "burn_in": 20}
# model, (radius, inflation) of the base, intervals, ensemble sizes, shares measured
LORENZ96: list[Any] = [
    (8.0, (6.5, 1.1), (4,), (20,), (0.2, 1.0)),
    (8.0, (4.0, 1.04), (2,), (10,), (0.2, 1.0)),
    (8.0, (12.0, 1.02), (1,), (20,), (0.5, 1.0)),
    (6.0, (9.0, 1.2), (4,), (40,), (0.2, 1.0)),
    (5.5, (5.0, 1.06), (6,), (20,), (0.3, 1.0)),
    (10.0, (5.0, 1.15), (3,), (16,), (0.25, 1.0)),
    (12.0, (7.0, 1.3), (2,), (30,), (0.25, 1.0)),
]
SIVASHINSKY: list[Any] = [
    (16 * np.pi, (51.0, 1.02), (2,), (16,), (0.3, 1.0)),
    (16 * np.pi, (20.0, 1.06), (2,), (10,), (0.1, 1.0)),
    (12 * np.pi, (30.0, 1.04), (4,), (20,), (0.1, 1.0)),
    (22.0, (15.0, 1.1), (2,), (20,), (0.1, 0.8)),
    (14 * np.pi, (25.0, 1.2), (1,), (30,), (0.1, 1.0)),
]


def course(
    model: d.Dynamics,
    base: tuple[float, float],
    intervals: tuple[int, ...],
    sizes: tuple[int, ...],
    density: tuple[float, float],
) -> Course:
    start = pretrained_file("lorenz96_masks")
    letkf = f.LETKF(base[0], Inflation(base[1]), rotation=True)
    filter = load_amortised(start, letkf, state_shape=(N,), climate=None, calibration=1.0)
    ranges: dict[str, Any] = {"intervals": intervals, "ensemble_sizes": sizes, "density": density}
    practice = Practice(**ranges, **PARTS, widths=(1.0, 1.0))
    return Course(filter, model, m.Measurement(m.Identity(), m.Gaussian(1.0)), practice)


def trained_on(smooth: Sequence[Course]) -> dict[str, Any]:
    """What the file says of it, as `masf-jax train` does; `correlation`: of the smoother models."""
    alike = [correlation_within(each.filter, each.dynamics)["correlation"] for each in smooth]
    systems = [*LORENZ96, *SIVASHINSKY]
    noise = {"law": "gaussian", "std": 1.0}
    intervals, sizes, densities = (sorted({x for each in systems for x in each[i]}) for i in (2, 3, 4))
    ranges = {"intervals": intervals, "ensemble_sizes": sizes, "density": [densities[0], densities[-1]]}
    return {
        "measurement": {"name": "identity", "noise": noise},
        "dynamics": {
            "name": "rings",
            "n": N,
            "lorenz96_forcings": sorted({each[0] for each in LORENZ96}),
            "kuramoto_sivashinsky_lengths": sorted({float(each[0]) for each in SIVASHINSKY}),
        },
        "models": len(systems),
        "filter": {
            "inflation": sorted({each[1][1] for each in systems}),
            "radius": sorted({each[1][0] for each in systems}),
            "rotation": True,
        },
        "practice": PARTS | ranges | {"noise": list(PARTS["noise"])},
        "correlation": round(float(np.mean(alike)), 4),
        "seed": SEED,
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--kept", type=Path, default=Path("rings"))
    args = parser.parse_args()
    courses = [course(d.Lorenz96(N, forcing=forcing), *rest) for forcing, *rest in LORENZ96]
    courses += [
        course(d.KuramotoSivashinsky(N, length=length, dt=0.5), *rest) for length, *rest in SIVASHINSKY
    ]
    args.kept.mkdir(parents=True, exist_ok=True)
    clock = args.kept / "seconds"  # of all calls that the training took
    begun = time.perf_counter() - (float(clock.read_text()) if clock.exists() else 0.0)

    def report(number: int, found: Round) -> None:
        clock.write_text(f"{time.perf_counter() - begun:.0f}")
        print(
            f"{time.perf_counter() - begun:6.0f} s  {number}:",
            f"RMSE {found.rmse:.4f}, spread {found.spread:.4f}",
            flush=True,
        )

    filter, rounds = train_on_policy(
        jax.random.key(SEED),
        *courses[0],
        FitConfig(learning_rate=1e-3, weight_decay=1e-3, steps=args.steps, batch_size=64, ema_decay=0.995),
        rounds=args.rounds,
        replay=0.5,
        cooling=0.9,
        factors=(1.0,),
        report=report,
        kept=args.kept,
        fine_tune=True,
        others=courses[1:],
    )
    best = next(number for number, each in enumerate(rounds) if each.chosen)
    about = {
        "filter": "masf_amortised",
        "dynamics": "rings",
        "base": "letkf",
        "trained_on": trained_on(courses[len(LORENZ96) :]),
        "seconds": time.perf_counter() - begun,
        "rounds": [{"rmse": each.rmse, "spread": each.spread} for each in rounds],
    }
    history = rounds[best - 1].history if best else None
    print(save_amortised(args.file, filter, about=about, history=history, overwrite=True))


if __name__ == "__main__":
    main()
