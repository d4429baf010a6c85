"""Networks of the package on models, and through sensors, that none was trained on, beside a tuned LETKF.

Per case the LETKF has the radius and the inflation with the smallest RMSE of the analysis among the case's
(its own truths, 2 seeds); network and gate have it as their base, and nothing else is tuned. The network is
`--network` (a name of the package, or a file; else `rings` and `kolmogorov_masks`), given the climate of the
model and blocks of its scale (`load_amortised(…, dynamics=model)`).
`--fine-tune`: also after a training of it on cycles of the case's model, CPU seconds stated.
RMSE of the analysis after the burn-in, mean ± standard error of seeds; ratios to the LETKF of means, and of
the worst seed for the gate; spread/RMSE of network and gate.

    python benchmarks/accuracy/zero_shot.py [CASE …] [--network rings] [--fine-tune]
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import _path  # noqa: F401
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from suite.common import arguments, finish, header, table
from suite.ring_models import Burgers, Lorenz2005II, Lorenz2005III, TwoScaleLorenz96, VissioLucarini

from masf_jax import assimilate, dynamics as d, filters as f, measurements as m, simulate
from masf_jax.amortised import (
    Practice,
    load_amortised,
    pretrained_file,
    pretrained_names,
    train_on_policy,
    train_through_cycles,
)
from masf_jax.ensemble import Inflation
from masf_jax.masf import AmortisedMASF
from masf_jax.training import FitConfig


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, a sensor of every k-th place of each axis (`first`: of channel 0 alone), what is tried.

    Attributes:
        scored: channel whose error and spread are meant; None: all.
        spread: standard deviation of the first members about the truth.
        scale: of the run's cycles: 1 is `--cycles`.
        steps: of fine-tuning through cycles: what five CPU minutes have room for.
        sensor: what measures instead, if not such places with Gaussian noise.
    """

    model: Callable[[], d.Dynamics]
    every: int
    std: float
    interval: int
    radii: tuple[float, ...]
    members: int = 20
    inflations: tuple[float, ...] = (1.02, 1.05, 1.1, 1.2)
    first: bool = False
    scored: int | None = None
    spread: float = 0.1
    scale: float = 1.0
    steps: int = 400
    sensor: Callable[[], m.Measurement] | None = None

    def measurement(self, model: d.Dynamics) -> m.Measurement:
        if self.sensor is not None:
            return self.sensor()
        seen = np.zeros(model.state_shape, bool)
        space = 2 if len(model.state_shape) == 3 else 1
        seen[(..., *(slice(None, None, self.every),) * space)] = True
        if self.first:
            seen[1:] = False
        return m.Measurement(m.Subset(np.flatnonzero(seen)), m.Gaussian(self.std))


def ks(length: float = 32 * np.pi, n: int = 128, dt: float = 0.5) -> Callable[[], d.Dynamics]:
    return lambda: d.KuramotoSivashinsky(n, length=length, dt=dt)


def flow(reynolds: float, waves: int) -> Callable[[], d.Dynamics]:
    return lambda: d.Kolmogorov(64, reynolds=reynolds, forcing_waves=waves)


def sensor(made: Callable[[], m.Measurement]) -> Case:
    """Lorenz-96 as the networks know it, measured each .1 as none of them was."""
    return Case(lambda: d.Lorenz96(40), 1, 1.0, 2, (4.0, 6.5, 9.0), sensor=made)


FLOW: dict[str, Any] = {
    "std": 0.1,
    "interval": 10,
    "spread": 0.5,
    "radii": (4.0, 7.0),
    "members": 10,
    "inflations": (1.05, 1.15),
    "scale": 0.04,
}
CASES: dict[str, Case] = {
    "Lorenz 2005 II, every 4th": Case(Lorenz2005II, 4, 1.0, 4, (20.0, 30.0, 40.0)),
    "Lorenz 2005 II, every 8th": Case(Lorenz2005II, 8, 1.0, 4, (20.0, 30.0, 40.0)),
    "Lorenz 2005 II, every 12th": Case(Lorenz2005II, 12, 1.0, 4, (20.0, 30.0, 40.0)),
    "Lorenz 2005 III, every 8th": Case(Lorenz2005III, 8, 1.0, 20, (50.0, 80.0, 120.0), scale=0.4),
    "Lorenz 2005 III, every 32nd": Case(Lorenz2005III, 32, 1.0, 20, (50.0, 80.0, 120.0), scale=0.4),
    "Vissio-Lucarini, half": Case(VissioLucarini, 2, 1.0, 4, (3.0, 4.5, 6.5), steps=800),
    "Vissio-Lucarini, winds alone": Case(VissioLucarini, 1, 1.0, 4, (3.0, 4.5, 6.5), first=True),
    "Lorenz-96, F=14, half": Case(
        lambda: d.Lorenz96(40, forcing=14.0), 2, 1.0, 2, (4.0, 6.5, 9.0), steps=1600
    ),
    "Lorenz-96, F=5, half": Case(lambda: d.Lorenz96(40, forcing=5.0), 2, 1.0, 4, (4.0, 6.5, 9.0), steps=1600),
    "Lorenz-96 of two scales, half of the slow": Case(
        TwoScaleLorenz96, 2, 1.0, 2, (4.0, 6.5, 9.0), first=True, scored=0, steps=80
    ),
    "Lorenz-96 of two scales, the slow": Case(
        TwoScaleLorenz96, 1, 1.0, 2, (4.0, 6.5, 9.0), first=True, scored=0, steps=80
    ),
    "Burgers, every 8th": Case(lambda: Burgers(96, 0.05), 8, 0.3, 10, (8.0, 15.0, 30.0)),
    "Lorenz-96, n=200, every 3rd": Case(lambda: d.Lorenz96(200), 3, 1.0, 3, (4.0, 6.5, 9.0)),
    "Kuramoto-Sivashinsky, 256 on 50π, every 8th": Case(ks(50 * np.pi, 256), 8, 1.0, 2, (20.0, 30.0, 45.0)),
    "Lorenz-96, all, each .05": Case(lambda: d.Lorenz96(40), 1, 1.0, 1, (8.0, 12.0, 16.0), spread=0.5),
    "Kuramoto-Sivashinsky, all": Case(ks(), 1, 1.0, 2, (35.0, 51.0, 70.0), members=16),
    "sensor: |x|": sensor(lambda: m.Measurement(m.absolute(), m.Gaussian(1.0))),
    "sensor: x²": sensor(lambda: m.Measurement(m.square(), m.Gaussian(1.0))),
    "sensor: arctan": sensor(lambda: m.Measurement(m.arctan(), m.Gaussian(0.1))),
    "sensor: clipped at 5": sensor(lambda: m.Measurement(m.Censored(upper=5.0), m.Gaussian(1.0))),
    "sensor: rounded to 3": sensor(lambda: m.Measurement(m.Quantised(3.0), m.Gaussian(1.0))),
    "sensor: Laplace noise": sensor(lambda: m.Measurement(m.Identity(), m.Laplace(1.0))),
    "sensor: Student-t noise": sensor(lambda: m.Measurement(m.Identity(), m.StudentT(3.0, 1.0))),
    "flow, Re 1000, 2 waves, every 8th": Case(flow(1000.0, 2), 8, **FLOW),
    "flow, Re 1000, 8 waves, every 8th": Case(flow(1000.0, 8), 8, **FLOW),
    "flow, Re 300, 4 waves, every 8th": Case(flow(300.0, 4), 8, **FLOW),
    "flow, Re 1000, 4 waves, every 10th": Case(flow(1000.0, 4), 10, **FLOW),
}


@eqx.filter_jit
def scores(
    filter: f.Filter, model: d.Dynamics, measurement: m.Measurement, seed: Any, case: Case, cycles: int
) -> dict[str, jax.Array]:
    """Of one seed; truth, members and filter have keys of their own. The first fifth is burn-in."""
    keys = [jax.random.fold_in(jax.random.key(161 + i), seed) for i in range(3)]
    twin = simulate(keys[0], model, measurement, cycles, case.interval)
    noise = jax.random.normal(keys[1], (case.members, *model.state_shape))
    problem = (filter, model, measurement, twin.observations, twin.truth[0][None] + case.spread * noise)
    save = () if case.scored is None else ("mean", "spread")
    out = assimilate(keys[2], *problem, truth=twin.truth, save=save, scores=("rmse", "spread"))
    found = {name: out.analysis_scores[name] for name in ("rmse", "spread")}
    if case.scored is not None:
        errors = {"rmse": out.analysis["mean"] - twin.truth, "spread": out.analysis["spread"]}
        found = {name: jnp.sqrt(jnp.mean(each[:, case.scored] ** 2, -1)) for name, each in errors.items()}
    found = {name: each[cycles // 5 :].mean() for name, each in found.items()}
    return found | {"gate": out.info.get("gate", jnp.zeros(cycles))[cycles // 5 :].mean()}


def tried(
    filter: f.Filter, model: d.Dynamics, case: Case, seeds: Sequence[int], cycles: int
) -> dict[str, np.ndarray]:
    runs = [
        jax.tree.map(float, scores(filter, model, case.measurement(model), np.uint32(seed), case, cycles))
        for seed in seeds
    ]
    return {name: np.array([each[name] for each in runs]) for name in runs[0]}


def tuned(model: d.Dynamics, case: Case, cycles: int) -> tuple[f.LETKF, str]:
    """The LETKF of the case, by two seeds of its own, half as many cycles."""
    best, smallest, said = None, np.inf, ""
    for radius in case.radii:
        for inflation in case.inflations:
            letkf = f.LETKF(radius, Inflation(inflation), rotation=True)
            ready = letkf.prepare(model, case.measurement(model))
            found = tried(ready, model, case, (900, 901), cycles // 2)["rmse"].mean()
            if np.nan_to_num(found, nan=np.inf) < smallest:
                best, smallest, said = letkf, found, f"{radius:g}, {inflation:g}"
    assert best is not None
    return best, said


def fine_tuned(filter: AmortisedMASF, model: d.Dynamics, case: Case) -> tuple[AmortisedMASF, float]:
    """After training on the model, and the CPU seconds that it took, compilation included.

    On rings through cycles; on flows, of which a cycle costs more, by rounds.
    """
    begun, sensor, key = time.process_time(), case.measurement(model), jax.random.key(7)
    here = {"intervals": (case.interval,), "ensemble_sizes": (case.members,), "spread": 0.3}
    config = FitConfig(weight_decay=1e-3, ema_decay=0.98)
    if len(model.state_shape) == 3:
        practice = Practice(runs=4, cycles=16, burn_in=4, **here)
        config = dataclasses.replace(config, learning_rate=1e-3, steps=150, batch_size=16)
        options = {"rounds": 3, "cooling": 0.7, "fine_tune": True, "factors": (1.0,)}
        tuned, _ = train_on_policy(key, filter, model, sensor, practice, config, **options)
    else:
        practice = Practice(runs=64, cycles=150, burn_in=30, **here)
        config = dataclasses.replace(
            config, learning_rate=2e-3, batch_size=8, steps=case.steps, validate_every=case.steps // 8
        )
        tuned, _ = train_through_cycles(key, filter, model, sensor, practice, config, window=6)
    return tuned, time.process_time() - begun


def row(name: str, network: str | None, seeds: int, cycles: int, fine_tune: bool) -> list[str]:
    case = CASES[name]
    model, cycles = case.model(), max(20, int(cycles * case.scale))
    letkf, said = tuned(model, case, cycles)
    network = network or ("kolmogorov_masks" if len(model.state_shape) == 3 else "rings")
    file = pretrained_file(network) if network in pretrained_names() else Path(network)
    made = load_amortised(file, letkf, dynamics=model)
    ready = made.prepare(model, case.measurement(model))
    filters: dict[str, f.Filter] = {"base": ready.base, "network": ready, "gate": f.Gate(ready)}
    seconds = 0.0
    if fine_tune:
        filters["fine-tuned"], seconds = fine_tuned(ready, model, case)
    found = {
        label: tried(each, model, case, range(500, 500 + seeds), cycles) for label, each in filters.items()
    }
    base = found["base"]["rmse"]
    cells = [name, said, str(made.coarsening)]
    for label, each in found.items():
        rmse = each["rmse"]
        cells.append(f"{rmse.mean():.4f} ± {rmse.std(ddof=1) / seeds**0.5:.4f}")
        if label != "base":
            cells.append(f"{rmse.mean() / base.mean():.3f}")
        cells.append(f"{(each['spread'] / rmse).mean():.2f}")
        if label == "gate":
            cells += [f"{(rmse / base).max():.3f}", f"{each['gate'].mean():.2f}"]
    return cells + ([f"{seconds:.0f}"] if fine_tune else [])


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE")
    parser.add_argument("--network")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--fine-tune", action="store_true")
    args = parser.parse_args()
    rows = []
    for name in args.cases:
        rows.append(row(name, args.network, args.seeds, args.cycles, args.fine_tune))
        jax.clear_caches()
        print("  ".join(rows[-1]), flush=True)
    head = ["case", "radius, inflation", "block", "LETKF", "s/R", "network", "ratio", "s/R"]
    head += ["gate", "ratio", "s/R", "worst seed", "share"]
    head += ["fine-tuned", "ratio", "s/R", "CPU s"] if args.fine_tune else []
    finish(args, "zero_shot", f"{header('Models that no network was trained on')}\n{table(rows, head)}", rows)


if __name__ == "__main__":
    main()
