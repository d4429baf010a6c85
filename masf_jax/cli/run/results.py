"""The result of a run as a NetCDF file or a zarr store with CF-style names, and the files beside it."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...estimation import Estimate
from ...observations.known_files import remember
from ...results.cycles import Cycles
from ...results.datasets import Times, frame
from ...results.netcdf import write_netcdf
from ...results.places import measured_axes
from ...results.variables import Variable, of_cycle, variables
from ..config.builders.smoothers import Smoothed
from ..config.own_files import label
from ..config.settings import Settings, write_settings
from ..files import text_writer, write_all
from .estimating import courses
from .metrics import versions
from .problem import Problem
from .store import name_arrays

__all__ = ["RESULT", "configuration_text", "write_results"]

RESULT = {"netcdf": "result.nc", "zarr": "result.zarr"}
"""By `Settings.result`, what the results are in."""


def _variables(
    settings: Settings, problem: Problem, cycles: Cycles, smoothed: Smoothed, found: Estimate | None
) -> dict[str, Variable]:
    """Those of the run, and what was estimated, one entry per cycle."""
    data = variables(cycles, problem.units, settings.measurement["name"], smoothed)
    if found is not None and found.course_std is not None:
        for name, (course, std) in courses(found, settings).items():
            data[f"estimated_{name}"] = of_cycle(course, f"estimate of {name}")
            data[f"estimated_{name}_std"] = of_cycle(std, f"standard deviation of the estimate of {name}")
    return data


def _global_attributes(settings: Settings, metrics: dict[str, Any], command: str) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    title = settings.experiment.description or settings.called
    return {
        "title": f"{title}; filter {label(settings.filter['name'])}",
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
    named = _variables(settings, problem, cycles, smoothed, found)
    dates = None if problem.dates is None else problem.dates[: cycles.n]
    times = None if problem.times is None else problem.times[: cycles.n]
    data = frame(cycles, Times(dates, times, problem.time_units), problem.units)
    if problem.stations is not None and len(cycles.measured_shape) == 1:
        dims, _ = measured_axes(problem.dynamics, problem.measurement)
        about = {"long_name": "station of the observed value", "cf_role": "timeseries_id"}
        data.coords["station"] = (dims[0], np.array(problem.stations, str), about)
    if problem.withheld is not None:
        dims, _ = measured_axes(problem.dynamics, problem.measurement)
        about = {"long_name": "whether no analysis saw the value", "flag_values": np.array([0, 1], np.int8)}
        places = np.isfinite(problem.withheld).any(0).astype(np.int8)
        data.coords["observation_withheld"] = (dims, places, about | {"flag_meanings": "used withheld"})
    data.attrs |= _global_attributes(settings, metrics, command)
    if found is not None and found.course_std is None:
        for name, (course, _) in courses(found, settings).items():
            about = {"long_name": f"estimate of {name} after each step of the optimisation", "units": "1"}
            data[f"estimated_{name}"] = ("iteration", course, about)
    writers: dict[str, Callable[[Path], None]] = {}
    store = folder / RESULT["zarr"]
    if settings.result == "zarr":
        name_arrays(streamed, data, named, cycles)
        shutil.rmtree(store, ignore_errors=True)
        os.replace(streamed, store)
    else:
        writers[RESULT["netcdf"]] = lambda path: write_netcdf(path, data, named, cycles)
    numbers = text_writer(json.dumps(_valid_json(metrics), indent=2, allow_nan=False) + "\n")
    configuration = text_writer(configuration_text(settings))
    written = write_all(folder, writers | {"metrics.json": numbers, "config.yaml": configuration})
    if settings.result == "zarr":
        (folder / RESULT["netcdf"]).unlink(missing_ok=True)
        return [store, *written]
    shutil.rmtree(store, ignore_errors=True)
    remember(folder / RESULT["netcdf"])
    return written


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
