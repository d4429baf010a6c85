"""The variables of a result by name: what each holds, along which dimensions, in which units."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..filters.faults import Fault, fault_counts
from ..metrics.by_variable import rmse_by_variable, spread_by_variable
from .cycles import Cycles
from .places import measured_axes, space, state_units, variable_name

__all__ = ["Variable", "by_variable", "of_cycle", "variables"]

_STAGES = ("forecast", "analysis", "smoothed")
_KINDS = {
    "mean": ("mean", {"cell_methods": "realization: mean"}),
    "spread": ("standard deviation", {"cell_methods": "realization: standard_deviation"}),
    "ensemble": ("members", {}),
    "covariance": ("covariance of the raveled state", {}),
}


_DIMENSIONLESS = ("csi", "ssim")


class Variable(NamedTuple):
    """Of a result: `read(part)` gives its values in a slice of the cycles."""

    dims: tuple[str, ...]
    read: Callable[[slice], np.ndarray]
    about: dict[str, Any]


def of_cycle(
    values: Any, long_name: str, units: str | None = "1", dims: tuple[str, ...] = (), **more: Any
) -> Variable:
    """Of an array (K, …), or of a function that gives a part of it; units: None of values with several."""
    read: Any = values if callable(values) else lambda part: np.asarray(values[part])
    about = {"long_name": long_name} | ({} if units is None else {"units": units})
    return Variable(("cycle", *dims), read, about | more)


def variables(
    cycles: Cycles,
    units: str | None = None,
    operator: str | None = None,
    smoothed: tuple[dict[str, Any], dict[str, Any]] = ({}, {}),
) -> dict[str, Variable]:
    """Truth, observations, moments and members by stage, scores, what the filter reported, and faults.

    Args:
        units: of the observations; the state's too, where components are measured as they are.
        operator: what the measurement is called.
        smoothed: arrays and scores, by name, of a smoother that ran beside the filter.
    """
    given = cycles.given
    structure = given.measurement.operator.structure
    own = given.dynamics.variable_units is not None
    of_state = units or "1" if structure in ("identity", "mask") else "1"
    of_state = state_units(given.dynamics) if own else of_state
    of_values = units_of_values(cycles, units)
    called = operator or type(given.measurement.operator).__name__
    return (
        _measured(cycles, of_values, of_state, called, structure or "nonlinear")
        | _states(cycles, of_values, of_state, smoothed)
        | _reported(cycles)
    )


def units_of_values(cycles: Cycles, units: str | None = None) -> str:
    """Those given, or those of the variables that are measured as they are, where these have one; else 1."""
    return units or _of_variables(cycles) or "1"


def _of_variables(cycles: Cycles) -> str | None:
    given, of_each = cycles.given, cycles.given.dynamics.variable_units
    operator, shape = given.measurement.operator, given.dynamics.state_shape
    if of_each is None or operator.structure not in ("identity", "mask"):
        return None
    sources = operator.sources(shape)
    if sources is None:
        return state_units(given.dynamics)
    found = {of_each[i] for i in np.unravel_index(np.unique(np.asarray(sources)), shape)[0]}
    return found.pop() if len(found) == 1 else None


def _flag(
    values: Any, dims: tuple[str, ...], long_name: str, meanings: str = "no yes", **more: Any
) -> Variable:
    about = {"flag_values": np.array([0, 1], np.int8), "flag_meanings": meanings} | more
    return of_cycle(lambda part: np.asarray(values[part], np.int8), long_name, dims=dims, **about)


def _measured(
    cycles: Cycles, units: str, of_state: str | None, operator: str, structure: str
) -> dict[str, Variable]:
    given, rejected = cycles.given, cycles.rejected
    dims, _ = measured_axes(given.dynamics, given.measurement)
    found: dict[str, Variable] = {}
    if given.truth is not None:
        long_name, called = _of_the_state(cycles, "true state")
        found["truth"] = of_cycle(given.truth, long_name, of_state, space(given.dynamics), **called)
    about = {"operator": operator, "structure": structure, "ancillary_variables": "observation_mask"}
    found["observation"] = of_cycle(cycles.observation, "observed value", units, dims, **about)
    quality = {"standard_name": "quality_flag"}
    found["observation_mask"] = _flag(
        given.observation_mask, dims, "whether the value was measured", "missing valid", **quality
    )
    if rejected is not None:
        found["observation_rejected"] = _flag(rejected, dims, "whether quality control rejected the value")

        def count(part: slice) -> np.ndarray:
            return (each := np.asarray(rejected[part])).reshape(len(each), -1).sum(1)

        found["rejected_values"] = of_cycle(count, "values that quality control rejected")
    return found


def _states(
    cycles: Cycles, units: str, of_state: str | None, smoothed: tuple[dict[str, Any], dict[str, Any]]
) -> dict[str, Variable]:
    given, result = cycles.given, cycles.result
    dims, (measured, _) = space(given.dynamics), measured_axes(given.dynamics, given.measurement)
    found: dict[str, Variable] = {}
    stages = {s: (getattr(result, s, {}), getattr(result, f"{s}_scores", {})) for s in _STAGES}
    if any(smoothed):
        stages["smoothed"] = smoothed
    own = {"ensemble": ("member", *dims), "covariance": ("row", "column")}
    for stage, (arrays, scores) in stages.items():
        for name, values in arrays.items():
            if name == "weights":
                found[f"{stage}_weights"] = of_cycle(
                    values, f"{stage} weights of the members", dims=("member",)
                )
                continue
            kind, more = _KINDS[name]
            long_name, called = _of_the_state(cycles, f"{stage} {kind}")
            of, about = own.get(name, dims), more | called
            found[f"{stage}_{name}"] = of_cycle(values, long_name, of_state, of, **about)
        for name, values in scores.items():
            found |= _score(stage, name, values, of_state)
        found |= by_variable(cycles, stage, arrays)
        if given.truth is None and "mean" in arrays and stage != "smoothed":
            residual = functools.partial(cycles.residual, stage)
            what = f"observation minus {stage} mean"
            found[f"{stage}_residual"] = of_cycle(residual, what, units, measured)
    return found


def _of_the_state(cycles: Cycles, long_name: str) -> tuple[str, dict[str, str]]:
    """What a field is called, and the attribute that figures take the name of a single variable from."""
    name = variable_name(cycles.given.dynamics)
    return (long_name, {}) if name is None else (f"{long_name}, {name}", {"variable": name})


def by_variable(cycles: Cycles, stage: str, arrays: Mapping[str, Any]) -> dict[str, Variable]:
    """RMSE and spread of each variable apart, (K, V), from the saved means and spreads of a stage.

    Of states whose first axis counts variables, two or more; else empty.
    """
    given, found = cycles.given, {}
    dim = space(given.dynamics)[0] if given.dynamics.state_shape else ""
    if dim not in ("variable", "channel") or given.dynamics.state_shape[0] < 2:
        return {}
    truth, units = given.truth, state_units(given.dynamics)
    if truth is not None and "mean" in arrays:
        rmse = functools.partial(_rmse_of, arrays["mean"], truth)
        what = f"RMSE of the {stage}, each variable apart"
        found[f"rmse_by_variable_{stage}"] = of_cycle(rmse, what, units, (dim,))
    if "spread" in arrays:
        spread = functools.partial(_spread_of, arrays["spread"])
        what = f"spread of the {stage}, each variable apart"
        found[f"spread_by_variable_{stage}"] = of_cycle(spread, what, units, (dim,))
    return found


def _rmse_of(mean: Any, truth: Any, part: slice) -> np.ndarray:
    return rmse_by_variable(mean[part], truth[part])


def _spread_of(spread: Any, part: slice) -> np.ndarray:
    return spread_by_variable(spread[part])


def _score(stage: str, name: str, values: Any, units: str | None) -> dict[str, Variable]:
    if values.shape[1:] == (1,):  # a single bin: no members, no ranks
        return {}
    ranks = name == "rank_histogram"
    name, dims = ("rank_counts" if ranks else name), tuple(f"{name}_{i}" for i in range(values.ndim - 1))
    dims = ("rank",) if ranks else dims
    what = f"{name.replace('_', ' ')} of the {stage}"
    return {
        f"{name}_{stage}": of_cycle(values, what, "1" if ranks or name in _DIMENSIONLESS else units, dims)
    }


def _reported(cycles: Cycles) -> dict[str, Variable]:
    """What the filter reported of each cycle, and what was found wrong in it."""
    result = cycles.result
    found = {
        name: of_cycle(values, name.replace("_", " "))
        for name, values in result.info.items()
        if np.ndim(values) == 1
    }
    if getattr(result, "log_likelihood", None) is not None:
        found["log_likelihood"] = of_cycle(result.log_likelihood, "log-likelihood of the cycle's values")
    found["repaired_members"] = of_cycle(result.repaired, "members replaced since they were not finite")
    found["diverged"] = _flag(result.diverged, (), "fewer than two finite members")
    what = "whether the forecast stands for an analysis that could not be used"
    found["skipped"] = _flag(result.skipped, (), what)
    names = " ".join(f"{name}_fault" for name in fault_counts(result.faults))
    about = {"flag_masks": np.array([int(fault) for fault in Fault], np.int32), "flag_meanings": names}
    faults = np.asarray(result.faults, np.int32)
    found["faults"] = of_cycle(faults, "what was found in the cycle", **about)
    return found
