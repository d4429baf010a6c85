"""Twin experiments: a simulated truth and its simulated observations."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .dynamics.base import Dynamics
from .dynamics.rollout import rollout
from .measurements.measurement import Measurement, Observations

__all__ = ["Simulation", "Twin", "simulate"]

_TAG = 0x7477696E
"""Folded into the key of every twin, to keep its draws apart from those of other users of that key."""


class Twin(NamedTuple):
    """Truth at the observation steps, and the observations drawn from it."""

    truth: Float[Array, "K *state"]
    observations: Observations


class Simulation(eqx.Module):
    """The twin experiment of `simulate`, made as it is needed: a part of it takes that part's memory.

    Args:
        key, dynamics, measurement, n_cycles, steps_per_cycle, x0: see `simulate`.
    """

    dynamics: Dynamics
    measurement: Measurement
    start: Float[Array, "*state"]
    """The truth at step 0."""
    key_run: PRNGKeyArray
    key_noise: PRNGKeyArray
    n_cycles: int = eqx.field(static=True)
    interval: int = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        dynamics: Dynamics,
        measurement: Measurement,
        n_cycles: int,
        steps_per_cycle: int = 1,
        x0: Float[Array, "*state"] | None = None,
    ):
        if n_cycles < 1 or steps_per_cycle < 1:
            raise ValueError(
                f"n_cycles and steps_per_cycle must be at least 1; got {n_cycles}, {steps_per_cycle}."
            )
        key_start, self.key_run, self.key_noise = jax.random.split(jax.random.fold_in(key, _TAG), 3)
        self.start = dynamics.sample_climatology(key_start) if x0 is None else x0
        self.dynamics, self.measurement = dynamics, measurement
        self.n_cycles, self.interval = n_cycles, steps_per_cycle

    def read(self, before: Float[Array, "*state"], first: int, n: int) -> Twin:
        """n cycles from number `first` on (0, 1, …).

        Args:
            before: the truth at the cycle before, or `start`.
        """
        return _part(self, before, jnp.asarray(first, jnp.uint32), n)


def _read(twin: Simulation, before: Array, first: Array, n: int) -> Twin:
    step = first.astype(jnp.int32) * twin.interval
    truth = rollout(twin.dynamics, before, twin.key_run, n, twin.interval, step, first.astype(jnp.int32))
    numbers = first + jnp.arange(n, dtype=jnp.uint32)
    noise_keys = jax.vmap(jax.random.fold_in, (None, 0))(twin.key_noise, numbers)
    values = jax.vmap(twin.measurement.sample)(noise_keys, truth)
    return Twin(truth, Observations(values, twin.interval))


_part = eqx.filter_jit(_read)


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
    twin = Simulation(key, dynamics, measurement, n_cycles, steps_per_cycle, x0)
    return _read(twin, twin.start, jnp.zeros((), jnp.uint32), n_cycles)
