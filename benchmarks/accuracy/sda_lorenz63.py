"""SDA on the two Lorenz-63 settings of Rozet & Louppe (2023): W1 to the trajectories of a particle filter.

65 states of the noisy model (steps of .025, noise of variance .025 a step), the first component measured in
units of 8: "lo" at every 8th state with error .05, "hi" at every state with error .25. One network for each
k serves both. W1 is the cost of the best matching of draws of SDA to as many of the particle filter's,
Euclidean over all 65 × 3 components, mean ± standard error over truths; "particle filter" is its own against
a second one; "EnKS" are as many members of ensemble Kalman smoothers, whose model is given to them.

    python benchmarks/accuracy/sda_lorenz63.py                             # hours on two cores
    python benchmarks/accuracy/sda_lorenz63.py --draws 1024 --truths 64    # the paper's sizes: for a GPU
    python benchmarks/accuracy/sda_lorenz63.py --k 2 --corrections 0 1 --draws 64 --truths 2 --fit-steps 2000
    python benchmarks/accuracy/sda_lorenz63.py --k                         # only the rivals
    python benchmarks/accuracy/sda_lorenz63.py --parts FILE.json …         # a table of several calls' --json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from suite.common import arguments, finish, header, table

LENGTH = 65
SETTINGS = {"lo": (8, 0.05), "hi": (1, 0.25)}  # states between measurements, error in units of UNIT
UNIT = 8.0
SMOOTHER_SIZES = (64, 1024)
MEAN, SCALE = (0.0, 0.0, 25.0), (UNIT, 9.0, 8.6)


def particle_filter(dynamics: Any, measurement: Any, every: int, particles: int, n: int) -> Any:
    """From a key and z, n draws (n, LENGTH, 3) of the bootstrap filter: last particles with their past."""
    import jax
    import jax.numpy as jnp

    from masf_jax.dynamics import rollout, spun_up_ensemble
    from masf_jax.ensemble.resampling import systematic

    members = jnp.arange(particles, dtype=jnp.uint32)

    def resampled(key: Any, x: Any, z: Any) -> Any:
        weights = jax.nn.softmax(jax.vmap(measurement.log_prob, (None, 0))(z, x))
        return systematic(key, weights)

    def interval(x: Any, item: tuple[Any, Any]) -> tuple[Any, tuple[Any, Any]]:
        key, z = item
        key_pick, key_run = jax.random.split(key)
        ancestors = resampled(key_pick, x, z)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key_run, members)
        states = jax.vmap(lambda x, key: rollout(dynamics, x, key, every))(x[ancestors], keys)
        return states[:, -1], (ancestors, states)

    def back(chosen: Any, item: tuple[Any, Any]) -> tuple[Any, Any]:
        ancestors, states = item
        return ancestors[chosen], states[chosen]

    @jax.jit
    def run(key: Any, z: Any) -> Any:
        key_start, key_run, key_last, key_few = jax.random.split(key, 4)
        x = spun_up_ensemble(dynamics, key_start, particles)
        keys = jax.random.split(key_run, len(z) - 1)
        last, (ancestors, states) = jax.lax.scan(interval, x, (keys, z[:-1]))
        chosen = jax.random.permutation(key_few, resampled(key_last, last, z[-1]))[:n]
        first, parts = jax.lax.scan(back, chosen, (ancestors, states), reverse=True)
        later = jnp.moveaxis(parts, 1, 0).reshape(n, LENGTH - 1, 3)
        return jnp.concatenate([x[first][:, None], later], axis=1)

    return run


def wasserstein(a: Any, b: Any) -> float:
    """W1 of two samples of equal size, Euclidean distances of raveled draws."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    cost = cdist(a.reshape(len(a), -1), b.reshape(len(b), -1))
    return float(cost[linear_sum_assignment(cost)].mean())


def references(args: argparse.Namespace, dynamics: Any) -> dict[str, list[dict[str, Any]]]:
    """For each setting and truth: the measurement, its values, and two samples of the particle filter."""
    import jax
    import numpy as np

    import masf_jax as mj
    from masf_jax.smoothers.sda_training import climatological_trajectories

    key = jax.random.key(args.seed)
    truths = climatological_trajectories(dynamics, jax.random.fold_in(key, 0), args.truths, LENGTH)
    out: dict[str, list[dict[str, Any]]] = {}
    for name in args.settings:
        every, error = SETTINGS[name]
        sensor = mj.measurements.Measurement(
            mj.measurements.Subset([0]), mj.measurements.Gaussian(UNIT * error)
        )
        steps = np.arange(0, LENGTH, every)
        filter = particle_filter(dynamics, sensor, every, args.particles, args.draws)
        for number, truth in enumerate(truths):
            keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, 1 + every), number), 3)
            z = jax.vmap(sensor.sample)(jax.random.split(keys[0], len(steps)), truth[steps])
            case = {"sensor": sensor, "observations": mj.measurements.Observations(z, steps)}
            samples = [np.asarray(filter(own, z)) for own in keys[1:]]
            out.setdefault(name, []).append(case | {"samples": samples})
    return out


def kalman_smoothed(args: argparse.Namespace, dynamics: Any, case: dict[str, Any], members: int) -> Any:
    """`args.draws` members of an ensemble Kalman smoother with perturbed measurements, (draws, LENGTH, 3)."""
    import jax
    import jax.numpy as jnp

    from masf_jax.dynamics import spun_up_ensemble
    from masf_jax.filters import EnKF
    from masf_jax.measurements import Observations
    from masf_jax.smoothers import enks

    keys = jax.random.split(jax.random.key(args.seed + 2), 2)
    observed = case["observations"]
    z = jnp.full((LENGTH, 1), jnp.nan).at[observed.steps].set(observed.values)
    observations = Observations(z, 1)  # one step late: the climatology is that of the step before, too
    start = spun_up_ensemble(dynamics, keys[0], members)
    problem = keys[1], EnKF(), dynamics, case["sensor"], observations, start
    return jnp.swapaxes(enks(*problem, save=("ensemble",)).smoothed["ensemble"][:, : args.draws], 0, 1)


def trained(args: argparse.Namespace, dynamics: Any, k: int) -> tuple[Any, float]:
    """SDA with windows of 2k + 1 states, and the seconds of its training."""
    import jax
    import jax.numpy as jnp

    from masf_jax.denoisers.architecture import Architecture
    from masf_jax.smoothers.sda_training import climatological_trajectories, train_sda
    from masf_jax.training import FitConfig

    key = jax.random.fold_in(jax.random.key(args.seed), 1000 + k)
    data = climatological_trajectories(dynamics, key, args.fit_trajectories, 1024)
    config = FitConfig(
        learning_rate=1e-3, weight_decay=1e-3, steps=args.fit_steps, batch_size=args.fit_batch,
        warmup_steps=args.fit_steps // 50,
    )  # fmt: skip
    network = Architecture(width=args.width, depth=args.depth, noise_map=False)
    begin = time.perf_counter()
    method, history = train_sda(
        jax.random.fold_in(key, 1), data, k, config, network,
        mean=jnp.asarray(MEAN), scale=jnp.asarray(SCALE),
    )  # fmt: skip
    jax.block_until_ready(history.loss)
    return method, time.perf_counter() - begin


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--settings", nargs="+", choices=tuple(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--k", type=int, nargs="*", default=[1, 2, 3, 4])
    parser.add_argument("--corrections", type=int, nargs="+", default=[0, 1, 2, 4, 16], help="C")
    parser.add_argument("--corrections-mmps", type=int, nargs="+", help="default: those of --corrections")
    parser.add_argument("--guidance", nargs="+", choices=("published", "mmps"), default=["published", "mmps"])
    parser.add_argument("--steps", type=int, default=256, help="of the diffusion")
    parser.add_argument("--draws", type=int, default=128, help="of each sample that W1 compares")
    parser.add_argument("--at-once", type=int, default=128, help="draws computed together")
    parser.add_argument("--truths", type=int, default=4)
    parser.add_argument("--particles", type=int, default=2**14)
    parser.add_argument("--fit-steps", type=int, default=20_000)
    parser.add_argument("--fit-batch", type=int, default=256)
    parser.add_argument("--fit-trajectories", type=int, default=1024, help="of 1024 states each")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--parts", type=Path, nargs="+", help="what earlier calls wrote with --json; runs nothing"
    )
    args = parser.parse_args()
    if args.parts:
        gathered(args)
        return

    import jax
    import numpy as np

    from masf_jax.dynamics import Lorenz63, ModelError
    from masf_jax.smoothers import MMPS, InflatedNoise

    dynamics = ModelError(Lorenz63(dt=0.025), 1.0)
    guidances = {"published": InflatedNoise(1e-2 * UNIT**2, raw=True), "mmps": MMPS(2)}
    corrections = {"published": args.corrections, "mmps": args.corrections_mmps or args.corrections}
    title = (
        f"SDA on Lorenz-63, W1 to a filter of {args.particles} particles: {args.draws} draws, "
        f"{args.truths} truths, {args.steps} steps, {args.fit_steps} steps of training"
    )
    top = header(title)
    cases = references(args, dynamics)
    found: dict[str, dict[str, list[float]]] = {}
    for name, problems in cases.items():
        own = [wasserstein(*case["samples"]) for case in problems]
        found[f"{name}, particle filter"] = {"": own}
        for members in SMOOTHER_SIZES:
            found[f"{name}, EnKS, N = {members}"] = {
                "": [
                    wasserstein(
                        np.asarray(kalman_smoothed(args, dynamics, case, members)), case["samples"][1]
                    )
                    for case in problems
                ]
            }
    seconds_fit: dict[str, float] = {}
    numbers = {"header": top, "W1": found, "seconds of training": seconds_fit}
    for k in args.k:
        method, seconds_fit[f"k = {k}"] = trained(args, dynamics, k)
        for name, problems in cases.items():
            for guidance in args.guidance:
                row = found[f"{name}, k = {k}, {guidance}"] = {}
                for c in corrections[guidance]:
                    own = dataclasses.replace(
                        method, guidance=guidances[guidance], n_steps=args.steps, corrections=c
                    )
                    row[f"C = {c}"] = distances = []
                    for number, case in enumerate(problems):
                        key = jax.random.fold_in(jax.random.key(args.seed + 1), number)
                        draws = own.draws(
                            key, args.draws, LENGTH, case["sensor"], case["observations"], args.at_once
                        )
                        distances.append(wasserstein(np.asarray(draws), case["samples"][1]))
                    print(name, k, guidance, c, distances, file=sys.stderr, flush=True)
                    if args.json:  # hours: what is there so far
                        args.json.write_text(json.dumps(numbers))
    finish(args, "sda_lorenz63", f"{top}\n{distances_table(found)}", numbers)


def distances_table(found: dict[str, dict[str, list[float]]]) -> str:
    """Mean ± standard error over the truths."""

    def cell(values: list[float] | None) -> str:
        if not values:
            return "-"
        mean = statistics.fmean(values)
        if len(values) < 2:
            return f"{mean:.1f}"
        return f"{mean:.1f} ± {statistics.stdev(values) / len(values) ** 0.5:.1f}"

    head = sorted({c for row in found.values() for c in row if c}, key=lambda c: int(c.split()[-1]))
    rows = [
        [name, *(cell(row.get(c, row.get("") if c == head[0] else None)) for c in head)]
        for name, row in sorted(
            found.items(), key=lambda item: (item[0].split(",")[0], "k =" in item[0], item[0])
        )
    ]
    return table(rows, ["W1", *head])


def gathered(args: argparse.Namespace) -> None:
    """The table of earlier calls."""
    headers: list[str] = []
    found: dict[str, dict[str, list[float]]] = {}
    for path in args.parts:
        part = json.loads(path.read_text())
        headers.append(part["header"])
        for name, row in part["W1"].items():
            found.setdefault(name, {}).update(row)
    finish(args, "sda_lorenz63", "\n".join([*headers, distances_table(found)]), found)


if __name__ == "__main__":
    main()
