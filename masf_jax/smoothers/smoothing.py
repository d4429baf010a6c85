"""What ensemble smoothers share: the result, and the arrays of a run."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..assimilate import check_problem, saved, warn_if_diverged
from ..dynamics.base import Dynamics
from ..filters.base import EnsembleState, Filter, Info
from ..measurements.measurement import Measurement, Observations
from ..metrics.cycle import cycle_scores

__all__ = ["Kept", "Smoothing", "result", "run_arrays"]


class Smoothing(eqx.Module):
    """What a smoother leaves: one entry per cycle along axis 0.

    smoothed, analysis: saved arrays by name (mean, spread, ensemble), after and before the use of later
        measurements.
    smoothed_scores, analysis_scores: scores by name; empty without truth.
    info: what the analyses reported.
    repaired: members replaced after the forecast; steps: model step number of each cycle.
    """

    smoothed: dict[str, Array]
    analysis: dict[str, Array]
    smoothed_scores: dict[str, Array]
    analysis_scores: dict[str, Array]
    info: Info
    repaired: Int[Array, " K"]
    diverged: Bool[Array, " K"]
    steps: Int[Array, " K"]


class Kept(eqx.Module):
    """What is kept of an ensemble: saved arrays and scores."""

    observed: Bool[Array, "*state"] | None
    save: tuple[str, ...] = eqx.field(static=True)
    scores: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, ensemble: Array, truth: Array | None) -> tuple[dict[str, Array], dict[str, Array]]:
        state = EnsembleState(ensemble)
        scores = {} if truth is None else cycle_scores(self.scores, state, truth, self.observed)
        return saved(self.save, state), scores

    def smoothing(
        self, out: dict[str, Any], rest: Float[Array, "lag N *state"], truth: Array | None
    ) -> dict[str, Any]:
        """Outputs of all cycles; smoothed ones come `lag` cycles late, the last of them are of `rest`."""
        lag = rest.shape[0]
        if lag == 0:
            return out
        items = (rest, None if truth is None else truth[-lag:])
        last = jax.lax.map(lambda item: self(*item), items)
        late = jax.tree.map(lambda a, b: jnp.concatenate([a[lag:], b]), out["smoothed"], last)
        return out | {"smoothed": late}


def result(out: dict[str, Any], steps: Array) -> Smoothing:
    """Of the outputs by name; warns where the filter diverged."""
    (smoothed, smoothed_scores), (analysis, analysis_scores) = out.pop("smoothed"), out.pop("analysis")
    found = Smoothing(smoothed, analysis, smoothed_scores, analysis_scores, **out, steps=steps)
    warn_if_diverged(found.diverged)
    return found


def run_arrays(
    filter: Filter,
    dynamics: Dynamics,
    measurement: Measurement,
    observations: Observations,
    ensemble: Array,
    truth: Array | None,
    save: tuple[str, ...],
    scores: tuple[str, ...],
    lag: int,
) -> tuple[Kept, Array, dict[str, Array]]:
    """The checked problem of a run: what is kept, first members, and by name the arrays of all cycles.

    With truth, "old_truth" is the truth `lag` cycles ago.
    """
    ensemble = jnp.asarray(ensemble)
    truth = None if truth is None else jnp.asarray(truth, ensemble.dtype)
    check_problem(filter, dynamics, measurement, observations, ensemble, truth, save, scores)
    observed = measurement.operator.observed(dynamics.state_shape)
    if observed is not None and (observed.all() or not observed.any()):
        observed = None
    n_cycles = observations.n_cycles
    xs = {
        "cycle": jnp.arange(n_cycles, dtype=jnp.uint32),
        "step": observations.steps,
        "z": observations.values.astype(ensemble.dtype),
        "mask": observations.mask,
    }
    if truth is not None:
        old = jnp.concatenate([truth[:1].repeat(lag, 0), truth[: n_cycles - lag]])
        xs |= {"truth": truth, "old_truth": old}
    return Kept(None if observed is None else jnp.asarray(observed), tuple(save), tuple(scores)), ensemble, xs
