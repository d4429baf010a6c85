"""The result of a run as a NetCDF file or a zarr store with CF-style names, and the files beside it."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...estimation import Estimate
from ...filters.faults import Fault, fault_counts
from ..config.builders.smoothers import Smoothed
from ..config.settings import Settings, write_settings
from ..files import UnfailingFile, text_writer, write_all
from .cycles import Cycles
from .estimating import courses
from .metrics import versions
from .problem import Problem
from .store import name_arrays

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["RESULT", "Variable", "configuration_text", "write_results"]

RESULT = {"netcdf": "result.nc", "zarr": "result.zarr"}
"""By `Settings.result`, what the results are in."""
_DIMENSIONS = {1: ("x",), 2: ("y", "x"), 3: ("channel", "y", "x")}
_CHUNK = 2**20
"""Bytes of a variable that lie together in the file, at least one cycle: what HDF5 keeps in memory of it."""


class Variable(NamedTuple):
    """Of the result: `read(part)` gives its values in a slice of the cycles."""

    dims: tuple[str, ...]
    read: Callable[[slice], np.ndarray]
    about: dict[str, Any]


def _variables(
    settings: Settings, problem: Problem, cycles: Cycles, smoothed: Smoothed, found: Estimate | None
) -> dict[str, Variable]:
    """Truth, observations, forecast, analysis and smoothed moments, and scores, one entry per cycle."""
    result, given = cycles.result, cycles.given
    space, measured = _space(problem), _measured(problem, cycles)
    units = problem.units or "1"
    structure = problem.measurement.operator.structure
    state_units = units if structure in ("identity", "mask") else "1"
    data: dict[str, Variable] = {}

    def add(name: str, dims: tuple[str, ...], values: Any, long_name: str, unit: str, **more: Any) -> None:
        read: Any = values if callable(values) else lambda part: np.asarray(values[part])
        data[name] = Variable(("cycle", *dims), read, {"long_name": long_name, "units": unit} | more)

    def flag(name: str, dims: tuple[str, ...], values: Any, long_name: str, meanings: str = "no yes") -> None:
        about = {"flag_values": np.array([0, 1], np.int8), "flag_meanings": meanings}
        add(name, dims, lambda part: np.asarray(values[part], np.int8), long_name, "1", **about)

    if "truth" in given:
        add("truth", space, given["truth"], "true state", state_units)
    operator = {"operator": settings.measurement["name"], "structure": structure or "nonlinear"}
    operator |= {"ancillary_variables": "observation_mask"}
    add("observation", measured, given["observation"], "observed value", units, **operator)
    mask = given["observation_mask"]
    flag("observation_mask", measured, mask, "whether the value was measured", "missing valid")
    if (rejected := result.rejected) is not None:
        flag("observation_rejected", measured, rejected, "whether quality control rejected the value")

        def count(part: slice) -> np.ndarray:
            return (found := np.asarray(rejected[part])).reshape(len(found), -1).sum(1)

        add("rejected_values", (), count, "values that quality control rejected", "1")
    stages = {s: (getattr(result, s), getattr(result, f"{s}_scores")) for s in ("forecast", "analysis")}
    for stage, (arrays, scores) in (stages | {"smoothed": smoothed}).items():
        for name, values in arrays.items():
            long_name = {"mean": "mean", "spread": "standard deviation", "ensemble": "members"}[name]
            dims = ("member", *space) if name == "ensemble" else space
            add(f"{stage}_{name}", dims, values, f"{stage} {long_name}", state_units)
        for name, values in scores.items():
            dims = ("rank",) if values.ndim == 2 else ()
            name = "rank_counts" if name == "rank_histogram" else name
            unit = "1" if name == "rank_counts" else state_units
            if values.shape[1:] != (1,):  # a single bin: no members, no ranks
                add(f"{name}_{stage}", dims, values, f"{name.replace('_', ' ')} of the {stage}", unit)
        if "truth" not in given and "mean" in arrays and stage in stages:
            residual = functools.partial(cycles.residual, stage)
            add(f"{stage}_residual", measured, residual, f"observation minus {stage} mean", units)
    for name, values in result.info.items():
        if np.ndim(values) == 1:
            add(name, (), values, name.replace("_", " "), "1")
    if found is not None and found.course_std is not None:
        for name, (course, std) in courses(found, settings).items():
            add(f"estimated_{name}", (), course, f"estimate of {name}", "1")
            add(f"estimated_{name}_std", (), std, f"standard deviation of the estimate of {name}", "1")
    add("repaired_members", (), result.repaired, "members replaced since they were not finite", "1")
    flag("diverged", (), result.diverged, "fewer than two finite members")
    flag("skipped", (), result.skipped, "whether the forecast stands for an analysis that could not be used")
    names = " ".join(f"{name}_fault" for name in fault_counts(result.faults))
    about = {"flag_masks": np.array([int(fault) for fault in Fault], np.int32), "flag_meanings": names}
    faults = np.asarray(result.faults, np.int32)
    add("faults", (), faults, "what was found in the cycle", "1", **about)
    return data


def _space(problem: Problem) -> tuple[str, ...]:
    shape = problem.dynamics.state_shape
    return _DIMENSIONS.get(len(shape), tuple(f"dim_{i}" for i in range(len(shape))))


def _measured(problem: Problem, cycles: Cycles) -> tuple[str, ...]:
    shape = cycles.measured_shape
    if shape == problem.dynamics.state_shape:
        return _space(problem)
    return ("observation", *(f"observation_{i}" for i in range(1, len(shape))))


def _coordinates(data: xr.Dataset, settings: Settings, problem: Problem, cycles: Cycles) -> None:
    steps, space, measured = np.asarray(cycles.result.steps), _space(problem), _measured(problem, cycles)

    def add(name: str, dim: str, values: Any, long_name: str, **more: str) -> None:
        data.coords[name] = (dim, values, {"long_name": long_name, "units": "1"} | more)

    add("cycle", "cycle", np.arange(len(steps), dtype=np.int32), "assimilation cycle")
    add("time", "cycle", steps * settings.dynamics["dt"], "model time since the first ensemble")
    add("step", "cycle", steps, "model step number")
    if problem.times is not None:
        counted = f", {problem.time_units}" if problem.time_units else ""
        add("observation_time", "cycle", problem.times[: cycles.n], f"time in the observation file{counted}")
    points, shape, spacing = problem.dynamics.coordinates, problem.dynamics.state_shape, 1.0
    if len(space) == 3:
        for axis, n, side in zip("yx", shape[1:], settings.dynamics["length"], strict=True):
            spacing = side / n
            add(axis, axis, spacing * np.arange(n), "position of the grid point", axis=axis.upper())
        add("channel", "channel", ["u", "v"], "component of the velocity")
    else:
        places = np.arange(shape[-1], dtype=float)
        if points is not None and len(space) == 1:
            places = points.positions[:, 0]
        add("x", "x", places, "position of the grid point", axis="X")
    place = None if points is None else problem.measurement.operator.coordinates(points)
    if measured == space or place is None or len(measured) != 1:
        return
    names = {1: ("observation_x",), 2: ("observation_y", "observation_x")}[place.positions.shape[1]]
    for name, positions in zip(names, place.wrapped().T, strict=True):
        add(name, measured[0], positions * spacing, "position of the observed value")


def _global_attributes(settings: Settings, metrics: dict[str, Any], command: str) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    title = settings.experiment.description or f"{settings.dynamics['name']} experiment"
    return {
        "Conventions": "CF-1.11",
        "title": f"{title}; filter {settings.filter['name']}",
        "source": f"masf-jax {versions()['masf-jax']}",
        "history": f"{now}: {command or 'masf_jax.cli.run'}",
        "references": settings.experiment.reference or "",
        "versions": json.dumps(versions()),
        "seed": settings.seed,
        "burn_in": metrics["burn_in"],
    } | ({"route": metrics["route"]} if "route" in metrics else {})


def write_results(
    folder: Path,
    settings: Settings,
    problem: Problem,
    cycles: Cycles,
    metrics: dict[str, Any],
    command: str,
    smoothed: Smoothed,
    streamed: Path,
    found: Estimate | None = None,
) -> list[Path]:
    """Writes result.nc, metrics.json and config.yaml, all or none.

    Args:
        streamed: the store that the results came in; with result=zarr it is put in the place of result.zarr.
        found: numbers that were not known.
    """
    import xarray as xr

    variables = _variables(settings, problem, cycles, smoothed, found)
    data = xr.Dataset(attrs=_global_attributes(settings, metrics, command))
    _coordinates(data, settings, problem, cycles)
    if found is not None and found.course_std is None:
        for name, (course, _) in courses(found, settings).items():
            about = {"long_name": f"estimate of {name} after each step of the optimisation", "units": "1"}
            data[f"estimated_{name}"] = ("iteration", course, about)
    writers: dict[str, Callable[[Path], None]] = {}
    store = folder / RESULT["zarr"]
    if settings.result == "zarr":
        name_arrays(streamed, data, variables, cycles)
        shutil.rmtree(store, ignore_errors=True)
        os.replace(streamed, store)
    else:
        writers[RESULT["netcdf"]] = lambda path: _write_netcdf(path, data, variables, cycles)
    numbers = text_writer(json.dumps(_valid_json(metrics), indent=2, allow_nan=False) + "\n")
    configuration = text_writer(configuration_text(settings))
    written = write_all(folder, writers | {"metrics.json": numbers, "config.yaml": configuration})
    if settings.result == "zarr":
        (folder / RESULT["netcdf"]).unlink(missing_ok=True)
        return [store, *written]
    shutil.rmtree(store, ignore_errors=True)
    return written


def _write_netcdf(path: Path, data: xr.Dataset, variables: dict[str, Variable], cycles: Cycles) -> None:
    """A file of no cycles by xarray, to which those of one variable after the other are appended."""
    import h5netcdf

    encoding = {}
    whole = {name: each.values for name, each in data.coords.items() if "cycle" in each.dims}
    data = data.isel(cycle=slice(0))
    for name, each in variables.items():
        first = each.read(slice(1))
        data[name] = (each.dims, first[:0], each.about)
        together = min(cycles.n, max(1, _CHUNK // max(first.nbytes, 1)))
        encoding[name] = {"chunksizes": (together, *first.shape[1:])}
    path.write_bytes(data.to_netcdf(engine="h5netcdf", unlimited_dims=["cycle"], encoding=encoding))
    with UnfailingFile(path) as file, h5netcdf.File(file, "r+") as target:
        target.resize_dimension("cycle", cycles.n)
        for name, values in whole.items():
            target.variables[name][:] = values
        for name, each in variables.items():
            for part in cycles.parts():
                target.variables[name][part] = each.read(part)
                file.check()


def configuration_text(settings: Settings) -> str:
    """The settings as the YAML file that `masf-jax run --config` repeats a run from."""
    from omegaconf import OmegaConf

    head = f"# masf-jax {versions()['masf-jax']}; repeat with: masf-jax run --config THIS_FILE\n"
    layout = dataclasses.replace(settings.layout, processes=None, coordinator=None, process=None)
    kept = dataclasses.replace(settings, overwrite=False, layout=layout)
    return head + OmegaConf.to_yaml(OmegaConf.create(write_settings(kept)))


def _valid_json(value: Any) -> Any:
    """NaN and infinities, which JSON has not, as null."""
    if isinstance(value, dict):
        return {key: _valid_json(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
