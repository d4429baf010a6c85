"""States with parameters: a model, a sensor and a filter for both together."""

from __future__ import annotations

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import block_diag
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Scalar

from ..coordinates import Coordinates
from ..dynamics.base import Dynamics
from ..ensemble.inflation import AdaptiveState, Inflation, rtps
from ..ensemble.statistics import anomalies
from ..filters.around import FilterAround
from ..filters.base import EnsembleState, Info, MemberFilter
from ..filters.gate import Gate
from ..filters.kalman.exact import KalmanFilter
from ..filters.particle import ParticleFilter
from ..measurements.base import Coupling, Operator, Structure
from ..measurements.measurement import Measurement
from .acts import acts_on_mean
from .unknown import Problem, Unknowns

__all__ = ["AugmentedFilter", "Layout", "augmented"]


class Layout(eqx.Module):
    """How a state x and parameters u lie in one vector: x raveled, then each u, `copies` times.

    A localised filter gets a copy for each grid point, which it analyses with the values nearby; what it
    makes of them is averaged (`pooled`), as no place is the parameter's own.
    """

    state_shape: tuple[int, ...] = eqx.field(static=True)
    n_parameters: int = eqx.field(static=True)
    copies: int = eqx.field(static=True)

    @property
    def n(self) -> int:
        """Components of x."""
        return math.prod(self.state_shape)

    @property
    def size(self) -> int:
        return self.n + self.n_parameters * self.copies

    def joined(self, x: Float[Array, "*state"], u: Float[Array, " p"]) -> Float[Array, " q"]:
        return jnp.concatenate([x.reshape(-1), jnp.repeat(u.astype(x.dtype), self.copies)])

    def state(self, both: Float[Array, " q"]) -> Float[Array, "*state"]:
        """x."""
        return both[: self.n].reshape(self.state_shape)

    def parameters(self, both: Float[Array, " q"]) -> Float[Array, " p"]:
        """u, the mean of its copies."""
        return both[self.n :].reshape(self.n_parameters, self.copies).mean(1)


class AugmentedDynamics(Dynamics):
    """(x, u) ↦ (M_u(x), u + walk √dt ξ), ξ ~ N(0, I)."""

    problem: Problem
    unknowns: Unknowns
    walk: Float[Array, ""]
    layout: Layout

    def __init__(self, problem: Problem, unknowns: Unknowns, walk: Float[Array, ""], layout: Layout):
        self.problem, self.unknowns, self.walk, self.layout = problem, unknowns, walk, layout

    @property
    def dt(self) -> Float[Array, ""]:
        return self.problem.dynamics.dt

    @property
    def state_shape(self) -> tuple[int, ...]:
        return (self.layout.size,)

    @property
    def coordinates(self) -> Coordinates | None:
        return self.problem.dynamics.coordinates if self.layout.copies > 1 else None

    def _model(self, both: Array) -> Dynamics:
        return self.unknowns.put(self.problem, self.layout.parameters(both)).dynamics

    def __call__(
        self, x: Float[Array, " q"], time: Scalar | float, key: PRNGKeyArray | None
    ) -> Float[Array, " q"]:
        u = self.layout.parameters(x)
        if key is None:
            return self.layout.joined(self._model(x)(self.layout.state(x), time, None), u)
        key_model, key_walk = jax.random.split(key)
        moved = self._model(x)(self.layout.state(x), time, key_model)
        scale = (self.walk * jnp.sqrt(self.dt)).astype(x.dtype)
        return self.layout.joined(moved, u + scale * jax.random.normal(key_walk, u.shape, x.dtype))

    def mean_step(self, x: Float[Array, " q"], time: Scalar | float) -> Float[Array, " q"]:
        moved = self._model(x).mean_step(self.layout.state(x), time)
        return self.layout.joined(moved, self.layout.parameters(x))

    @property
    def step_noise_variance(self) -> Array:
        own = self.problem.dynamics.step_noise_variance
        shape = self.layout.state_shape
        variance = jnp.zeros(shape) if own is None else jnp.broadcast_to(own, shape)
        return self.layout.joined(variance, jnp.full(self.layout.n_parameters, self.walk**2 * self.dt))


class AugmentedOperator(Operator):
    """(x, u) ↦ H_u(x)."""

    problem: Problem
    unknowns: Unknowns
    layout: Layout
    known: bool = eqx.field(static=True)
    """Whether H does not depend on u."""

    @property
    def inner(self) -> Operator:
        return self.problem.measurement.operator

    @property
    def structure(self) -> Structure:  # pyright: ignore[reportIncompatibleVariableOverride]
        if not self.known or self.inner.structure is None:
            return None
        return "mask" if self.inner.structure in ("identity", "mask") else "dense"

    def __call__(self, x: Float[Array, " q"]) -> Float[Array, "*z"]:
        if self.known:
            return self.inner(self.layout.state(x))
        problem = self.unknowns.put(self.problem, self.layout.parameters(x))
        return problem.measurement.operator(self.layout.state(x))

    def coordinates(self, state: Coordinates) -> Coordinates | None:
        return self.inner.coordinates(state)

    def sources(self, state_shape: tuple[int, ...]) -> Int[np.ndarray, " m"] | None:
        return self.inner.sources(self.layout.state_shape) if self.known else None

    def coupling(self, state_shape: tuple[int, ...]) -> Coupling:
        return "component" if self.sources(state_shape) is not None else None

    def periods(
        self, state_shape: tuple[int, ...], state: Float[np.ndarray | Array, " n"] | None = None
    ) -> Float[np.ndarray | Array, " m"] | None:
        return self.inner.periods(self.layout.state_shape, None if state is None else state[: self.layout.n])


class StateInflation(Inflation):
    """The inflations of a filter, for the state alone: parameters have their own (`walk`, `floor`)."""

    inflation: Inflation  # pyright: ignore[reportGeneralTypeIssues]
    n: int = eqx.field(static=True)  # pyright: ignore[reportGeneralTypeIssues]

    def __init__(self, inflation: Inflation, n: int):
        super().__init__()
        self.inflation, self.n = inflation, n

    @property
    def changes_forecast(self) -> bool:
        return self.inflation.changes_forecast

    def init(self, dtype: jnp.dtype) -> AdaptiveState | None:
        return self.inflation.init(dtype)

    def before(
        self,
        x: Float[Array, "N *x"],
        memory: AdaptiveState | None,
        innovations: Float[Array, "N m"],
        n_valid: Array,
    ) -> tuple[Float[Array, "N *x"], AdaptiveState | None]:
        inflated, memory = self.inflation.before(x[:, : self.n], memory, innovations, n_valid)
        return jnp.concatenate([inflated, x[:, self.n :]], axis=1), memory

    def after(
        self, key: PRNGKeyArray, forecast: Float[Array, "N *x"], analysis: Float[Array, "N *x"]
    ) -> Float[Array, "N *x"]:
        relaxed = self.inflation.after(key, forecast[:, : self.n], analysis[:, : self.n])
        return jnp.concatenate([relaxed, analysis[:, self.n :]], axis=1)


class AugmentedFilter(FilterAround):
    """An ensemble filter of (x, u) that pools the copies of u, and keeps its spread above `floor`."""

    filter: MemberFilter
    layout: Layout
    floor: Float[Array, ""]
    relaxation: Float[Array, ""]

    @property
    def inner(self) -> MemberFilter:
        return self.filter

    def prepare(self, dynamics: Dynamics, measurement: Measurement) -> AugmentedFilter:
        return eqx.tree_at(lambda f: f.filter, self, self.filter.prepare(dynamics, measurement))

    def init(self, key: PRNGKeyArray, ensemble: Float[Array, "N q"]) -> EnsembleState:
        state = self.filter.init(key, ensemble)
        assert isinstance(state, EnsembleState)
        return state

    def update(
        self,
        key: PRNGKeyArray,
        state: EnsembleState,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> tuple[EnsembleState, Info]:
        after, info = self.filter.update(key, state, z, mask, measurement)
        assert isinstance(after, EnsembleState)
        x, layout = after.ensemble, self.layout
        u = jax.vmap(layout.parameters)(x)
        if after.log_weights is None:
            u = rtps(jax.vmap(layout.parameters)(state.ensemble), u, self.relaxation)
            mean, deviations = anomalies(u)
            std, floor = jnp.sqrt((deviations**2).sum(0) / (len(x) - 1)), self.floor.astype(x.dtype)
            low = (std > 0) & (std < floor)
            u = mean[None] + deviations * jnp.where(low, floor / jnp.where(low, std, 1.0), 1.0)[None]
        both = jax.vmap(layout.joined)(x[:, : layout.n], u)
        return EnsembleState(both, after.log_weights, after.memory), info


def augmented(
    problem: Problem,
    unknowns: Unknowns,
    walk: Float[Array, ""],
    floor: Float[Array, ""],
    relaxation: Float[Array, ""],
) -> tuple[Problem, Layout]:
    """The problem of state and parameters together.

    Raises:
        ValueError: an unknown that moves no state and no measurement: noise, or a number of the filter; or a
            localised filter and a model without coordinates.
    """
    _check_seen(problem, unknowns)
    inner, dynamics = problem.filter, problem.dynamics
    copies = 1
    if inner.localization_radius is not None:
        if dynamics.coordinates is None:
            raise ValueError(f"a localised filter needs coordinates, and {type(dynamics).__name__} has none.")
        copies = dynamics.coordinates.n_points
    layout = Layout(dynamics.state_shape, unknowns.size, copies)
    other = unknowns.put(problem, jnp.ones(unknowns.size))
    operator = AugmentedOperator(
        problem, unknowns, layout, _same(other.measurement.operator, problem.measurement.operator)
    )
    inner = jax.tree.map(
        lambda part: StateInflation(part, layout.n) if isinstance(part, Inflation) else part,
        inner,
        is_leaf=lambda part: isinstance(part, Inflation),
    )
    if isinstance(inner, KalmanFilter):
        inner = _with_parameters(inner, layout)
    elif isinstance(inner, MemberFilter) and inner.has_members:
        inner = _pooling(inner, layout, floor, relaxation)
    model = AugmentedDynamics(problem, unknowns, walk, layout)
    return Problem(model, Measurement(operator, problem.measurement.noise), inner), layout


def _pooling(
    filter: MemberFilter, layout: Layout, floor: Float[Array, ""], relaxation: Float[Array, ""]
) -> MemberFilter:
    """The filter as an `AugmentedFilter`; of a `Gate` both of its filters, each of which has its members."""

    def is_gate(part: object) -> bool:
        return isinstance(part, Gate)

    def each(part: Gate) -> Gate:
        parts = (_pooling(one, layout, floor, relaxation) for one in (part.filter, part.trusted))
        return dataclasses.replace(part, **dict(zip(("filter", "base"), parts, strict=True)))

    if any(map(is_gate, jax.tree.leaves(filter, is_leaf=is_gate))):
        return jax.tree.map(lambda part: each(part) if is_gate(part) else part, filter, is_leaf=is_gate)
    return AugmentedFilter(filter, layout, floor, relaxation)


def _with_parameters(filter: KalmanFilter, layout: Layout) -> KalmanFilter:
    """With the first Gaussian of (x, u), where the filter has its own of x: u ~ N(0, I)."""
    mean, covariance = filter.mean, filter.covariance
    if mean is not None:
        mean = layout.joined(jnp.broadcast_to(mean, layout.state_shape), jnp.zeros(layout.n_parameters))
    if covariance is not None:
        if covariance.shape != (layout.n, layout.n):
            raise ValueError(
                f"the first covariance must be {layout.n} × {layout.n} for states of shape "
                f"{layout.state_shape}; got {covariance.shape}."
            )
        covariance = block_diag(covariance, jnp.eye(layout.n_parameters, dtype=covariance.dtype))
    return dataclasses.replace(filter, mean=mean, covariance=covariance)


def _check_seen(problem: Problem, unknowns: Unknowns) -> None:
    """Raises ValueError for an unknown that has no part in what members forecast.

    Particles are weighted by their likelihood, so that they find the size of model error too.
    """
    for name, shape, put, prior in zip(
        unknowns.names, unknowns.shapes, unknowns.puts, unknowns.priors, strict=True
    ):
        other = put(problem, prior.value(jnp.ones(shape)))
        moved = _same(other.measurement.noise, problem.measurement.noise) and _same(
            other.filter, problem.filter
        )
        if not moved or not (
            isinstance(problem.filter, ParticleFilter) or acts_on_mean(put, prior, shape, problem)
        ):
            raise ValueError(
                f"{name} moves no state and no measured value, so it cannot be part of the state: a number "
                "of random noise or of the filter has no covariance with what is measured. Estimate it by "
                "engine=Gradient() or, of a noise level, EM() (docs/estimation.md)."
            )


def _same(one: object, other: object) -> bool:
    return bool(eqx.tree_equal(one, other))
