"""What an amortised filter's error does with its network's size, the cycles learnt from, and the models.

Half measured Lorenz-96 (n = 40, σ = 1, each .2, N = 20) on an LETKF of radius 6.5 and inflation 1.1. Every
network is fresh and trained through cycles, windows of 4 of 8 runs a step, no setting tuned; with several
models the steps take them in turn, so each has its share of the same number of steps.

Columns: parameters; the loss in cycles of its own after a quarter, a half and all of the steps, over that of
the base (of several models the mean); RMSE of the analysis, mean ± standard error of seeds, at home and on a
ring that none has seen (n = 60, F = 10).

    python benchmarks/accuracy/scaling.py [--steps 1600] [--seeds 5] [--cycles 800]
"""

from __future__ import annotations

import time

import _path  # noqa: F401
import jax
import numpy as np
from suite.common import arguments, finish, header, table
from zero_shot import Case, tried

from masf_jax import dynamics as d, filters as f
from masf_jax.amortised import Course, Practice, train_through_cycles
from masf_jax.denoisers.architecture import Architecture
from masf_jax.ensemble import Inflation
from masf_jax.training import FitConfig

LETKF = f.LETKF(6.5, Inflation(1.1), rotation=True)
HOME = Case(lambda: d.Lorenz96(40), 2, 1.0, 4, (6.5,))
AWAY = Case(lambda: d.Lorenz96(60, forcing=10.0), 2, 1.0, 4, (6.5,))
MODELS = {"F = 8": (8.0,), "F = 8, 6": (8.0, 6.0), "F = 8, 6, 5, 12": (8.0, 6.0, 5.0, 12.0)}
TRIED = [(channels, "F = 8") for channels in (4, 8, 16, 32)] + [(16, name) for name in list(MODELS)[1:]]
WINDOW, RUNS = 4, 8


def course(forcing: float, channels: int) -> Course:
    model = d.Lorenz96(40, forcing=forcing)
    network = Architecture(channels=channels, multipliers=(1, 1))
    practice = Practice(runs=64, cycles=150, burn_in=30, intervals=(4,), ensemble_sizes=(20,), spread=0.5)
    return Course(f.AmortisedMASF(LETKF, architecture=network), model, HOME.measurement(model), practice)


def row(channels: int, models: str, steps: int, seeds: int, cycles: int) -> list[str]:
    first, *others = (course(forcing, channels) for forcing in MODELS[models])
    config = FitConfig(
        learning_rate=2e-3,
        weight_decay=1e-3,
        steps=steps,
        batch_size=RUNS,
        ema_decay=0.98,
        validate_every=steps // 4,
    )
    begun = time.process_time()
    filter, rounds = train_through_cycles(jax.random.key(3), *first, config, window=WINDOW, others=others)
    seconds = time.process_time() - begun
    history = rounds[0].history
    assert history is not None
    assert filter.denoiser is not None
    losses = np.asarray(history.validation_loss)[[1, 2, 4]]
    size = sum(leaf.size for leaf in jax.tree.leaves(filter.denoiser.params))
    cells = [f"{channels} channels, {models}", f"{size}", *(f"{loss:.3f}" for loss in losses)]
    for case in (HOME, AWAY):
        model = case.model()
        own = filter if case is HOME else with_climate_of(filter, model)
        cells.append(scored(own, model, case, seeds, cycles))
    return [*cells, f"{seconds:.0f}"]


def with_climate_of(filter: f.AmortisedMASF, model: d.Dynamics) -> f.AmortisedMASF:
    """The trained network on another model."""
    made = f.AmortisedMASF(LETKF, architecture=filter.architecture, denoiser=filter.denoiser)
    return made.prepare(model, AWAY.measurement(model))


def scored(filter: f.Filter, model: d.Dynamics, case: Case, seeds: int, cycles: int) -> str:
    rmse = tried(filter, model, case, range(500, 500 + seeds), cycles)["rmse"]
    return f"{rmse.mean():.4f} ± {rmse.std(ddof=1) / seeds**0.5:.4f}"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cycles", type=int, default=800)
    args = parser.parse_args()
    base = ["LETKF", "", "1", "1", "1"]
    for case in (HOME, AWAY):
        model = case.model()
        ready = LETKF.prepare(model, case.measurement(model))
        base.append(scored(ready, model, case, args.seeds, args.cycles))
    rows = [[*base, ""]]
    print("  ".join(base), flush=True)
    for channels, models in TRIED:
        rows.append(row(channels, models, args.steps, args.seeds, args.cycles))
        jax.clear_caches()
        print("  ".join(rows[-1]), flush=True)
    pairs = [part * args.steps * WINDOW * RUNS for part in (0.25, 0.5, 1)]
    head = ["", "parameters", *(f"{n:.0f} cycles" for n in pairs), "home", "n = 60, F = 10", "CPU s"]
    finish(args, "scaling", f"{header('Networks of several sizes')}\n{table(rows, head)}", rows)


if __name__ == "__main__":
    main()
