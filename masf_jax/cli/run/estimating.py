"""Unknown numbers of a run: which they are, and what finds them."""

from __future__ import annotations

import dataclasses
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...driver import Assimilation
from ...estimation import EM, AugmentedState, Estimate, Prior, Problem as Numbers, estimate
from ...estimation.unknown import scalars
from ...measurements import Observations
from ...record import Record
from ...results.given import Given
from ..config.builders.estimation import ENGINES, PRIORS, unknowns_of
from ..config.settings import Settings
from ..errors import InputError, unknown
from .problem import Problem

__all__ = ["courses", "estimated", "estimated_numbers", "keep", "number_of"]


def estimated(problem: Problem, settings: Settings, **options: Any) -> tuple[Problem, Estimate]:
    """The problem with the estimate in its place, and the estimate.

    Args:
        options: of `assimilate`.

    Raises:
        InputError: an unknown that is no number of model, measurement or filter; what `estimate` refuses.
    """
    if jax.process_count() > 1:
        raise InputError("estimate: a run of several processes has no unknowns; find them by one process.")
    entries = dict(unknowns_of(settings.estimate))
    numbers = Numbers(problem.dynamics, problem.measurement, problem.filter)
    priors: dict[str, Prior] = {}
    for name, entry in entries.items():
        path = number_of(name, numbers)
        if path in priors:
            raise InputError(f"estimate.{name} is {path}, which is there under another name too.")
        priors[path] = PRIORS.build(entry["prior"])
    engine = ENGINES.build(next(iter(entries.values()))["engine"])
    if isinstance(engine, AugmentedState):
        options |= {"truth": problem.truth, "save": settings.save, "scores": settings.scores, "timed": True}
    elif isinstance(engine, EM):
        options.pop("quality_control")
        if settings.quality_control.threshold is not None:
            raise InputError("engine=em has no quality control: take quality_control.threshold=null.")
    observations = problem.observations
    assert isinstance(observations, Observations)  # `build` makes them all where there is an estimate
    given = (problem.dynamics, problem.measurement, observations, problem.ensemble)
    found = estimate(problem.key, problem.filter, *given, unknown=priors, engine=engine, **options)
    now = found.problem
    changed = problem._replace(filter=now.filter, dynamics=now.dynamics, measurement=now.measurement)
    return changed, found


def number_of(name: str, numbers: Numbers) -> str:
    """The path of the one number whose path is this name or ends with it.

    Raises:
        InputError: there is none, or there are several.
    """
    paths = scalars(numbers)
    fitting = [path for path in paths if f".{path}".endswith(f".{name}")]
    if name in fitting or len(fitting) == 1:
        return name if name in fitting else fitting[0]
    if fitting:
        raise InputError(f"estimate.{name} may be any of {', '.join(fitting)}: give more of its path.")
    raise unknown("number to estimate", name, paths)


def courses(found: Estimate, settings: Settings) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """By name, the estimate after each cycle or step and, of cycles, its standard deviation."""
    stds = found.course_std
    return {
        name: (np.asarray(found.course_mean[path]), None if stds is None else np.asarray(stds[path]))
        for name, path in _paths(found, settings).items()
    }


def estimated_numbers(found: Estimate | None, settings: Settings) -> dict[str, float]:
    """What goes among the metrics: estimated_NAME, estimated_NAME_std."""
    numbers: dict[str, float] = {}
    if found is not None:
        for name, path in _paths(found, settings).items():
            both = {"": found.mean[path], "_std": found.std[path]}
            numbers |= {f"estimated_{name}{end}": float(value) for end, value in both.items()}
    return numbers


def _paths(found: Estimate, settings: Settings) -> dict[str, str]:
    """What each unknown is called in the results, and its path."""
    names = [name for name, _ in unknowns_of(settings.estimate)]
    return {name.replace(".", "_"): number_of(name, found.problem) for name in names}


def keep(found: Estimate, problem: Problem, settings: Settings, record: Record) -> Assimilation:
    """The run that the augmented state made, its states alone, put into the record."""
    run = found.run
    observations = problem.observations
    assert run is not None
    assert isinstance(observations, Observations)
    shutil.rmtree(record.path, ignore_errors=True)  # the run is made at once, so that there is no half of it
    record.begin(run.end, "estimate")
    values, mask = (np.asarray(x) for x in (observations.values, observations.mask))
    given = {"observation": np.where(mask, values, np.nan).astype(values.dtype), "observation_mask": mask}
    if problem.truth is not None:
        given["truth"] = np.asarray(problem.truth, jnp.asarray(problem.ensemble).dtype)
    stages = {
        stage: {name: x for name, x in getattr(run, stage).items() if name in settings.save}
        for stage in ("forecast", "analysis")
    }
    names = (
        "forecast_scores",
        "analysis_scores",
        "info",
        "repaired",
        "diverged",
        "skipped",
        "faults",
        "steps",
    )
    results = stages | {name: getattr(run, name) for name in names} | {"cycles": given}
    if run.rejected is not None:
        results["rejected"] = run.rejected
    record.append(results, run.end)
    kept = Given(problem.dynamics, problem.measurement, **record.results()["cycles"])
    return dataclasses.replace(run, **stages, given=kept)
