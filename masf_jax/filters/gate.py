"""One filter beside another: the run has the one whose forecasts have lately been nearer to the measured."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..dynamics.base import Dynamics
from ..dynamics.layout import ALL_AT_ONCE, MemberLayout, Placement
from ..ensemble.inflation import AdaptiveInflation, AdaptiveState
from ..ensemble.localization import Localization, as_radius_or_none, localize
from ..ensemble.statistics import anomalies, recentre
from ..measurements.measurement import Measurement
from ..numbers import within
from .around import FilterAround
from .base import EnsembleState, Filter, Info, MemberFilter, State, whitened_innovations, with_one_noise_law
from .faults import mended, sound, sound_members
from .kalman.geometry import measured_coordinates

__all__ = ["Gate", "GateState"]

T = TypeVar("T")


class GateState(NamedTuple):
    """What the gate carries: both filters' states, and what speaks for the one that is tried.

    Attributes:
        tried, trusted: the filters' states.
        log_odds: log of the odds that `tried` has the better forecasts; the gate is open above 0.
        settled: cycles in a row that one of them has been far ahead.
        misfit: of `tried`, `trusted`, fading means of d² / (1 + s²), 1 where the spread is honest.
        spread: of both, what their forecasts' variances are to be multiplied by.
        regional: log of the odds at each grid point, where the gate has a radius.
    """

    tried: EnsembleState
    trusted: EnsembleState
    log_odds: Float[Array, ""]
    settled: Int[Array, ""]
    misfit: tuple[Float[Array, ""], Float[Array, ""]]
    spread: tuple[AdaptiveState, AdaptiveState] | None
    regional: Float[Array, " points"] | None = None


class Gate(MemberFilter):
    """Two ensemble filters run side by side, each on its own; what the run has is the one ahead.

    `filter` is tried, such as a network on a model that it was not trained on; `base` is trusted, and runs
    as it would alone, bit for bit. Which of them is ahead is a hidden state that changes with probability
    α = 1/memory a cycle, and is filtered by what was measured (no truth): with the whitened innovations of
    both forecasts, d of their means and s² the variances of their members,

        L ← L + clip(½ Σ_j (d²_base,j - d²_filter,j) / (1 + max(s²_base,j, s²_filter,j)), ±limit),

    then e^L ← ((1-α) e^L + α) / ((1-α) + α e^L), from e^L = prior/(1 - prior). Both have the same variance
    there, so that it is the means that count; the larger one, so that an ensemble too sure of itself is not
    believed; `limit`, so that a single cycle cannot decide. With L > 0 the forecast and analysis are
    `filter`'s, else `base`'s.

    A filter that lost track gets it back: it starts again from the members of the one ahead where its own
    are not finite, or where the other has been far ahead, |L| > ½ log(memory), for `patience` cycles in a
    row, and the mean of d²/(1 + s²) over about as many is above 2 and above twice the other's.

    With `calibrated`, the run has that filter's mean and its members at an honest distance: deviations times
    √λ, λ the factor that `AdaptiveInflation` finds for its forecasts' variances (1 ± 1/2 where innovations
    say nothing). Neither filter sees it: each goes on from its own members.

    With a `radius` each grid point has its own L, of the same recursion with the sum over the values near it,
    tapered by distance (`localize`), and the run has at that point the filter that is ahead there: where a
    large state is measured densely in one region and hardly in another, each has its own. Nothing else
    changes: the filters never see it, and what starts one again goes by the L of all values.

    The cost is that of both: two ensembles are forecast and analysed. Reported beside what the one ahead
    reports: "gate", the probability that `filter` is (with a radius: its mean over the points).

    Sources: the hidden state is the fixed share of Herbster & Warmuth (1998), doi 10.1023/A:1007424614876.

    Args:
        filter: an ensemble filter without weights of its members.
        base: the same; None: the filter within `filter` (of `AmortisedMASF` its base).
        memory: cycles, > 2.
        prior: probability that `filter` is ahead, before anything is measured.
        limit: on the evidence of one cycle, > 0.
        patience: cycles, ≥ 1; see above.
        calibrated: see above; without, the members are those of the filter ahead, bit for bit.
        radius: see above, Gaspari-Cohn length in the coordinates' unit; None: one L.
        near: the values near each grid point; filled in by `prepare`.
    """

    filter: MemberFilter
    base: MemberFilter | None = None
    memory: Float[Array, ""] = eqx.field(converter=within("gate memory", "(2, inf)"), default=200.0)
    prior: Float[Array, ""] = eqx.field(converter=within("gate prior", "(0, 1)"), default=0.1)
    limit: Float[Array, ""] = eqx.field(converter=within("gate limit", "(0, inf]"), default=2.0)
    patience: int = eqx.field(static=True, default=50)
    calibrated: bool = eqx.field(static=True, default=True)
    radius: Float[Array, ""] | None = eqx.field(converter=as_radius_or_none, default=None)
    near: Localization | None = None

    def __check_init__(self) -> None:
        for name, each in (("filter", self.filter), ("base", self.trusted)):
            if not isinstance(each, MemberFilter) or not each.has_members:
                raise TypeError(
                    f"the {name} of a Gate must be an ensemble filter: {type(each).__name__} is none."
                )
        if self.patience < 1:
            raise ValueError(f"gate patience must be at least 1 cycle; got {self.patience}.")

    @property
    def trusted(self) -> MemberFilter:
        """The filter that is never left for a worse one."""
        if self.base is not None:
            return self.base
        if isinstance(self.filter, FilterAround):
            return self.filter.inner
        raise ValueError(f"a Gate for {type(self.filter).__name__} needs a base: it has none within.")

    @property
    def placement(self) -> Placement:  # pyright: ignore[reportIncompatibleVariableOverride]
        one, other = self.filter.placement, self.trusted.placement
        return one if one == other else "replicated"

    @property
    def uses_noise_of_each_state(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return True  # each filter is given what it needs

    @property
    def localization_radius(self) -> Float[Array, ""] | None:
        return self.trusted.localization_radius

    def prepare(self, dynamics: Dynamics, measurement: Measurement) -> Gate:
        base = None if self.base is None else self.base.prepare(dynamics, measurement)
        ready = self._with(self.filter.prepare(dynamics, measurement), base)
        if self.radius is None:
            return ready
        state, measured = measured_coordinates("Gate", self.radius, dynamics, measurement)
        near = localize(state, measured, self.radius)
        return eqx.tree_at(lambda g: g.near, ready, near, is_leaf=lambda x: x is None)

    def spread(self, layout: MemberLayout) -> Gate:
        return self._with(self.filter.spread(layout), None if self.base is None else self.base.spread(layout))

    def _with(self, filter: Filter, base: Filter | None) -> Gate:
        return eqx.tree_at(lambda g: (g.filter, g.base), self, (filter, base), is_leaf=lambda x: x is None)

    def init(self, key: PRNGKeyArray, ensemble: Float[Array, "N *state"]) -> EnsembleState:
        states = self._started(key, self.filter, ensemble), self._started(key, self.trusted, ensemble)
        for state, filter in zip(states, (self.filter, self.trusted), strict=True):
            if not isinstance(state, EnsembleState) or state.log_weights is not None:
                raise ValueError(
                    f"a Gate compares means of members, and {type(filter).__name__} weights its members: "
                    "give it filters without weights."
                )
        prior = self.prior.astype(ensemble.dtype)
        odds, one = jnp.log(prior) - jnp.log1p(-prior), jnp.ones((), ensemble.dtype)
        honest = self._inflation().init(ensemble.dtype)
        spread = (honest, honest) if self.calibrated else None
        regional = None
        if self.radius is not None:
            if self.near is None:
                raise ValueError(
                    "a Gate with a radius needs its neighbour lists: call filter.prepare(dynamics, "
                    "measurement)."
                )
            regional = jnp.full(len(self.near.neighbours), odds)
        return _chosen(GateState(*states, odds, jnp.zeros((), jnp.int32), (one, one), spread, regional))

    def _inflation(self) -> AdaptiveInflation:
        return AdaptiveInflation(mean=1.0, std=0.5, memory=self.memory, lower=0.04, upper=25.0)

    def _started(
        self, key: PRNGKeyArray, filter: MemberFilter, ensemble: Float[Array, "N *state"]
    ) -> EnsembleState:
        state = filter.completed(filter.init(key, ensemble))
        assert isinstance(state, EnsembleState)
        return state

    def forecast(
        self,
        key: PRNGKeyArray,
        state: EnsembleState,
        dynamics: Dynamics,
        step: Int[Array, ""],
        n_steps: int | Int[Array, ""],
        layout: MemberLayout = ALL_AT_ONCE,
    ) -> EnsembleState:
        """Both ensembles; members of the one behind that are not finite are replaced, as `FaultPolicy` does
        with those of the one ahead."""
        gate: GateState = state.memory
        tried, trusted = (
            filter.forecast(key, each, dynamics, step, n_steps, layout)
            for filter, each in ((self.filter, gate.tried), (self.trusted, gate.trusted))
        )
        mend = jax.random.fold_in(key, 1)
        ahead = gate.log_odds > 0
        tried = _where(ahead, tried, mended(mend, self.filter, tried)[0])
        trusted = _where(ahead, mended(mend, self.trusted, trusted)[0], trusted)
        return _chosen(self._sound(mend, gate._replace(tried=tried, trusted=trusted), least=2))

    def _sound(self, key: PRNGKeyArray, gate: GateState, least: int | None = None) -> GateState:
        """With one that has fewer than `least` (None: all) finite members started again from the other."""
        n = len(gate.tried.ensemble) if least is None else least
        fit, safe = (
            (sound_members(each.ensemble).sum() >= n) & ((least is not None) | sound(each.memory))
            for each in (gate.tried, gate.trusted)
        )
        return self._restarted(key, gate, ~fit & safe, ~safe & fit)

    def _restarted(
        self, key: PRNGKeyArray, gate: GateState, tried: Bool[Array, ""], trusted: Bool[Array, ""]
    ) -> GateState:
        """With either started again from the other's members, which is then as far ahead as can be."""
        most = jnp.log(self.memory).astype(gate.log_odds.dtype)

        def restart(gate: GateState) -> GateState:
            return gate._replace(
                tried=_where(tried, self._started(key, self.filter, gate.trusted.ensemble), gate.tried),
                trusted=_where(trusted, self._started(key, self.trusted, gate.tried.ensemble), gate.trusted),
                log_odds=jnp.where(tried, -most, most),
                settled=jnp.zeros_like(gate.settled),
                misfit=(jnp.where(tried, 1, gate.misfit[0]), jnp.where(trusted, 1, gate.misfit[1])),
                regional=None
                if gate.regional is None
                else jnp.full_like(gate.regional, jnp.where(tried, -most, most)),
            )

        return jax.lax.cond(tried | trusted, restart, lambda gate: gate, gate)

    def update(
        self,
        key: PRNGKeyArray,
        state: EnsembleState,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> tuple[EnsembleState, Info]:
        gate: GateState = state.memory
        key_tried, key_again = (jax.random.fold_in(key, i) for i in (1, 2))
        one = with_one_noise_law(gate.trusted, measurement)
        innovations = [whitened_innovations(each.ensemble, z, mask, one) for each in gate[:2]]
        count = mask.sum().astype(innovations[0].dtype)
        odds, misfit, regional = self._compared(gate, innovations, count)
        spread = gate.spread
        if spread is not None:
            first, second = (
                self._inflation().update(now, d, count) for now, d in zip(spread, innovations, strict=True)
            )
            spread = first, second
        tried, of_tried = self.filter.analysis(key_tried, gate.tried, z, measurement, mask)
        trusted, of_trusted = self.trusted.analysis(key, gate.trusted, z, measurement, mask)
        assert isinstance(tried, EnsembleState)
        assert isinstance(trusted, EnsembleState)
        far = jnp.abs(odds) > 0.5 * jnp.log(self.memory).astype(odds.dtype)
        same = (odds > 0) == (gate.log_odds > 0)
        settled = jnp.where(far, jnp.where(same, gate.settled, 0) + 1, 0)
        gate = GateState(tried, trusted, odds, settled, misfit, spread, regional)
        gate = self._sound(key_again, gate)
        due, (one, other) = gate.settled >= self.patience, gate.misfit
        lost = due & (one > 2) & (one > 2 * other), due & (other > 2) & (other > 2 * one)
        gate = self._restarted(key_again, gate, lost[0] & (odds < 0), lost[1] & (odds > 0))
        ahead = gate.log_odds > 0
        both = of_tried.keys() & of_trusted.keys()
        info = of_tried | of_trusted
        info |= {name: jnp.where(ahead, of_tried[name], of_trusted[name]) for name in sorted(both)}
        shown = gate.log_odds if gate.regional is None else gate.regional
        return _chosen(gate), info | {"gate": jax.nn.sigmoid(shown).mean()}

    def _compared(
        self, gate: GateState, innovations: list[Float[Array, "N m"]], count: Float[Array, ""]
    ) -> tuple[Float[Array, ""], tuple[Float[Array, ""], Float[Array, ""]], Float[Array, " points"] | None]:
        """L, both misfits after `count` values, and L of each grid point (see the class)."""
        tried, trusted = (d.mean(0) ** 2 for d in innovations)
        variances = [1 + d.var(0, ddof=1) for d in innovations]
        evidence = 0.5 * ((trusted - tried) / jnp.maximum(*variances))
        odds, regional = self._after(gate.log_odds, evidence.sum()), None
        if self.near is not None and gate.regional is not None:
            weights = self.near.sqrt_weights.astype(evidence.dtype) ** 2
            regional = self._after(gate.regional, (weights * evidence[self.near.neighbours]).sum(-1))
        squares = zip((tried, trusted), variances, strict=True)
        now = [jnp.nan_to_num((d2 / v).sum() / count) for d2, v in squares]
        first, second = (was + (new - was) / self.patience for was, new in zip(gate.misfit, now, strict=True))
        return odds, (first, second), regional

    def _after(self, odds: Float[Array, "*p"], evidence: Float[Array, "*p"]) -> Float[Array, "*p"]:
        """L after a cycle's evidence."""
        limit, change = self.limit.astype(evidence.dtype), 1 / self.memory.astype(evidence.dtype)
        odds = odds + jax.lax.stop_gradient(jnp.clip(jnp.nan_to_num(evidence), -limit, limit))
        stay, leave = jnp.log1p(-change), jnp.log(change)
        return jnp.logaddexp(odds + stay, leave) - jnp.logaddexp(stay, odds + leave)

    def as_used(
        self, state: State, z: Float[Array, "*z"], mask: Bool[Array, "*z"], measurement: Measurement
    ) -> State:
        assert isinstance(state, EnsembleState)
        gate: GateState = state.memory
        tried = self.filter.as_used(gate.tried, z, mask, measurement)
        trusted = self.trusted.as_used(gate.trusted, z, mask, measurement)
        assert isinstance(tried, EnsembleState)
        assert isinstance(trusted, EnsembleState)
        return EnsembleState(jnp.where(_ahead(gate), tried.ensemble, trusted.ensemble), None, gate)

    def believed(self, state: State, measurement: Measurement) -> Measurement:
        assert isinstance(state, EnsembleState)
        return self.trusted.believed(state.memory.trusted, measurement)

    def take_memory(self, memory: Any, index: Int[Array, " N"]) -> Any:
        """Of the one ahead, whose members the state's are."""
        gate: GateState = memory
        ahead = gate.log_odds > 0
        return gate._replace(
            tried=_where(ahead, self.filter.take(gate.tried, index), gate.tried),
            trusted=_where(ahead, gate.trusted, self.trusted.take(gate.trusted, index)),
        )


def _where(condition: Bool[Array, ""], one: T, other: T) -> T:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def _ahead(gate: GateState) -> Bool[Array, "..."]:
    """Where the tried filter is ahead, to be broadcast over members: everywhere, or by grid point."""
    if gate.regional is None:
        return gate.log_odds > 0
    shape = gate.tried.ensemble.shape[1:]
    channels = math.prod(shape) // len(gate.regional)
    return jnp.tile(gate.regional > 0, channels).reshape(1, *shape)


def _chosen(gate: GateState) -> EnsembleState:
    """The state of the run: the members of the filter ahead, of honest spread."""
    ahead = _ahead(gate)
    members = jnp.where(ahead, gate.tried.ensemble, gate.trusted.ensemble)
    if gate.spread is not None:
        tried, trusted = (jnp.sqrt(jax.lax.stop_gradient(each.factor)) for each in gate.spread)
        mean, deviations = anomalies(members)
        factor = jnp.where(ahead, tried, trusted).astype(members.dtype)
        scaled = recentre(mean, factor * deviations)
        members = jnp.where(sound_members(members).all(), scaled, members)  # `FaultPolicy` mends some alone
    return EnsembleState(members, None, gate)
