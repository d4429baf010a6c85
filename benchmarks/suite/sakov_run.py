"""1000 cycles of sakov2008.py by the library, as a script of a user's would be: python sakov_run.py NAME."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import jax
import jax.numpy as jnp
from suite.sakov2008 import CASES, make_filter, problem

import masf_jax as mj

CYCLES, BURN_IN = 1000, 100


@jax.jit
def experiment(key: jax.Array) -> tuple[Any, jax.Array]:
    """Truth, observations and first members."""
    dynamics, measurement = problem()
    keys = jax.random.split(key, 3)
    start = dynamics.sample_climatology(keys[0])
    twin = mj.simulate(keys[1], dynamics, measurement, CYCLES, x0=start)
    return twin, start + 0.03 * jax.random.normal(keys[2], (24, 40))


def main() -> None:
    name = sys.argv[1]
    twin, members = experiment(jax.random.key(0))
    found = mj.assimilate(
        *(jax.random.key(1), make_filter(name), *problem(), twin.observations, members[: CASES[name][0]]),
        truth=twin.truth,
    )
    scores = {name: jnp.mean(found.analysis_scores[name][BURN_IN:]) for name in ("rmse", "spread", "crps")}
    print(name, {name: round(float(value), 3) for name, value in scores.items()})


if __name__ == "__main__":
    main()
