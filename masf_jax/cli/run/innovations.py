"""Scores against the observations themselves, where there is no truth."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import numpy as np

from ...driver import Assimilation
from ...measurements import Gaussian, Measurement
from .problem import Problem

__all__ = ["innovation_statistics", "residuals"]


def residuals(problem: Problem, result: Assimilation, stage: str) -> np.ndarray | None:
    """z - H(mean) of each cycle, (cycles, *z); None without means.

    NaN where nothing was measured, or what was did not pass quality control.
    """
    mean = getattr(result, stage).get("mean")
    if mean is None:
        return None
    used = np.asarray(problem.observations.mask)
    if result.rejected is not None:
        used = used & ~np.asarray(result.rejected)
    values = problem.observations.values.astype(mean.dtype)
    return np.where(used, np.asarray(_innovations(problem.measurement, values, mean)), np.nan)


@eqx.filter_jit
def _innovations(measurement: Measurement, values: jax.Array, mean: jax.Array) -> jax.Array:
    return jax.vmap(measurement.innovation)(values, mean)


def innovation_statistics(problem: Problem, result: Assimilation, burn_in: int) -> dict[str, float]:
    """Root-mean-square and mean of z - H(mean) after the burn-in, forecast and analysis apart.

    The forecast's is the one-step forecast error against observations. Where a single state component
    is measured with Gaussian noise, also the log-likelihood of the observations under the filter's
    forecasts, Σ log N(z; H(mean), spread² + std²): exact for the Kalman filter.
    """
    out: dict[str, float] = {}
    for stage in ("forecast", "analysis"):
        residual = residuals(problem, result, stage)
        kept = np.array([]) if residual is None else residual[burn_in:].astype(np.float64)
        kept = kept[np.isfinite(kept)]
        out[f"innovation_rms_{stage}"] = float(np.sqrt((kept**2).mean())) if kept.size else math.nan
        out[f"innovation_mean_{stage}"] = float(kept.mean()) if kept.size else math.nan
    noise, spread = problem.measurement.noise, result.forecast.get("spread")
    single = (
        math.prod(problem.dynamics.state_shape) == 1 and problem.measurement.operator.structure == "identity"
    )
    if single and isinstance(noise, Gaussian) and spread is not None:
        residual = residuals(problem, result, "forecast")
        if residual is not None:
            variance = np.asarray(spread, np.float64) ** 2 + np.asarray(noise.std, np.float64) ** 2
            terms = -0.5 * (residual.astype(np.float64) ** 2 / variance + np.log(2 * math.pi * variance))
            out["log_likelihood"] = float(np.nansum(terms[burn_in:]))
    return out
