"""The numbers of a run: averages over the cycles after the burn-in."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ...driver import Assimilation
from ...filters import EnsembleState
from ...metrics import time_average
from ..config.settings import Settings
from .innovations import innovation_statistics
from .problem import Problem

__all__ = ["averages", "summarize", "versions"]

_REQUIRED = ("rmse", "spread", "crps")


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    from importlib.metadata import version

    names = ("masf-jax", "jax", "jaxlib", "equinox", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def summarize(settings: Settings, problem: Problem, result: Assimilation) -> dict[str, Any]:
    """Metrics by name; NaN where a number does not exist (RMSE without truth)."""
    n_cycles, burn_in = problem.observations.n_cycles, settings.burn_in
    if burn_in >= n_cycles:
        burn_in = 0
    ensemble = isinstance(result.final, EnsembleState)
    scores = {"analysis": result.analysis_scores, "forecast": result.forecast_scores}
    metrics: dict[str, Any] = dict(averages(scores, burn_in, settings.ensemble_size if ensemble else None))
    for stage in scores:
        if not scores[stage] and "spread" in (saved := getattr(result, stage)):
            spread = np.asarray(saved["spread"], np.float64).reshape(n_cycles, -1)
            metrics[f"spread_{stage}"] = time_average(np.sqrt((spread**2).mean(1)), burn_in)
    for name, values in result.info.items():
        if np.ndim(values) == 1:
            kept = np.asarray(values, np.float64)[burn_in:]
            metrics[f"mean_{name}"] = float(np.nanmean(kept)) if np.isfinite(kept).any() else math.nan
    if problem.truth is None:
        metrics |= innovation_statistics(problem, result, burn_in)
    if result.rejected is not None:
        rejected, measured = int(np.sum(result.rejected)), int(np.sum(problem.observations.mask))
        metrics |= {"rejected_values": rejected, "rejected_fraction": rejected / max(measured, 1)}
    if problem.units is not None:
        metrics["observation_units"] = problem.units
    seconds = result.seconds_assimilate or math.nan
    return metrics | {
        "ensemble_size": settings.ensemble_size if ensemble else None,
        "n_cycles": n_cycles,
        "burn_in": burn_in,
        "repaired_members": int(np.asarray(result.repaired).sum()),
        "diverged": bool(np.asarray(result.diverged).any()),
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
        metrics |= {f"{name}_{stage}": math.nan for name in _REQUIRED}
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
    variance = time_average(np.asarray(scores["spread"], np.float64) ** 2, burn_in)
    error = time_average(np.asarray(scores["rmse"], np.float64) ** 2, burn_in)
    factor = 1.0 if n_members is None else (n_members + 1) / n_members
    return math.sqrt(factor * variance / error) if error > 0 else math.nan
