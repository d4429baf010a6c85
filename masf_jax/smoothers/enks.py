"""The ensemble Kalman smoother: later measurements act on past ensembles through the filter's transforms."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, Shaped
from numpy.typing import ArrayLike

from ..arrays import check_key, real_array
from ..checks import traced
from ..dynamics.base import Dynamics
from ..dynamics.function import as_dynamics
from ..dynamics.host import host_errors
from ..dynamics.layout import ALL_AT_ONCE, MemberLayout
from ..dynamics.rollout import advance
from ..filters.base import (
    EnsembleFilter,
    EnsembleState,
    Info,
    innovation_info,
    where_measured,
    whitened_innovations,
    with_one_noise_law,
)
from ..filters.faults import FaultPolicy
from ..filters.kalman.enkf import EnKF
from ..filters.kalman.ensrf import EnSRF
from ..filters.kalman.etkf import ETKF
from ..filters.kalman.letkf import LETKF
from ..filters.rounding import of_storage
from ..loops import ReverseMode
from ..measurements.measurement import Measurement
from ..measurements.rows import ObservationsLike, as_observations
from ..metrics.cycle import DEFAULT_SCORES
from ..numbers import whole
from ..quality_control import GrossErrorCheck
from ..scan import for_reverse_mode
from .smoothing import Kept, Smoothing, check_quality_control, checked, in_place, result, run_arrays

__all__ = ["enks"]


class _Problem(eqx.Module):
    """Everything constant over the scan."""

    key: PRNGKeyArray
    filter: EnsembleFilter
    dynamics: Dynamics
    measurement: Measurement
    kept: Kept
    policy: FaultPolicy
    quality_control: GrossErrorCheck | None
    interval: int | None = eqx.field(static=True)
    lag: int = eqx.field(static=True)
    layout: MemberLayout = eqx.field(static=True)
    reverse_mode: ReverseMode = eqx.field(static=True)

    def cycle(self, carry: tuple[Array, Array], xs: dict[str, Array]) -> tuple[Any, dict[str, Any]]:
        """One cycle; carries members (N, lag + 1, *state), newest state first, and the step number."""
        window, step = carry
        keys = jax.random.split(jax.random.fold_in(self.key, xs["cycle"]), 3)
        n_steps = xs["step"] - step if self.interval is None else self.interval
        newest = advance(self.dynamics, window[:, 0], step, keys[0], n_steps, self.layout)
        window = jnp.concatenate([newest[:, None], window[:, :-1]], axis=1)
        before, diverged = self.policy.after_forecast(keys[1], self.filter, EnsembleState(window))
        now = EnsembleState(before.state.ensemble[:, 0])
        mask, rejected = checked(self.quality_control, now, xs, self.measurement)
        updated, info = self.update(keys[2], before.state.ensemble, xs["z"], mask)
        key, state = jax.random.fold_in(keys[1], 1), EnsembleState(updated)
        after = self.policy.after_analysis(key, self.filter, before.state, state, info)
        window = after.state.ensemble
        out: dict[str, Any] = {"info": info, "diverged": diverged, "skipped": after.skipped & ~diverged}
        out |= rejected
        out["repaired"], out["faults"] = before.repaired + after.repaired, before.faults | after.faults
        out["analysis"] = self.kept(window[:, 0], xs.get("truth"))
        out["smoothed"] = self.kept(window[:, -1], xs.get("old_truth"))
        return (window, xs["step"]), out

    def update(self, key: PRNGKeyArray, window: Array, z: Array, mask: Array) -> tuple[Array, Info]:
        """The members after the use of z, past states included, and what the analysis reports."""
        newest, n = window[:, 0], window.shape[0]
        measurement = with_one_noise_law(EnsembleState(newest), self.measurement)

        def use(window: Array) -> tuple[Array, Info]:
            key_update, key_inflate = jax.random.split(key)
            d = whitened_innovations(newest, z, mask, measurement)
            moved, info = self.filter.updated(key_update, window.reshape(n, -1), newest, z, mask, measurement)
            moved = moved.reshape(window.shape)
            moved = moved.at[:, 0].set(self.filter.inflation.after(key_inflate, newest, moved[:, 0]))
            info = info | {"rounding": of_storage(window, moved, info["rounding"])}
            return moved, innovation_info(d, mask.sum().astype(d.dtype)) | info

        return where_measured(mask, use, window)


@eqx.filter_jit
def _run(problem: _Problem, ensemble: Array, xs: dict[str, Array]) -> dict[str, Any]:
    lag = problem.lag
    window = jnp.broadcast_to(ensemble[:, None], (ensemble.shape[0], lag + 1, *ensemble.shape[1:]))
    start = (window, jnp.asarray(0, jnp.int32))
    (window, _), out = problem.reverse_mode.scan(problem.cycle, start, xs)
    if lag == 0:
        return out
    rest = jnp.moveaxis(window[:, lag - 1 :: -1], 1, 0)  # the last `lag` cycles, in order of time
    truths = xs["truth"][-lag:] if "truth" in xs else None
    return in_place(out, jax.lax.map(lambda item: problem.kept(*item), (rest, truths)))


def enks(
    key: PRNGKeyArray,
    filter: EnsembleFilter,
    dynamics: Dynamics,
    measurement: Measurement,
    observations: ObservationsLike,
    ensemble: ArrayLike,
    *,
    lag: int | None = None,
    truth: Shaped[Array | np.ndarray, "K *state"] | None = None,
    save: tuple[str, ...] = ("mean", "spread"),
    scores: tuple[str, ...] = DEFAULT_SCORES,
    layout: MemberLayout = ALL_AT_ONCE,
    quality_control: GrossErrorCheck | None = None,
    policy: FaultPolicy | None = None,
    checkpoint: bool = False,
    truncate: int | None = None,
) -> Smoothing:
    """Runs a filter, and applies each analysis to the ensembles of the last `lag` cycles too.

    The analysis of cycle k is X_k ← T_k X_k with an N × N matrix T_k made of the measured members; the
    smoothed ensembles are X_j ← T_k X_j for j = k - lag, …, k - 1: a regression of past states on
    z_k through the sample covariance between X_j and H(X_k). With a linear-Gaussian problem and many members
    this is the Kalman (Rauch-Tung-Striebel) smoother of lag `lag`.

    A localised filter has one T_k a grid point (LETKF), or tapers its gain (EnSRF): a past component is moved
    by the values near it as the present one at the same place is. The taper does not grow or move with the
    lag, so that a lag over which errors travel more than the radius gains nothing more.

    Memory: N (lag + 1) states, and what is saved. The analyses are those of `assimilate` with the same key.
    Inflation acts on the newest ensemble alone. A member that blows up is replaced with all its past.

    Source: Evensen & van Leeuwen (2000), doi 10.1175/1520-0493(2000)128<1852:AEKSFN>2.0.CO;2; with ensemble
    transforms: Bocquet & Sakov (2014), doi 10.1002/qj.2236, section 2; localised: Nerger, Schulte &
    Bunse-Gerstner (2014), doi 10.1002/qj.2293.

    Args:
        filter: EnKF, ETKF, LETKF or EnSRF, whose transforms are used; no inflation of the forecast.
        lag: cycles of later measurements that a state sees; None: all. 0: the filter.
        quality_control: which values an analysis may use, given the newest forecast, as in `assimilate`.
        checkpoint, truncate: for reverse mode (docs/gradients.md).
        Others: see `assimilate`.

    Raises:
        ValueError: a negative lag, inflation of the forecast, a radius without coordinates, or what
            `assimilate` refuses.
        TypeError: another filter.
    """
    check_key(key)
    observations = as_observations(observations)
    if not isinstance(filter, EnKF | ETKF | EnSRF | LETKF):
        raise TypeError(
            "the ensemble smoother needs a filter whose analysis is a transform of the members, EnKF, ETKF, "
            f"EnSRF or LETKF; got {type(filter).__name__}."
        )
    if filter.inflation.changes_forecast:
        raise ValueError(
            "the ensemble smoother regresses past states on the forecast as it is: inflation of the forecast "
            "(prior, adaptive) has no place in it. Use multiplicative inflation or relaxation."
        )
    lag = None if lag is None else whole("lag (None: all cycles)", lag)
    lag = observations.n_cycles - 1 if lag is None else min(lag, observations.n_cycles - 1)
    ensemble = real_array("ensemble", ensemble)
    dynamics = as_dynamics(dynamics, ensemble.shape[1:])
    kept, ensemble, xs = run_arrays(
        filter, dynamics, measurement, observations, ensemble, truth, save, scores, lag
    )
    check_quality_control(quality_control, dynamics, measurement)
    layout.check(ensemble.shape[0])
    prepared = filter.prepare(dynamics, measurement)
    policy, interval = policy or FaultPolicy(), observations.interval
    if traced(key, filter, dynamics, measurement, observations, ensemble):
        layout = for_reverse_mode(layout, observations, 0)
    assert isinstance(prepared, EnsembleFilter)
    way = ReverseMode(checkpoint, truncate)
    parts = key, prepared, dynamics, measurement, kept, policy, quality_control
    problem = _Problem(*parts, interval, lag, layout, way)
    with host_errors():
        out = _run(problem, ensemble, xs)
        jax.block_until_ready(out["faults"])
    return result(out, dynamics, measurement, observations, truth)
