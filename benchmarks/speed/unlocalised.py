"""Unlocalised MASF beside the ETKF: CPU time of an analysis in the middle of a run, in one run, in turn.

Members of spread .3 around a state of n components, m of them measured evenly (σ = 1). MASF with its
defaults (transported members: the ETKF's analysis). Both are compiled loops of analyses.

    python benchmarks/speed/unlocalised.py
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import _path  # noqa: F401
import jax
import numpy as np
from suite.common import arguments, finish, header, looped, table

from masf_jax.dynamics import Lorenz96
from masf_jax.filters import ETKF, MASF, Filter
from masf_jax.measurements import Gaussian, Measurement, Subset

SIZES = [
    (n, m, members)
    for n, some in ((40, (5, 20, 40)), (1000, (20, 1000)))
    for m in some
    for members in (20, 24, 40, 100)
]


def analyses(n: int, m: int, n_members: int, length: int) -> dict[str, Callable[[], Any]]:
    """Name -> compiled loop of `length` analyses."""
    measurement = Measurement(Subset(np.arange(0, n, n // m)), Gaussian(1.0))
    state, noise, values = jax.random.split(jax.random.key(0), 3)
    mean = 8 * jax.random.uniform(state, (n,))
    members = mean + 0.3 * jax.random.normal(noise, (n_members, n))
    z = mean[:: n // m] + jax.random.normal(values, (m,))
    filters: dict[str, Filter] = {"ETKF": ETKF(), "MASF": MASF()}
    calls = {}
    for name, filter in filters.items():
        filter = filter.prepare(Lorenz96(n), measurement)
        start = filter.init(jax.random.key(1), members)

        def part(key: jax.Array, members: jax.Array, z: jax.Array, filter: Any = filter, start: Any = start):
            return filter.analysis(key, dataclasses.replace(start, ensemble=members), z, measurement)[
                0
            ].ensemble

        calls[name] = looped(part, members, z, length=length)
    return calls


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    rows, numbers = [], []
    for n, m, n_members in SIZES:
        length = 100 if n == 40 else 10
        calls = analyses(n, m, n_members, length)
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            call()
        for _ in range(args.repeats):
            for name, call in calls.items():
                start = time.process_time()
                call()
                seconds[name].append((time.process_time() - start) / length)
        etkf, masf = (1e6 * min(seconds[name]) for name in ("ETKF", "MASF"))
        ratio = float(np.median(np.array(seconds["MASF"]) / np.array(seconds["ETKF"])))
        rows.append(
            [
                f"n = {n}, m = {m}, N = {n_members}",
                f"{etkf:.0f}",
                f"{masf:.0f}",
                f"{masf / etkf:.2f}",
                f"{ratio:.2f}",
            ]
        )
        numbers.append({"n": n, "m": m, "N": n_members, "etkf": etkf, "masf": masf, "median": ratio})
    names = ["case", "ETKF µs", "MASF µs", "ratio of least", "median ratio"]
    title = f"CPU microseconds of an analysis (float32; {args.repeats} turns)"
    finish(args, "unlocalised", header(title) + "\n" + table(rows, names), numbers)


if __name__ == "__main__":
    main()
