"""The gate: a network beside its base filter, the run's being the one ahead, told by measurements alone.

For each case the base filter alone, the network alone, and `Gate` of both, on the same truths and
measurements: RMSE of the analysis after the burn-in; ratios of the gate to the base and to the better of
both, of the worst seed; the share of cycles in which the gate has the network; spread/RMSE of the gate.
`noise`: a network of random parameters, at home. Nothing is tuned on these seeds; bases are the presets', and
one untuned.

`--again`: also the base once more by other draws (cases on an LETKF): the worst seed of two equal filters.

    python benchmarks/accuracy/gate.py [CASE …] [--seeds 5] [--cycles 1000] [--again]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import _path  # noqa: F401
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from suite.again import again, by_chance
from suite.common import arguments, finish, header, table
from suite.ring_models import Lorenz2005II

from masf_jax import assimilate, dynamics as d, filters as f, measurements as m, simulate
from masf_jax.amortised import load_amortised, pretrained_file
from masf_jax.ensemble import Inflation
from masf_jax.masf import AmortisedMASF

BURN_IN = 200


@dataclasses.dataclass(frozen=True)
class Case:
    model: Callable[[], d.Dynamics]
    operator: m.Operator
    std: float
    interval: int
    members: int
    base: f.MemberFilter
    network: str
    noise: bool = False
    radius: float | None = None


def letkf(radius: float, inflation: float) -> f.LETKF:
    return f.LETKF(radius, Inflation(inflation), rotation=True)


def ks(length: float = 32 * np.pi, n: int = 128) -> Callable[[], d.Dynamics]:
    return lambda: d.KuramotoSivashinsky(n, length=length, dt=0.5)


def every(n: int, k: int) -> m.Operator:
    return m.Subset(np.arange(0, n, k))


RING, FAMILY, POINT = "lorenz96_masks", "rings_four", "lorenz63_rounds"
L96 = Case(lambda: d.Lorenz96(40), every(40, 2), 1.0, 4, 20, letkf(6.5, 1.1), RING)
UNEVEN = Case(
    lambda: d.Lorenz96(240),
    m.Subset(np.r_[0:120, 120:240:4]),
    1.0,
    2,
    20,
    letkf(6.5, 1.06),
    RING,
)
L63 = Case(
    lambda: d.Lorenz63(dt=0.01), m.Identity(), 2**0.5, 25, 50, f.EnSRF(Inflation(1.05), rotation=True), POINT
)
CASES: dict[str, Case] = {
    "Lorenz-96, half, at home": L96,
    "the same, noise": dataclasses.replace(L96, noise=True),
    "the same, base untuned (radius 4, inflation 1.3)": dataclasses.replace(L96, base=letkf(4.0, 1.3)),
    "Lorenz-96, all, each .05": Case(
        lambda: d.Lorenz96(40), m.Identity(), 1.0, 1, 20, letkf(12.0, 1.02), RING
    ),
    "Lorenz-96, n=36, F=10, every 3rd": dataclasses.replace(
        L96, model=lambda: d.Lorenz96(36, forcing=10.0), operator=every(36, 3), base=letkf(6.5, 1.15)
    ),
    "Lorenz-96, n=120, F=6": dataclasses.replace(
        L96, model=lambda: d.Lorenz96(120, forcing=6.0), operator=every(120, 2)
    ),
    "Lorenz-96, N=7": dataclasses.replace(L96, members=7, base=letkf(4.0, 1.2)),
    "Kuramoto-Sivashinsky, all": Case(ks(), m.Identity(), 1.0, 2, 16, letkf(51.0, 1.02), FAMILY),
    "Kuramoto-Sivashinsky, every 8th": Case(ks(), every(128, 8), 1.0, 2, 16, letkf(25.0, 1.06), FAMILY),
    "Lorenz 2005 II, every 4th": Case(Lorenz2005II, every(240, 4), 1.0, 4, 20, letkf(40.0, 1.02), FAMILY),
    "Lorenz 2005 II, every 12th": Case(Lorenz2005II, every(240, 12), 1.0, 4, 20, letkf(40.0, 1.06), FAMILY),
    "Lorenz-96, half, by the family's network": dataclasses.replace(L96, network=FAMILY),
    "Lorenz-96, n=240, one half all, one every 4th": UNEVEN,
    "the same, gate by regions": dataclasses.replace(UNEVEN, radius=25.0),
    "Lorenz-63, at home": L63,
    "Lorenz-63, N=10": dataclasses.replace(L63, members=10),
    "Lorenz-63, x and y": dataclasses.replace(L63, operator=m.Subset(np.arange(2))),
}


def filters_of(case: Case, model: d.Dynamics, measurement: m.Measurement) -> dict[str, f.Filter]:
    """Prepared: base, network, gate."""
    at_home = case.network == POINT or (case.network == RING and model.state_shape == (40,))
    network = load_amortised(
        pretrained_file(case.network),
        case.base,
        state_shape=model.state_shape,
        climate="stored" if at_home else None,
    ).prepare(model, measurement)
    if case.noise:
        network = of_noise(network)
    return {"base": network.base, "network": network, "gate": f.Gate(network, radius=case.radius)}


def of_noise(filter: AmortisedMASF) -> AmortisedMASF:
    """The filter with parameters that are noise of a size that bends every output."""
    arrays, rest = eqx.partition(filter.denoiser, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten(arrays)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    drawn = [0.3 * jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    return eqx.tree_at(lambda g: g.denoiser, filter, eqx.combine(jax.tree.unflatten(structure, drawn), rest))


@eqx.filter_jit
def scores(
    filter: f.Filter,
    model: d.Dynamics,
    measurement: m.Measurement,
    seed: Any,
    n: int,
    cycles: int,
    interval: int,
) -> dict[str, jax.Array]:
    """Of one seed; truth, members and filter have keys of their own."""
    keys = [jax.random.fold_in(jax.random.key(61 + i), seed) for i in range(3)]
    twin = simulate(keys[0], model, measurement, cycles, interval)
    first = twin.truth[0][None] + 0.1 * jax.random.normal(keys[1], (n, *model.state_shape))
    problem = (filter, model, measurement, twin.observations, first)
    out = assimilate(keys[2], *problem, truth=twin.truth, save=(), scores=("rmse", "spread"))
    found = {name: out.analysis_scores[name][BURN_IN:] for name in ("rmse", "spread")}
    return found | {"gate": out.info.get("gate", jnp.zeros(cycles))[BURN_IN:]}


def row(name: str, seeds: int, cycles: int, chance: bool) -> list[str]:
    case = CASES[name]
    model, measurement = case.model(), m.Measurement(case.operator, m.Gaussian(case.std))
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    filters = filters_of(case, model, measurement)
    if chance:
        filters["again"] = again(case.base).prepare(model, measurement)
    for label, filter in filters.items():
        found[label] = [
            jax.tree.map(
                np.asarray,
                scores(filter, model, measurement, np.uint32(500 + s), case.members, cycles, case.interval),
            )
            for s in range(seeds)
        ]
    rmse = {label: np.array([each["rmse"].mean() for each in runs]) for label, runs in found.items()}
    better = np.minimum(rmse["base"], rmse["network"])
    spread = np.array([each["spread"].mean() for each in found["gate"]])
    share = np.mean([(each["gate"] > 0.5).mean() for each in found["gate"]])
    second = rmse.pop("again", None)
    return [
        name,
        *(f"{v.mean():.4f} ± {v.std(ddof=1) / len(v) ** 0.5:.4f}" for v in rmse.values()),
        f"{(rmse['gate'] / rmse['base']).max():.3f}",
        f"{(rmse['gate'] / better).max():.3f}",
        f"{share:.2f}",
        f"{(spread / rmse['gate']).mean():.2f}",
        *([] if second is None else by_chance(rmse["base"], second)),
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--again", action="store_true")
    args = parser.parse_args()
    rows = []
    for name in args.cases:
        rows.append(row(name, args.seeds, args.cycles, args.again))
        jax.clear_caches()
        print("  ".join(rows[-1]), flush=True)
    head = [
        "case",
        "base",
        "network",
        "gate",
        "worst to base",
        "worst to better",
        "network's share",
        "spread/RMSE",
        *(["again, ratio", "worst seed", "deviation"] if args.again else []),
    ]
    finish(args, "gate", f"{header('A network beside its base filter')}\n{table(rows, head)}", rows)


if __name__ == "__main__":
    main()
