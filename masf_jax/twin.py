"""Twin experiments: a simulated truth and its simulated observations."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .dynamics.base import Dynamics
from .dynamics.rollout import rollout
from .measurements.measurement import Measurement, Observations

__all__ = ["Twin", "simulate"]

_TAG = 0x7477696E
"""Folded into the key of every twin, to keep its draws apart from those of other users of that key."""


class Twin(NamedTuple):
    """Truth at the observation steps, and the observations drawn from it."""

    truth: Float[Array, "K *state"]
    observations: Observations


def simulate(
    key: PRNGKeyArray,
    dynamics: Dynamics,
    measurement: Measurement,
    n_cycles: int,
    steps_per_cycle: int = 1,
    x0: Float[Array, "*state"] | None = None,
) -> Twin:
    """A truth from `x0` (None: a draw of the climatology) observed every `steps_per_cycle` model steps.

    Give the ensemble and the filter keys of their own. On JAX ≥ 0.5 `split(key, n)[i] == fold_in(key, i)`
    for every n, so plain splits of a shared key would make the truth a member; the key is tagged first.
    """
    if n_cycles < 1 or steps_per_cycle < 1:
        raise ValueError(
            f"n_cycles and steps_per_cycle must be at least 1; got {n_cycles}, {steps_per_cycle}."
        )
    key_start, key_run, key_noise = jax.random.split(jax.random.fold_in(key, _TAG), 3)
    start = dynamics.sample_climatology(key_start) if x0 is None else x0
    truth = rollout(dynamics, start, key_run, n_cycles, steps_per_cycle)
    noise_keys = jax.vmap(jax.random.fold_in, (None, 0))(key_noise, jnp.arange(n_cycles, dtype=jnp.uint32))
    values = jax.vmap(measurement.sample)(noise_keys, truth)
    return Twin(truth, Observations(values, steps_per_cycle))
