"""Cases of against_version.py, run by the masf_jax that Python finds first: one line a request."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import masf_jax as mj
from masf_jax.dynamics.rollout import spun_up_ensemble
from masf_jax.filters import ETKF, LETKF, MASF, EnKF, EnSF
from masf_jax.masf import Bridge, GaussianPrior
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations, arctan
from masf_jax.smoothers import FourDVar

LINEAR, ARCTAN = Measurement(Identity(), Gaussian(1.0)), Measurement(arctan(), Gaussian(0.05))
FILTERS: dict[str, tuple[Any, Measurement]] = {
    "EnKF": (EnKF(), LINEAR),
    "ETKF": (ETKF(), LINEAR),
    "ETKF rotated": (ETKF(rotation=True), LINEAR),
    "LETKF": (LETKF(7.28), LINEAR),
    "MASF": (MASF(), LINEAR),
    "MASF Bridge(2)": (MASF(GaussianPrior(members="fresh"), sampler=Bridge(2)), LINEAR),
    "MASF localised": (MASF(GaussianPrior(7.28)), LINEAR),
    "MASF arctan": (MASF(), ARCTAN),
    "EnSF": (EnSF(), LINEAR),
}
SIZES = ((40, 20), (40, 40), (10_000, 20))
"""Components and members; of the last only ETKF, LETKF and EnSF."""
LARGE = ("ETKF", "LETKF", "EnSF")
VARIATIONAL = "4D-Var, 5 cycles, n = 40"
SECONDS = 0.2
"""CPU seconds that a call takes about, by its number of cycles."""


def names() -> list[str]:
    """All cases: filter, components, members."""
    of_filters = [
        f"{name}, n = {n}, N = {members}" for n, members in SIZES for name in (FILTERS if n < 1000 else LARGE)
    ]
    return [*of_filters, VARIATIONAL]


def program(name: str, n_cycles: int) -> Callable[[], Any]:
    """A compiled run of n_cycles cycles (4D-Var: of a window of five)."""
    if name == VARIATIONAL:
        return _variational()
    filter_name, n, n_members = name.split(", ")
    size, count = (int(text.split(" = ")[1]) for text in (n, n_members))
    filter, measurement = FILTERS[filter_name]
    dynamics = mj.dynamics.Lorenz96(size)
    start = spun_up_ensemble(dynamics, jax.random.key(1), 1)[0]
    members = start + 0.3 * jax.random.normal(jax.random.key(2), (count, size))
    twin = mj.simulate(jax.random.key(3), dynamics, measurement, n_cycles, x0=start)
    observations = Observations(twin.observations.values, 1)

    def run(members: jax.Array) -> Any:
        key = jax.random.key(0)
        done = mj.assimilate(key, filter, dynamics, measurement, observations, members, save=("mean",))
        return done.analysis, done.final

    compiled = jax.jit(run).lower(members).compile()
    return lambda: jax.block_until_ready(compiled(members))


def _variational() -> Callable[[], Any]:
    dynamics = mj.dynamics.Lorenz96(40)
    start = spun_up_ensemble(dynamics, jax.random.key(1), 1)[0]
    twin = mj.simulate(jax.random.key(3), dynamics, LINEAR, 5, x0=start)
    first = start + 0.3 * jax.random.normal(jax.random.key(2), start.shape)
    find, observations = FourDVar(std=0.3), Observations(twin.observations.values, 1)

    def run(first: jax.Array) -> Any:
        return find(first, dynamics, LINEAR, observations)

    compiled = jax.jit(run).lower(first).compile()
    return lambda: [jax.block_until_ready(compiled(first)) for _ in range(5)]


def cycles(name: str) -> int:
    """So that one call takes about SECONDS."""
    if name == VARIATIONAL:
        return 5
    few = 3 if "EnSF, n = 10000" in name else 10
    run = program(name, few)
    run()
    start = time.process_time()
    run()
    each = (time.process_time() - start) / few
    return max(few, min(2000, int(SECONDS / max(each, 1e-6))))


def main() -> None:
    run: Callable[[], Any] = lambda: None  # noqa: E731
    print(mj.__file__, flush=True)
    for line in sys.stdin:
        what, _, rest = line.strip().partition("\t")
        if what == "cycles":
            answer = str(cycles(rest))
        elif what == "make":
            name, n_cycles = rest.rsplit("\t", 1)
            run = program(name, int(n_cycles))
            run()
            answer = "made"
        else:
            start = time.process_time()
            run()
            answer = repr(time.process_time() - start)
        print(answer, flush=True)


if __name__ == "__main__":
    jnp.zeros(1)
    main()
