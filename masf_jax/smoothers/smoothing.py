"""What ensemble smoothers share: the result, and the arrays of a run."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from ..arrays import real_array
from ..checks import check_members, check_problem, traced
from ..cycles import cycle_arrays, given_arrays, observed_components
from ..dynamics.base import Dynamics
from ..filters.base import EnsembleState, Filter, Info, State
from ..filters.faults import warn_of_faults
from ..measurements.measurement import Measurement, Observations
from ..metrics.cycle import cycle_scores
from ..plots.shown import Shown
from ..printed import smoothing_text
from ..quality_control import GrossErrorCheck
from ..results.given import Given
from ..scan import saved

__all__ = ["Kept", "Smoothing", "check_quality_control", "checked", "in_place", "result", "run_arrays"]


class Smoothing(eqx.Module, Shown):
    """What a smoother leaves: one entry per cycle along axis 0.

    smoothed, analysis: saved arrays by name (mean, spread, ensemble), after and before the use of later
        measurements.
    smoothed_scores, analysis_scores: scores by name; empty without truth.
    info: what the analyses reported.
    repaired, diverged, skipped, faults, rejected, given: see `Assimilation`; steps: model step number of each
        cycle.
    """

    smoothed: dict[str, Array]
    analysis: dict[str, Array]
    smoothed_scores: dict[str, Array]
    analysis_scores: dict[str, Array]
    info: Info
    repaired: Int[Array, " K"]
    diverged: Bool[Array, " K"]
    skipped: Bool[Array, " K"]
    faults: Int[Array, " K"]
    steps: Int[Array, " K"]
    rejected: Bool[Array, "K *z"] | None = None
    given: Given | None = None

    def __repr__(self) -> str:
        return smoothing_text(self)


class Kept(eqx.Module):
    """What is kept of an ensemble, or of a filter's state: saved arrays and scores."""

    observed: Bool[Array, "*state"] | None
    save: tuple[str, ...] = eqx.field(static=True)
    scores: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, kept: Array | State, truth: Array | None) -> tuple[dict[str, Array], dict[str, Array]]:
        state = EnsembleState(kept) if isinstance(kept, jax.Array) else kept
        scores = {} if truth is None else cycle_scores(self.scores, state, truth, self.observed)
        return saved(self.save, state), scores


def check_quality_control(
    check: GrossErrorCheck | None, dynamics: Dynamics, measurement: Measurement
) -> None:
    """Raises ValueError where its threshold does not fit what is measured."""
    if check is not None:
        check.check(measurement.output_shape(dynamics.state_shape))


def checked(
    check: GrossErrorCheck | None, forecast: State, xs: dict[str, Array], measurement: Measurement
) -> tuple[Array, dict[str, Array]]:
    """Which values of a cycle are used, and by name which of those measured are not; nothing: all are."""
    if check is None:
        return xs["mask"], {}
    accepted = check(forecast, xs["z"], measurement)
    return xs["mask"] & accepted, {"rejected": xs["mask"] & ~accepted}


def in_place(out: dict[str, Any], last: Any) -> dict[str, Any]:
    """Outputs of all cycles, whose smoothed ones come `lag` cycles late, and those of the last `lag`."""
    late = jax.tree.map(lambda a, b: jnp.concatenate([a[len(b) :], b]), out["smoothed"], last)
    return out | {"smoothed": late}


def result(
    out: dict[str, Any],
    dynamics: Dynamics,
    measurement: Measurement,
    observations: Observations,
    truth: Any,
) -> Smoothing:
    """Of the outputs by name; warns of the cycles that could not be used."""
    (smoothed, smoothed_scores), (analysis, analysis_scores) = out.pop("smoothed"), out.pop("analysis")
    warn_of_faults(out["faults"], out["diverged"], out["skipped"])
    given = None
    if not traced(out["faults"]):
        truth = None if truth is None else real_array("truth", truth, cycles_first=True)
        given = Given(dynamics, measurement, **given_arrays(observations, truth, observations.n_cycles))
    scores = smoothed_scores, analysis_scores
    return Smoothing(smoothed, analysis, *scores, **out, steps=observations.steps, given=given)


def run_arrays(
    filter: Filter,
    dynamics: Dynamics,
    measurement: Measurement,
    observations: Observations,
    ensemble: Array | np.ndarray,
    truth: Array | np.ndarray | None,
    save: tuple[str, ...],
    scores: tuple[str, ...],
    lag: int,
) -> tuple[Kept, Array, dict[str, Array]]:
    """The checked problem of a run: what is kept, first members, and by name the arrays of all cycles.

    With truth, "old_truth" is the truth `lag` cycles ago.
    """
    members = real_array("ensemble", ensemble)
    states = None if truth is None else real_array("truth", truth, cycles_first=True).astype(members.dtype)
    check_members(members, dynamics)
    check_problem(dynamics, measurement, observations, members.shape[1:], states, save, scores)
    xs = cycle_arrays(observations, states, members.dtype)
    if states is not None:
        xs["old_truth"] = jnp.concatenate([states[:1].repeat(lag, 0), states[: len(states) - lag]])
    return Kept(observed_components(dynamics, measurement), tuple(save), tuple(scores)), members, xs
