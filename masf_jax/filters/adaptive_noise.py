"""The size of the measurement noise, found while assimilating."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..dynamics.base import Dynamics
from ..dynamics.layout import MemberLayout, Placement
from ..measurements.measurement import Measurement
from ..measurements.noise import Scaled
from ..numbers import within
from .around import FilterAround
from .base import EnsembleState, Info, MemberFilter, State, whitened_innovations, with_one_noise_law

__all__ = ["AdaptiveNoise", "NoiseState"]


class NoiseState(NamedTuple):
    """Fading sums over the values of cycles: of d_a d_b in units of the given R, and of 1."""

    total: Array
    count: Array


class AdaptiveNoise(FilterAround):
    """An ensemble filter that finds the variance of the measurement noise: λ R, R the one it is given.

    Each cycle's analysis has λ from the cycles before; Desroziers' R = E[d_a d_bᵀ], d_b and d_a the
    innovation and what the analysis leaves of it, then gives

        λ = Σ γ^age d_a·d_b / Σ γ^age m,   γ = 1 - 1/memory,

    over whitened d (by R) and the m values that are there, beginning as if `start` cycles had said 1. The
    factor is in `info` as "noise_factor" (of `each`: the mean of the factors; see `factor`). The relative
    standard deviation of λ is about √(2/(m memory)), m = 1 of `each`.

    It finds R if the forecast's covariance is about right: what inflation lacks is taken for noise, the more
    the larger H P Hᵀ is against R. Errors that are correlated in space look like those of the forecast.

    Sources: Desroziers et al. (2005), doi 10.1256/qj.05.108; along the way: Li, Kalnay & Miyoshi (2009),
    doi 10.1002/qj.371.

    Args:
        filter: without weights of its members.
        memory: cycles, > 1.
        each: a factor for each value of z, not one for all.
        start: see above.
        lower, upper: bounds of λ.
        shape: of the factor; filled in by `prepare`.
    """

    filter: MemberFilter
    memory: Float[Array, ""] = eqx.field(converter=within("memory", "(1, inf]"), default=200.0)
    each: bool = eqx.field(static=True, default=False)
    start: Float[Array, ""] = eqx.field(converter=within("start", "(0, inf)"), default=2.0)
    lower: Float[Array, ""] = eqx.field(converter=within("lower", "(0, inf)"), default=1e-2)
    upper: Float[Array, ""] = eqx.field(converter=within("upper", "(0, inf)"), default=1e2)
    shape: tuple[int, ...] | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        if not isinstance(self.filter, MemberFilter) or not self.filter.has_members:
            raise TypeError(f"AdaptiveNoise needs an ensemble filter; got {type(self.filter).__name__}.")
        bounds = self.lower, self.upper
        if not any(isinstance(bound, Tracer) for bound in bounds) and float(self.lower) > float(self.upper):
            raise ValueError(f"lower must not exceed upper; got {self.lower:g} and {self.upper:g}.")

    @property
    def inner(self) -> MemberFilter:
        return self.filter

    @property
    def placement(self) -> Placement:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.filter.placement

    def prepare(self, dynamics: Dynamics, measurement: Measurement) -> AdaptiveNoise:
        if self.each and not measurement.noise.diagonal:
            raise ValueError("a factor for each value needs noise that is uncorrelated: use each=False.")
        shape = measurement.output_shape(dynamics.state_shape)
        return dataclasses.replace(self, filter=self.filter.prepare(dynamics, measurement), shape=shape)

    def spread(self, layout: MemberLayout) -> AdaptiveNoise:
        return eqx.tree_at(lambda f: f.filter, self, self.filter.spread(layout))

    def init(self, key: PRNGKeyArray, ensemble: Float[Array, "N *state"]) -> EnsembleState:
        state = self.filter.init(key, ensemble)
        assert isinstance(state, EnsembleState)
        if state.log_weights is not None:
            raise ValueError(
                f"AdaptiveNoise compares means of forecast and analysis, and {type(self.filter).__name__} "
                "weights its members: give it a filter without weights, or find the noise by Gradient()."
            )
        return self._beginning(state)

    def _beginning(self, state: EnsembleState) -> EnsembleState:
        """A state of the filter within, with a factor of 1."""
        assert self.shape is not None, "prepare comes before init"
        values = jnp.full(self.shape, self.start.astype(state.ensemble.dtype))
        count = values if self.each else values.sum()
        return EnsembleState(state.ensemble, None, (state.memory, NoiseState(count, count)))

    def completed(self, state: State) -> State:
        assert isinstance(state, EnsembleState)
        if isinstance(state.memory, tuple) and isinstance(state.memory[-1], NoiseState):
            within = self.filter.completed(self.within(state))
            assert isinstance(within, EnsembleState)
            return self.around(state, within)
        within = self.filter.completed(state)
        assert isinstance(within, EnsembleState)
        return self._beginning(within)

    def within(self, state: EnsembleState) -> EnsembleState:
        return EnsembleState(state.ensemble, None, state.memory[0])

    def around(self, state: EnsembleState, within: EnsembleState) -> EnsembleState:
        return EnsembleState(within.ensemble, None, (within.memory, state.memory[1]))

    def take_memory(self, memory: Any, index: Int[Array, " N"]) -> Any:
        inner, noise = memory
        return None if inner is None else self.filter.take_memory(inner, index), noise

    def factor(self, state: EnsembleState) -> Float[Array, ...]:
        """λ of a state: a number, or of z's shape."""
        noise = state.memory[1]
        found = noise.total / noise.count
        return jnp.clip(found, self.lower.astype(found.dtype), self.upper.astype(found.dtype))

    def believed(self, state: State, measurement: Measurement) -> Measurement:
        assert isinstance(state, EnsembleState)
        scale = jnp.sqrt(self.factor(state))
        return Measurement(measurement.operator, Scaled(measurement.noise, scale))

    def update(
        self,
        key: PRNGKeyArray,
        state: EnsembleState,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> tuple[EnsembleState, Info]:
        noise, believed = state.memory[1], self.believed(state, measurement)
        after, info = self.filter.update(key, self.within(state), z, mask, believed)
        assert isinstance(after, EnsembleState)
        one = with_one_noise_law(state, measurement)
        d_b, d_a = (
            whitened_innovations(x, z, mask, one).mean(0).reshape(z.shape)
            for x in (state.ensemble, after.ensemble)
        )
        found, valid = jax.lax.stop_gradient(d_a * d_b), mask.astype(z.dtype)
        if not self.each:
            found, valid = found.sum(), valid.sum()
        kept = (1 - 1 / self.memory).astype(z.dtype)
        noise = NoiseState(
            jnp.where(valid > 0, kept, 1) * noise.total + found,
            jnp.where(valid > 0, kept, 1) * noise.count + valid,
        )
        both = EnsembleState(after.ensemble, None, (after.memory, noise))
        return both, info | {"noise_factor": self.factor(both).mean()}
