"""The Lorenz-96 problem of Sakov & Oke (2008), the filters timed on it, and a compiled run of it."""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np

import masf_jax as mj

CASES = {"ETKF N=24": (24, 1.02), "LETKF N=7": (7, 1.04), "LETKF N=20": (20, 1.02)}
"""Name -> members and inflation; all with rotation."""
RADIUS = 7.28
"""Gaspari-Cohn length that equals DAPPER's loc_rad = 4."""


def problem() -> tuple[Any, Any]:
    """Lorenz-96 with 40 variables, dt 0.05; all of them measured with error variance 1."""
    noise = mj.measurements.Gaussian(1.0)
    return mj.dynamics.Lorenz96(40), mj.measurements.Measurement(mj.measurements.Identity(), noise)


def make_filter(name: str) -> Any:
    inflation = mj.ensemble.inflation.Inflation(CASES[name][1])
    if name.startswith("ETKF"):
        return mj.filters.ETKF(inflation, rotation=True)
    return mj.filters.LETKF(RADIUS, inflation, rotation=True)


def twin(n_cycles: int) -> dict[str, np.ndarray]:
    """Start, truth and observations of each cycle, and 24 members around the start (variance 0.001)."""
    dynamics, measurement = problem()
    start = dynamics.sample_climatology(jax.random.key(0))
    run = mj.simulate(jax.random.key(1), dynamics, measurement, n_cycles, x0=start)
    noise = jax.random.normal(jax.random.key(2), (25, 40)) * 0.001**0.5
    out = {"start": start, "truth": run.truth, "observations": run.observations.values}
    return {name: np.asarray(x) for name, x in (out | {"ensemble": start + noise[:24] - noise[24]}).items()}


class Run:
    """All cycles of one case as one compiled program; seeds > 1: vmapped over keys and first ensembles."""

    def __init__(self, name: str, data: dict[str, np.ndarray], seeds: int = 1, **keep: Any):
        dynamics, measurement = problem()
        filter = make_filter(name)
        truth, observations = data["truth"], mj.measurements.Observations(data["observations"], 1)
        ensemble = jax.numpy.asarray(data["ensemble"][: CASES[name][0]])

        def run(key: Any, ensemble: Any) -> Any:
            return mj.assimilate(
                key, filter, dynamics, measurement, observations, ensemble, truth=truth, **keep
            )

        self.inputs = jax.random.key(0), ensemble
        if seeds > 1:
            noise = 0.03 * jax.random.normal(jax.random.key(5), (seeds, *ensemble.shape))
            self.inputs = jax.random.split(jax.random.key(6), seeds), ensemble[None] + noise
            run = jax.vmap(run)
        start = time.perf_counter()
        self.compiled = jax.jit(run).lower(*self.inputs).compile()
        self.seconds_compile = time.perf_counter() - start
        self.result: Any = None

    def __call__(self) -> float:
        """Seconds of one call."""
        start = time.perf_counter()
        self.result = jax.block_until_ready(self.compiled(*self.inputs))
        return time.perf_counter() - start
