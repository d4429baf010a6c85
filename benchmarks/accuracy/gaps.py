"""RMSE against the time between measurements: Lorenz-63, Lorenz-96 half measured, the Kolmogorov flow of 64².

The paper's "range of measurement gaps". For each system and interval every filter's candidates are run on two
tuning seeds, and the one with the least RMSE of the analysis is reported on five others (three of the flow);
a seed that is not finite counts as the climatology. The amortised filters have the base settings that the
LETKF (ETKF of Lorenz-63) was given there, and networks of the package, trained at several
intervals (`lorenz96_masks`: .1, .2, .3) or at one (Lorenz-63: .25; flow: 2); `gated`: the same within `Gate`.
Each case is kept in --kept.

    python benchmarks/accuracy/gaps.py [lorenz63] [lorenz96] [flow] [--kept gaps]

makes a table and a figure of what is kept.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import _path  # noqa: F401
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from suite.common import RESULTS, arguments, finish, header, table

from masf_jax import assimilate, simulate
from masf_jax.cli.compare.entries import Entry
from masf_jax.cli.config.compose import compose
from masf_jax.cli.process import computing
from masf_jax.cli.run.problem import build_models
from masf_jax.dynamics import Dynamics, spun_up_ensemble
from masf_jax.filters import Filter
from masf_jax.measurements import Measurement


def grid(**keys: tuple[float, ...]) -> list[list[str]]:
    return [
        [f"filter.{key}={value:g}" for key, value in zip(keys, each, strict=True)]
        for each in itertools.product(*keys.values())
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class System:
    """Intervals in model steps; cycles, and how many of them are not scored; `base` of the amortised."""

    title: str
    overrides: list[str]
    dt: float
    intervals: tuple[int, ...]
    members: int
    cycles: tuple[int, int]
    seeds: int
    filters: dict[str, list[list[str]]]
    base: str
    amortised: list[str]
    spread: float | None = 0.1


INFLATIONS = (1.0, 1.02, 1.05, 1.1, 1.2, 1.4)
SAMPLED = {
    "ensf": [["filter.rtps=null"], ["filter.rtps=0.5"], ["filter.rtps=0.9"]],
    "enff": grid(guidance=(0.1, 0.3, 1.0)),
}
SYSTEMS = {
    "lorenz63": System(
        "Lorenz-63, all measured, variance 2, N = 50",
        ["experiment=lorenz63_sakov2012"],
        0.01,
        (5, 10, 25, 40, 60, 80),
        50,
        (700, 100),
        5,
        {
            "etkf": [[*each, "filter.rotation=true"] for each in grid(inflation=INFLATIONS)],
            "enkf": grid(inflation=INFLATIONS),
            "ienkf": grid(inflation=(1.0, 1.02, 1.05, 1.1)),
            "masf": [["filter.radius=inf", *each] for each in grid(inflation=INFLATIONS)],
            **SAMPLED,
        },
        "etkf",
        ["filter.base=etkf", "filter.rotation=true", "filter.checkpoint=lorenz63_rounds"],
    ),
    "lorenz96": System(
        "Lorenz-96, every second variable, variance 1, N = 20",
        ["experiment=lorenz96_partial"],
        0.05,
        (1, 2, 4, 6, 8, 12),
        20,
        (700, 100),
        5,
        {
            "letkf": [
                [*each, "filter.rotation=true"]
                for each in grid(radius=(4.0, 6.5, 10.0), inflation=(1.02, 1.06, 1.1, 1.2))
            ],
            "enkf": grid(inflation=(1.05, 1.2, 1.4)),
            "masf": grid(radius=(4.0, 6.5), inflation=(1.02, 1.06, 1.1, 1.2)),
            **SAMPLED,
        },
        "letkf",
        ["filter.checkpoint=lorenz96_masks", "filter.rotation=true"],
    ),
    "flow": System(
        "Kolmogorov flow 64², Re = 1000, every 10th point each way, noise .1, N = 10",
        ["experiment=kolmogorov_grid"],
        0.2,
        (1, 2, 5, 10, 15),
        10,
        (24, 6),
        3,
        {
            "letkf": grid(radius=(3.5, 5.0, 7.0), inflation=(1.1, 1.3)),
            "enkf": grid(inflation=(1.05, 1.4)),
            "masf": grid(radius=(3.5, 5.0), inflation=(1.1,)),
            "ensf": [["filter.rtps=null"], ["filter.rtps=0.8"]],
            "enff": grid(guidance=(0.3, 1.0)),
        },
        "letkf",
        ["filter.checkpoint=kolmogorov_masks", "filter.rotation=false"],
        None,
    ),
}


@eqx.filter_jit
def errors(
    seeds: jax.Array,
    filter: Filter,
    dynamics: Dynamics,
    measurement: Measurement,
    interval: int,
    system: System,
) -> tuple[jax.Array, jax.Array]:
    """RMSE of the analysis and its spread, means after the burn-in, of each seed."""
    cycles, burn_in = system.cycles

    def one(seed: jax.Array) -> tuple[jax.Array, jax.Array]:
        keys = [jax.random.fold_in(jax.random.key(71 + i), seed) for i in range(3)]
        start = dynamics.sample_climatology(jax.random.fold_in(keys[0], 1))
        if system.spread is None:
            first = spun_up_ensemble(dynamics, keys[1], system.members)
        else:
            noise = jax.random.normal(keys[1], (system.members, *start.shape), start.dtype)
            first = start[None] + system.spread * noise
        twin = simulate(keys[0], dynamics, measurement, cycles, interval, start)
        problem = (filter, dynamics, measurement, twin.observations, first)
        out = assimilate(keys[2], *problem, truth=twin.truth, save=(), scores=("rmse", "spread"))
        rmse, spread = (out.analysis_scores[name][burn_in:].mean() for name in ("rmse", "spread"))
        return rmse, spread

    return jax.lax.map(one, seeds)


def run(
    system: System, interval: int, filter: str, more: list[str], seeds: range
) -> tuple[list[float], list[float]]:
    given = [*system.overrides, f"ensemble_size={system.members}", f"filter={filter}", *more]
    settings = compose([*given, f"steps_per_cycle={interval}"])
    with computing(settings, 1):
        dynamics, network = build_models(settings)
        made = Entry(filter, settings).build(dynamics).prepare(dynamics, network.measurement)
        found = errors(jnp.asarray(seeds, jnp.uint32), made, dynamics, network.measurement, interval, system)
    level = climatology(dynamics)
    rmse, spread = (np.asarray(each, float) for each in found)
    return np.where(np.isfinite(rmse), rmse, level).tolist(), spread.tolist()


def climatology(dynamics: Dynamics) -> float:
    """RMSE of the climatological mean."""
    from masf_jax.dynamics.rollout import climatological_states

    n = 1000 if dynamics.state_shape[-1] < 64 else 32
    states = eqx.filter_jit(climatological_states)(dynamics, jax.random.key(1), n)[0]
    return float(jnp.sqrt(states.var(0).mean()))


def case(system: System, interval: int, filter: str, kept: Path) -> dict[str, Any]:
    """One filter at one interval; from `kept` where it is there."""
    part = kept / f"{interval}_{filter}.json"
    if part.exists():
        return json.loads(part.read_text())
    name, candidates = filter, system.filters.get(filter)
    if candidates is None:  # an amortised one, with its base as that was tuned
        chosen = case(system, interval, system.base, kept)["chosen"]
        kept_keys = [each for each in chosen if "rotation" not in each]
        gate = str(filter == "gated").lower()
        name, candidates = "masf_amortised", [[*system.amortised, *kept_keys, f"filter.gate={gate}"]]
    if len(candidates) > 1:
        scores = [np.mean(run(system, interval, name, each, range(100, 102))[0]) for each in candidates]
        candidates = [candidates[int(np.argmin(scores))]]
    rmse, spread = run(system, interval, name, candidates[0], range(system.seeds))
    out = {"chosen": candidates[0], "rmse": rmse, "spread": spread}
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_text(json.dumps(out))
    jax.clear_caches()
    return out


def figure(found: dict[str, dict[str, dict[int, dict[str, Any]]]], levels: dict[str, float]) -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours: dict[str, str] = dict(
        zip(
            ("etkf", "letkf", "enkf", "ienkf", "masf", "ensf", "enff", "masf_amortised", "gated"),
            (
                "#0072b2",
                "#0072b2",
                "#56b4e9",
                "#009e73",
                "#e69f00",
                "#999999",
                "#cc79a7",
                "#d55e00",
                "#000000",
            ),
            strict=True,
        )
    )
    shown, axes = plt.subplots(
        1, len(found), figsize=(4.6 * len(found), 4.4), layout="constrained", squeeze=False
    )
    for ax, (name, filters) in zip(axes[0], found.items(), strict=True):
        system = SYSTEMS[name]
        for label, points in filters.items():
            times = [interval * system.dt for interval in points]
            means = [np.mean(each["rmse"]) for each in points.values()]
            bars = [np.std(each["rmse"], ddof=1) / len(each["rmse"]) ** 0.5 for each in points.values()]
            style = "--" if label == "gated" else "-"
            ax.errorbar(
                times, means, bars, color=colours[label], ls=style, lw=1.4, marker="o", ms=3, label=label
            )
        ax.axhline(levels[name], color="#999999", lw=0.8, ls=":", label="climatology")
        ax.set(xlabel="time between measurements", ylabel="RMSE of the analysis", yscale="log")
        ax.set_title(system.title.replace(", ", ",\n", 1), loc="left", fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.16), ncols=3)
    return shown


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("systems", nargs="*", default=list(SYSTEMS), metavar="SYSTEM")
    parser.add_argument("--kept", type=Path, default=Path("gaps"))
    args = parser.parse_args()
    rows: list[list[str]] = []
    found: dict[str, dict[str, dict[int, dict[str, Any]]]] = {}
    levels: dict[str, float] = {}
    for name in args.systems:
        system = SYSTEMS[name]
        found[name] = {label: {} for label in (*system.filters, "masf_amortised", "gated")}
        levels[name] = climatology(build_models(compose(system.overrides))[0])
        for interval in system.intervals:
            for label in found[name]:
                each = case(system, interval, label, args.kept / name)
                found[name][label][interval] = each
                rmse = np.asarray(each["rmse"])
                error = rmse.std(ddof=1) / len(rmse) ** 0.5
                ratio = np.mean(each["spread"]) / rmse.mean()
                chosen = " ".join(each["chosen"]).replace("filter.", "")
                rows.append(
                    [
                        name,
                        f"{interval * system.dt:g}",
                        label,
                        f"{rmse.mean():.4f} ± {error:.4f}",
                        f"{ratio:.2f}",
                        chosen,
                    ]
                )
                print("  ".join(rows[-1]), flush=True)
    if not args.no_save:
        figure(found, levels).savefig(RESULTS.parents[1] / "docs" / "images" / "gaps.png", dpi=130)
    head = ["system", "interval", "filter", "RMSE of the analysis", "spread/RMSE", "chosen"]
    said = ", ".join(f"{name} {level:.3f}" for name, level in levels.items())
    text = (
        f"{header('RMSE against the time between measurements')}\nclimatology: {said}\n\n{table(rows, head)}"
    )
    finish(args, "gaps", text, rows)


if __name__ == "__main__":
    main()
