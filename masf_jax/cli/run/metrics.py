"""The numbers of a run: averages over the cycles after the burn-in, and scores against the observations."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ...driver import Assimilation
from ...filters import EnsembleState
from ...filters.faults import fault_counts
from ...measurements import Gaussian, Measurement
from ...metrics import time_average
from ..config.settings import Settings
from .problem import Problem

__all__ = ["averages", "residuals", "summarize", "versions"]

_STAGES = ("analysis", "forecast")


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    from importlib.metadata import version

    names = ("masf-jax", "jax", "jaxlib", "equinox", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def summarize(settings: Settings, problem: Problem, result: Assimilation) -> dict[str, Any]:
    """Metrics by name; NaN where a number does not exist (RMSE without truth)."""
    n_cycles = problem.observations.n_cycles
    burn_in = settings.burn_in
    members = settings.ensemble_size if isinstance(result.final, EnsembleState) else None
    scores = {stage: getattr(result, f"{stage}_scores") for stage in _STAGES}
    metrics: dict[str, Any] = dict(averages(scores, burn_in, members))
    metrics |= {f"{name}_faults": count for name, count in fault_counts(result.faults).items()}
    for stage in _STAGES:
        if not scores[stage] and "spread" in (saved := getattr(result, stage)):
            spread = np.asarray(saved["spread"], np.float64).reshape(n_cycles, -1)
            metrics[f"spread_{stage}"] = time_average(np.sqrt((spread**2).mean(1)), burn_in)
    used = used_values(problem, result)
    analysed = np.asarray(used.any(tuple(range(1, used.ndim))))[burn_in:]
    for name, values in result.info.items():
        if np.ndim(values) == 1:
            metrics[f"mean_{name}"] = time_average(np.asarray(values)[burn_in:][analysed], 0)
    if problem.truth is None:
        metrics |= _innovations(problem, result, burn_in)
    if result.rejected is not None:
        rejected, measured = int(np.sum(result.rejected)), int(np.sum(problem.observations.mask))
        metrics |= {"rejected_values": rejected, "rejected_fraction": rejected / max(measured, 1)}
    if problem.outside:
        metrics["values_outside_range"] = problem.outside
    if problem.units is not None:
        metrics["observation_units"] = problem.units
    seconds = result.seconds_assimilate or math.nan
    return metrics | {
        "ensemble_size": members,
        "n_cycles": n_cycles,
        "burn_in": burn_in,
        "repaired_members": int(np.sum(result.repaired)),
        "skipped_cycles": int(np.sum(result.skipped)),
        "diverged": bool(np.any(result.diverged)),
        "expected_rmse_analysis": settings.experiment.expected,
        "seconds_compile": result.seconds_compile,
        "seconds_assimilate": seconds,
        "seconds_per_cycle": seconds / n_cycles,
        "device": str(jax.devices()[0].device_kind),
        "precision": settings.precision,
        "versions": versions(),
    }


def averages(
    scores: Mapping[str, Mapping[str, Any]], burn_in: int, n_members: int | None
) -> dict[str, float]:
    """Averages over the cycles after the burn-in, "rmse_analysis" and so on, and the spread-skill ratios.

    Args:
        scores: by stage (analysis, forecast), then by name, a value each cycle.
        n_members: None: of a filter without members.
    """
    metrics: dict[str, float] = {}
    for stage, found in scores.items():
        metrics |= {f"{name}_{stage}": math.nan for name in ("rmse", "spread", "crps")}
        for name, values in found.items():
            if np.ndim(values) == 1:
                metrics[f"{name}_{stage}"] = time_average(np.asarray(values), burn_in)
    for stage, key in (("analysis", "spread_skill_ratio"), ("forecast", "spread_skill_ratio_forecast")):
        metrics[key] = _spread_skill(scores[stage], burn_in, n_members)
    return metrics


def _spread_skill(scores: Mapping[str, Any], burn_in: int, n_members: int | None) -> float:
    """√((N+1)/N · mean variance / mean squared error) over cycles (Fortin et al. 2014)."""
    if "rmse" not in scores or "spread" not in scores:
        return math.nan
    variance, error = (
        time_average(np.asarray(scores[name], np.float64) ** 2, burn_in) for name in ("spread", "rmse")
    )
    factor = 1.0 if n_members is None else (n_members + 1) / n_members
    return math.sqrt(factor * variance / error) if error > 0 else math.nan


def residuals(problem: Problem, result: Assimilation, stage: str) -> np.ndarray | None:
    """z - H(mean) of each cycle, (cycles, *z); None without means.

    NaN where no value was used.
    """
    mean = getattr(result, stage).get("mean")
    if mean is None:
        return None
    mean = jax.device_put(np.asarray(mean))  # it may lie on disk
    values, used = problem.observations.values.astype(mean.dtype), used_values(problem, result)
    return np.where(used, np.asarray(_differences(problem.measurement, values, mean)), np.nan)


def used_values(problem: Problem, result: Assimilation) -> np.ndarray:
    """Which values the analyses used, (cycles, *z): measured, not rejected, of no cycle that was left out."""
    used = np.asarray(problem.observations.mask)
    if result.rejected is not None:
        used = used & ~np.asarray(result.rejected)
    return used & ~np.asarray(result.skipped).reshape(-1, *(1,) * (used.ndim - 1))


@eqx.filter_jit
def _differences(measurement: Measurement, values: jax.Array, mean: jax.Array) -> jax.Array:
    return jax.vmap(measurement.innovation)(values, mean)


def _innovations(problem: Problem, result: Assimilation, burn_in: int) -> dict[str, float]:
    """Root-mean-square and mean of z - H(mean) after the burn-in, forecast and analysis apart.

    The forecast's is the one-step forecast error against observations. Where a single state component
    is measured with Gaussian noise, also the log-likelihood of the observations under the filter's
    forecasts, Σ log N(z; H(mean), spread² + std²): exact for the Kalman filter.
    """
    out: dict[str, float] = {}
    found = {stage: residuals(problem, result, stage) for stage in ("forecast", "analysis")}
    used = used_values(problem, result)[burn_in:]
    for stage, residual in found.items():
        kept = np.array([]) if residual is None else residual[burn_in:].astype(np.float64)[used]
        out[f"innovation_rms_{stage}"] = float(np.sqrt((kept**2).mean())) if kept.size else math.nan
        out[f"innovation_mean_{stage}"] = float(kept.mean()) if kept.size else math.nan
    noise, spread, residual = problem.measurement.noise, result.forecast.get("spread"), found["forecast"]
    identity = problem.measurement.operator.structure == "identity"
    single = identity and math.prod(problem.dynamics.state_shape) == 1
    if single and isinstance(noise, Gaussian) and spread is not None and residual is not None:
        variance = np.asarray(spread, np.float64) ** 2 + np.asarray(noise.std, np.float64) ** 2
        terms = -0.5 * (residual.astype(np.float64) ** 2 / variance + np.log(2 * math.pi * variance))
        out["log_likelihood"] = float(terms[burn_in:][used].sum())
    return out
