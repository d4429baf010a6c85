"""The contract of a filter, and what all ensemble filters share."""

from __future__ import annotations

import abc
import inspect
import math
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..dynamics.base import Dynamics
from ..dynamics.layout import ALL_AT_ONCE, MemberLayout, Placement, current
from ..dynamics.rollout import advance
from ..ensemble.double import any_of_batch, exactly_where, in_double
from ..ensemble.inflation import Inflation
from ..ensemble.statistics import anomalies, member_mean, member_sum, member_variance, weighted_moments
from ..measurements.measurement import Measurement
from . import rounding

__all__ = [
    "EnsembleFilter",
    "EnsembleState",
    "Filter",
    "GaussianState",
    "InflatedFilter",
    "Info",
    "MemberFilter",
    "departures",
    "innovation_info",
    "where_measured",
    "whitened_innovations",
]

T = TypeVar("T")
Info: TypeAlias = dict[str, Array]
"""Scalars a filter reports about one analysis (inflation used, effective sample size, …).

innovation: the largest |mean d_j| / √(1 + variance d_j) over the whitened innovations d of the forecast
    members, the standard deviations by which z is off what the forecast expects. `FaultPolicy` looks at it.
innovation_ratio: the root mean square of the same over the values used: 1 where spread and noise together
    are of the size of the innovations; above 1 they are too small.
rounding: estimated round-off of the analysis in posterior standard deviations, of its algebra and of numbers
    that are large against their spread. Above .1 the run's precision does not do: use precision=float64.
"""


class EnsembleState(eqx.Module):
    """An ensemble, its log-weights (None: equal) and the filter's memory between cycles."""

    ensemble: Float[Array, "N *state"]
    log_weights: Float[Array, " N"] | None = None
    memory: Any = None

    @property
    def mean(self) -> Float[Array, "*state"]:
        return self.moments()[0]

    @property
    def variance(self) -> Float[Array, "*state"]:
        return self.moments()[1]

    def moments(self) -> tuple[Float[Array, "*state"], Float[Array, "*state"]]:
        """Mean and unbiased variance of each state component."""
        if self.log_weights is None:
            return member_mean(self.ensemble), member_variance(self.ensemble)
        return weighted_moments(self.ensemble, jnp.exp(self.log_weights))


class GaussianState(eqx.Module):
    """A mean and a covariance over the raveled state."""

    mean: Float[Array, "*state"]
    covariance: Float[Array, "n n"]
    memory: Any = None

    @property
    def variance(self) -> Float[Array, "*state"]:
        return jnp.diagonal(self.covariance).reshape(self.mean.shape)

    def moments(self) -> tuple[Float[Array, "*state"], Float[Array, "*state"]]:
        """Mean and variance of each state component."""
        return self.mean, self.variance


State: TypeAlias = EnsembleState | GaussianState


class Filter(eqx.Module):
    """A sequential filter: `init`, then alternately `forecast` and `analysis`; all pure and jittable."""

    uses_noise_of_each_state: ClassVar[bool] = False
    """Whether `update` uses p(z | x) of each state by itself. If not, noise that depends on H(x) is given to
    it as the one law at the forecast's mean H(x)."""
    placement: ClassVar[Placement] = "replicated"
    """How `update` wants the ensemble on several devices. "replicated" suits anything, and each device then
    makes the whole analysis; the others leave it to XLA which collectives the analysis needs."""

    def prepare(self, dynamics: Dynamics, measurement: Measurement) -> Filter:
        """This filter with what it derives from model and network (neighbour lists, climatology).

        Runs once, outside jit; `assimilate` calls it. Raises ValueError where they do not fit.
        """
        return self

    def spread(self, layout: MemberLayout) -> Filter:
        """This prepared filter, what it holds of the model's points lying where they are analysed.

        Runs once, outside jit; `assimilate` calls it.
        """
        return self

    @property
    def localization_radius(self) -> Float[Array, ""] | None:
        """Length of the taper, in the coordinates' unit; None: not localised."""
        return getattr(self, "radius", None)

    @abc.abstractmethod
    def init(self, key: PRNGKeyArray, ensemble: Float[Array, "N *state"]) -> State:
        """The filter's state from an initial ensemble."""

    def init_alone(self, dynamics: Dynamics) -> State:
        """The state at step 0 of a filter that has its own, as a `KalmanFilter(mean, covariance)` does.

        Raises:
            ValueError: it has none.
        """
        raise ValueError(
            "give either the first ensemble, or start: where another run ended. Only a "
            f"KalmanFilter(mean=…, covariance=…) needs neither; the filter is {type(self).__name__}."
        )

    @abc.abstractmethod
    def forecast(
        self,
        key: PRNGKeyArray,
        state: State,
        dynamics: Dynamics,
        step: Int[Array, ""],
        n_steps: int | Int[Array, ""],
        layout: MemberLayout = ALL_AT_ONCE,
    ) -> State:
        """The state `n_steps` model steps after step number `step`.

        `layout`: how members are batched and spread; filters without members ignore it.
        """

    @abc.abstractmethod
    def update(
        self,
        key: PRNGKeyArray,
        state: State,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> tuple[State, Info]:
        """The state after using z, given that at least one value is valid."""

    def as_used(
        self, state: State, z: Float[Array, "*z"], mask: Bool[Array, "*z"], measurement: Measurement
    ) -> State:
        """The forecast as the analysis uses it: inflated, by filters that inflate it."""
        return state

    def believed(self, state: State, measurement: Measurement) -> Measurement:
        """The measurement with the noise that the analysis gives it: its own, but of filters that find it."""
        return measurement

    def completed(self, state: State) -> State:
        """The state with what `update` leaves in its memory, where a user's own state has none."""
        return state

    def take(self, state: EnsembleState, index: Int[Array, " N"]) -> EnsembleState:
        """The state with member index[i] in the place of member i; weights stay where they are."""
        memory = None if state.memory is None else self.take_memory(state.memory, index)
        return EnsembleState(state.ensemble[index], state.log_weights, memory)

    def take_memory(self, memory: Any, index: Int[Array, " N"]) -> Any:
        """`take` for the state's memory: for filters that remember something of each member."""
        return memory

    def analysis(
        self,
        key: PRNGKeyArray,
        state: State,
        z: Float[Array, "*z"],
        measurement: Measurement,
        mask: Bool[Array, "*z"] | None = None,
    ) -> tuple[State, Info]:
        """The state after using the values of z that are finite and True in `mask`.

        Without any such value the analysis is the forecast, bit for bit.
        """
        state = self.completed(state)
        if not self.uses_noise_of_each_state:
            measurement = with_one_noise_law(state, measurement)
        valid = jnp.isfinite(z) if mask is None else mask & jnp.isfinite(z)
        z = jnp.where(valid, z, 0.0)

        def use(state: State) -> tuple[State, Info]:
            return self.update(key, state, z, valid, measurement)

        return where_measured(valid, use, state)


def where_measured(mask: Bool[Array, "*z"], use: Callable[[T], tuple[T, Info]], state: T) -> tuple[T, Info]:
    """use(state) if any value is valid; else `state` as it is, and NaN for what would be reported.

    Under `vmap` one branch runs for all: a `cond` with a flag of each run would give each run a copy of all
    that `use` closes over, the parameters of networks too.
    """
    traced = eqx.filter_closure_convert(use, state)  # once: what `use` reports is known only then
    shapes, measured = traced.out_struct[1], mask.any()

    def leave(state: T) -> tuple[T, Info]:
        return state, jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), shapes)

    def run(state: T) -> tuple[T, Info]:
        return jax.tree.map(lambda new, old: jnp.where(measured, new, old), traced(state), leave(state))

    return jax.lax.cond(any_of_batch(measured), run, leave, state)


def mean_measurement(state: State, measurement: Measurement) -> Float[Array, "*z"]:
    """The mean of H(x) over the members by their weights; H(mean) of a Gaussian state."""
    if isinstance(state, GaussianState):
        return measurement.operator(state.mean)
    values = current().each(measurement.operator, state.ensemble)
    return EnsembleState(values, state.log_weights).mean


def with_one_noise_law(state: State, measurement: Measurement) -> Measurement:
    """`measurement`, its noise where it depends on H(x) fixed at the law of the forecast's mean H(x)."""
    if not measurement.noise.depends_on_value:
        return measurement
    return measurement.with_noise_at(mean_measurement(state, measurement))


class MemberFilter(Filter):
    """Filters whose state is an ensemble: the model carries every member on by itself."""

    @property
    def has_members(self) -> bool:
        """False of a filter around one whose state is no ensemble."""
        return True

    def forecast(
        self,
        key: PRNGKeyArray,
        state: EnsembleState,
        dynamics: Dynamics,
        step: Int[Array, ""],
        n_steps: int | Int[Array, ""],
        layout: MemberLayout = ALL_AT_ONCE,
    ) -> EnsembleState:
        members = advance(dynamics, state.ensemble, step, key, n_steps, layout)
        return EnsembleState(members, state.log_weights, state.memory)


class InflatedFilter(MemberFilter):
    """The analysis of every ensemble filter with inflation: inflate → analyse → relax.

    A subclass gives `analyse`, and `remember` if it carries something from cycle to cycle. The state's memory
    is (that of the inflation, the filter's own).
    """

    inflation: eqx.AbstractVar[Inflation]
    divides_by_variance: ClassVar[bool] = True
    """Whether `analyse` needs 1/std² of the noise to be a number of the working precision."""

    def __check_init__(self) -> None:
        if not isinstance(self.inflation, Inflation):
            given, name = self.inflation, type(self).__name__
            meant = f"Inflation({given})" if isinstance(given, int | float) else "Inflation(1.05)"
            raise TypeError(
                f"inflation of {name} must be masf_jax.ensemble.{meant}; got {type(given).__name__}."
            )

    @abc.abstractmethod
    def analyse(
        self,
        key: Any,
        members: Float[Array, "N *x"],
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
        memory: Any,
    ) -> tuple[Float[Array, "N *x"], Any, Info]:
        """Analysis members from (inflated) forecast members, the memory for the next cycle, what to report.

        `key`: the first of `keys`.
        """

    def remember(self, key: PRNGKeyArray, ensemble: Float[Array, "N *state"]) -> Any:
        """The filter's own memory before the first cycle."""
        return None

    def keys(self, key: PRNGKeyArray) -> tuple[Any, PRNGKeyArray]:
        """The randomness of `analyse`, and of the inflation."""
        key_analyse, key_inflate = jax.random.split(key)
        return key_analyse, key_inflate

    def init(self, key: PRNGKeyArray, ensemble: Float[Array, "N *state"]) -> EnsembleState:
        memory = self.inflation.init(ensemble.dtype), self.remember(key, ensemble)
        return EnsembleState(ensemble, None, memory)

    def as_used(
        self, state: State, z: Float[Array, "*z"], mask: Bool[Array, "*z"], measurement: Measurement
    ) -> State:
        if not self.inflation.changes_forecast or not isinstance(state, EnsembleState):
            return state
        d = whitened_innovations(state.ensemble, z, mask, measurement)
        n_valid = mask.sum().astype(d.dtype)
        inflated, _ = self.inflation.before(state.ensemble, state.memory[0], d, n_valid)
        return EnsembleState(inflated, state.log_weights, state.memory)

    def update(
        self,
        key: PRNGKeyArray,
        state: EnsembleState,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> tuple[EnsembleState, Info]:
        key_analyse, key_inflate = self.keys(key)
        inflation_memory, memory = state.memory
        forecast = state.ensemble
        d = whitened_innovations(forecast, z, mask, measurement)
        n_valid = mask.sum().astype(d.dtype)
        inflated, inflation_memory = self.inflation.before(forecast, inflation_memory, d, n_valid)
        drawn, memory, info = self.analyse(key_analyse, inflated, z, mask, measurement, memory)
        analysis = self.inflation.after(key_inflate, forecast, drawn)
        info = innovation_info(d, n_valid) | info
        if inflation_memory is not None:
            info = info | {"inflation": jnp.sqrt(inflation_memory.factor)}
        lost = rounding.of_storage(forecast, analysis, info.get("rounding", 0.0))
        if self.divides_by_variance:
            lost = jnp.where(
                rounding.is_too_sure(z, mask, with_one_noise_law(state, measurement)), jnp.inf, lost
            )
        info = info | {"rounding": lost}
        return EnsembleState(analysis, state.log_weights, (inflation_memory, memory)), info


def whitened_innovations(
    ensemble: Float[Array, "N *x"], z: Float[Array, "*z"], mask: Bool[Array, "*z"], measurement: Measurement
) -> Float[Array, "N m"]:
    """R^{-1/2}(z - H(x_i)) of each member, zero where a value is missing; by values on several devices.

    Circular values around the members' circular mean, so that anomalies are those of H(x_i).
    """
    layout, shape, middle = current(), ensemble.shape[1:], None
    if measurement.operator.periods(shape) is not None:
        middle = measurement.middle(layout.each(measurement.operator, ensemble), shape)
    return layout.spread(layout.each(lambda x: measurement.whitened_innovation(z, x, mask, middle), ensemble))


def innovation_info(innovations: Float[Array, "N m"], n_valid: Float[Array, ""]) -> Info:
    """`departures` of the members' mean: |mean d_j| / √(1 + variance d_j), of whitened innovations."""
    mean, deviations = anomalies(innovations)
    return departures(mean, member_sum(deviations**2) / (len(innovations) - 1), n_valid)


def departures(
    innovation: Float[Array, " m"], variance: Float[Array, " m"], n_valid: Float[Array, ""]
) -> Info:
    """Largest and root mean square of |d_j| / √(1 + variance_j), as a filter reports them.

    Args:
        innovation: whitened, 0 where a value is missing.
        n_valid: values that are not missing.

    Returns:
        `innovation` and `innovation_ratio`, see `Info`; inf where they cannot be had.
    """
    scaled = jnp.abs(innovation) / jnp.sqrt(1.0 + variance)
    found = {"innovation": jnp.max(scaled, initial=0.0)}
    found["innovation_ratio"] = jnp.sqrt((scaled**2).sum() / jnp.maximum(n_valid, 1))
    return {name: jnp.where(jnp.isnan(value), jnp.inf, value) for name, value in found.items()}


class EnsembleFilter(InflatedFilter):
    """Filters whose analysis sees members and whitened innovations only.

    A subclass gives `transform`, and `exact_transform` where `transform` loses digits. Row i of the
    innovations is R^{-1/2}(z - H(x_i)), zero where a value is missing; their mean is the whitened innovation
    d and minus their anomalies are the whitened measurement anomalies, so any operator, any noise covariance
    and any gap look alike.
    """

    divides_by_variance: ClassVar[bool] = False
    forms_gram: ClassVar[bool] = True
    """Whether `transform` forms S Sᵀ, whose round-off is that of |S|²."""

    @property
    def limit(self) -> float:
        """The largest |S|² that `transform` is made for."""
        return math.inf

    @abc.abstractmethod
    def transform(
        self,
        key: PRNGKeyArray,
        x: Float[Array, "N n"],
        innovations: Float[Array, "N m"],
        mask: Bool[Array, " m"],
    ) -> tuple[Float[Array, "N n"], Info]:
        """Analysis members from forecast members (raveled) and whitened innovations."""

    def draws(self, key: PRNGKeyArray, n_members: int, mask: Bool[Array, " m"], dtype: Any) -> Any:
        """The random numbers of an analysis, for `exact_transform`."""
        return None

    def exact_transform(
        self, draws: Any, x: Float[Array, "N n"], innovations: Float[Array, "N m"], mask: Bool[Array, " m"]
    ) -> tuple[Float[Array, "N n"], Info] | None:
        """`transform` for double precision by a route without Gram matrices; None: there is none."""
        return None

    @property
    def total(self) -> Callable[[Float[Array, "m 2"]], Float[Array, " 2"]] | None:
        """The largest local sums over the measured values (of two columns) of a localised filter."""
        return None

    def analyse(
        self,
        key: PRNGKeyArray,
        members: Float[Array, "N *x"],
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
        memory: Any,
    ) -> tuple[Float[Array, "N *x"], Any, Info]:
        layout, flat = current(), (len(members), members[0].size)
        x, info = self.updated(key, layout.reshape(members, flat), members, z, mask, measurement)
        return layout.reshape(x, members.shape), memory, info

    def updated(
        self,
        key: PRNGKeyArray,
        x: Float[Array, "N n"],
        members: Float[Array, "N *x"],
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> tuple[Float[Array, "N n"], Info]:
        """Rows of x moved by what is measured of `members`; exactly where `transform` is too coarse."""
        innovations = whitened_innovations(members, z, mask, measurement)
        valid, (d, s) = mask.reshape(-1), anomalies(innovations)
        scaled = s / jnp.sqrt(jnp.asarray(len(s) - 1, s.dtype))
        coarse, fine = rounding.of_algebra(
            d, scaled, z, mask, measurement, self.total, self.forms_gram, self.limit
        )

        def fast(coarse: Array) -> tuple[Array, Info]:
            moved, info = self._transformed(key, x, innovations, valid)
            return moved, info | {"rounding": coarse}

        def double(
            filter: EnsembleFilter, draws: Any, x: Array, members: Array, z: Array, measurement: Measurement
        ) -> Any:
            return filter.exact_transform(
                draws, x, whitened_innovations(members, z, mask, measurement), valid
            )

        def exact(_: Array) -> tuple[Array, Info]:
            drawn = self.draws(key, len(x), valid, x.dtype)
            moved, info = in_double(double, self, drawn, x, members, z, measurement, result=x.dtype)
            return moved, info | {"rounding": fine}

        if type(self).exact_transform is EnsembleFilter.exact_transform:
            return fast(coarse)
        return exactly_where(coarse, exact, fast)

    def _transformed(
        self, key: PRNGKeyArray, x: Array, innovations: Array, mask: Array
    ) -> tuple[Array, Info]:
        """What `transform` returns, refused unless it is of its form: it may be a user's."""
        form = f"{type(self).__name__}.transform(self, key, x, innovations, mask)"
        try:
            inspect.signature(self.transform).bind(key, x, innovations, mask)
        except TypeError as error:
            raise ValueError(f"a filter has {form}, and this one does not take these: {error}.") from None
        made = self.transform(key, x, innovations, mask)
        if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], dict)):
            got = f"a tuple of {len(made)}" if isinstance(made, tuple) else f"a {type(made).__name__}"
            raise ValueError(
                f"{form} must return members and what it reports, such as (x + increment, {{}}); got {got}."
            )
        if jnp.shape(made[0]) != x.shape:
            raise ValueError(
                f"{form} must return members of shape {x.shape} (N, n); got {jnp.shape(made[0])}."
            )
        return made
