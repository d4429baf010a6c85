"""The numbers of a run: averages over the cycles after the burn-in, and scores against the observations."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ...filters import EnsembleState
from ...filters.faults import fault_counts
from ...measurements import Gaussian
from ...metrics import time_average
from ...metrics.outliers import outlying_cycles
from ...metrics.overconfidence import innovation_ratio
from ...results.cycles import Cycles
from ...results.places import variable_labels
from ...results.variables import by_variable
from ..config.settings import Settings
from .problem import Problem
from .sensors import sensor_metrics

__all__ = ["averages", "summarize", "versions"]

_STAGES = ("analysis", "forecast")


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    from importlib.metadata import version

    names = ("masf-jax", "jax", "jaxlib", "equinox", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def summarize(settings: Settings, problem: Problem, cycles: Cycles) -> dict[str, Any]:
    """Metrics by name; NaN where a number does not exist (RMSE without truth)."""
    n_cycles, result, simulated = cycles.n, cycles.result, cycles.given.truth is not None
    burn_in = settings.burn_in
    members = settings.ensemble_size if isinstance(result.final, EnsembleState) else None
    scores = {stage: getattr(result, f"{stage}_scores") for stage in _STAGES}
    metrics: dict[str, Any] = dict(averages(scores, burn_in, members))
    metrics |= {f"{name}_faults": count for name, count in fault_counts(result.faults).items()}
    for stage in _STAGES:
        if not scores[stage] and "spread" in (saved := getattr(result, stage)):
            spread = cycles.each(lambda part, saved=saved: _root_mean_square(saved["spread"][part]))
            metrics[f"spread_{stage}"] = time_average(spread, burn_in)
    analysed = cycles.each(lambda part: _flat(cycles.used(part)).max(1, initial=False))[burn_in:]
    for name, values in result.info.items():
        if np.ndim(values) == 1:
            metrics[f"mean_{name}"] = time_average(np.asarray(values)[burn_in:][analysed], 0)
    metrics["outlying_cycles"] = len(outlying_cycles(result.info, burn_in, result.skipped))
    if not simulated:
        metrics |= _innovations(problem, cycles, burn_in)
        metrics["innovation_ratio"] = innovation_ratio(result.info, burn_in, result.skipped)
    if (of_all := result.rejected) is not None:
        rejected = int(cycles.each(lambda part: _flat(of_all[part]).sum(1)).sum())
        measured = int(cycles.each(lambda part: _flat(cycles.given.observation_mask[part]).sum(1)).sum())
        metrics |= {"rejected_values": rejected, "rejected_fraction": rejected / max(measured, 1)}
    if problem.outside:
        metrics["values_outside_range"] = problem.outside
    if problem.units is not None:
        metrics["observation_units"] = problem.units
    metrics |= _of_variables(cycles, burn_in)
    seconds = result.seconds_assimilate or math.nan
    return metrics | {
        "ensemble_size": members,
        "n_cycles": n_cycles,
        "burn_in": burn_in,
        "repaired_members": int(np.sum(result.repaired)),
        "skipped_cycles": int(np.sum(result.skipped)),
        "diverged": bool(np.any(result.diverged)),
        "expected_rmse_analysis": settings.experiment.expected,
        "expected_rmse_std": settings.experiment.expected_std,
        "seconds_compile": result.seconds_compile,
        "seconds_assimilate": seconds,
        "seconds_per_cycle": seconds / n_cycles,
        "device": str(jax.devices()[0].device_kind),
        "precision": settings.precision,
        "versions": versions(),
    }


def _of_variables(cycles: Cycles, burn_in: int) -> dict[str, Any]:
    """By name of a variable: RMSE and spread, root mean squares over points and cycles, and its units."""
    units, found = cycles.given.dynamics.variable_units, {}
    for stage in _STAGES:
        for name, each in by_variable(cycles, stage, getattr(cycles.result, stage)).items():
            squares = cycles.each(each.read)[burn_in:] ** 2
            key = f"{name.partition('_')[0]}_{stage}"
            for i, value in enumerate(np.sqrt(squares.mean(0)) if len(squares) else []):
                found.setdefault(variable_labels(cycles.given.dynamics)[i], {})[key] = float(value)
    for i, of_variable in enumerate(found.values()):
        of_variable |= {} if units is None else {"units": units[i]}
    return {"by_variable": found} if found else {}


def _flat(values: Any) -> np.ndarray:
    """(cycles, values of each)."""
    values = np.asarray(values)
    return values.reshape(len(values), -1)


def _root_mean_square(values: Any) -> np.ndarray:
    return np.sqrt((_flat(values).astype(np.float64) ** 2).mean(1))


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


def _innovations(problem: Problem, cycles: Cycles, burn_in: int) -> dict[str, Any]:
    """Root-mean-square and mean of z - H(mean) after the burn-in, forecast and analysis apart.

    The forecast's is the one-step forecast error against observations. Where a single state component
    is measured with Gaussian noise, also the log-likelihood of the observations under the filter's
    forecasts, Σ log N(z; H(mean), spread² + std²): exact for the Kalman filter.
    """
    out: dict[str, Any] = {}
    for stage in ("forecast", "analysis"):
        out |= {f"innovation_rms_{stage}": math.nan, f"innovation_mean_{stage}": math.nan}
        if "mean" not in getattr(cycles.result, stage):
            continue

        def sums(part: slice, stage: str = stage) -> np.ndarray:
            residual, used = (_flat(each) for each in (cycles.residual(stage, part), cycles.used(part)))
            kept = np.where(used, residual, 0.0).astype(np.float64)
            return np.stack([used.sum(1), kept.sum(1), (kept**2).sum(1)], axis=1)

        count, total, square = cycles.each(sums)[burn_in:].sum(0)
        if count:
            out[f"innovation_rms_{stage}"] = float(np.sqrt(square / count))
            out[f"innovation_mean_{stage}"] = float(total / count)
    out |= sensor_metrics(problem, cycles, burn_in)
    noise, forecast = problem.measurement.noise, cycles.result.forecast
    identity = problem.measurement.operator.structure == "identity"
    single = identity and math.prod(problem.dynamics.state_shape) == 1
    if single and isinstance(noise, Gaussian) and {"mean", "spread"} <= set(forecast):

        def terms(part: slice) -> np.ndarray:
            spread, residual = np.asarray(forecast["spread"][part]), cycles.residual("forecast", part)
            variance = np.asarray(spread, np.float64) ** 2 + np.asarray(noise.std, np.float64) ** 2
            found = -0.5 * (residual.astype(np.float64) ** 2 / variance + np.log(2 * math.pi * variance))
            return np.where(cycles.used(part), found, 0.0)

        out["log_likelihood"] = float(cycles.each(terms)[burn_in:].sum())
    return out
