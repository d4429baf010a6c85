"""One network for a family of flows and sizes of ensembles: how `flows` of the package was trained.

Kolmogorov flows at 64² of Reynolds numbers 500 to 4000, stirred at wavenumbers 2 to 8, with drag of .05 to
.2; 10 to 100 members; random parts of the velocities measured (.5 to 25 %, and all but a square), noise of
.05 to .2; bases that are not tuned. Cycles begin with members that know nothing, as the paper's runs do.
Training goes on from `kolmogorov_masks` on cycles of the filter itself (`train_on_policy(others=…)`); it is
kept in --kept and goes on from there. On finer grids the network sees blocks of cells
(`AmortisedMASF(coarsening=…)`).

    python benchmarks/accuracy/flow_family.py FILE [--rounds 2] [--kept flows]
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import _path  # noqa: F401
import jax
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
from masf_jax.training import FitConfig

N, SEED = 64, 130
# (Reynolds number, forcing wavenumber, drag), (radius, inflation) of the base, members, what is measured at
# most (every k-th point; 0: all but a centred square), a share of it, runs, cycles
COURSES: list[Any] = [
    ((1000, 4, 0.1), (5.0, 1.1), 10, 1, (0.005, 0.1), 6, 30),
    ((1000, 4, 0.1), (4.0, 1.1), 40, 2, (0.03, 0.8), 4, 14),
    ((1000, 4, 0.1), (4.0, 1.05), 100, 2, (0.05, 0.8), 4, 8),
    ((1000, 4, 0.1), (3.5, 1.1), 10, 0, (0.1, 1.0), 4, 20),
    ((2000, 6, 0.1), (5.0, 1.2), 20, 2, (0.03, 1.0), 4, 20),
    ((500, 2, 0.05), (7.0, 1.1), 15, 2, (0.02, 0.5), 4, 20),
    ((4000, 8, 0.2), (3.5, 1.05), 30, 2, (0.05, 1.0), 4, 14),
]


def course(
    flow: tuple[float, int, float],
    base: tuple[float, float],
    members: int,
    stride: int,
    density: tuple[float, float],
    runs: int,
    cycles: int,
) -> Course:
    model = d.Kolmogorov(N, flow[0], forcing_waves=flow[1], drag=flow[2])
    letkf = f.LETKF(base[0], Inflation(base[1]))
    start = pretrained_file("kolmogorov_masks")
    own = None if flow != (1000, 4, 0.1) else "stored"
    filter = load_amortised(start, letkf, climate=own, calibration=1.0, climatology=200)
    shape = (2, N, N)
    if stride == 1:
        sensor = m.Identity()
    else:
        sensor = m.Subset.from_mask(m.grid_stride(shape, stride) if stride else m.center_hole(shape, 0.5))
    practice = Practice(
        runs=runs,
        cycles=cycles,
        burn_in=0,
        intervals=(10,),
        ensemble_sizes=(members,),
        spread=None,
        noise=(0.5, 2.0),
        density=density,
    )
    return Course(filter, model, m.Measurement(sensor, m.Gaussian(0.1)), practice)


def trained_on() -> dict[str, Any]:
    """What the file says of it, as `masf-jax train` does."""
    sizes = sorted({each[2] for each in COURSES})
    densities = [x for each in COURSES for x in each[4]]
    ranges = {"intervals": [10], "ensemble_sizes": sizes, "density": [min(densities), max(densities)]}
    parts = {"runs": [each[5] for each in COURSES], "cycles": [each[6] for each in COURSES], "burn_in": 0}
    return {
        "measurement": {"name": "identity", "noise": {"law": "gaussian", "std": 0.1}},
        "dynamics": {
            "name": "flows",
            "shape": [N, N],
            "reynolds": sorted({each[0][0] for each in COURSES}),
            "forcing_waves": sorted({each[0][1] for each in COURSES}),
            "drag": sorted({each[0][2] for each in COURSES}),
        },
        "models": len({each[0] for each in COURSES}),
        "filter": {
            "inflation": sorted({each[1][1] for each in COURSES}),
            "radius": sorted({each[1][0] for each in COURSES}),
            "rotation": False,
        },
        "practice": parts | ranges | {"spread": None, "noise": [0.5, 2.0]},
        "seed": SEED,
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--kept", type=Path, default=Path("flows"))
    args = parser.parse_args()
    courses = [course(*each) for each in COURSES]
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
        FitConfig(learning_rate=1e-3, weight_decay=1e-3, steps=args.steps, batch_size=8, ema_decay=0.99),
        rounds=args.rounds,
        replay=0.5,
        cooling=0.8,
        factors=(1.0,),
        report=report,
        kept=args.kept,
        fine_tune=True,
        others=courses[1:],
    )
    best = next(number for number, each in enumerate(rounds) if each.chosen)
    about = {
        "filter": "masf_amortised",
        "dynamics": "flows",
        "base": "letkf",
        "trained_on": trained_on(),
        "seconds": time.perf_counter() - begun,
        "rounds": [{"rmse": each.rmse, "spread": each.spread} for each in rounds],
    }
    history = rounds[best - 1].history if best else None
    print(save_amortised(args.file, filter, about=about, history=history, overwrite=True))


if __name__ == "__main__":
    main()
