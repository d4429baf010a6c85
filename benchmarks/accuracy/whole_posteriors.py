"""Whole posteriors that are not Gaussian, against a particle filter of 10^5 particles.

    python benchmarks/accuracy/whole_posteriors.py [PROBLEM ...] [--filters PART ...] [--members 100 20]
        [--keep FOLDER] [--figure FILE]

Problems: Lorenz-63 with x measured each .25; a double well, measured with large noise or through x²; the
doubling map on the circle, seen through its cosine. All filters have the same truth, observations and first
members, and the model's own noise. The reference is a bootstrap filter without roughening, resampled
systematically in every cycle; 1000 of its particles, evenly spaced in resampling's order, are compared with.

Columns, means over cycles, then mean ± standard error over seeds: fair energy score of the members against
the truth; energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| and sliced W2 to the reference, over its RMS
spread; of the cycles in which the reference has more than 10 % beyond each of ±gap and less than 10 % between
("two modes"), the share in which the members have more than 5 % beyond each, and the mean absolute error of
their share beyond +gap. "draws of the reference": as many of its particles, independently.

Filters with something to tune have four trials on other seeds, taken by the energy score. The amortised
filters' base is the ETKF so tuned for 100 members; their training is for 100 members, too. "set": the network
sees the members, is trained through cycles by the energy score, with 20 and 100 members, on an ETKF of the
same inflation that does not rotate.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import _path  # noqa: F401
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from suite.common import arguments, finish, header, table
from suite.posterior_problems import AXES, PROBLEMS, TITLES, Problem, rivals
from suite.posterior_scores import BURN_IN, KEPT, Compared, Reference, energy_scores

from masf_jax import filters as f, simulate
from masf_jax.amortised import Practice, train_on_policy, train_through_cycles
from masf_jax.denoisers.architecture import Architecture
from masf_jax.masf.amortised.filter import AmortisedMASF
from masf_jax.training import FitConfig

SEEDS, TUNING = tuple(range(5)), tuple(range(1000, 1005))
CYCLES, PARTICLES = 160, 100_000
Members: TypeAlias = Literal["transported", "fresh"]
AMORTISED: dict[str, tuple[int, Members] | None] = {
    "amortised, 1 step, transported": (1, "transported"),
    "amortised, 4 steps, fresh": (4, "fresh"),
    "amortised, set, energy score": None,
}
MEMBERS = (100, 20)
SHOWN = ("ETKF", "particle filter", "amortised, 4 steps, fresh")


class Case(NamedTuple):
    """A seed's truth and observations, and the keys of first members and of filters."""

    truth: jax.Array
    observations: Any
    key_start: jax.Array
    key_filter: jax.Array


def case(problem: Problem, seed: jax.Array) -> Case:
    keys = [jax.random.fold_in(jax.random.key(2026), 4 * seed + i) for i in range(3)]
    truth, _ = problem.start(keys[0], 2)
    twin = simulate(keys[1], problem.dynamics, problem.measurement, CYCLES, x0=truth)
    return Case(twin.truth, twin.observations, keys[0], keys[2])


def reference(problem: Problem) -> Reference:
    filter = f.ParticleFilter(threshold=1.0, regularization=0.0)

    @jax.jit
    def run(seed: jax.Array) -> tuple[jax.Array, ...]:
        own = case(problem, seed)
        _, particles = problem.start(own.key_start, PARTICLES)

        def cycle(state: Any, now: tuple[jax.Array, ...]) -> tuple[Any, tuple[jax.Array, ...]]:
            number, z = now
            keys = jax.random.split(jax.random.fold_in(own.key_filter, number), 3)
            state = filter.forecast(keys[0], state, problem.dynamics, number, 1)
            state, info = filter.update(keys[1], state, z, jnp.ones(z.shape, bool), problem.measurement)
            x = state.ensemble
            picked = jax.random.randint(keys[2], (max(MEMBERS),), 0, PARTICLES)
            return state, (x[:: PARTICLES // KEPT], x[picked], info["effective_sample_size"])

        xs = (jnp.arange(CYCLES, dtype=jnp.int32), own.observations.values)
        return own.truth, *jax.lax.scan(cycle, filter.init(own.key_filter, particles), xs)[1]

    found = [[np.asarray(part) for part in run(jnp.asarray(seed))] for seed in SEEDS]
    return Reference(*(np.stack(part) for part in zip(*found, strict=True)))


def members_of(problem: Problem, filter: f.Filter, n: int, seeds: tuple[int, ...]) -> np.ndarray:
    """Analysis members, (seeds, K, N, *x)."""
    prepared = filter.prepare(problem.dynamics, problem.measurement)
    return np.asarray(_members(problem, prepared, n, jnp.asarray(seeds)))


@eqx.filter_jit
def _members(problem: Problem, filter: f.MemberFilter, n: int, seeds: jax.Array) -> jax.Array:
    def one(seed: jax.Array) -> jax.Array:
        own = case(problem, seed)
        _, ensemble = problem.start(own.key_start, n)

        def cycle(state: Any, now: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
            number, z = now
            keys = jax.random.split(jax.random.fold_in(own.key_filter, number), 3)
            state = filter.forecast(keys[0], state, problem.dynamics, number, 1)
            state, _ = filter.analysis(keys[1], state, z, problem.measurement)
            return state, state.ensemble

        xs = (jnp.arange(CYCLES, dtype=jnp.int32), own.observations.values)
        return jax.lax.scan(cycle, filter.init(own.key_filter, ensemble), xs)[1]

    return jax.vmap(one)(seeds)


@eqx.filter_jit
def _truths(problem: Problem, seeds: jax.Array) -> jax.Array:
    return jax.vmap(lambda seed: case(problem, seed).truth)(seeds)


def tuned(problem: Problem, trials: dict[str, f.Filter], n: int) -> tuple[str, str]:
    """The trial of the smallest energy score on the tuning seeds, and all of them in words."""
    truth = _truths(problem, jnp.asarray(TUNING))
    found = {}
    for name, filter in trials.items():
        scores = energy_scores(members_of(problem, filter, n, TUNING), truth)
        found[name] = float(np.asarray(scores)[:, BURN_IN:].mean())
    best = min(found, key=lambda name: found[name] if np.isfinite(found[name]) else np.inf)
    return best, ", ".join(f"{name} {value:.4f}" for name, value in found.items())


def trained_through_cycles(problem: Problem, base: f.ETKF) -> AmortisedMASF:
    filter = AmortisedMASF(f.ETKF(base.inflation), architecture=Architecture(width=64, member_width=32))
    practice = Practice(
        runs=1024, cycles=CYCLES, burn_in=BURN_IN, ensemble_sizes=MEMBERS, spread=problem.spread
    )
    config = FitConfig(steps=3000, batch_size=32, learning_rate=3e-4, ema_decay=0.99, validate_every=300)
    given = (problem.dynamics, problem.measurement, practice, config)
    return train_through_cycles(jax.random.key(7), filter, *given, window=6, score="energy", progress=True)[0]


def trained(problem: Problem, base: f.MemberFilter, n_steps: int, members: Members) -> AmortisedMASF:
    filter = AmortisedMASF(
        base, n_steps=n_steps, members=members, centred=n_steps == 1, architecture=Architecture(width=64)
    )
    practice = Practice(runs=32, cycles=CYCLES, burn_in=BURN_IN, ensemble_sizes=(100,), spread=problem.spread)
    config = FitConfig(steps=2000, batch_size=256, learning_rate=2e-3)
    return train_on_policy(
        jax.random.key(7), filter, problem.dynamics, problem.measurement, practice, config, rounds=3
    )[0]


def row(compared: Compared, members: np.ndarray) -> tuple[list[str], dict[str, float]]:
    energy, distance, sliced, beyond, below = compared(members)
    two, columns = compared.two, [energy.mean(1), distance.mean(1), sliced.mean(1)]
    if two.mean() > 0.02:
        both, error = (beyond > 0.05) & (below > 0.05), abs(beyond - compared.beyond)
        seeds = [seed for seed in range(len(two)) if two[seed].any()]
        columns += [np.asarray([part[seed][two[seed]].mean() for seed in seeds]) for part in (both, error)]
    cells = [mean_and_error(values) for values in columns]
    names = ("energy score", "energy distance", "sliced W2", "both modes", "weight error")
    numbers = {name: float(values.mean()) for name, values in zip(names, columns, strict=False)}
    return cells + [""] * (5 - len(cells)), numbers | {"two modes": float(two.mean())}


def mean_and_error(values: np.ndarray) -> str:
    return f"{values.mean():.3f} ± {values.std(ddof=1) / np.sqrt(values.size):.3f}"


def kept(folder: Path | None, name: str, make: Any) -> dict[str, np.ndarray]:
    """Arrays by name, made once where there is a folder to keep them in."""
    path = None if folder is None else folder / f"{name.replace(' ', '_').replace(',', '')}.npz"
    if path is not None and path.exists():
        return dict(np.load(path))
    start = time.perf_counter()
    found = make()
    print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **found)
    return found


def runs(name: str, problem: Problem, parts: list[str], sizes: list[int], folder: Path | None) -> Any:
    """Of each filter and size: label, size, members and how it was tuned."""
    trials = rivals()

    def rival(label: str, n: int) -> dict[str, np.ndarray]:
        best, tried = tuned(problem, trials[label], n)
        members = members_of(problem, trials[label][best], n, SEEDS)
        return {"members": members, "best": np.asarray(best), "tried": np.asarray(tried)}

    def amortised(label: str) -> dict[str, np.ndarray]:
        base = kept(folder, f"{name} ETKF {max(MEMBERS)}", lambda: rival("ETKF", max(MEMBERS)))["best"]
        etkf, how = trials["ETKF"][str(base)], AMORTISED[label]
        filter = trained_through_cycles(problem, etkf) if how is None else trained(problem, etkf, *how)
        zero = "; the training kept the base" if filter.network_is_zero else ""
        own = {f"members {n}": members_of(problem, filter, n, SEEDS) for n in MEMBERS}
        said = str(base).removesuffix(", rotated") if how is None else base
        return own | {"best": np.asarray(""), "tried": np.asarray(f"base {said}{zero}")}

    for label in [*trials, *AMORTISED]:
        if not any(part in label for part in parts):
            continue
        for n in sizes:
            if label in trials:
                made = kept(folder, f"{name} {label} {n}", lambda label=label, n=n: rival(label, n))
            else:
                made = kept(folder, f"{name} {label}", lambda label=label: amortised(label))
                made["members"] = made[f"members {n}"]
            yield label, n, made["members"], str(made["best"]), str(made["tried"])


def draw(panels: dict[str, tuple[Compared, dict[str, np.ndarray]]], path: Path) -> None:
    """Reference and members along `side`, the one midway of seed 0's cycles with two modes."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(panels), len(SHOWN), figsize=(3.4 * len(SHOWN), 2.3 * len(panels)), layout="constrained",
        squeeze=False, sharey="row",
    )  # fmt: skip
    for line, (name, (compared, shown)) in zip(axes, panels.items(), strict=True):
        cycles = np.flatnonzero(compared.two[0])
        at = int(cycles[len(cycles) // 2])
        sides = {"reference": compared.side(compared.particles[0, at])}
        sides |= {label: compared.side(members[0, BURN_IN + at]) for label, members in shown.items()}
        ends = [min(x.min() for x in sides.values()), max(x.max() for x in sides.values())]
        bins = np.linspace(ends[0], ends[1], 31).tolist()
        for axis, label in zip(line, shown, strict=False):
            axis.hist(sides["reference"], bins, density=True, color="0.75", label="10⁵ particles")
            axis.hist(sides[label], bins, density=True, histtype="step", color="C0", label="members")
            axis.axvline(compared.side(compared.truth[0, at]), color="C3", linewidth=1, label="truth")
            axis.set_title(label, fontsize=9)
            axis.set_xlabel(AXES[name], fontsize=8)
    axes[0, 0].legend(fontsize=7)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("problems", nargs="*", default=list(TITLES))
    parser.add_argument("--filters", nargs="*", default=[""], help="parts of names (default: all)")
    parser.add_argument("--members", type=int, nargs="*", default=list(MEMBERS), choices=MEMBERS)
    parser.add_argument(
        "--keep", type=Path, help="folder for references and members, taken from there next time"
    )
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    text, numbers = [header("Posteriors that are not Gaussian, filters against 10^5 particles")], {}
    panels: dict[str, tuple[Compared, dict[str, np.ndarray]]] = {}
    head = ["", "energy score", "energy distance", "sliced W2", "both modes", "weight error"]
    for name in args.problems:
        problem = PROBLEMS[name]()
        known = Reference(**kept(args.keep, name, lambda p=problem: reference(p)._asdict()))
        compared = Compared(problem, known)
        rows, tried, shown = [], [], {}
        for n in args.members:
            cells, found = row(compared, known.draws[:, :, :n])
            rows.append([f"draws of the reference, N = {n}", *cells])
            numbers[f"{name}, draws, {n}"] = found
        for label, n, members, best, how in runs(name, problem, args.filters, args.members, args.keep):
            cells, found = row(compared, members)
            if label in SHOWN and n == max(MEMBERS):
                shown[label] = members
            rows.append([f"{label}, N = {n}{': ' + best if best else ''}", *cells])
            numbers[f"{name}, {label}, {n}"] = found
            tried.append(f"    {label}, N = {n}: {how}")
        two, least = numbers[f"{name}, draws, {args.members[0]}"]["two modes"], known.effective.min()
        title = f"{TITLES[name]}; reference with two modes in {100 * two:.0f} % of the cycles"
        text += [f"{title}, least effective sample size {least:.0f}", "", table(rows, head), "", *tried, ""]
        print("\n".join(text[-6 - len(tried) :]), flush=True)
        panels[name] = compared, shown
    if args.figure:
        draw({name: panel for name, panel in panels.items() if panel[0].two[0].any()}, args.figure)
    finish(args, "whole_posteriors", "\n".join(text), numbers)


if __name__ == "__main__":
    main()
