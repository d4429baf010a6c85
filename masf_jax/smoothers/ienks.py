"""The iterative ensemble Kalman smoother: the start of a window of cycles that fits the newest z."""

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
from ..filters.base import EnsembleState, Filter, Info, where_measured, with_one_noise_law
from ..filters.faults import FaultPolicy
from ..filters.kalman.ienkf import IEnKF, Window
from ..filters.rounding import of_storage
from ..loops import ReverseMode
from ..measurements.measurement import Measurement
from ..measurements.rows import ObservationsLike, as_observations
from ..metrics.cycle import DEFAULT_SCORES
from ..numbers import whole
from ..quality_control import GrossErrorCheck
from ..scan import for_reverse_mode
from .smoothing import Kept, Smoothing, check_quality_control, checked, in_place, result, run_arrays

__all__ = ["ienks"]


class _Problem(eqx.Module):
    """Everything constant over the scan."""

    key: PRNGKeyArray
    model_key: PRNGKeyArray
    filter: IEnKF
    dynamics: Dynamics
    measurement: Measurement
    kept: Kept
    policy: FaultPolicy
    quality_control: GrossErrorCheck | None
    layout: MemberLayout = eqx.field(static=True)
    reverse_mode: ReverseMode = eqx.field(static=True)

    def advance(self, ensemble: Array, step: Array, until: Array) -> Array:
        """By the model, with the same random numbers whenever it comes over the same steps."""
        return advance(self.dynamics, ensemble, step, self.model_key, until - step, self.layout)

    def cycle(self, carry: tuple[Array, ...], xs: dict[str, Array]) -> tuple[Any, dict[str, Any]]:
        """One cycle; carries the window's first members, its steps (lag,), and those members smoothed."""
        start, steps, _ = carry
        keys = jax.random.split(jax.random.fold_in(self.key, xs["cycle"]), 3)
        newest = self.advance(start, steps[0], xs["step"])
        window = Window(start, steps[0], xs["step"] - steps[0], self.model_key)
        before, diverged = self.policy.after_forecast(
            keys[1], self.filter, EnsembleState(newest, None, (None, window))
        )
        start, newest = before.state.memory[1].start, before.state.ensemble
        forecast = (start, newest, newest if len(steps) == 1 else self.advance(start, steps[0], steps[1]))
        mask, rejected = checked(self.quality_control, EnsembleState(newest), xs, self.measurement)
        found, info = self.update(keys[2], forecast, steps, xs | {"mask": mask})
        # the three states of a member go together, and what is remembered of one is in them
        old, new = (EnsembleState(jnp.stack(each, axis=1)) for each in (forecast, found))
        after = self.policy.after_analysis(jax.random.fold_in(keys[1], 1), self.filter, old, new, info)
        smoothed, analysis, following = jnp.moveaxis(after.state.ensemble, 1, 0)
        out: dict[str, Any] = {"info": info, "diverged": diverged, "skipped": after.skipped & ~diverged}
        out |= rejected
        out["repaired"], out["faults"] = before.repaired + after.repaired, before.faults | after.faults
        out["analysis"] = self.kept(analysis, xs.get("truth"))
        out["smoothed"] = self.kept(smoothed, xs.get("old_truth"))
        return (following, jnp.append(steps[1:], xs["step"]), smoothed), out

    def update(
        self, key: PRNGKeyArray, forecast: tuple[Array, ...], steps: Array, xs: dict[str, Array]
    ) -> tuple[tuple[Array, ...], Info]:
        """Members at the window's start and end after the use of z, and at the start of the next window."""
        measurement = with_one_noise_law(EnsembleState(forecast[1]), self.measurement)

        def use(forecast: tuple[Array, ...]) -> tuple[tuple[Array, ...], Info]:
            start, newest, next_start = forecast
            window = Window(start, steps[0], xs["step"] - steps[0], self.model_key)
            smoothed, analysis, info = self.filter.fit(
                window, newest, self.dynamics, xs["z"], xs["mask"], measurement
            )
            info = info | {"rounding": of_storage(newest, analysis, info["rounding"])}
            following = analysis if len(steps) == 1 else self.advance(smoothed, steps[0], steps[1])
            following = self.filter.finished(key, next_start, following)
            return (smoothed, following if len(steps) == 1 else analysis, following), info

        return where_measured(xs["mask"], use, forecast)


@eqx.filter_jit
def _run(problem: _Problem, ensemble: Array, xs: dict[str, Array], lag: int) -> dict[str, Any]:
    begin = (ensemble, jnp.zeros(lag, jnp.int32), ensemble)

    def body(carry: tuple[Array, ...], x: dict[str, Array]) -> tuple[Any, dict[str, Any]]:
        with problem.layout.active():
            return problem.cycle(carry, x)

    (*_, smoothed), out = problem.reverse_mode.scan(body, begin, xs)

    def onwards(ensemble: Array, item: tuple[Array, Array, Array | None]) -> tuple[Array, Any]:
        step, until, truth = item
        ensemble = problem.advance(ensemble, step, until)
        return ensemble, problem.kept(ensemble, truth)

    steps = xs["step"][-lag - 1 :]
    truths = xs["truth"][-lag:] if "truth" in xs else None
    return in_place(out, jax.lax.scan(onwards, smoothed, (steps[:-1], steps[1:], truths))[1])


def ienks(
    key: PRNGKeyArray,
    filter: Filter,
    dynamics: Dynamics,
    measurement: Measurement,
    observations: ObservationsLike,
    ensemble: ArrayLike,
    *,
    lag: int | None,
    truth: Shaped[Array | np.ndarray, "K *state"] | None = None,
    save: tuple[str, ...] = ("mean", "spread"),
    scores: tuple[str, ...] = DEFAULT_SCORES,
    quality_control: GrossErrorCheck | None = None,
    policy: FaultPolicy | None = None,
    checkpoint: bool = False,
    truncate: int | None = None,
) -> Smoothing:
    """Finds, cycle by cycle, the states `lag` cycles ago whose forecast fits the newest measurement.

    With members x̄ + X_i at t_{k-lag}, which know z_1 … z_{k-1}, and the model M from there to t_k, it
    minimises

        J(w) = (N-1)/2 |w|² + 1/2 |R^{-1/2}(z_k - H(M(x̄ + Xᵀw)))|²

    as `IEnKF` does. The members at the minimum are the smoothed ones of cycle k - lag; carried to t_k they
    are the analysis, and carried to t_{k-lag+1} the start of the next window. So every measurement is used
    once; the longer the window, the more nonlinear is J, and the more minima it may have. The first windows
    begin at step 0. Of a linear model without model error this is the Kalman smoother of lag `lag`, as `enks`
    is; with lag 1 the analyses are those of `assimilate` with the same filter and key.

    The model counts as perfect. Where it is random, its random numbers are drawn once for every member and
    step: w moves starts, never the noise.

    Cost: `lag` intervals of the model for each iteration of a cycle. Memory: 3 N states, and what is saved.
    Rotation and inflation act on the start of the next window. The last `lag` smoothed ensembles are those of
    the last window, carried on.

    With a radius the window's start is fitted point by point (`IEnKF`): values are tapered by their distance
    from a component of the start. This domain does not move with the flow, so that a long window, over which
    errors travel, wants a larger radius.

    Source: Bocquet & Sakov (2014), doi 10.1002/qj.2236 (single assimilation, shift of one cycle); local:
    Bocquet (2016), doi 10.1002/qj.2711, with static domains.

    Args:
        filter: its inflation, rotation, iterations, tolerance and radius; no inflation of the forecast.
        lag: cycles of later measurements that a state sees, at least 1; None: all.
        quality_control: which values a cycle may use, given the forecast of the window's first members.
        checkpoint, truncate: for reverse mode (docs/gradients.md).
        Others: see `assimilate`.

    Raises:
        ValueError: a lag below 1, a radius without coordinates, or what `assimilate` refuses.
        TypeError: another filter.
    """
    check_key(key)
    observations = as_observations(observations)
    if not isinstance(filter, IEnKF):
        raise TypeError(
            f"the iterative ensemble smoother takes the settings of an IEnKF; got {type(filter).__name__}. "
            "For EnKF and ETKF see enks."
        )
    lag = None if lag is None else whole("lag (None: all cycles)", lag, 1)
    if observations.n_cycles < 2:
        raise ValueError("a smoother needs measurements of 2 or more cycles; got 1.")
    lag = observations.n_cycles - 1 if lag is None else min(lag, observations.n_cycles - 1)
    ensemble = real_array("ensemble", ensemble)
    dynamics = as_dynamics(dynamics, ensemble.shape[1:])
    kept, ensemble, xs = run_arrays(
        filter, dynamics, measurement, observations, ensemble, truth, save, scores, lag
    )
    check_quality_control(quality_control, dynamics, measurement)
    model_key = jax.random.fold_in(key, observations.n_cycles)  # cycles have those below
    prepared = filter.prepare(dynamics, measurement)
    layout, policy = ALL_AT_ONCE, policy or FaultPolicy()
    if traced(key, filter, dynamics, measurement, observations, ensemble):
        layout = for_reverse_mode(layout, observations, 0, lag)
    way = ReverseMode(checkpoint, truncate)
    parts = key, model_key, prepared, dynamics, measurement, kept, policy, quality_control
    problem = _Problem(*parts, layout, way)
    with host_errors():
        out = _run(problem, ensemble, xs, lag)
        jax.block_until_ready(out["faults"])
    return result(out, dynamics, measurement, observations, truth)
