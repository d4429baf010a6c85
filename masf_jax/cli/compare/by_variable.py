"""The error of each variable apart in a comparison: metres and metres per second have no common mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...dynamics import Dynamics
from ...filters.base import State
from ...metrics.cycle import Score
from ...metrics.summary import mean_and_standard_error, with_error
from ...results.places import space, variable_labels

__all__ = ["averages_by_variable", "lines_by_variable", "scores_by_variable"]

_SCORE, _KEY = "squares_by_variable", "rmse_analysis_of_"
_MOST = 8


def _squares(state: State, truth: Array, where: Array | None) -> Array:
    """Mean squared error of each entry of the state's first axis, (V,)."""
    error = state.moments()[0] - truth
    return jnp.mean(error.reshape(error.shape[0], -1) ** 2, axis=1)


def scores_by_variable(dynamics: Dynamics) -> dict[str, Score]:
    """What `assimilate` takes as extra scores, where the state's first axis counts two variables or more."""
    shape = dynamics.state_shape
    several = bool(shape) and shape[0] > 1 and space(dynamics)[0] in ("variable", "channel")
    return {_SCORE: _squares} if several else {}


def averages_by_variable(scores: Mapping[str, Any], dynamics: Dynamics, burn_in: int) -> dict[str, float]:
    """√ mean squared error over points and the cycles after the burn-in, by "rmse_analysis_of_NAME"."""
    if _SCORE not in scores:
        return {}
    errors = np.sqrt(np.asarray(scores[_SCORE], np.float64)[burn_in:].mean(0))
    return {
        f"{_KEY}{name}": float(each) for name, each in zip(variable_labels(dynamics), errors, strict=True)
    }


def lines_by_variable(runs: Mapping[str, Sequence[Mapping[str, Any]]], dynamics: Dynamics) -> list[str]:
    """Mean ± standard error over the seeds of each variable's RMSE, a line for each filter."""
    names = variable_labels(dynamics) if dynamics.state_shape else []
    units = dynamics.variable_units or ("1",) * len(names)
    lines = []
    for label, each in runs.items():
        kept = [run for run in each if math.isfinite(run["rmse_analysis"])]
        shown = [
            f"{name} {with_error(*mean_and_standard_error([run[_KEY + name] for run in kept]))}"
            + ("" if unit in ("1", "") else f" {unit}")
            for name, unit in list(zip(names, units, strict=True))[:_MOST]
            if kept and all(_KEY + name in run for run in kept)
        ]
        lines += [f"  {label}: {', '.join(shown)}"] if shown else []
    more = f", the first {_MOST} of {len(names)}" if len(names) > _MOST else ""
    return [f"RMSE of the analysis by variable, mean ± standard error{more}:", *lines] if lines else []
