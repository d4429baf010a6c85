"""The exact smoother of a linear-Gaussian problem: mean and covariance of every state, given all values."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, Shaped

from ..arrays import real_array
from ..checks import check_members, check_problem, traced
from ..cycles import cycle_arrays, observed_components
from ..derivatives import triangular
from ..dynamics.base import Dynamics
from ..dynamics.function import as_dynamics
from ..dynamics.layout import ALL_AT_ONCE, MemberLayout
from ..ensemble.double import SingleOnly, in_double
from ..filters.base import GaussianState, State, with_one_noise_law
from ..filters.faults import FaultPolicy
from ..filters.kalman.exact import (
    KalmanFilter,
    exact_update,
    factor_of,
    gaussian_state,
    linear_step,
    linearize,
    over_steps,
    with_noise,
)
from ..loops import ReverseMode
from ..measurements.measurement import Measurement
from ..measurements.rows import ObservationsLike, as_observations
from ..metrics.cycle import DEFAULT_SCORES
from ..numbers import as_float
from ..quality_control import GrossErrorCheck
from ..scan import for_reverse_mode
from .smoothing import Kept, Smoothing, check_quality_control, checked, result

__all__ = ["rts"]

_COVARIANCE = "covariance"


class _Problem(eqx.Module):
    """Everything constant over the scan."""

    filter: KalmanFilter
    dynamics: Dynamics
    measurement: Measurement
    policy: FaultPolicy
    quality_control: GrossErrorCheck | None
    kept: Kept
    covariance: bool = eqx.field(static=True)
    layout: MemberLayout = eqx.field(static=True)
    reverse_mode: ReverseMode = eqx.field(static=True)

    def keep(self, state: State, truth: Array | None) -> tuple[dict[str, Array], dict[str, Array]]:
        arrays, scores = self.kept(state, truth)
        if self.covariance:
            assert isinstance(state, GaussianState)
            arrays = arrays | {_COVARIANCE: state.covariance}
        return arrays, scores

    def cycle(self, carry: tuple[GaussianState, Array], xs: dict[str, Array]) -> tuple[Any, dict[str, Any]]:
        """Forecast and analysis, as `assimilate` makes them; "pass" is what the way back needs."""
        key, (state, step) = jax.random.key(0), carry  # nothing is drawn
        forecast = self.filter.forecast(key, state, self.dynamics, step, xs["step"] - step, self.layout)
        before, diverged = self.policy.after_forecast(key, self.filter, forecast)
        mask, rejected = checked(self.quality_control, before.state, xs, self.measurement)
        analysis, info = self.filter.analysis(key, before.state, xs["z"], self.measurement, mask)
        after = self.policy.after_analysis(key, self.filter, before.state, analysis, info)
        out: dict[str, Any] = {"info": info, "diverged": diverged, "skipped": after.skipped & ~diverged}
        out |= rejected
        out["repaired"], out["faults"] = before.repaired + after.repaired, before.faults | after.faults
        out["analysis"] = self.keep(after.state, xs.get("truth"))
        out["pass"] = {
            "cycle": xs["cycle"],
            "start": state.mean,
            "begin": step,
            "step": xs["step"],
            "z": xs["z"],
            "mask": mask & ~after.skipped,
            "forecast": (before.state.mean, factor_of(before.state)),
            "analysis": (after.state.mean, factor_of(after.state)),
        }
        return (after.state, xs["step"]), out


def _window(
    dynamics: Dynamics, start: Float[Array, "*state"], begin: Array, end: Array, layout: MemberLayout
) -> tuple[Float[Array, " n"], Float[Array, "n n"], Float[Array, "n n"]]:
    """The mean at step `end`, the model's tangent from `begin` on, a root of its error's covariance."""

    def one(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        flat, tangent, noise = carry
        following, jacobian, std = linear_step(dynamics, flat, begin + i)
        return following, jacobian @ tangent, with_noise(jacobian @ noise, std)

    n = start.size
    zero = jnp.zeros((n, n), start.dtype)
    first = start.reshape(-1), jnp.eye(n, dtype=start.dtype), zero
    return over_steps(end - begin, one, first, layout)


def _backwards(
    filter: KalmanFilter,
    dynamics: Dynamics,
    measurement: Measurement,
    passed: Any,
    layout: MemberLayout,
    reverse_mode: ReverseMode,
) -> Any:
    """Smoothed means (K, *state) and square roots (K, n, n).

    What is measured later is known of a state x near the analysis' mean m as d = G (x - m) + ε, ε ~ N(0, I).
    """

    def earlier(later: tuple[Array, Array], cycle: Any) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        g, d = later
        (forecast, root), (analysis, factor) = cycle["forecast"], cycle["analysis"]
        increment, smoothed = exact_update(factor, g, d)
        mean = analysis + increment.reshape(analysis.shape)
        # with this cycle's values, of x near the forecast's mean; then near the model's own
        law = with_one_noise_law(GaussianState(forecast, root @ root.T), measurement)
        innovation, jacobian = linearize(law, forecast, cycle["z"], cycle["mask"])
        steps = cycle["begin"], cycle["step"]
        predicted, tangent, noise = _window(dynamics, cycle["start"], *steps, layout)
        d = d + g @ (analysis - forecast).reshape(-1)
        rows = jnp.concatenate([jnp.c_[g, d], jnp.c_[jacobian, innovation]])
        rows = triangular(rows)
        g, d = rows[:, :-1], rows[:, -1]
        d = d + g @ (forecast.reshape(-1) - predicted)
        # before the model: its error, and what inflation adds to it, are noise of d
        inflation = filter.inflation.astype(g.dtype)
        more = jnp.sqrt(jnp.maximum(inflation - 1.0, 0.0) / inflation) * root
        seen = jnp.concatenate([jnp.eye(len(d), dtype=g.dtype), (g @ noise).T, (g @ more).T])
        upper = jnp.linalg.qr(seen, mode="r")
        g, d = (solve_triangular(upper, a, trans=1) for a in (g @ tangent, d))
        return (g, d), (mean, smoothed)

    n, dtype = passed["start"][0].size, passed["start"].dtype
    nothing = jnp.zeros((n + 1, n), dtype), jnp.zeros(n + 1, dtype)  # rows as many as of [G, d]'s triangle
    return reverse_mode.scan(earlier, nothing, passed, backwards=True)[1]


@eqx.filter_jit
def _run(problem: _Problem, state: GaussianState, xs: dict[str, Array]) -> dict[str, Any]:
    start = state, jnp.asarray(0, jnp.int32)
    out = problem.reverse_mode.scan(problem.cycle, start, xs)[1]
    arrays = problem.filter, problem.dynamics, problem.measurement, out.pop("pass")
    arrays = *arrays, problem.layout, problem.reverse_mode
    try:
        means, factors = in_double(_backwards, *arrays, result=state.mean.dtype)
    except SingleOnly:
        means, factors = _backwards(*arrays)

    def keep(item: tuple[Array, Array, Array | None]) -> Any:
        mean, factor, truth = item
        return problem.keep(gaussian_state(mean, factor), truth)

    return out | {"smoothed": jax.lax.map(keep, (means, factors, xs.get("truth")))}


def rts(
    filter: KalmanFilter,
    dynamics: Dynamics,
    measurement: Measurement,
    observations: ObservationsLike,
    ensemble: Shaped[Array | np.ndarray, "N *state"] | None = None,
    *,
    truth: Shaped[Array | np.ndarray, "K *state"] | None = None,
    save: tuple[str, ...] = ("mean", "spread"),
    scores: tuple[str, ...] = DEFAULT_SCORES,
    quality_control: GrossErrorCheck | None = None,
    policy: FaultPolicy | None = None,
    checkpoint: bool = False,
    truncate: int | None = None,
) -> Smoothing:
    """The Rauch-Tung-Striebel smoother: N(x_k | z_1 … z_K) of every cycle, after a run of the Kalman filter.

    Exact for linear-Gaussian problems, model error included; otherwise the extended smoother, linearised
    where the filter was. Any steps, gaps and noise laws. For states between measurements, or at step 0, give
    cycles there whose values are missing.

    The way back is the two-filter form, the same law: the later values are carried to each cycle as rows G
    and d = G (x_k - m_k) + ε, ε ~ N(0, I), through the model's tangent J and error Q = C Cᵀ,

        G ← (I + G C Cᵀ Gᵀ)^{-1/2} G J,   d likewise,

    and used on the filter's analysis as its own values are. It needs no inverse of a forecast covariance, so
    that components without error, and fewer members than components, are nothing special. In float64
    throughout (but for a model that refuses it).

    Memory: 4 K n² numbers and what is saved. Inflation counts as model error, (inflation - 1) times the
    forecast covariance (1, its least value, has no derivative).

    Source: Rauch, Tung & Striebel (1965), doi 10.2514/3.3166; two-filter form: Fraser & Potter (1969), doi
    10.1109/TAC.1969.1099196.

    Args:
        filter: its mean and covariance, where it has them, are those at step 0.
        ensemble: otherwise its mean and covariance are.
        save: of "mean", "spread", "covariance" (K, n, n).
        quality_control: which values may be used, given the forecast, on the way back too.
        checkpoint, truncate: for reverse mode (docs/gradients.md).
        Others: see `assimilate`.

    Raises:
        ValueError: a first Gaussian that is not given, an inflation below 1, or what `assimilate` refuses.
        TypeError: another filter.
    """
    observations = as_observations(observations)
    if not isinstance(filter, KalmanFilter):
        raise TypeError(
            f"the Rauch-Tung-Striebel smoother goes back over a KalmanFilter; got {type(filter).__name__}. "
            "For ensemble filters see enks."
        )
    if not isinstance(filter.inflation, Tracer) and as_float(filter.inflation) < 1:
        raise ValueError(
            f"inflation of the forecast covariance must be at least 1 to count as model error; got "
            f"{as_float(filter.inflation):g}."
        )
    others = tuple(name for name in save if name != _COVARIANCE) if isinstance(save, tuple | list) else save
    if "ensemble" in others:
        raise ValueError(
            'the Rauch-Tung-Striebel smoother has no ensemble: save "mean", "spread", "covariance".'
        )
    dynamics = as_dynamics(dynamics, None if ensemble is None else np.shape(ensemble)[1:])
    state = _first(filter.prepare(dynamics, measurement), ensemble, dynamics)
    shape, dtype = state.mean.shape, state.mean.dtype
    truth = None if truth is None else real_array("truth", truth, cycles_first=True).astype(dtype)
    check_problem(dynamics, measurement, observations, shape, truth, others, scores)
    check_quality_control(quality_control, dynamics, measurement)
    kept = Kept(observed_components(dynamics, measurement), tuple(others), tuple(scores))
    policy = policy or FaultPolicy()
    layout = ALL_AT_ONCE
    if traced(filter, dynamics, measurement, observations, state):
        layout = for_reverse_mode(layout, observations, 0)
    way, covariance = ReverseMode(checkpoint, truncate), _COVARIANCE in save
    parts = filter, dynamics, measurement, policy, quality_control, kept
    problem = _Problem(*parts, covariance, layout, way)
    out = _run(problem, state, cycle_arrays(observations, truth, dtype))
    return result(out, dynamics, measurement, observations, truth)


def _first(filter: KalmanFilter, ensemble: Any, dynamics: Dynamics) -> GaussianState:
    """The Gaussian at step 0."""
    if ensemble is not None:
        members = real_array("ensemble", ensemble)
        check_members(members, dynamics)
        return filter.init(jax.random.key(0), members)
    return filter.init_alone(dynamics)
