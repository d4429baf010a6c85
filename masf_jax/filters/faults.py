"""States that cannot be used: found inside the scan, and mended, left out or refused by a stated policy."""

from __future__ import annotations

import enum
import warnings
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..numbers import within
from .base import EnsembleState, Filter, Info, State

__all__ = [
    "Fault",
    "FaultPolicy",
    "FaultWarning",
    "FilterDivergedWarning",
    "Looked",
    "described",
    "fault_counts",
    "largest_usable",
    "mended",
    "smallest_usable",
    "sound",
    "sound_members",
    "warn_of_faults",
]

Numbers: TypeAlias = Array | np.ndarray
Action = Literal["repair", "skip", "error"]
ROUNDING_LIMIT = 0.1
"""Round-off of an analysis, in posterior standard deviations, beyond which it is flagged."""


class FaultWarning(RuntimeWarning):
    """Some cycles could not be used, or are spoilt by round-off."""


class FilterDivergedWarning(FaultWarning):
    """The filter lost all but one sound member; results from that cycle on are not to be used."""


class Fault(enum.IntFlag):
    """What was found in a cycle; several may be."""

    FORECAST = 1
    """Forecast members that are not finite (or whose squares are not)."""
    ANALYSIS = 2
    """An analysis whose members, weights or memory are not finite."""
    INNOVATION = 4
    """Measured values absurdly far from what the forecast expects."""
    PRECISION = 8
    """Round-off of the analysis above .1 posterior standard deviations."""


class Looked(NamedTuple):
    """A state that can go on, members replaced in it, whether the analysis was left out, and the faults."""

    state: Any
    repaired: Int[Array, ""]
    skipped: Bool[Array, ""]
    faults: Int[Array, ""]


def largest_usable(dtype: jnp.dtype) -> float:
    """The largest absolute value of a state whose variance can be had: √ of the largest number."""
    return float(np.sqrt(np.finfo(dtype).max))


def smallest_usable(dtype: jnp.dtype) -> float:
    """The smallest spread of a state whose variance can be had, to the last digit: √ of the smallest number
    over the relative error of one rounding."""
    return float(np.sqrt(np.finfo(dtype).tiny / np.finfo(dtype).eps))


class FaultPolicy(eqx.Module):
    """What is done with a cycle that cannot be used.

    A member counts as broken where a value is not finite, or its square is not. After a forecast, broken
    members are replaced by copies of randomly chosen sound ones (each with what the filter remembers of
    it); with fewer than two sound ones the filter has diverged, and all become NaN. An analysis cannot be
    used where members, weights or the filter's memory are broken, or where the largest innovation (`Info`)
    exceeds `innovation` standard deviations of what the forecast expects: then

        "repair": broken members are replaced as after a forecast; where that is not enough, as "skip";
        "skip": the forecast stands as the analysis, as if nothing had been measured;
        "error": as "skip", and `assimilate` raises `FaultError` at the end of the chunk.

    An analysis that round-off has spoilt (`Info`, rounding) is flagged, and kept.

    Args:
        action: "repair", "skip" or "error".
        innovation: see above, in standard deviations; inf: no limit.
    """

    action: Action = eqx.field(static=True, default="repair")
    innovation: Float[Array, ""] = eqx.field(converter=within("largest innovation", "(0, inf]"), default=1e4)

    def __check_init__(self) -> None:
        if self.action not in get_args(Action):
            raise ValueError(f"action must be one of {', '.join(get_args(Action))}; got {self.action!r}.")

    def after_forecast(
        self, key: PRNGKeyArray, filter: Filter, state: State
    ) -> tuple[Looked, Bool[Array, ""]]:
        """The forecast, mended; and whether the filter has diverged (then nothing is replaced)."""
        none = jnp.asarray(0, jnp.int32)
        if not isinstance(state, EnsembleState):
            broken = ~sound(state)
            return Looked(state, none, jnp.asarray(False), _flag(Fault.FORECAST, broken)), broken
        whole = sound_members(state.ensemble)
        state, repaired = mended(key, filter, state)
        faults = _flag(Fault.FORECAST, ~whole.all())
        return Looked(state, repaired, jnp.asarray(False), faults), whole.sum() < 2

    def after_analysis(
        self, key: PRNGKeyArray, filter: Filter, forecast: State, analysis: State, info: Info
    ) -> Looked:
        """The analysis if it can be used, mended or not; else the forecast."""
        absurd, imprecise = (
            info[name] > jnp.asarray(limit, info[name].dtype) if name in info else jnp.asarray(False)
            for name, limit in (("innovation", self.innovation), ("rounding", ROUNDING_LIMIT))
        )
        repaired = jnp.asarray(0, jnp.int32)
        if isinstance(analysis, EnsembleState):
            whole = sound_members(analysis.ensemble)
            usable = _sound_weights(analysis.log_weights) & sound(analysis.memory)
            broken = ~(whole.all() & usable)
            if self.action == "repair":
                enough = usable & (whole.sum() >= 2)
                analysis, repaired = mended(key, filter, analysis, enough & ~absurd)
                usable = enough
            else:
                usable = usable & whole.all()
        else:
            usable = sound(analysis)
            broken = ~usable
        skipped = ~usable | absurd
        state = jax.lax.cond(skipped, lambda: forecast, lambda: analysis)
        faults = _flag(Fault.ANALYSIS, broken) | _flag(Fault.INNOVATION, absurd)
        return Looked(state, repaired, skipped, faults | _flag(Fault.PRECISION, imprecise & ~skipped))


def fault_counts(faults: Int[Array, " K"] | np.ndarray) -> dict[str, int]:
    """By name, the cycles in which each fault was found."""
    flags = np.asarray(faults)
    return {str(fault.name).lower(): int(((flags & fault) > 0).sum()) for fault in Fault}


def described(faults: np.ndarray, diverged: np.ndarray, skipped: np.ndarray) -> list[str]:
    """A sentence for each kind of trouble in a run's cycles; none where there was none."""
    said, n_cycles = [], len(faults)
    if diverged.any():
        said.append(
            "the filter diverged: fewer than two finite members after the forecast of cycle "
            f"{diverged.argmax()}; results from there on are NaN. Another inflation (too much blows "
            "members up), more members, a smaller localisation radius or model step may help."
        )
    for fault, what in (
        (Fault.ANALYSIS, "the analysis was not finite"),
        (Fault.INNOVATION, "measured values were absurdly far from the forecast"),
    ):
        found = (faults & fault > 0) & ~diverged
        if fault is Fault.ANALYSIS:  # of absurd values it is a consequence
            found &= skipped & (faults & Fault.INNOVATION == 0)
        if found.any():
            advice = (
                " Look at these values; quality_control rejects single ones."
                if fault is Fault.INNOVATION
                else " precision=float64, more members or a wider noise may help."
            )
            said.append(
                f"{what} in {found.sum()} of {n_cycles} cycles (first: {found.argmax()}); there the forecast "
                f"stands as the analysis.{advice}"
            )
    imprecise = faults & Fault.PRECISION > 0
    if imprecise.any():
        said.append(
            f"round-off exceeds {ROUNDING_LIMIT:g} posterior standard deviations in {imprecise.sum()} of "
            f"{n_cycles} cycles (first: {imprecise.argmax()}): use double precision, precision=float64 (in "
            "the library jax.config.update('jax_enable_x64', True) and float64 members)."
        )
    return said


def warn_of_faults(
    faults: Array | np.ndarray, diverged: Array | np.ndarray, skipped: Array | np.ndarray
) -> None:
    """Warns of what `described` tells, unless the run is being traced."""
    if isinstance(faults, Tracer):
        return
    arrays = np.asarray(faults), np.asarray(diverged), np.asarray(skipped)
    for text in described(*arrays):
        kind = FilterDivergedWarning if text.startswith("the filter diverged") else FaultWarning
        warnings.warn(text, kind, stacklevel=3)


def _flag(fault: Fault, where: Bool[Array, ""]) -> Int[Array, ""]:
    return where.astype(jnp.int32) * int(fault)


def sound_members(ensemble: Float[Array, "N *state"]) -> Bool[Array, " N"]:
    """Which members are finite, with their squares."""
    within = jnp.abs(ensemble) <= largest_usable(ensemble.dtype)  # False of NaN
    return within.all(tuple(range(1, within.ndim)))


def _sound_weights(log_weights: Float[Array, " N"] | None) -> Bool[Array, ""]:
    """Whether Σ w is finite and positive: -inf is the weight 0."""
    if log_weights is None:
        return jnp.asarray(True)
    return jnp.isfinite(log_weights.max()) & ~jnp.isnan(log_weights).any()


def sound(tree: object) -> Bool[Array, ""]:
    """Whether all floating-point arrays are finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all() if leaves else jnp.asarray(True)


def mended(
    key: PRNGKeyArray,
    filter: Filter,
    state: EnsembleState,
    possible: Bool[Array, ""] | None = None,
) -> tuple[EnsembleState, Int[Array, ""]]:
    """Copies of sound members in place of the others, where possible; and how many. NaN of fewer than two."""
    whole = sound_members(state.ensemble)
    n = len(whole)
    count = whole.sum().astype(jnp.int32)

    def mend(state: EnsembleState) -> EnsembleState:
        whole_first = jnp.argsort(~whole)
        donor = whole_first[jax.random.randint(key, (n,), 0, jnp.maximum(count, 1))]
        taken = filter.take(state, jnp.where(whole, jnp.arange(n), donor))
        ensemble = jnp.where(count >= 2, taken.ensemble, jnp.nan)
        return EnsembleState(ensemble, taken.log_weights, taken.memory)

    needed = count < n if possible is None else possible & (count < n)
    state = jax.lax.cond(needed, mend, lambda state: state, state)
    return state, jnp.where(needed & (count >= 2), n - count, 0).astype(jnp.int32)
