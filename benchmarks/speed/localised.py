"""Localised MASF beside the LETKF: CPU time of an analysis, both compiled, in turn.

Lorenz-96 of n variables, m of them measured evenly (σ = 1, spread .3), N = 20; radius 5, or three distances
between measured variables where that is more. The flow: the first analysis of a preset (N = 10; the spread
of a climatology, hard for conjugate gradients), and one with a twentieth of that spread.

    python benchmarks/speed/localised.py
"""

from __future__ import annotations

import time
from typing import Any

import _path  # noqa: F401
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from suite.common import arguments, finish, header, table

from masf_jax.cli.config.compose import compose
from masf_jax.cli.run.problem import build
from masf_jax.dynamics import Dynamics, Lorenz96
from masf_jax.filters import LETKF, MASF, Filter
from masf_jax.masf import GaussianPrior
from masf_jax.measurements import Gaussian, Measurement, Subset

SIZES = [(1000, 100), (1000, 1000), (10_000, 1000), (100_000, 10_000)]
Case = tuple[Dynamics, Measurement, jax.Array, jax.Array, float]


def ring(n: int, m: int, n_members: int = 20) -> Case:
    """Model, measurement, members, values and radius."""
    measurement = Measurement(Subset(np.arange(0, n, n // m)), Gaussian(1.0))
    state, members, values = jax.random.split(jax.random.key(0), 3)
    mean = 8 * jax.random.uniform(state, (n,))
    noise = jax.random.normal(members, (n_members, n))
    noise = (noise + jnp.roll(noise, 1, 1) + jnp.roll(noise, -1, 1)) / 3**0.5
    z = mean[:: n // m] + 0.15 * jax.random.normal(values, (m,))
    return Lorenz96(n), measurement, mean + 0.3 * noise, z, max(5.0, 3 * n / m)


def flow(preset: str, share: float) -> Case:
    problem = build(compose([f"experiment={preset}", "filter=letkf", "n_cycles=1", "burn_in=0"]))
    members, measurement = jnp.asarray(problem.ensemble), problem.measurement
    mean = members.mean(0)
    z = measurement.sample(jax.random.key(3), mean + share * (members[0] - mean))
    radius = problem.filter.localization_radius
    assert radius is not None
    return problem.dynamics, measurement, mean + share * (members - mean), z, float(radius)


def analyses(case: Case) -> dict[str, Any]:
    """Name -> compiled call, and what it reports."""
    dynamics, measurement, members, z, radius = case
    filters: dict[str, Filter] = {"LETKF": LETKF(radius), "MASF": MASF(GaussianPrior(radius))}
    calls = {}
    for name, filter in filters.items():
        prepared = filter.prepare(dynamics, measurement)
        state = prepared.init(jax.random.key(1), members)
        run = eqx.filter_jit(lambda f, state, z: f.analysis(jax.random.key(2), state, z, measurement))
        calls[name] = lambda run=run, f=prepared, state=state: jax.block_until_ready(run(f, state, z))
    return calls


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    cases: dict[str, Any] = {f"Lorenz-96, n = {n}, m = {m}": lambda n=n, m=m: ring(n, m) for n, m in SIZES}
    for preset in ("kolmogorov_grid", "kolmogorov_center"):
        for share in (1.0, 0.05):
            cases[f"{preset}, spread × {share:g}"] = lambda p=preset, s=share: flow(p, s)
    rows, numbers = [], []
    for name, make in cases.items():
        calls = analyses(make())
        found = {key: call() for key, call in calls.items()}
        seconds: dict[str, list[float]] = {key: [] for key in calls}
        for _ in range(args.repeats):
            for key, call in calls.items():
                start = time.process_time()
                call()
                seconds[key].append(time.process_time() - start)
        letkf, masf = (1e3 * min(seconds[key]) for key in ("LETKF", "MASF"))
        residual = float(found["MASF"][1]["residual"])
        rows.append([name, f"{letkf:.1f}", f"{masf:.1f}", f"{masf / letkf:.2f}", f"{residual:.1g}"])
        numbers.append({"case": name, "letkf": letkf, "masf": masf, "residual": residual})
    names = ["case", "LETKF ms", "MASF ms", "MASF / LETKF", "residual (std)"]
    finish(
        args,
        "localised",
        header("CPU milliseconds of an analysis (float32)") + "\n" + table(rows, names),
        numbers,
    )


if __name__ == "__main__":
    main()
