"""Simulated cycles of a filter, to learn from."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ...dynamics.base import Dynamics
from ...dynamics.rollout import advance, spun_up_ensemble
from ...filters.base import State
from ...filters.faults import FaultPolicy
from ...measurements.measurement import Measurement
from ...measurements.noise import Gaussian
from .filter import AmortisedMASF

__all__ = ["Practice", "Simulated", "own_network", "practise", "started"]


@dataclasses.dataclass(frozen=True)
class Practice:
    """Twin experiments to learn from.

    Args:
        runs, cycles, burn_in: independent runs, cycles of each, and how many at their beginning are left out.
        intervals: model steps between measurements; runs are made for each.
        ensemble_sizes: likewise.
        spread: first members and truth differ by noise of this standard deviation; None: independent draws of
            the climatology.
        noise: each run's noise standard deviation is the measurement's times a factor, log-uniform in this.
        density: each run's share of measured values that are there, uniform in this; which, changes from run
            to run.
        widths: in every second run the filter's spread is multiplied by a factor, log-uniform in this, in
            each cycle: so a network meets ensembles too wide and too narrow, and learns to mend its own.
            None: (1, 1), and where a network is trained further (0.6, 1.7).
    """

    runs: int = 32
    cycles: int = 200
    burn_in: int = 20
    intervals: tuple[int, ...] = (1,)
    ensemble_sizes: tuple[int, ...] = (20,)
    spread: float | None = 1.0
    noise: tuple[float, float] = (1.0, 1.0)
    density: tuple[float, float] = (1.0, 1.0)
    widths: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.runs < 2 or not 0 <= self.burn_in < self.cycles:
            raise ValueError(
                "practice needs at least 2 runs (one validates) and 0 <= burn_in < cycles; got "
                f"runs={self.runs}, burn_in={self.burn_in}, cycles={self.cycles}."
            )
        for name, values, least in (
            ("intervals", self.intervals, 1),
            ("ensemble_sizes", self.ensemble_sizes, 1),
        ):
            if not len(values) or min(values) < least:
                raise ValueError(
                    f"practice needs {name} of at least {least}, one or more of them; got {values}."
                )
        if self.spread is not None and not self.spread >= 0:
            raise ValueError(f"practice's spread must not be negative; got {self.spread}.")
        if not 0 < self.noise[0] <= self.noise[1] or not 0 < self.density[0] <= self.density[1] <= 1:
            raise ValueError(
                "noise must be 0 < lowest <= highest and density 0 < lowest <= highest <= 1; got "
                f"noise={self.noise}, density={self.density}."
            )
        if self.widths is not None and not 0 < self.widths[0] <= self.widths[1]:
            raise ValueError(f"widths must be 0 < lowest <= highest; got {self.widths}.")


class Simulated(NamedTuple):
    """What simulated cycles leave, (runs, cycles, …)."""

    truth: Float[Array, "runs K *x"]
    """In the units of the base filter's analysis, as the network sees it (`Context.blocks`)."""
    features: Float[Array, "runs K ..."]
    rmse: Float[Array, "runs K"]
    spread: Float[Array, "runs K"]


def practise(
    key: PRNGKeyArray,
    filter: AmortisedMASF,
    dynamics: Dynamics,
    measurement: Measurement,
    practice: Practice,
    interval: int,
    n_members: int,
) -> Simulated:
    """Simulated cycles of a prepared filter, all runs at once; jittable.

    Raises:
        ValueError: `practice.noise` varies but the measurement's noise is not `Gaussian`.
    """

    def run(key: PRNGKeyArray, width: Float[Array, ""]) -> Simulated:
        key_start, key_network, key_cycles = jax.random.split(key, 3)
        changed = eqx.tree_at(lambda f: f.calibration, filter, filter.calibration * width)
        own, mask = own_network(key_network, measurement, practice, dynamics.state_shape)
        truth, ensemble = started(key_start, dynamics, n_members, practice.spread)

        def cycle(
            carry: tuple[Array, State, Int[Array, ""]], key: PRNGKeyArray
        ) -> tuple[tuple[Array, State, Int[Array, ""]], Simulated]:
            truth, state, step = carry
            keys = jax.random.split(key, 6)
            truth = advance(dynamics, truth[None], step, keys[0], interval)[0]
            state = filter.forecast(keys[1], state, dynamics, step, interval)
            state = FaultPolicy().after_forecast(keys[2], filter, state)[0].state
            z = own.sample(keys[3], truth)
            context, _ = filter.context(keys[4], state, jnp.where(mask, z, 0.0), mask, own)
            state, _ = changed.sample(keys[5], context)
            mean, variance = state.moments()
            out = Simulated(
                (filter.blocks(truth, truth.ndim) - context.blocks.mean) / context.blocks.spread,
                context.features,
                jnp.sqrt(jnp.mean((mean - truth) ** 2)),
                jnp.sqrt(jnp.mean(variance)),
            )
            return (truth, state, step + interval), out

        carry = (truth, filter.completed(filter.init(key_start, ensemble)), jnp.zeros((), jnp.int32))
        return jax.lax.scan(cycle, carry, jax.random.split(key_cycles, practice.cycles))[1]

    lowest, highest = np.log(practice.widths or (1.0, 1.0))
    drawn = jax.random.uniform(jax.random.fold_in(key, 1), (practice.runs,), minval=lowest, maxval=highest)
    as_it_is = jnp.arange(practice.runs) % 2 == 0
    widths = jnp.exp(jnp.where(as_it_is, 0.0, drawn)).astype(filter.calibration.dtype)
    return jax.vmap(run)(jax.random.split(key, practice.runs), widths)


def own_network(
    key: PRNGKeyArray, measurement: Measurement, practice: Practice, state_shape: tuple[int, ...]
) -> tuple[Measurement, Array]:
    """The measurement with a run's own noise, and which of its values are there."""
    key_noise, key_density, key_mask = jax.random.split(key, 3)
    shape = measurement.output_shape(state_shape)
    lowest, highest = practice.noise
    if lowest != highest or lowest != 1:
        if not isinstance(measurement.noise, Gaussian):
            raise ValueError(
                f"practice.noise = {practice.noise} scales Gaussian noise only; the measurement's is "
                f"{type(measurement.noise).__name__}."
            )
        log = jax.random.uniform(key_noise, minval=np.log(lowest), maxval=np.log(highest))
        factor = jnp.exp(log).astype(measurement.noise.std.dtype)
        measurement = eqx.tree_at(lambda m: m.noise.std, measurement, measurement.noise.std * factor)
    share = jax.random.uniform(key_density, minval=practice.density[0], maxval=practice.density[1])
    mask = jax.random.uniform(key_mask, shape) < share
    return measurement, mask | (share >= 1.0)


def started(
    key: PRNGKeyArray, dynamics: Dynamics, n_members: int, spread: float | None
) -> tuple[Array, Array]:
    """A truth, and members that do not know it exactly."""
    key_truth, key_centre, key_members = jax.random.split(key, 3)
    truth = dynamics.sample_climatology(key_truth)
    if spread is None:
        return truth, spun_up_ensemble(dynamics, key_members, n_members)
    centre = truth + spread * jax.random.normal(key_centre, truth.shape, truth.dtype)
    noise = jax.random.normal(key_members, (n_members, *truth.shape), truth.dtype)
    return truth, centre[None] + spread * noise
